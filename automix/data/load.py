"""From a data configuration to splits, in memory or streamed, and to training batches."""

import functools
import logging
from importlib import resources

import numpy as np
import torch
from PIL import Image

from automix.configuration.data import DataConfig, DataSource, Loading, Placement
from automix.data.batches import BatchLayout, BatchPreparer, ResidentBatches, TrainingBatches
from automix.data.copies import say_copies
from automix.data.folder import FolderListing, is_first_process, list_folder
from automix.data.pools import ImagePool, SourceImages, assign, images_checksum
from automix.data.sources.decode import ImageFormat, read_header, refusing_bombs, to_format
from automix.data.sources.folder import folder_images, streamed_data
from automix.data.sources.label_file import labeled_data
from automix.data.sources.packed import Progress
from automix.data.splits import (
    Dataset,
    SearchData,
    Split,
    configured_statistics,
    format_bytes,
    main_memory,
)
from automix.data.streamed_batches import StreamedBatches, device_augmentation
from automix.errors import DataError
from automix.files import sha256_of

_LOG = logging.getLogger(__name__)
# Of main memory; the other half is for copies of splits that were cut, and for everything else.
_FRACTION_OF_MEMORY = 0.5
# Of an accelerator's free memory; the other half is for weights, activations and gradients.
_FRACTION_OF_FREE_MEMORY = 0.5
_NUM_DIGITS = 10


def load_data(config: DataConfig, *, progress: Progress | None = None) -> Dataset:
    """Load a dataset, cut its splits and measure the statistics for normalization.

    The test split is the source's own; the digits and plain folders, which have none, give up a
    part for it. Reward and selection are cut from val/ if a folder has one, otherwise from the
    training images; the rest of those is the training split, or ``labels_per_class`` images of it.
    Every cut is stratified by class and seeded by ``split_seed``.

    Folders and torchvision datasets are decoded once into the cache folder and mapped into memory
    from there. A split that is a whole part of the source stays mapped; one that was cut is a copy.
    The result is a function of the configuration and the source's images alone: equal on every
    machine, whatever the state of the cache. The training images of a large folder stay in their
    files (`DataConfig.loading`), and the splits are the same.

    Args:
        config: source, sizes of the splits, and seed.
        progress: called with (images decoded, images in all) while images are decoded.

    Returns:
        The splits, in main memory. Every class has at least one image in the training and the test
        split; reward and selection are empty if their size is 0.

    Raises:
        DataError: images are missing, unreadable, inconsistent or too few; the text names the
            file, the folder or the class.
    """
    data = _loaded(config, progress)
    # Padding as large as the image: a crop could miss it, and a reflection has no source.
    _, height, width = data.seen.image_shape
    padding, side = config.augment.crop_padding, min(height, width)
    if padding >= side:
        raise DataError(
            f"data.augment.crop_padding: expected less than the image side of {side} pixels, "
            f"got {padding}"
        )
    return data


def _loaded(config: DataConfig, progress: Progress | None) -> Dataset:
    if config.source is DataSource.DIGITS:
        return _resident(digits(config.target_size), config)
    if config.source is DataSource.FOLDER:
        assert config.path is not None
        if config.labels is not None:
            return labeled_data(config, progress=progress)
        listing = list_folder(config.path.expanduser())
        if listing.has_test and config.test_size is not None:
            raise DataError(
                f"data.test_size: expected nothing for {listing.root}, which has test images, "
                f"got {config.test_size}"
            )
        if chosen_loading(config, listing) is Loading.STREAMING:
            data = streamed_data(config, listing, progress=progress)
        else:
            data = _resident(folder_images(config, listing, progress=progress), config)
        # Last, so that images that cannot be read leave nothing in the cache.
        if is_first_process():
            say_copies(listing, config.cache_folder)
        return data
    # Imported here: torchvision takes about a second to load.
    from automix.data.sources.torchvision_sets import torchvision_images  # noqa: PLC0415

    return _resident(torchvision_images(config, progress=progress), config)


def digits(size: tuple[int, int] | None = None) -> SourceImages:
    """Return the 1,797 scans of scikit-learn, resized to (height, width) if ``size`` is given.

    Test images of Alpaydin and Kaynak's Optical Recognition of Handwritten Digits (UCI, CC BY 4.0),
    https://doi.org/10.24432/C50P49.
    """
    # From a file that ships: scikit-learn takes two seconds to load, in every worker process.
    file = resources.files("automix") / "data/sources/digits.npz"
    with file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
        scans, labels = arrays["images"], arrays["labels"]
    # The published values are 0 to 16.
    images = np.rint(scans * (255 / 16)).astype(np.uint8)[:, None]
    if size is not None:
        target = ImageFormat(channels=1, height=size[0], width=size[1], resize=True)
        images = np.stack([to_format(Image.fromarray(image[0]), target) for image in images])
    split = Split(
        images=torch.from_numpy(images),
        labels=torch.from_numpy(labels.astype(np.int64)),
        num_classes=_NUM_DIGITS,
    )
    pool = ImagePool(split=split, checksum=images_checksum(split), where="digits")
    names = tuple(map(str, range(_NUM_DIGITS)))
    return SourceImages(train=pool, val=None, test=None, class_names=names)


