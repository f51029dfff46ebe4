"""Saliency follows the loss that is trained: softmax, sigmoid of one logit, or the user's own."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from automix.integrations import ScheduledMix
from automix.network_outputs import logits_of
from automix.saliency.gradient import input_gradient, layer_gradient, reduced_gradient
from automix.saliency.losses import Loss, classification_loss
from automix.schedule import Decision, constant_schedule

IMAGES = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
BINARY = torch.tensor([0, 1, 1, 0, 0, 1])
SEVERAL = (torch.rand(6, 5, generator=torch.Generator().manual_seed(1)) > 0.5).float()


def net(num_logits: int) -> nn.Sequential:
    torch.manual_seed(0)
    body = nn.Conv2d(3, 4, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(256, num_logits)
    return nn.Sequential(*body)


def slow_map(model: nn.Module, targets: Tensor, loss: Loss) -> Tensor:
    """The definition: each image alone, the gradient of its own loss."""
    maps = []
    for image, target in zip(IMAGES, targets, strict=True):
        leaf = image[None].clone().requires_grad_()
        torch.autograd.backward(loss(model(leaf), target[None]).sum())
        assert leaf.grad is not None
        magnitude = leaf.grad[0].square().mean(0).sqrt()
        maps.append(magnitude / magnitude.sum())
    return torch.stack(maps)


@pytest.mark.parametrize(
    "targets",
    [
        BINARY,
        BINARY.to(torch.uint8),
        BINARY.bool(),
        BINARY.float(),
        BINARY[:, None],
        BINARY.float()[:, None],
        F.one_hot(BINARY),
    ],
)
@pytest.mark.parametrize("is_flat", [False, True])
def test_one_logit_has_the_map_of_a_sigmoid(targets: Tensor, is_flat: bool) -> None:
    model = net(1)
    expected = slow_map(model, BINARY.float()[:, None], F.binary_cross_entropy_with_logits)
    shown = nn.Sequential(model, nn.Flatten(0)) if is_flat else model
    maps = input_gradient(shown, IMAGES, targets)
    torch.testing.assert_close(maps, expected, atol=1e-6, rtol=1e-4)
    assert (maps.std((1, 2)) / maps.mean((1, 2)) > 0.1).all()


@given(chance=st.floats(0, 1), logit=st.floats(-20, 20))
def test_one_logit_is_a_softmax_of_two(chance: float, logit: float) -> None:
    one = classification_loss(torch.tensor([[logit]]), torch.tensor([[chance]]))
    two = classification_loss(torch.tensor([[0, logit]]), torch.tensor([[1 - chance, chance]]))
    torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("logits", "targets", "match"),
    [
        (torch.zeros(2, 1), torch.tensor([0, 3]), "targets: expected 0 to 1 .* got 0 to 3"),
        (torch.zeros(2), torch.zeros(2, 3), r"\(2, 2\) for a network with one logit"),
        (torch.zeros(2, 3), torch.zeros(2, 4), r"logits \(2, 3\) for targets \(2, 4\)"),
        (torch.zeros(2, 3), torch.zeros(3).long(), "expected logits"),
        (torch.zeros(2, 3, 4), torch.zeros(2).long(), r"got logits \(2, 3, 4\)"),
        (torch.zeros(2, 3), torch.ones(2, 3), "got sums of 3 to 3; for several labels"),
        (torch.zeros(2, 3), torch.zeros(2, 3), "got sums of 0 to 0"),
        (torch.zeros(2, 3), torch.zeros(2), "targets: expected integer classes"),
    ],
)
def test_targets_that_do_not_belong_to_the_logits(
    logits: Tensor, targets: Tensor, match: str
) -> None:
    with pytest.raises((TypeError, ValueError), match=match):
        classification_loss(logits, targets)


def focal(logits: Tensor, targets: Tensor) -> Tensor:
    off = (targets - logits.sigmoid()).abs()
    return -(off.square() * (1 - off).log()).sum(1)


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "several labels": F.binary_cross_entropy_with_logits,
    "a module": nn.MultiLabelSoftMarginLoss(),
    "not reduced": nn.BCEWithLogitsLoss(reduction="none"),
    "focal": focal,
    "squares": F.mse_loss,
}


@pytest.mark.parametrize("name", LOSSES)
def test_the_loss_of_the_user(name: str) -> None:
    model, loss = net(5), LOSSES[name]
    maps = input_gradient(model, IMAGES, SEVERAL, loss=loss)
    torch.testing.assert_close(maps, slow_map(model, SEVERAL, loss), atol=1e-6, rtol=1e-3)
    layer = layer_gradient(model, IMAGES, SEVERAL, layer="0", loss=loss)
    small = reduced_gradient(
        nn.Sequential(nn.Upsample(scale_factor=2), model), IMAGES, SEVERAL, loss=loss
    )
    for others in (layer, small):
        torch.testing.assert_close(others.sum((1, 2)), torch.ones(6))
        assert others.std() > 0


@pytest.mark.parametrize(("num_logits", "targets"), [(5, SEVERAL), (1, BINARY[:, None])])
def test_a_schedule_trains_and_asks_the_same_loss(num_logits: int, targets: Tensor) -> None:
    seen = []

    def loss(logits: Tensor, rows: Tensor) -> Tensor:
        seen.append(rows)
        return F.binary_cross_entropy_with_logits(logits, rows)

    mix = ScheduledMix(
        constant_schedule(Decision(operator="rmix")),
        num_classes=num_logits,
        total_steps=2,
        model=net(num_logits),
        loss=loss,
    )
    images, rows = mix(IMAGES, targets)
    assert rows.shape == (6, num_logits)
    # Once for the check of the first batch, once for its maps: float32 rows, as they are trained.
    assert len(seen) == 2
    assert all(torch.equal(got, targets.float()) for got in seen)
    assert not torch.equal(images, IMAGES)


def test_classes_become_the_rows_that_a_loss_trains_on() -> None:
    seen = []

    def loss(logits: Tensor, rows: Tensor) -> Tensor:
        seen.append(rows)
        return F.cross_entropy(logits, rows)

    classes = torch.arange(6, dtype=torch.int16) % 5
    options = {"num_classes": 5, "total_steps": 2, "model": net(5)}
    schedule = constant_schedule(Decision(operator="rmix"))
    images, _ = ScheduledMix(schedule, loss=loss, **options)(IMAGES, classes)  # type: ignore[arg-type]
    assert torch.equal(seen[0], F.one_hot(classes.long(), 5).float())
    assert torch.equal(images, ScheduledMix(schedule, **options)(IMAGES, classes)[0])  # type: ignore[arg-type]


def test_a_loss_that_is_none() -> None:
    model = net(5)
    with pytest.raises(TypeError, match="loss: expected a floating-point tensor, got float"):
        input_gradient(model, IMAGES, SEVERAL, loss=lambda logits, targets: 1.0)  # type: ignore[arg-type,return-value]
    with pytest.raises(ValueError, match="saliency: expected a loss with a gradient"):
        input_gradient(model, IMAGES, SEVERAL, loss=lambda a, b: F.mse_loss(a.detach(), b))
    # Its own weights get no gradient, and do not stand for one of the images.
    margin = nn.Linear(5, 5)
    with pytest.raises(ValueError, match="saliency: expected a loss with a gradient"):
        input_gradient(model, IMAGES, SEVERAL, loss=lambda a, b: margin(a.detach()).sum())
    assert margin.weight.grad is None


def test_both_a_source_and_a_loss_are_refused() -> None:
    with pytest.raises(ValueError, match="loss: expected none with a saliency source"):
        ScheduledMix(
            constant_schedule(Decision(operator="rmix")),
            num_classes=5,
            total_steps=2,
            model=net(5),
            saliency=input_gradient,
            loss=F.cross_entropy,
        )


def test_logits_are_found_in_what_networks_return() -> None:
    logits = torch.zeros(2, 3)
    for output in (logits, {"logits": logits}, (logits, None), [logits]):
        assert logits_of(output) is logits
