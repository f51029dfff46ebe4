"""The one entry point: configuration in, seeded splits out."""

from automix.data.choice import chosen_loading
from automix.data.config import DataConfig, DataSource, Loading
from automix.data.folder import folder_pools, list_folder
from automix.data.packed import Progress
from automix.data.pools import Pool, Pools
from automix.data.splits import DataSet, SearchData
from automix.data.splitting import Labels, assign
from automix.data.statistics import channel_statistics
from automix.data.streamed_folder import streamed_data
from automix.errors import DataError
from automix.files import sha256_of


def load_data(config: DataConfig, *, progress: Progress | None = None) -> DataSet:
    """Load a data set, cut its splits and measure what images are normalised with.

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
        from automix.data.digits import digits  # noqa: PLC0415

        return _resident(digits(config.target_size), config)
    if config.source is DataSource.FOLDER:
        return _folder(config, progress)
    from automix.data.torchvision_sets import torchvision_pools  # noqa: PLC0415

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
        statistics=channel_statistics(splits["train"], config.normalisation),
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
