"""Operators as torchvision transforms."""

import random

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset, default_collate
from torchvision.transforms import v2

from automix.integrations.torchvision_transform import OperatorTransform
from automix.operator_info import OPERATOR_FACTS, Operator
from tests.equality import untouched_generators

NUM_CLASSES = 4
BATCH_ALONE = [
    operator
    for operator, facts in OPERATOR_FACTS.items()
    if not (facts.needs_saliency or facts.needs_previous or facts.mixes_features or facts.learns)
]


def batch(size: int = 5) -> tuple[Tensor, Tensor]:
    images = torch.rand(size, 3, 8, 12, generator=torch.Generator().manual_seed(0))
    return images, torch.arange(size) % NUM_CLASSES


@pytest.mark.parametrize("operator", BATCH_ALONE)
@pytest.mark.parametrize("size", [1, 5])
def test_every_operator_that_needs_the_batch_alone(operator: Operator, size: int) -> None:
    transform = OperatorTransform(operator, num_classes=NUM_CLASSES)
    assert isinstance(transform, v2.Transform)
    # The last batch of an epoch may have one image, the first may not.
    transform(*batch())
    images, labels = batch(size)
    kept = images.clone()
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    with untouched_generators():
        mixed, targets = transform(images, labels)
    assert torch.equal(images, kept)
    assert mixed.shape == images.shape
    assert targets.shape == (size, NUM_CLASSES)
    torch.testing.assert_close(targets.sum(1), torch.ones(size))


def test_parameters_can_be_drawn_and_applied_apart() -> None:
    first, second = (OperatorTransform("cutmix", num_classes=NUM_CLASSES) for _ in range(2))
    images, labels = batch()
    params = first.make_params([images, labels])
    expected = second(images, labels)
    for _ in range(2):
        for result, reference in zip(
            first.transform((images, labels), params), expected, strict=True
        ):
            assert torch.equal(result, reference)
    assert not torch.equal(second(images, labels)[0], expected[0])


def test_the_form_of_the_batch_is_kept() -> None:
    transform = OperatorTransform("mixup", num_classes=NUM_CLASSES)
    assert isinstance(transform(list(batch())), list)
    assert isinstance(transform(batch()), tuple)
    soft = torch.nn.functional.one_hot(batch()[1], NUM_CLASSES).float()
    _, targets = OperatorTransform("mixup", num_classes=None)(batch()[0], soft)
    assert targets.shape == (5, NUM_CLASSES)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_in_a_loader_epochs_and_ranks_differ_and_runs_repeat(num_workers: int) -> None:
    images = torch.rand(16, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    data = TensorDataset(images, torch.arange(16) % NUM_CLASSES)

    def epochs(rank: int) -> list[Tensor]:
        transform = OperatorTransform("mixup", num_classes=NUM_CLASSES, rank=rank)
        loader = DataLoader(
            data,
            batch_size=8,
            num_workers=num_workers,
            collate_fn=lambda items: transform(default_collate(items)),
            generator=torch.Generator().manual_seed(3),
            multiprocessing_context="fork" if num_workers else None,
        )
        return [torch.cat([mixed for mixed, _ in loader]) for _ in range(2)]

    first, again, other_rank = epochs(0), epochs(0), epochs(1)
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first[0], other_rank[0])
    for one, two in zip(first, again, strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize(
    ("operator", "said"),
    [
        (Operator.RMIX, "got rmix, which needs a model"),
        (Operator.RECURSIVEMIX, "got recursivemix, which needs the batch before"),
        ("mixcut", "expected one of none, mixup"),
    ],
)
def test_refused_operators(operator: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        OperatorTransform(operator, num_classes=NUM_CLASSES)


def test_refused_batches() -> None:
    transform = OperatorTransform("mixup", num_classes=NUM_CLASSES)
    images, labels = batch()
    with pytest.raises(TypeError, match="expected images and labels, got tuple of 3"):
        transform(images, labels, labels)
    with pytest.raises(TypeError, match="expected images and labels, got Tensor"):
        transform(images)
    with pytest.raises(ValueError, match="strength: expected"):
        OperatorTransform("mixup", num_classes=NUM_CLASSES, strength=-1.0)