def chosen_loading(config: DataConfig, listing: FolderListing) -> Loading:
    """Choose whether the images of a folder are decoded once or streamed, and log the choice.

    Raises:
        DataError: the first image cannot be read.
    """
    if config.loading is not Loading.AUTO:
        _LOG.info("%s: %s, as configured", listing.root, config.loading)
        return config.loading
    size = config.target_size
    if size is None:
        # Then all images must have one size, which only reading all of them shows.
        return Loading.RESIDENT
    # Estimated from the number of files and one header: opening a million would take minutes.
    count = sum(len(files) for files in listing.parts.values())
    with refusing_bombs():
        channels = 1 if read_header(listing.root / listing.parts["train"][0].name).is_gray else 3
    num_bytes = count * channels * size[0] * size[1]
    # Of the memory there is, not of the memory that is free: the same choice in every run.
    available = main_memory()
    fits = available is None or num_bytes <= _FRACTION_OF_MEMORY * available
    choice = Loading.RESIDENT if fits else Loading.STREAMING
    _LOG.info(
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


def _resident(source: SourceImages, config: DataConfig) -> Dataset:
    """Cut the splits out of decoded images."""
    names, val = source.class_names, source.val
    assignment = assign(
        source.train.labels(names),
        val.labels(names, pool=1) if val else None,
        config,
        has_test=source.test is not None,
    )
    train = source.train.split
    splits = {name: train.subset(part) for name, part in assignment.from_train.items()}
    if val is not None:
        splits |= {name: val.split.subset(part) for name, part in assignment.from_val.items()}
    if source.test is not None:
        splits["test"] = source.test.split
    seen = SearchData(
        train=splits["train"],
        reward=splits["reward"],
        selection=splits["selection"],
        class_names=names,
        statistics=configured_statistics(splits["train"], config),
        fingerprint=sha256_of(source.checksum().encode(), assignment.hash().encode())[:16],
    )
    return Dataset(name=config.source.value, seen=seen, test=splits["test"])


@functools.cache
def _say_once(text: str) -> None:
    # Many trainers may be built with the same images.
    _LOG.info("%s", text)


def holding_device(
    num_bytes: int, *, device: torch.device | str, placement: Placement
) -> torch.device:
    """Choose whether images of ``num_bytes`` are held on ``device`` or on the CPU, and log it."""
    device, host = torch.device(device), torch.device("cpu")
    size = f"{format_bytes(num_bytes)} of images"
    if device.type == host.type or placement is Placement.HOST:
        _say_once(f"{size} are held in main memory")
        return host
    if placement is Placement.DEVICE:
        _LOG.info("%s are held on %s, as configured", size, device)
        return device
    try:
        free, _ = torch.accelerator.get_memory_info(device)
    except (RuntimeError, NotImplementedError):
        # Not every driver reports it. Then nothing is risked: batches are copied from the host.
        free = 0
    fits = num_bytes <= _FRACTION_OF_FREE_MEMORY * free
    holder = device if fits else host
    relation = "at most" if fits else "more than"
    _LOG.info("%s are held on %s: %s half of %s free", size, holder, relation, format_bytes(free))
    return holder


def training_batches(
    data: SearchData,
    config: DataConfig,
    layout: BatchLayout,
    *,
    num_steps: int,
    device: torch.device | str,
) -> tuple[TrainingBatches, BatchPreparer]:
    """Return the batches of the training images, and the preparer of images for evaluation.

    ``num_steps`` are those of the whole training run, beyond which nothing is read ahead.
    """
    if isinstance(data.train, Split):
        preparer = BatchPreparer(data.statistics, config.augment, device=device)
        resident = ResidentBatches(data.train, preparer, layout, sampling=config.sampling)
        return resident, preparer
    preparer = BatchPreparer(data.statistics, device_augmentation(config.augment), device=device)
    batches = StreamedBatches(
        data.train,
        preparer,
        layout,
        augment=config.augment,
        num_steps=num_steps,
        num_workers=config.loader_workers,
        sampling=config.sampling,
    )
    return batches, preparer
