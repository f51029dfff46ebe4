"""The one entry point: configuration in, seeded splits out."""

from automix.data.config import DataConfig, DataSource
from automix.data.packed import Progress
from automix.data.pools import Pools
from automix.data.splits import DataSet, SearchData, Split
from automix.data.splitting import Labels, stratified_parts
from automix.data.statistics import channel_statistics
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
    machine, whatever the state of the cache.

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
    pools = _pools(config, progress)
    splits, indices_hash = _cut(pools, config)
    seen = SearchData(
        train=splits["train"],
        reward=splits["reward"],
        selection=splits["selection"],
        class_names=pools.class_names,
        statistics=channel_statistics(splits["train"], config.normalisation),
        fingerprint=sha256_of(pools.checksum().encode(), indices_hash.encode())[:16],
    )
    _check_padding(seen, config)
    return DataSet(name=config.source.value, seen=seen, test=splits["test"])


def _pools(config: DataConfig, progress: Progress | None) -> Pools:
    # Imported where they are used: scikit-learn and torchvision take about a second each to load.
    if config.source is DataSource.DIGITS:
        from automix.data.digits import digits  # noqa: PLC0415

        return digits(config.target_size)
    if config.source is DataSource.FOLDER:
        from automix.data.folder import folder_pools  # noqa: PLC0415

        return folder_pools(config, progress=progress)
    from automix.data.torchvision_sets import torchvision_pools  # noqa: PLC0415

    return torchvision_pools(config, progress=progress)


def _cut(pools: Pools, config: DataConfig) -> tuple[dict[str, Split], str]:
    """Return the splits by name, and a hash of which image went where."""
    reward_size, selection_size = config.part_sizes(has_val=pools.val is not None)
    held_out = {"reward": reward_size, "selection": selection_size}
    sizes: dict[str, int | float] = {}
    if pools.test is None:
        sizes["test"] = config.test_part_size
    if pools.val is None:
        sizes |= held_out
    rest: str | None = "train"
    if config.labels_per_class is not None:
        sizes["train"], rest = config.labels_per_class, None
    names, seed = pools.class_names, config.split_seed
    labels = Labels(labels=pools.train.split.labels, class_names=names, where=pools.train.where)
    indices = stratified_parts(labels, sizes, rest=rest, seed=seed)
    splits = {name: pools.train.split.subset(part) for name, part in indices.items()}
    if pools.val is not None:
        labels = Labels(
            labels=pools.val.split.labels, class_names=names, where=pools.val.where, pool=1
        )
        from_val = stratified_parts(labels, held_out, rest=None, seed=seed)
        splits |= {name: pools.val.split.subset(part) for name, part in from_val.items()}
        indices |= from_val
    if pools.test is not None:
        splits["test"] = pools.test.split
    parts = (name.encode() + part.numpy().tobytes() for name, part in sorted(indices.items()))
    return splits, sha256_of(*parts)


def _check_padding(seen: SearchData, config: DataConfig) -> None:
    """Refuse padding as large as the image: a crop could miss it, a reflection has no source."""
    _, height, width = seen.image_shape
    padding, side = config.augment.crop_padding, min(height, width)
    if padding >= side:
        raise DataError(
            f"data.augment.crop_padding: expected less than the image side of {side} pixels, "
            f"got {padding}"
        )
