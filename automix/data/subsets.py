"""Smaller tasks within the data of a search: some of the classes, some of the labels."""

import dataclasses
from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from automix.configuration.data import Normalization
from automix.data.splits import SearchData, Split, channel_statistics
from automix.files import sha256_of


def subset_of_classes(
    data: SearchData, classes: Sequence[int], *, labels_per_class: int, generator: Generator
) -> SearchData:
    """Return the data of some classes, with some of their training images.

    Args:
        data: in memory.
        classes: labels in ``data``, which become 0, 1, ... in this order.
        labels_per_class: training images that are drawn of each class; of a smaller class, all.
        generator: on the CPU.

    Raises:
        ValueError: the training images are not in memory.

    Examples:
        >>> from automix.configuration.data import DataConfig
        >>> from automix.data.load import load_data
        >>> digits = load_data(DataConfig()).for_search()
        >>> some = subset_of_classes(
        ...     digits, [7, 1], labels_per_class=5, generator=torch.Generator()
        ... )
        >>> some.class_names, len(some.train)
        (('7', '1'), 10)
    """
    if not isinstance(data.train, Split):
        raise ValueError("expected training images in memory, got streamed ones")
    drawn = [
        _drawn(data.train.labels, label, count=labels_per_class, generator=generator)
        for label in classes
    ]
    train = _relabeled(data.train.subset(torch.cat(drawn)), classes)
    chosen = f"{list(classes)} {[rows.tolist() for rows in drawn]}"
    return dataclasses.replace(
        data,
        train=train,
        reward=_of_classes(data.reward, classes),
        selection=_of_classes(data.selection, classes),
        class_names=tuple(data.class_names[label] for label in classes),
        statistics=channel_statistics(train, Normalization.TRAIN),
        fingerprint=sha256_of(data.fingerprint.encode(), chosen.encode()),
    )


def _drawn(labels_N: Tensor, label: int, *, count: int, generator: Generator) -> Tensor:
    rows = torch.nonzero(labels_N == label)[:, 0]
    return rows[torch.randperm(len(rows), generator=generator)[:count]].sort().values


def _of_classes(split: Split, classes: Sequence[int]) -> Split:
    rows = torch.nonzero(torch.isin(split.labels, torch.tensor(classes)))[:, 0]
    return _relabeled(split.subset(rows), classes)


def _relabeled(split: Split, classes: Sequence[int]) -> Split:
    number_of = torch.full((split.num_classes,), -1)
    number_of[list(classes)] = torch.arange(len(classes))
    return dataclasses.replace(split, labels=number_of[split.labels], num_classes=len(classes))
