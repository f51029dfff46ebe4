"""Folders of images: train/CLASS/IMAGE and test/CLASS/IMAGE, optionally val/CLASS/IMAGE.

A plain folder, CLASS/IMAGE without these parts, is one part: splits are cut from all of its images.

They are decoded as a whole, or their training images stay in the files until a batch needs them.
"""

import functools
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from automix.configuration.data import DataConfig, Normalization
from automix.data.pools import ClassLabels, ImagePool, SourceImages, assign, images_checksum
from automix.data.sources.decode import SUFFIXES, ImageFormat, common_format, read_image
from automix.data.sources.packed import Decoding, PackRequest, Progress, packed_images
from automix.data.splits import (
    Dataset,
    ImageFiles,
    SearchData,
    Split,
    StreamedSplit,
    channel_statistics,
)
from automix.errors import DataError
from automix.files import sha256_of
from automix.random_streams import Stream, stream_generator

_LOG = logging.getLogger(__name__)
_MIN_CLASSES = 2
_PARTS = ("train", "val", "test")
# Parts under another name, or classes that look like parts.
_NAMES_OF_PARTS = frozenset({*_PARTS, "training", "valid", "validation", "testing"})
# Means of this many photographs are off by about 0.003, deviations by less.
_IMAGES_MEASURED = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class LabeledFile:
    """An image file: its path below the root, class, length in bytes and time of change in ns."""

    name: str
    label: int
    size: int
    modified: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderListing:
    """Sorted class names and files of a folder.

    Parts are "train", "test" and perhaps "val"; a plain folder has the part "train" alone.
    """

    root: Path
    class_names: tuple[str, ...]
    parts: Mapping[str, tuple[LabeledFile, ...]]

    def labels(self, part: str) -> ClassLabels:
        """Return the labels of "train" or "val"."""
        return ClassLabels(
            labels=torch.tensor([file.label for file in self.parts[part]], dtype=torch.int64),
            class_names=self.class_names,
            where=self.where(part),
            pool=int(part == "val"),
        )

    @property
    def has_test(self) -> bool:
        """Whether there are test images; else a test split is cut from the others."""
        return "test" in self.parts

    def where(self, part: str) -> str:
        """Return the folder of a part, for messages."""
        return str(self.root / part) if self.has_test else str(self.root)


def list_folder(root: Path) -> FolderListing:
    """List the images of a folder without opening them.

    With train/ and test/ in it, these and val/ are its parts, and other folders are skipped with a
    warning. Without anything that is named like a part, every folder in it is a class. Hidden files
    and folders are skipped, class folders are searched at any depth, and files that are not images
    by their suffix are counted in a warning.

    Raises:
        DataError: a folder is missing or empty, the parts do not have the same classes, or it
            cannot be told whether folders are parts or classes.
    """
    _check_folder(root)
    parts = _parts(root)
    class_names = _class_names(root / parts[0])
    for name in parts[1:]:
        _check_classes(root / name, class_names)
    files = {
        name or "train": tuple(
            file
            for label, class_name in enumerate(class_names)
            for file in _images_of_class(root, f"{name}/{class_name}".lstrip("/"), label)
        )
        for name in parts
    }
    return FolderListing(root=root, class_names=class_names, parts=files)


def files_of_test_split(config: DataConfig, listing: FolderListing) -> tuple[LabeledFile, ...]:
    """Return the files of the test split, in its order."""
    if listing.has_test:
        return listing.parts["test"]
    indices = assign(listing.labels("train"), None, config, has_test=False).from_train["test"]
    return tuple(listing.parts["train"][index] for index in indices.tolist())


def folder_images(
    config: DataConfig, listing: FolderListing, *, progress: Progress | None = None
) -> SourceImages:
    """Return the images of ``listing``, decoded once and kept in the cache folder.

    Raises:
        DataError: an image is unreadable or has another size.
    """
    # One key and one format for all parts, because one color image in test/ makes all color.
    files = [file for part in _PARTS for file in listing.parts.get(part, ())]
    key = files_key(files, config.target_size)

    @functools.cache
    def image_format() -> ImageFormat:
        return common_format([listing.root / file.name for file in files], config.target_size)

    def pool_of(part: str) -> ImagePool:
        request = PackRequest(
            name=f"folder-{part}",
            key=key,
            where=listing.where(part),
            prepare=lambda: _decoding(listing, listing.parts[part], image_format()),
            remedy="a smaller data.image_size or data.loading streaming needs less",
        )
        return packed_images(request, config.cache_folder, progress=progress)[0]

    return SourceImages(
        train=pool_of("train"),
        val=pool_of("val") if "val" in listing.parts else None,
        test=pool_of("test") if listing.has_test else None,
        class_names=listing.class_names,
    )


