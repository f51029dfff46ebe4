"""Classes, pairs of classes and soft rows are one thing to the loss, and in a training step."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from automix.mixing import mix_step
from automix.operator_info import Operator
from automix.schedule import Decision
from automix.training.metrics import smooth_labels, soft_cross_entropy
from automix.training.targets import (
    LabelPairs,
    Targets,
    cross_entropy,
    joined_targets,
    target_rows,
)
from tests.training.conftest import MakeTrainer

CLASSES = 5


def every_form(seed: int, batch: int = 6) -> list[Targets]:
    generator = torch.Generator().manual_seed(seed)
    classes, partners = torch.randint(CLASSES, (2, batch), generator=generator).unbind()
    # Also the weights at which one of the two has no part.
    lam = torch.rand(batch, generator=generator).mul_(1.4).sub_(0.2).clamp_(0, 1)
    rows = torch.rand(batch, CLASSES, generator=generator).softmax(dim=1)
    return [classes, LabelPairs(classes, partners, lam), rows]


def logits_of(seed: int, batch: int = 6) -> Tensor:
    generator = torch.Generator().manual_seed(seed + 1)
    return torch.randn(batch, CLASSES, generator=generator).mul_(3).requires_grad_()


@given(seed=st.integers(0, 2**20), smoothing=st.sampled_from([0.0, 0.1, 0.9]))
def test_the_loss_is_that_of_the_rows(seed: int, smoothing: float) -> None:
    for targets in every_form(seed):
        logits = logits_of(seed)
        rows = smooth_labels(target_rows(targets, CLASSES), smoothing)
        expected = soft_cross_entropy(logits, rows)
        loss = cross_entropy(logits, targets, smoothing=smoothing)
        torch.testing.assert_close(loss, expected)
        gradients = [torch.autograd.grad(one, logits)[0] for one in (loss, expected)]
        torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-7)
        per_image = cross_entropy(logits, targets, smoothing=smoothing, reduction="none")
        assert per_image.shape == (6,)
        torch.testing.assert_close(per_image.mean(), loss)


@pytest.mark.parametrize("chosen", [(0, 0), (0, 1), (1, 1), (1, 2), (0, 2), (0, 1, 2)])
def test_joined_batches_have_the_rows_of_all(chosen: tuple[int, ...]) -> None:
    parts = [every_form(number)[form] for number, form in enumerate(chosen)]
    joined = joined_targets(parts, CLASSES)
    rows = torch.cat([target_rows(part, CLASSES) for part in parts])
    torch.testing.assert_close(target_rows(joined, CLASSES), rows)
    # The plainest form that fits all: a row of zeros for each image is the last resort.
    assert isinstance(joined, LabelPairs) == (max(chosen) == 1)


def test_half_precision_logits_have_a_loss_in_float32() -> None:
    logits = torch.tensor([[40000.0, 0.0]]).half()
    pairs = LabelPairs(torch.tensor([0]), torch.tensor([1]), torch.tensor([0.5]))
    loss = cross_entropy(logits, pairs)
    assert (loss.dtype, loss.item()) == (torch.float32, 20000.0)


# They need more than a step on images: the network, or one of their own.
IN_THE_NETWORK = {Operator.MANIFOLD_MIXUP, Operator.ADAUTOMIX}


@pytest.mark.parametrize("operator", [one for one in Operator if one not in IN_THE_NETWORK])
def test_targets_of_a_step_are_those_of_its_operator(
    make_trainer: MakeTrainer, operator: Operator
) -> None:
    stages = make_trainer().training_step
    decision = Decision(operator=operator)
    images, labels, key = stages.fetch(seed=0, step=0)
    batch = stages.mix(decision, images, labels, key=key)
    num_classes = stages.batches.num_classes
    mixed = mix_step(
        decision,
        images,
        labels,
        key=key,
        num_classes=num_classes,
        model=stages.model,
        saliency=stages.saliency,
    )
    torch.testing.assert_close(batch.images, mixed.images)
    torch.testing.assert_close(target_rows(batch.targets, num_classes), mixed.targets)
