"""From a data configuration to splits in memory or streamed, and to training batches."""

import logging

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits

from automix.configuration.data import DataConfig, DataSource, Loading, Placement
from automix.data.batches import BatchLayout, BatchPreparer, ResidentBatches, TrainingBatches
from automix.data.pools import Labels, Pool, Pools, assign, images_checksum
from automix.data.sources.decode import ImageFormat, read_header, refusing_bombs, to_format
from automix.data.sources.folder import FolderListing, folder_pools, list_folder
from automix.data.sources.packed import Progress
from automix.data.sources.streamed_folder import StreamedSplit, streamed_data
from automix.data.splits import (
    DataSet,
    SearchData,
    Split,
    channel_statistics,
    format_bytes,
    main_memory,
)
from automix.data.streamed_batches import StreamedBatches, device_augmentation
from automix.errors import DataError
from automix.files import sha256_of


def digits(size: tuple[int, int] | None = None) -> Pools:
    """Return all scans in their published order, as one pool; nothing is downloaded or cached.

    The images have shape (1, 8, 8); the original values 0 to 16 are scaled to 0 to 255.

    Args:
        size: (height, width) in pixels to resize to; None keeps 8 x 8.
    """
    bunch = load_digits()
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)[:, None]
    if size is not None:
        wanted = ImageFormat(channels=1, height=size[0], width=size[1], resize=True)
        images = np.stack([to_format(Image.fromarray(image[0]), wanted) for image in images])
    split = Split(
        images=torch.from_numpy(images),
        labels=torch.from_numpy(bunch.target.astype(np.int64)),
        num_classes=len(bunch.target_names),
    )
    pool = Pool(split=split, checksum=images_checksum(split), where="digits")
    names = tuple(str(name) for name in bunch.target_names)
    return Pools(train=pool, val=None, test=None, class_names=names)


_log = logging.getLogger(__name__)

# The other half is for the copies of splits that were cut, and for everything else.
_SHARE_OF_MEMORY = 0.5


def chosen_loading(config: DataConfig, listing: FolderListing) -> Loading:
    """Decide whether the images of a folder are decoded once or streamed, and say so in the log.

    Decoded sizes are estimated from their number and ``image_size``; without one the images have
    to be of one size, which only reading all of them shows, so they are decoded once. The choice
    depends on how much memory there is, not on how much is free: it is the same from run to run.

    Raises:
        DataError: the first image cannot be read.
    """
    if config.loading is not Loading.AUTO:
        _log.info("%s: %s, as wanted", listing.root, config.loading)
        return config.loading
    size = config.target_size
    if size is None:
        return Loading.RESIDENT
    count = sum(len(files) for files in listing.parts.values())
    with refusing_bombs():
        channels = 1 if read_header(listing.root / listing.parts["train"][0].name).is_gray else 3
    num_bytes = count * channels * size[0] * size[1]
    available = main_memory()
    fits = available is None or num_bytes <= _SHARE_OF_MEMORY * available
    choice = Loading.RESIDENT if fits else Loading.STREAMING
    _log.info(
        "%s: %s: %d images of %d x %d x %d take %s, %s half of the memory (%s)",
        listing.root,
        choice,
        count,
        channels,
        *size,
        format_bytes(num_bytes),
        "at most" if fits else "more than",
        "unknown" if available is None else format_bytes(available),
    )
    return choice


# The other half is for weights, activations and gradients.
_SHARE_OF_FREE_MEMORY = 0.5


def holding_device(
    num_bytes: int, *, device: torch.device | str, placement: Placement
) -> torch.device:
    """Decide where images are held, and say so in the log.

    Args:
        num_bytes: size of the images, as `SearchData.num_bytes` and `DataSet.num_bytes` tell it.
        device: where the model is.
        placement: device or host force the choice; auto takes the device where the images need at
            most half of its free memory.

    Returns:
        ``device`` or the CPU; hand it to ``to`` of the data.
    """
    wanted, host = torch.device(device), torch.device("cpu")
    size = f"{format_bytes(num_bytes)} of images"
    if wanted.type == host.type or placement is Placement.HOST:
        _log.info("%s are held in main memory", size)
        return host
    if placement is Placement.DEVICE:
        _log.info("%s are held on %s, as wanted", size, wanted)
        return wanted
    free = _free_memory(wanted)
    fits = num_bytes <= _SHARE_OF_FREE_MEMORY * free
    place = wanted if fits else host
    relation = "at most" if fits else "more than"
    _log.info("%s are held on %s: %s half of %s free", size, place, relation, format_bytes(free))
    return place


def _free_memory(device: torch.device) -> int:
    """Return the free memory of an accelerator in bytes; 0 where its driver does not tell."""
    try:
        free, _ = torch.accelerator.get_memory_info(device)
    except (RuntimeError, NotImplementedError):
        return 0
    return free