def streamed_data(
    config: DataConfig, listing: FolderListing, *, progress: Progress | None = None
) -> Dataset:
    """Return the splits of a folder whose training images are not decoded.

    The splits contain the same files as those of the decoded folder. Mean and standard deviation
    per channel are those of at most 2,048 training images.

    Raises:
        DataError: a class has too few images, a held-out image is unreadable, or the cache folder
            cannot be written.
    """
    assert config.target_size is not None
    height, width = config.target_size
    # Always color: whether all images are gray is known only after reading every header.
    evaluated = ImageFormat(
        channels=3, height=height, width=width, resize=True, crop=config.evaluation_crop
    )
    # 1. Assign files to splits, as `load_data` assigns decoded images.
    source = "val" if "val" in listing.parts else "train"
    train_labels = listing.labels("train")
    val_labels = listing.labels("val") if source == "val" else None
    assignment = assign(train_labels, val_labels, config, has_test=listing.has_test)
    held_out = assignment.from_val if source == "val" else assignment.from_train

    # 2. Decode the held-out images once: evaluation reads them again and again.
    def pool_of(name: str, files: Sequence[LabeledFile]) -> ImagePool:
        where = f"{listing.root} ({name} images)"
        if not files:
            images = torch.empty((0, *evaluated.shape), dtype=torch.uint8)
            labels = torch.empty(0, dtype=torch.int64)
            split = Split(images=images, labels=labels, num_classes=len(listing.class_names))
            return ImagePool(split=split, checksum=images_checksum(split), where=where)
        request = PackRequest(
            name=f"folder-{name}",
            key=files_key(files, evaluated),
            where=where,
            prepare=lambda: _decoding(listing, files, evaluated),
            remedy=f"a smaller data.image_size or fewer {name} images need less",
        )
        return packed_images(request, config.cache_folder, progress=progress)[0]

    reward, selection = (
        pool_of(name, [listing.parts[source][index] for index in held_out[name].tolist()])
        for name in ("reward", "selection")
    )
    test = pool_of("test", files_of_test_split(config, listing))
    # 3. Keep the paths of the training images only.
    indices = assignment.from_train["train"]
    train = StreamedSplit(
        files=ImageFiles(
            listing.root, [listing.parts["train"][index].name for index in indices.tolist()]
        ),
        labels=train_labels.labels[indices],
        num_classes=len(listing.class_names),
        evaluated=evaluated,
    )
    seen = SearchData(
        train=train,
        reward=reward.split,
        selection=selection.split,
        class_names=listing.class_names,
        statistics=channel_statistics(_measured_images(train, config), config.normalization),
        fingerprint=_fingerprint(listing, assignment.hash(), (reward, selection, test)),
    )
    return Dataset(name=config.source.value, seen=seen, test=test.split)


def _decoding(
    listing: FolderListing, files: Sequence[LabeledFile], image_format: ImageFormat
) -> Decoding:
    """Return some files of a folder as the images of a pack, all in one format."""

    def read(index: int) -> tuple[NDArray[np.uint8], int]:
        file = files[index]
        return read_image(listing.root / file.name, image_format), file.label

    shape, names = image_format.shape, listing.class_names
    return Decoding(num_images=len(files), shape=shape, class_names=names, read=read)


def files_key(files: Iterable[LabeledFile], target: object) -> str:
    """Return a hash of the files and of the format they are decoded to, its ``repr``."""
    # Length and time of change stand for the content, as in make: hashing the files themselves
    # would read all of them at every start.
    lines = [f"{file.name}\0{file.label}\0{file.size}\0{file.modified}" for file in files]
    text = "\n".join(lines).encode(errors="surrogateescape")
    return sha256_of(text, repr(target).encode())[:16]


def _measured_images(train: StreamedSplit, config: DataConfig) -> Split:
    """Return the images that mean and deviation are measured on."""
    if config.normalization is not Normalization.TRAIN:
        return train.subset(torch.empty(0, dtype=torch.int64))
    generator = stream_generator(config.split_seed, Stream.STATISTICS)
    chosen = torch.randperm(len(train), generator=generator)[:_IMAGES_MEASURED]
    if len(chosen) < len(train):
        _LOG.info("mean and deviation are those of %d training images", len(chosen))
    return train.subset(chosen.sort().values)


