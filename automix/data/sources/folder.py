"""The images of a folder that was listed.

They are decoded as a whole, or their training images stay in the files until a batch needs them.
"""

import functools
import logging
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from automix.configuration.data import DataConfig, Interpolation, Normalization
from automix.data.folder import PARTS, FolderListing, LabeledFile
from automix.data.pools import ImagePool, SourceImages, assign, images_checksum
from automix.data.sources.decode import ImageFormat, common_format, read_image
from automix.data.sources.packed import Decoding, PackRequest, Progress, packed_images
from automix.data.splits import (
    Dataset,
    ImageFiles,
    SearchData,
    Split,
    StreamedSplit,
    configured_statistics,
)
from automix.files import sha256_of
from automix.random_streams import Stream, stream_generator

_LOG = logging.getLogger(__name__)
# Means of this many photographs are off by about 0.003, deviations by less.
_IMAGES_MEASURED = 2048


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
    files = [file for part in PARTS for file in listing.parts.get(part, ())]
    key = files_key(files, _target(config))

    @functools.cache
    def image_format() -> ImageFormat:
        return common_format(
            [listing.root / file.name for file in files],
            config.target_size,
            config.interpolation,
        )

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
        channels=3,
        height=height,
        width=width,
        resize=True,
        crop=config.evaluation_crop,
        interpolation=config.interpolation or Interpolation.BILINEAR,
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
        statistics=configured_statistics(_measured_images(train, config), config),
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


def _target(config: DataConfig) -> object:
    """Return what decoded images depend on; as it was where nothing but a size is set."""
    if config.interpolation in (None, Interpolation.BILINEAR):
        return config.target_size
    return config.target_size, config.interpolation


def files_key(files: Iterable[LabeledFile], target: object) -> str:
    """Return a hash of the files and of the format they are decoded to, its ``repr``."""
    # Length and time of change stand for the content, as in make: hashing the files themselves
    # would read all of them at every start.
    lines = [f"{file.name}\0{file.label}\0{file.size}\0{file.modified}" for file in files]
    text = "\n".join(lines).encode(errors="surrogateescape")
    return sha256_of(text, repr(target).encode())[:16]


def _measured_images(train: StreamedSplit, config: DataConfig) -> Split:
    """Return the images that mean and deviation are measured on."""
    measured = (Normalization.TRAIN, Normalization.AUTO)
    if config.normalization not in measured or config.mean is not None:
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
