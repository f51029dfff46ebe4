"""Datasets of torchvision by name; files are fetched only where the user allows it."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray
from PIL import Image
from torchvision import datasets

from automix.configuration.data import DataConfig, DataSource
from automix.data.pools import Pool, Pools
from automix.data.sources.decode import ImageFormat, to_format
from automix.data.sources.packed import Decoding, PackRequest, Progress, packed_images
from automix.errors import DataError
from automix.files import sha256_of

_log = logging.getLogger(__name__)


class _Images(Protocol):
    """What torchvision's datasets have in common."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> tuple[Image.Image, int]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SetFacts:
    """How torchvision builds a dataset.

    Attributes:
        build: its class.
        train: arguments that give the training images.
        test: arguments that give the test images.
        files: patterns of its files below the root folder.
        class_names: names of its classes; empty where torchvision knows them.
    """

    build: Any
    train: Mapping[str, object]
    test: Mapping[str, object]
    files: tuple[str, ...]
    class_names: tuple[str, ...] = ()


_FLAG: Any = {"train": {"train": True}, "test": {"train": False}}
_SPLIT: Any = {"train": {"split": "train"}, "test": {"split": "test"}}

TORCHVISION_SETS: Mapping[DataSource, SetFacts] = MappingProxyType(
    {
        DataSource.CIFAR10: SetFacts(
            build=datasets.CIFAR10, files=("cifar-10-batches-py/*",), **_FLAG
        ),
        DataSource.CIFAR100: SetFacts(
            build=datasets.CIFAR100, files=("cifar-100-python/*",), **_FLAG
        ),
        DataSource.MNIST: SetFacts(build=datasets.MNIST, files=("MNIST/raw/*-ubyte",), **_FLAG),
        DataSource.FASHION_MNIST: SetFacts(
            build=datasets.FashionMNIST, files=("FashionMNIST/raw/*-ubyte",), **_FLAG
        ),
        DataSource.KMNIST: SetFacts(build=datasets.KMNIST, files=("KMNIST/raw/*-ubyte",), **_FLAG),
        DataSource.SVHN: SetFacts(
            build=datasets.SVHN,
            files=("train_32x32.mat", "test_32x32.mat"),
            class_names=tuple("0123456789"),
            **_SPLIT,
        ),
        DataSource.STL10: SetFacts(build=datasets.STL10, files=("stl10_binary/*",), **_SPLIT),
    }
)


def torchvision_pools(config: DataConfig, *, progress: Progress | None = None) -> Pools:
    """Return a torchvision dataset, unpacked once and kept in the cache folder.

    Raises:
        DataError: its files are missing or damaged and may not be fetched, or fetching failed.
    """
    facts = TORCHVISION_SETS[config.source]
    root = _root(config)
    if config.download:
        # Fetches what is missing of a set that is there in part, too.
        _fetch(config, facts, root)
    if not _files(root, facts):
        raise DataError(
            f"{root}: expected the files of {config.source} ({', '.join(facts.files)}), got none; "
            "--data.download fetches them"
        )
    key = _key(root, facts, config.target_size)

    def pool_of(part: str, arguments: Mapping[str, object]) -> tuple[Pool, tuple[str, ...]]:
        request = PackRequest(
            name=f"{config.source}-{part}",
            key=key,
            where=f"{root} ({config.source}, {part})",
            prepare=lambda: _decoding(config, facts, arguments),
        )
        return packed_images(request, config.cache_folder, progress=progress)

    train, class_names = pool_of("train", facts.train)
    test, _ = pool_of("test", facts.test)
    return Pools(train=train, val=None, test=test, class_names=class_names)


def _root(config: DataConfig) -> Path:
    if config.path is None:
        return config.cache_folder / "torchvision"
    return config.path.expanduser()


def _files(root: Path, facts: SetFacts) -> list[Path]:
    return sorted(path for pattern in facts.files for path in root.glob(pattern) if path.is_file())


def _key(root: Path, facts: SetFacts, size: tuple[int, int] | None) -> str:
    """Return a hash of every file's name, length and time of change, and of the wanted size."""
    stats = [(path.relative_to(root), path.stat()) for path in _files(root, facts)]
    lines = [f"{path}\0{stat.st_size}\0{stat.st_mtime_ns}" for path, stat in stats]
    return sha256_of("\n".join(lines).encode(), repr(size).encode())[:16]


def _fetch(config: DataConfig, facts: SetFacts, root: Path) -> None:
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f"{config.source}.lock"):
            _log.info("%s: fetching what is missing of %s", root, config.source)
            for arguments in (facts.train, facts.test):
                facts.build(root, download=True, **arguments)
    # RuntimeError: all mirrors failed or a checksum is wrong. URLError is an OSError.
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{root}: expected to download {config.source}, got: {reason}") from None


def _decoding(config: DataConfig, facts: SetFacts, arguments: Mapping[str, object]) -> Decoding:
    root = _root(config)
    try:
        images: _Images = facts.build(root, download=False, **arguments)
    except (OSError, RuntimeError, ValueError, EOFError) as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"{root}: expected intact files of {config.source}, got: {reason}"
        ) from None
    first, _ = images[0]
    height, width = config.target_size or (first.height, first.width)
    wanted = ImageFormat(
        channels=len(first.getbands()),
        height=height,
        width=width,
        resize=config.target_size is not None,
    )

    def read(index: int) -> tuple[NDArray[np.uint8], int]:
        image, label = images[index]
        try:
            return to_format(image, wanted), int(label)
        except ValueError as error:
            raise DataError(
                f"{root} ({config.source}), image {index}: {error}; "
                "data.image_size brings all to one size"
            ) from None

    names: Sequence[str] = facts.class_names or getattr(images, "classes", ())
    return Decoding(num_images=len(images), shape=wanted.shape, class_names=tuple(names), read=read)