def load_data(config: DataConfig, *, progress: Progress | None = None) -> DataSet:
    """Load a dataset, cut its splits and measure what images are normalized with.

    The test split is the source's own; the digits, which have none, give up a part for it. Reward
    and selection are cut from val/ where a folder has one, otherwise from the training images, and
    what remains of those is the training split, or ``labels_per_class`` images of it. Every cut is
    stratified by class and seeded by ``split_seed``.

    Folders and torchvision sets are decoded once into the cache folder and mapped into memory from
    there. A split that is a whole part of the source stays mapped; one that was cut is a copy. The
    result is a function of the configuration and the source's images alone: equal on every
    machine, whatever the state of the cache. The training images of a large folder stay in their
    files (`DataConfig.loading`), and the splits are the same.

    Args:
        config: what to load and how to split it.
        progress: called with (images decoded, images in all) where images have to be decoded first.

    Returns:
        The splits, in main memory. Every class has at least one image in the training and the test
        split; reward and selection are empty where their size is 0.

    Raises:
        DataError: images are missing, unreadable, inconsistent or too few; the text names the
            file, the folder or the class.
    """
    data = _loaded(config, progress)
    _check_padding(data.seen, config)
    return data


def _loaded(config: DataConfig, progress: Progress | None) -> DataSet:
    # Imported where they are used: scikit-learn and torchvision take about a second each to load.
    if config.source is DataSource.DIGITS:
        pass

        return _resident(digits(config.target_size), config)
    if config.source is DataSource.FOLDER:
        return _folder(config, progress)
    from automix.data.sources.torchvision_sets import torchvision_pools  # noqa: PLC0415

    return _resident(torchvision_pools(config, progress=progress), config)


def _folder(config: DataConfig, progress: Progress | None) -> DataSet:
    assert config.path is not None
    listing = list_folder(config.path.expanduser())
    if chosen_loading(config, listing) is Loading.STREAMING:
        return streamed_data(config, listing, progress=progress)
    return _resident(folder_pools(config, listing, progress=progress), config)


def _resident(pools: Pools, config: DataConfig) -> DataSet:
    """Cut the splits out of decoded images."""
    assignment = assign(
        _labels(pools.train, pools.class_names, 0),
        _labels(pools.val, pools.class_names, 1) if pools.val else None,
        config,
        has_test=pools.test is not None,
    )
    train = pools.train.split
    splits = {name: train.subset(part) for name, part in assignment.from_train.items()}
    if pools.val is not None:
        val = pools.val.split
        splits |= {name: val.subset(part) for name, part in assignment.from_val.items()}
    if pools.test is not None:
        splits["test"] = pools.test.split
    seen = SearchData(
        train=splits["train"],
        reward=splits["reward"],
        selection=splits["selection"],
        class_names=pools.class_names,
        statistics=channel_statistics(splits["train"], config.normalization),
        fingerprint=sha256_of(pools.checksum().encode(), assignment.hash().encode())[:16],
    )
    return DataSet(name=config.source.value, seen=seen, test=splits["test"])


def _labels(pool: Pool, class_names: tuple[str, ...], number: int) -> Labels:
    return Labels(labels=pool.split.labels, class_names=class_names, where=pool.where, pool=number)


def _check_padding(seen: SearchData, config: DataConfig) -> None:
    """Refuse padding as large as the image: a crop could miss it, a reflection has no source."""
    _, height, width = seen.image_shape
    padding, side = config.augment.crop_padding, min(height, width)
    if padding >= side:
        raise DataError(
            f"data.augment.crop_padding: expected less than the image side of {side} pixels, "
            f"got {padding}"
        )


def training_batches(
    data: SearchData,
    config: DataConfig,
    layout: BatchLayout,
    *,
    num_steps: int,
    device: torch.device | str,
) -> tuple[TrainingBatches, BatchPreparer]:
    """Return the batches of the training images, and what prepares images for evaluation.

    Args:
        data: its training images are in memory, or in files.
        config: what ``data`` was loaded with.
        layout: how epochs are cut into steps and shares.
        num_steps: of the whole training run; nothing beyond is read ahead.
        device: where batches are wanted.
    """
    if isinstance(data.train, Split):
        preparer = BatchPreparer(data.statistics, config.augment, device=device)
        return ResidentBatches(data.train, preparer, layout), preparer
    assert isinstance(data.train, StreamedSplit)
    preparer = BatchPreparer(data.statistics, device_augmentation(config.augment), device=device)
    batches = StreamedBatches(
        data.train,
        preparer,
        layout,
        augment=config.augment,
        num_steps=num_steps,
        num_workers=config.loader_workers,
    )
    return batches, preparer
