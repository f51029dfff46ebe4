import functools
import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from automix.training.metrics import (
    DecoupledMode,
    decoupled_mixup_loss,
    decoupled_terms,
    interpolated_loss,
    smooth_labels,
    soft_cross_entropy,
)

PER_IMAGE = functools.partial(F.cross_entropy, reduction="none")


def batch(batch_size: int = 6, num_classes: int = 4) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return logits, classes and partner classes (equal in row 0) and lam, with 0 and 1 in it."""
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(batch_size, num_classes, generator=generator)
    classes = torch.randint(num_classes, (batch_size,), generator=generator)
    partners = (classes + torch.arange(batch_size)) % num_classes
    lam = torch.rand(batch_size, generator=generator)
    lam[1:3] = torch.tensor([0.0, 1.0])
    return logits, classes, partners, lam


def soft_rows(classes: Tensor, partners: Tensor, lam: Tensor, num_classes: int) -> Tensor:
    lam_column = lam[:, None]
    return lam_column * F.one_hot(classes, num_classes) + (1 - lam_column) * F.one_hot(
        partners, num_classes
    )


def gradient(loss: Tensor, logits: Tensor) -> Tensor:
    (result,) = torch.autograd.grad(loss, logits)
    return result


def test_one_hot_rows_give_the_cross_entropy() -> None:
    logits, classes, _, _ = batch()
    loss = soft_cross_entropy(logits, F.one_hot(classes, 4).float())
    torch.testing.assert_close(loss, F.cross_entropy(logits, classes))


def test_soft_and_interpolated_form_have_equal_values_and_gradients() -> None:
    logits, classes, partners, lam = batch()
    logits.requires_grad_()
    soft = soft_cross_entropy(logits, soft_rows(classes, partners, lam, 4))
    interpolated = interpolated_loss(PER_IMAGE, logits, classes, partners, lam)
    torch.testing.assert_close(soft, interpolated)
    torch.testing.assert_close(gradient(soft, logits), gradient(interpolated, logits))


def test_gradient_is_softmax_minus_target() -> None:
    logits, classes, partners, lam = batch()
    logits.requires_grad_()
    targets = soft_rows(classes, partners, lam, 4)
    result = gradient(soft_cross_entropy(logits, targets), logits)
    torch.testing.assert_close(result, (logits.softmax(dim=1) - targets).detach() / 6)


def test_half_precision_logits_are_computed_in_float32() -> None:
    logits = torch.tensor([[40000.0, 0.0]]).half()
    assert soft_cross_entropy(logits, torch.tensor([[0.0, 1.0]])).item() == 40000.0
    loss = interpolated_loss(
        PER_IMAGE, logits, torch.tensor([0]), torch.tensor([1]), torch.tensor(0.5)
    )
    assert loss.dtype == torch.float32
    assert loss.item() == 20000.0


@pytest.mark.parametrize("shape", [(6,), (6, 5), (5, 4), (6, 4, 1)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected .* the same shape \(B, K\), got \(6, 4\) and"):
        soft_cross_entropy(torch.zeros(6, 4), torch.zeros(shape))


def test_integer_rows_are_refused() -> None:
    rows = torch.eye(4, dtype=torch.int64)
    with pytest.raises(TypeError, match=r"expected floating-point soft targets, got torch\.int64"):
        soft_cross_entropy(torch.zeros(4, 4), rows)


def test_interpolates_a_loss_with_more_dimensions() -> None:
    logits, _, _, lam = batch()
    classes, partners = torch.rand(2, 6, 4, generator=torch.Generator().manual_seed(1)).round()
    criterion = functools.partial(F.binary_cross_entropy_with_logits, reduction="none")
    loss = interpolated_loss(criterion, logits, classes, partners, lam)
    # Binary cross-entropy is linear in the target.
    mixed = lam[:, None] * classes + (1 - lam[:, None]) * partners
    torch.testing.assert_close(loss, F.binary_cross_entropy_with_logits(logits, mixed))


def test_scalar_lam_is_that_of_all_images() -> None:
    logits, classes, partners, _ = batch()
    scalar, rows = torch.tensor(0.3), torch.full((6,), 0.3)
    for function in (functools.partial(interpolated_loss, PER_IMAGE), decoupled_mixup_loss):
        torch.testing.assert_close(
            function(logits, classes, partners, scalar), function(logits, classes, partners, rows)
        )


def test_a_reduced_criterion_is_refused() -> None:
    logits, classes, partners, lam = batch()
    with pytest.raises(ValueError, match=r"one loss per image \(6\).*got shape \(\)"):
        interpolated_loss(F.cross_entropy, logits, classes, partners, lam)
    with pytest.raises(ValueError, match=r"expected lam of shape \(\) or \(6,\), got \(6, 1\)"):
        interpolated_loss(PER_IMAGE, logits, classes, partners, lam[:, None])


def slow_decoupled(
    logits: Tensor, classes: Tensor, partners: Tensor, lam: Tensor, eta: float, mode: str
) -> float:
    """Follow the formula image by image in Python floats."""
    total = 0.0
    for row in range(len(logits)):
        z = logits[row].double().tolist()
        a, b, weight = int(classes[row]), int(partners[row]), float(lam[row])
        log_sum = math.log(sum(math.exp(value) for value in z))
        total += weight * (log_sum - z[a]) + (1 - weight) * (log_sum - z[b])
        if a == b or min(weight, 1 - weight) <= 1e-3:
            continue
        for label, other, weight_of_label in ((a, b, weight), (b, a, 1 - weight)):
            if mode == "both" or (mode == "more") == (weight_of_label > 0.5):
                denominator = sum(math.exp(value) for c, value in enumerate(z) if c != other)
                total += eta * (math.log(denominator) - z[label])
    return total / len(logits)


@pytest.mark.parametrize("mode", ["both", "less", "more"])
@pytest.mark.parametrize("num_classes", [2, 3, 10])
def test_decoupled_mixup_follows_the_formula(num_classes: int, mode: DecoupledMode) -> None:
    logits, classes, partners, lam = batch(8, num_classes)
    # Some of the partners are not visible, and one image is half of each.
    lam[:4] = torch.tensor([0.0, 1.0, 0.9995, 0.5])
    loss = decoupled_mixup_loss(logits, classes, partners, lam, eta=0.7, mode=mode)
    expected = slow_decoupled(logits, classes, partners, lam, 0.7, mode)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_less_and_more_are_both_parents_by_weight_and_not_by_class() -> None:
    logits = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    classes, lam = torch.tensor([0, 3, 1, 2, 0, 3]), torch.tensor([0.9, 0.9, 0.2, 0.3, 0.6, 0.1])
    partners = classes.flip(0)
    less, more, both = (
        decoupled_terms(logits, classes, partners, lam, mode=mode)
        for mode in ("less", "more", "both")
    )
    torch.testing.assert_close(less + more, both)
    # Parents in the other order, with their weights: nothing else changes.
    swapped = decoupled_terms(logits, partners, classes, 1 - lam, mode="less")
    torch.testing.assert_close(swapped, less)


@pytest.mark.parametrize("mode", ["both", "less", "more"])
@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_decoupled_mixup_does_not_teach_the_class_of_an_image_that_is_not_there(
    weight: float, mode: DecoupledMode
) -> None:
    logits, classes, partners, _ = batch(8, 10)
    logits.requires_grad_()
    lam = torch.full((8,), weight)
    loss = decoupled_mixup_loss(logits, classes, partners, lam, eta=0.5, mode=mode)
    plain = F.cross_entropy(logits, classes if weight else partners)
    torch.testing.assert_close(loss, plain, atol=1e-6, rtol=0)
    torch.testing.assert_close(gradient(loss, logits), gradient(plain, logits))


def test_decoupled_mixup_without_its_term_is_the_soft_cross_entropy() -> None:
    logits, classes, partners, lam = batch()
    logits.requires_grad_()
    decoupled = decoupled_mixup_loss(logits, classes, partners, lam, eta=0.0)
    soft = soft_cross_entropy(logits, soft_rows(classes, partners, lam, 4))
    torch.testing.assert_close(decoupled, soft)
    torch.testing.assert_close(gradient(decoupled, logits), gradient(soft, logits))


@pytest.mark.parametrize("num_classes", [1, 4])
def test_decoupled_mixup_of_equal_classes_is_the_cross_entropy(num_classes: int) -> None:
    logits, classes, _, lam = batch(6, num_classes)
    logits.requires_grad_()
    decoupled = decoupled_mixup_loss(logits, classes, classes, lam, eta=5.0)
    plain = F.cross_entropy(logits, classes)
    torch.testing.assert_close(decoupled, plain)
    torch.testing.assert_close(gradient(decoupled, logits), gradient(plain, logits))


def test_decoupled_mixup_lets_both_classes_be_confident() -> None:
    # Both mixed classes far above the rest, and equal: the added term has reached its minimum.
    logits = torch.tensor([[30.0, 30.0, 0.0]])
    classes, partners, lam = torch.tensor([0]), torch.tensor([1]), torch.tensor([0.5])
    with_term = decoupled_mixup_loss(logits, classes, partners, lam, eta=1.0)
    assert with_term.item() == pytest.approx(math.log(2), abs=1e-6)


def test_decoupled_mixup_refuses_what_does_not_fit() -> None:
    logits, classes, partners, lam = batch()
    with pytest.raises(TypeError, match=r"indices of type int64, got torch\.float32"):
        decoupled_mixup_loss(logits, classes.float(), partners, lam)
    with pytest.raises(ValueError, match=r"expected classes of shape \(6,\), got \(5,\)"):
        decoupled_mixup_loss(logits, classes, partners[:5], lam)
    with pytest.raises(ValueError, match="expected eta of at least 0, got -1"):
        decoupled_mixup_loss(logits, classes, partners, lam, eta=-1)
    with pytest.raises(ValueError, match=r"expected logits of shape \(B, K\), got \(6,\)"):
        decoupled_mixup_loss(logits[:, 0], classes, partners, lam)


def test_smoothing_equals_that_of_torch() -> None:
    logits, classes, _, _ = batch()
    rows = F.one_hot(classes, 4).float()
    loss = soft_cross_entropy(logits, smooth_labels(rows, 0.1))
    torch.testing.assert_close(loss, F.cross_entropy(logits, classes, label_smoothing=0.1))
    assert smooth_labels(rows, 0.0) is rows
    torch.testing.assert_close(smooth_labels(rows, 0.3).sum(dim=1), torch.ones(6))
    with pytest.raises(ValueError, match=r"expected smoothing in \[0, 1\), got 1"):
        smooth_labels(rows, 1.0)
