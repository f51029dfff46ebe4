"""Datasets of torchvision by name; files are downloaded only if the user allows it."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray
from torchvision import datasets

from automix.configuration.data import DataConfig, DataSource, Interpolation
from automix.data.pools import ImagePool, SourceImages
from automix.data.sources.decode import ImageFormat, to_format
from automix.data.sources.packed import Decoding, PackRequest, Progress, packed_images
from automix.errors import DataError
from automix.files import sha256_of

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SetFacts:
    """Class of a dataset, patterns of its files below the root, and its names of classes, if any.

    ``takes_split``: the class is called with ``split="test"`` instead of ``train=False``.
    """

    build: Any
    files: tuple[str, ...]
    takes_split: bool = False
    class_names: tuple[str, ...] = ()

    def arguments(self, part: str) -> dict[str, object]:
        """Return the arguments that select the images of "train" or "test"."""
        return {"split": part} if self.takes_split else {"train": part == "train"}


TORCHVISION_SETS: Mapping[DataSource, SetFacts] = MappingProxyType(
    {
        DataSource.CIFAR10: SetFacts(datasets.CIFAR10, ("cifar-10-batches-py/*",)),
        DataSource.CIFAR100: SetFacts(datasets.CIFAR100, ("cifar-100-python/*",)),
        DataSource.MNIST: SetFacts(datasets.MNIST, ("MNIST/raw/*-ubyte",)),
        DataSource.FASHION_MNIST: SetFacts(datasets.FashionMNIST, ("FashionMNIST/raw/*-ubyte",)),
        DataSource.KMNIST: SetFacts(datasets.KMNIST, ("KMNIST/raw/*-ubyte",)),
        DataSource.SVHN: SetFacts(
            datasets.SVHN, ("train_32x32.mat", "test_32x32.mat"), True, tuple("0123456789")
        ),
        DataSource.STL10: SetFacts(datasets.STL10, ("stl10_binary/*",), takes_split=True),
    }
)


def torchvision_images(config: DataConfig, *, progress: Progress | None = None) -> SourceImages:
    """Return a torchvision dataset, unpacked once and kept in the cache folder.

    Raises:
        DataError: its files are missing or damaged and may not be downloaded, or that failed.
    """
    facts = TORCHVISION_SETS[config.source]
    root = config.cache_folder / "torchvision"
    if config.path is not None:
        root = config.path.expanduser()
    if config.download:
        # Before looking: of a set that is there in part, it completes the rest.
        _download(config, facts, root)
    if not _files(root, facts):
        raise DataError(
            f"{root}: expected the files of {config.source} ({', '.join(facts.files)}), got none; "
            "--data.download fetches them"
        )
    key = _key(root, facts, config)

    def pool_of(part: str) -> tuple[ImagePool, tuple[str, ...]]:
        request = PackRequest(
            name=f"{config.source}-{part}",
            key=key,
            where=f"{root} ({config.source}, {part})",
            prepare=lambda: _decoding(config, facts, root, part),
        )
        return packed_images(request, config.cache_folder, progress=progress)

    train, class_names = pool_of("train")
    test, _ = pool_of("test")
    return SourceImages(train=train, val=None, test=test, class_names=class_names)


def _files(root: Path, facts: SetFacts) -> list[Path]:
    return sorted(path for pattern in facts.files for path in root.glob(pattern) if path.is_file())


def _key(root: Path, facts: SetFacts, config: DataConfig) -> str:
    """Return a hash of every file's name, length and time of change, and of the target size."""
    stats = [(path.relative_to(root), path.stat()) for path in _files(root, facts)]
    lines = [f"{path}\0{stat.st_size}\0{stat.st_mtime_ns}" for path, stat in stats]
    filtered = config.interpolation not in (None, Interpolation.BILINEAR)
    target = (config.target_size, config.interpolation) if filtered else config.target_size
    return sha256_of("\n".join(lines).encode(), repr(target).encode())[:16]


def _download(config: DataConfig, facts: SetFacts, root: Path) -> None:
    try:
        root.mkdir(parents=True, exist_ok=True)
        # The processes of a run, and of a sweep, start at the same time.
        with FileLock(root / f"{config.source}.lock"):
            _LOG.info("%s: downloading the missing files of %s", root, config.source)
            for part in ("train", "test"):
                facts.build(root, download=True, **facts.arguments(part))
    # RuntimeError: all mirrors failed or a checksum is wrong. URLError is an OSError.
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{root}: expected to download {config.source}, got: {reason}") from None


def _decoding(config: DataConfig, facts: SetFacts, root: Path, part: str) -> Decoding:
    try:
        images = facts.build(root, download=False, **facts.arguments(part))
    except (OSError, RuntimeError, ValueError, EOFError) as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"{root}: expected intact files of {config.source}, got: {reason}"
        ) from None
    first, _ = images[0]
    height, width = config.target_size or (first.height, first.width)
    image_format = ImageFormat(
        channels=len(first.getbands()),
        height=height,
        width=width,
        resize=config.target_size is not None,
        interpolation=config.interpolation or Interpolation.BILINEAR,
    )

    def read(index: int) -> tuple[NDArray[np.uint8], int]:
        image, label = images[index]
        try:
            return to_format(image, image_format), int(label)
        except ValueError as error:
            raise DataError(
                f"{root} ({config.source}), image {index}: {error}; "
                "data.image_size brings all to one size"
            ) from None

    names: Sequence[str] = facts.class_names or getattr(images, "classes", ())
    return Decoding(
        num_images=len(images), shape=image_format.shape, class_names=tuple(names), read=read
    )