def _fingerprint(listing: FolderListing, assignment: str, pools: Sequence[ImagePool]) -> str:
    """Return a hash of every name, size and label, and of the pixels of held-out images."""
    lines = [
        f"{file.name}\0{file.label}\0{file.size}"
        for part in sorted(listing.parts)
        for file in listing.parts[part]
    ]
    # File names need not be valid text.
    text = "\n".join(lines).encode(errors="surrogateescape")
    checksums = (pool.checksum.encode() for pool in pools)
    return sha256_of(b"streamed", text, assignment.encode(), *checksums)[:16]


def _check_folder(folder: Path) -> None:
    if folder.is_file():
        raise DataError(f"{folder}: expected a folder, got a file")
    if not folder.is_dir():
        raise DataError(f"{folder}: expected a folder, got nothing there")
    if not os.access(folder, os.R_OK | os.X_OK):
        raise DataError(f"{folder}: expected a readable folder, got: permission denied")


def _parts(root: Path) -> tuple[str, ...]:
    """Return the names of the parts, train first; the empty name for a plain folder."""
    names = _visible_names(root)
    if {"train", "test"}.issubset(names):
        others = sorted(name for name in set(names).difference(_PARTS) if (root / name).is_dir())
        if others:
            _LOG.warning("%s: skipped folders beside train/ and test/: %s", root, ", ".join(others))
        return tuple(name for name in _PARTS if name in names)
    # Else classes "Train" and "Test" would be learned, or half of the images.
    if alike := sorted(name for name in names if name.lower() in _NAMES_OF_PARTS):
        beside = f" beside {len(names) - len(alike)} others" if len(alike) < len(names) else ""
        raise DataError(
            f"{root}: expected both train/ and test/, or one folder per class under other names, "
            f"got {', '.join(alike)}{beside}"
        )
    return ("",)


def _visible_names(folder: Path) -> list[str]:
    return [entry.name for entry in folder.iterdir() if not entry.name.startswith(".")]


def _class_names(part: Path) -> tuple[str, ...]:
    _check_folder(part)
    names = sorted(name for name in _visible_names(part) if (part / name).is_dir())
    if not names:
        content = "only files" if _visible_names(part) else "an empty folder"
        raise DataError(f"{part}: expected one folder of images per class, got {content}")
    if len(names) < _MIN_CLASSES:
        raise DataError(f"{part}: expected at least 2 classes, got only '{names[0]}'")
    return tuple(names)


def _check_classes(part: Path, class_names: tuple[str, ...]) -> None:
    names = set(_class_names(part))
    expected = f"{part}: expected the classes of {part.parent / 'train'}, got"
    for name in sorted(names.difference(class_names)):
        raise DataError(f"{expected} the unknown class '{name}'")
    for name in sorted(set(class_names) - names):
        raise DataError(f"{expected} no class '{name}'")


def _images_of_class(root: Path, name: str, label: int) -> list[LabeledFile]:
    folder = root / name
    _check_folder(folder)
    # Names stay strings: building two Path objects for each of 60,000 files takes over a second.
    images: list[tuple[str, os.stat_result]] = []
    others: list[tuple[str, os.stat_result]] = []
    for file, facts in _files_below(folder, name):
        is_image = file[file.rfind(".") :].lower() in SUFFIXES
        (images if is_image else others).append((file, facts))
    if not images:
        got = f"only other files such as '{others[0][0]}'" if others else "none"
        raise DataError(
            f"{folder}: expected at least one image ({', '.join(sorted(SUFFIXES))}), got {got}"
        )
    if others:
        _LOG.warning("%s: skipped %d files such as '%s'", folder, len(others), others[0][0])
    return [
        LabeledFile(name=file, label=label, size=facts.st_size, modified=facts.st_mtime_ns)
        for file, facts in images
    ]


def _files_below(folder: Path | str, name: str) -> Iterator[tuple[str, os.stat_result]]:
    """Yield name and facts of every visible file, sorted: file systems have no order."""
    with os.scandir(folder) as iterator:
        entries = sorted(iterator, key=lambda entry: entry.name)
    for entry in entries:
        if entry.name.startswith("."):
            continue
        # Links to folders are not followed: they could lead in a circle.
        if entry.is_dir(follow_symlinks=False):
            yield from _files_below(entry.path, f"{name}/{entry.name}")
            continue
        try:
            yield f"{name}/{entry.name}", entry.stat()
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise DataError(f"{entry.path}: expected a readable file, got: {reason}") from None
