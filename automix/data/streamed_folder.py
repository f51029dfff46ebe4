"""A large folder: training images stay in their files, held-out images are decoded once."""

import logging
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from automix.data.config import DataConfig, Normalisation
from automix.data.decode import ImageFormat, read_image
from automix.data.folder import FolderListing, LabelledFile, files_key
from automix.data.packed import Decoding, PackRequest, Progress, packed_images
from automix.data.pools import Pool, images_checksum
from automix.data.splits import DataSet, SearchData, Split
from automix.data.splitting import Labels, assign
from automix.data.statistics import channel_statistics
from automix.data.streaming import ImageFiles, StreamedSplit
from automix.files import sha256_of
from automix.random_streams import Stream, stream_generator

_log = logging.getLogger(__name__)
# Means of so many photographs are off by about 0.003, deviations by less.
_IMAGES_MEASURED = 2048


def streamed_data(
    config: DataConfig, listing: FolderListing, *, progress: Progress | None = None
) -> DataSet:
    """Return the splits of a folder whose training images are not decoded.

    The splits hold the same files as those of the decoded folder. Images are read in colour; mean
    and deviation per channel are those of at most 2,048 training images.

    Args:
        config: with an ``image_size``.
        listing: its files.
        progress: told about the decoding of held-out images.

    Raises:
        DataError: a class has too few images, a held-out image is unreadable, or the cache folder
            cannot be written.
    """
    assert config.target_size is not None
    height, width = config.target_size
    wanted = ImageFormat(
        channels=3, height=height, width=width, resize=True, crop=config.evaluation_crop
    )
    train_labels = _labels(listing, "train", 0)
    has_val = "val" in listing.parts
    assignment = assign(
        train_labels, _labels(listing, "val", 1) if has_val else None, config, has_test=True
    )
    held_out = _Packs(config, listing, wanted, progress)
    source = "val" if has_val else "train"
    parts = assignment.from_val if has_val else assignment.from_train
    reward, selection = (
        held_out.split(name, [listing.parts[source][index] for index in parts[name].tolist()])
        for name in ("reward", "selection")
    )
    test = held_out.split("test", listing.parts["test"])
    indices = assignment.from_train["train"]
    train = StreamedSplit(
        files=ImageFiles(
            listing.root, [listing.parts["train"][index].name for index in indices.tolist()]
        ),
        labels=train_labels.labels[indices],
        num_classes=len(listing.class_names),
        evaluated=wanted,
    )
    seen = SearchData(
        train=train,
        reward=reward.split,
        selection=selection.split,
        class_names=listing.class_names,
        statistics=channel_statistics(_measured(train, config), config.normalisation),
        fingerprint=_fingerprint(listing, assignment.hash(), (reward, selection, test)),
    )
    return DataSet(name=config.source.value, seen=seen, test=test.split)


class _Packs:
    """Decodes held-out images into the cache folder, as evaluation sees them."""

    def __init__(
        self,
        config: DataConfig,
        listing: FolderListing,
        wanted: ImageFormat,
        progress: Progress | None,
    ) -> None:
        self._folder = config.cache_folder
        self._listing = listing
        self._wanted = wanted
        self._progress = progress

    def split(self, name: str, files: Sequence[LabelledFile]) -> Pool:
        where = f"{self._listing.root} ({name} images)"
        if not files:
            return self._empty(where)

        def read(index: int) -> tuple[NDArray[np.uint8], int]:
            file = files[index]
            return read_image(self._listing.root / file.name, self._wanted), file.label

        request = PackRequest(
            name=f"folder-{name}",
            key=files_key(files, self._wanted),
            where=where,
            prepare=lambda: Decoding(
                num_images=len(files),
                shape=self._wanted.shape,
                class_names=self._listing.class_names,
                read=read,
            ),
            remedy=f"a smaller data.image_size or fewer {name} images need less",
        )
        return packed_images(request, self._folder, progress=self._progress)[0]

    def _empty(self, where: str) -> Pool:
        split = Split(
            images=torch.empty((0, *self._wanted.shape), dtype=torch.uint8),
            labels=torch.empty(0, dtype=torch.int64),
            num_classes=len(self._listing.class_names),
        )
        return Pool(split=split, checksum=images_checksum(split), where=where)


def _labels(listing: FolderListing, part: str, number: int) -> Labels:
    return Labels(
        labels=torch.tensor([file.label for file in listing.parts[part]], dtype=torch.int64),
        class_names=listing.class_names,
        where=str(listing.root / part),
        pool=number,
    )


def _measured(train: StreamedSplit, config: DataConfig) -> Split:
    """Return the images that mean and deviation are measured on."""
    if config.normalisation is not Normalisation.TRAIN:
        return train.subset(torch.empty(0, dtype=torch.int64))
    generator = stream_generator(config.split_seed, Stream.STATISTICS)
    chosen = torch.randperm(len(train), generator=generator)[:_IMAGES_MEASURED]
    if len(chosen) < len(train):
        _log.info("mean and deviation are those of %d training images", len(chosen))
    return train.subset(chosen.sort().values)


def _fingerprint(listing: FolderListing, assignment: str, pools: Sequence[Pool]) -> str:
    """Return a hash of every name, size and label, and of the pixels of held-out images."""
    lines = [
        f"{file.name}\0{file.label}\0{file.size}"
        for part in sorted(listing.parts)
        for file in listing.parts[part]
    ]
    text = "\n".join(lines).encode(errors="surrogateescape")
    checksums = (pool.checksum.encode() for pool in pools)
    return sha256_of(b"streamed", text, assignment.encode(), *checksums)[:16]
