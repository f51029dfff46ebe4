"""The first batch of a run shows whether all that its schedule will need is there."""

import math
import warnings
from collections import namedtuple
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from automix.integrations import ScheduledMix
from automix.integrations.torchvision_transform import OperatorTransform
from automix.operator_info import OPERATOR_FACTS, Operator
from automix.schedule import Decision, Schedule, constant_schedule, even_schedule

NUM_CLASSES, BATCH = 5, 6
LABELS = torch.arange(BATCH) % NUM_CLASSES
ROWS = F.one_hot(LABELS, NUM_CLASSES)
IMAGES = torch.rand(BATCH, 3, 8, 8, generator=torch.Generator().manual_seed(0))
# Ten of eleven batches would pass without the check.
LATE = even_schedule([Decision(operator=name) for name in ["mixup"] * 10 + ["saliencymix"]])
# Not those that mix in a layer of the network, or learn.
OPERATORS = [
    name for name, facts in OPERATOR_FACTS.items() if not (facts.mixes_features or facts.learns)
]
EVERY = even_schedule([Decision(operator=operator) for operator in OPERATORS])
TWO_HEADS = namedtuple("TWO_HEADS", "logits aux_logits")  # as torchvision's Inception


class Net(nn.Module):
    """A small classifier that wraps what it returns, and may cut the gradient of its features."""

    def __init__(
        self,
        wrap: Callable[[Tensor], Any] = lambda logits: logits,
        *,
        num_logits: int = NUM_CLASSES,
        features: Callable[[nn.Module, Tensor], Tensor] = lambda body, images: body(images),
    ) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Flatten())
        self.head = nn.Linear(144, num_logits)
        self.wrap, self.features = wrap, features

    def forward(self, images: Tensor) -> Any:
        return self.wrap(self.head(self.features(self.body, images)))


def new_mix(schedule: Schedule = LATE, **options: Any) -> ScheduledMix:
    defaults: dict[str, Any] = {"num_classes": NUM_CLASSES, "total_steps": 11, "model": Net()}
    return ScheduledMix(schedule, **defaults | options)


def refused_at_first(images: Any, targets: Any, *, match: str, **options: Any) -> None:
    mix = new_mix(**options)
    with pytest.raises((TypeError, ValueError), match=match):
        mix(images, targets)
    assert mix.step == 0


@pytest.mark.parametrize(
    "kind",
    [torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8, torch.uint16, torch.uint64],
)
def test_integer_labels_of_every_type_are_the_same(kind: torch.dtype) -> None:
    mixes = new_mix(EVERY, total_steps=len(OPERATORS)), new_mix(EVERY, total_steps=len(OPERATORS))
    for _ in OPERATORS:
        expected, got = (
            mix.mixed(IMAGES, labels)
            for mix, labels in zip(mixes, (LABELS, LABELS.to(kind)), strict=True)
        )
        assert torch.equal(got.images, expected.images)
        assert torch.equal(got.targets, expected.targets)
        assert torch.equal(got.own_targets, LABELS)


@pytest.mark.parametrize(
    "kind", [torch.int64, torch.uint8, torch.bool, torch.float16, torch.bfloat16, torch.float64]
)
def test_one_hot_rows_of_every_type_are_the_same(kind: torch.dtype) -> None:
    mixes = new_mix(EVERY, total_steps=len(OPERATORS)), new_mix(EVERY, total_steps=len(OPERATORS))
    for _ in OPERATORS:
        expected, got = (
            mix(IMAGES, rows)
            for mix, rows in zip(mixes, (ROWS.float(), ROWS.to(kind)), strict=True)
        )
        assert torch.equal(got[0], expected[0])
        assert torch.equal(got[1], expected[1])


REFUSED_TARGETS = {
    "truth values": (LABELS > 2, "expected integer classes"),
    "fractions": (LABELS.float(), "expected integer classes"),
    "too high": (LABELS + 2, "from 0 to 4, got 2 to 6; set num_classes"),
    "from 1": (LABELS + 1, "from 0 to 4, got 1 to 5; subtract 1"),
    "ignored": (torch.where(LABELS > 3, -100, LABELS), "got -100 to 3; leave out"),
    "a column": (LABELS[:, None], r"got \(6, 1\); give classes as targets.squeeze"),
    "too few": (LABELS[:4], r"got \(4,\)"),
    "other columns": (ROWS[:, :4], "expected 5 columns"),
    "three dimensions": (ROWS[..., None], r"got \(6, 5, 1\)"),
    "not finite": (ROWS * math.nan, "expected finite values"),
    "negative": (-ROWS.float(), "not negative, got -1 to -?0"),
    "a list": (LABELS.tolist(), "targets: expected a tensor, got list"),
    "complex": (ROWS.to(torch.complex64), "expected real numbers"),
    "elsewhere": (LABELS.to("meta"), "targets: expected a tensor on cpu"),
}


@pytest.mark.parametrize("name", REFUSED_TARGETS)
def test_refused_targets(name: str) -> None:
    targets, match = REFUSED_TARGETS[name]
    refused_at_first(IMAGES, targets, match=match)
    with pytest.raises((TypeError, ValueError), match=match):
        OperatorTransform("cutmix", num_classes=NUM_CLASSES)(IMAGES, targets)


REFUSED_IMAGES = {
    "bytes": (IMAGES.byte(), "images: expected a floating point tensor"),
    "eight bits": (IMAGES.to(torch.float8_e4m3fn), "images: expected dense images of float16"),
    "sparse": (IMAGES.to_sparse(), "images: expected dense images"),
    "one image alone": (IMAGES[0], r"images: expected shape \(B, C, H, W\)"),
    "a list": (list(IMAGES), "images: expected a tensor, got list"),
    "empty": (IMAGES[:, :, :0], "images: expected at least one"),
    "not finite": (IMAGES / (IMAGES.argsort(0) > 0), "got NaN or infinity in"),
}


@pytest.mark.parametrize("name", REFUSED_IMAGES)
def test_refused_images(name: str) -> None:
    images, match = REFUSED_IMAGES[name]
    refused_at_first(images, LABELS, match=match)
    with pytest.raises((TypeError, ValueError), match=match):
        OperatorTransform("mixup", num_classes=NUM_CLASSES)(images, LABELS)


@pytest.mark.parametrize(
    ("images", "match"),
    [
        (IMAGES[:, :1], r"saliency: .* shape \(6, 1, 8, 8\), got RuntimeError: .*channels"),
        (IMAGES[:, :, :, :6], "saliency: expected a pass through network and loss"),
    ],
)
def test_images_that_the_network_refuses(images: Tensor, match: str) -> None:
    refused_at_first(images, LABELS, match=match)


def test_images_that_a_later_operator_refuses() -> None:
    schedule = even_schedule([Decision(operator="mixup"), Decision(operator="rmix")])
    model = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, NUM_CLASSES))
    refused_at_first(
        IMAGES[..., :3, :3], LABELS, schedule=schedule, model=model, match="grid: expected 1 to 3"
    )


def test_a_later_label_out_of_range_is_refused_too() -> None:
    mix = new_mix()
    mix(IMAGES, LABELS)
    with pytest.raises(ValueError, match="subtract 1"):
        mix(IMAGES, LABELS + 1)
    assert mix.step == 1


@pytest.mark.parametrize("form", ["half", "channels_last", "strided", "inference", "leaf"])
def test_images_in_other_forms_are_mixed_by_every_operator(form: str) -> None:
    with torch.inference_mode():
        computed = IMAGES + 0
    images = {
        "half": IMAGES.half(),
        "channels_last": IMAGES.contiguous(memory_format=torch.channels_last),
        "strided": IMAGES.repeat_interleave(2, dim=2)[:, :, ::2],
        "inference": computed,
        "leaf": IMAGES.clone().requires_grad_(),
    }[form]
    mix = new_mix(EVERY, total_steps=len(OPERATORS))
    for _ in OPERATORS:
        mixed, _ = mix(images, LABELS)
        assert mixed.dtype == images.dtype
        assert mixed.requires_grad == images.requires_grad


@pytest.mark.parametrize("operator", OPERATORS)
def test_a_gradient_goes_through_the_mix(operator: Operator) -> None:
    front = nn.Conv2d(3, 3, 1)
    images, weights = front(IMAGES), torch.rand(IMAGES.shape)
    mix = new_mix(constant_schedule(Decision(operator=operator)))
    # Twice: RecursiveMix then shows a batch whose graph is gone.
    for _ in range(2):
        mixed, targets = mix(images, LABELS)
        (gradient,) = torch.autograd.grad((mixed * weights).sum(), images, retain_graph=True)
        assert not targets.requires_grad
    # Given where pixels come from, a mixed batch is linear in its images.
    if not OPERATOR_FACTS[operator].needs_previous:
        torch.testing.assert_close((gradient * images).sum(), (mixed * weights).sum())
    with torch.no_grad():
        # What is not mixed is not a copy either.
        assert mix(images, LABELS)[0].requires_grad == (operator is Operator.NONE)


def test_a_transform_keeps_a_gradient() -> None:
    images = IMAGES.clone().requires_grad_()
    assert OperatorTransform("cutmix", num_classes=NUM_CLASSES)(images, LABELS)[0].requires_grad


def test_one_image_is_no_batch_to_mix() -> None:
    refused_at_first(IMAGES[:1], LABELS[:1], match="at least 2 for mixup")
    with pytest.raises(ValueError, match="at least 2 for fmix"):
        OperatorTransform("fmix", num_classes=NUM_CLASSES)(IMAGES[:1], LABELS[:1])
    # The short last batch of an epoch may be one image, also right after a resume.
    mix = new_mix()
    mix.step = 3
    mix(IMAGES[:1], LABELS[:1])
    constant = new_mix(constant_schedule(Decision(operator="recursivemix")))
    assert not torch.equal(*(constant(image[None], LABELS[:1])[0] for image in IMAGES[:2]))


@pytest.mark.parametrize("size", [2, 3, 5])
def test_small_and_odd_batches_are_mixed_by_every_operator(size: int) -> None:
    mix = new_mix(EVERY, total_steps=len(OPERATORS))
    for _ in OPERATORS:
        images, targets = mix(IMAGES[:size], LABELS[:size])
        assert images.isfinite().all()
        torch.testing.assert_close(targets.sum(1), torch.ones(size))


OUTPUTS: dict[str, Callable[[Tensor], Any]] = {
    "object": lambda logits: SimpleNamespace(logits=logits, hidden=None),
    "mapping": lambda logits: {"loss": None, "logits": logits},
    "tuple": lambda logits: (logits, None),
    "list": lambda logits: [logits, logits],
    "named tuple": lambda logits: TWO_HEADS(logits, logits),
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_networks_that_return_objects(name: str) -> None:
    plain, wrapped = new_mix(EVERY), new_mix(EVERY, model=Net(OUTPUTS[name]))
    for _ in range(11):
        assert torch.equal(plain(IMAGES, LABELS)[0], wrapped(IMAGES, LABELS)[0])


@pytest.mark.parametrize(
    ("wrap", "match"),
    [
        (lambda logits: None, "got NoneType"),
        (lambda logits: {"out": logits}, "got dict with out"),
        (lambda logits: SimpleNamespace(scores=logits), "got SimpleNamespace"),
        (lambda logits: (), "got tuple"),
        (lambda logits: logits.argmax(1), "got Tensor of torch.int64"),
        (lambda logits: logits.sum(), r"got logits \(\)"),
        (lambda logits: logits[:, None], r"got logits \(6, 1, 5\)"),
        (lambda logits: logits[:, :3], "got IndexError: Target 3 is out of bounds"),
        (lambda logits: logits.missing, "got AttributeError"),
        (lambda logits: logits.detach(), "saliency: expected a loss with a gradient"),
        (lambda logits: logits.softmax(1) > 0.5, "got Tensor of torch.bool"),
    ],
)
def test_networks_without_logits_are_refused(wrap: Callable[[Tensor], Any], match: str) -> None:
    refused_at_first(IMAGES, LABELS, model=Net(wrap), match=match)


def _without_gradient(body: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        features: Tensor = body(images)
    return features


def _reentrant(body: nn.Module, images: Tensor) -> Tensor:
    features: Tensor = checkpoint(body, images, use_reentrant=True)
    return features


def _detached(body: nn.Module, images: Tensor) -> Tensor:
    features: Tensor = body(images.detach())
    return features


@pytest.mark.parametrize(
    ("features", "match"),
    [
        (_without_gradient, "saliency: expected a loss with a gradient to the image, got none"),
        (_detached, "saliency: expected a loss with a gradient to the image, got none"),
        (_reentrant, "saliency: .* re-entrant checkpoints; .* use_reentrant=False"),
    ],
)
def test_a_gradient_that_does_not_reach_the_image(features: Any, match: str) -> None:
    refused_at_first(IMAGES, LABELS, model=Net(features=features), match=match)


def test_frozen_weights_and_checkpoints_that_can_be_followed() -> None:
    frozen = Net()
    frozen.body.requires_grad_(False)
    kept = Net(features=lambda body, images: checkpoint(body, images, use_reentrant=False))
    for model in (frozen, kept):
        mix, plain = new_mix(EVERY, model=model), new_mix(EVERY)
        for _ in range(11):
            torch.testing.assert_close(mix(IMAGES, LABELS)[0], plain(IMAGES, LABELS)[0])


def test_uniform_maps_are_said() -> None:
    mix = new_mix(model=Net(lambda logits: logits * 0))
    with pytest.warns(UserWarning, match="saliency: expected maps with a peak, got uniform"):
        mix(IMAGES, LABELS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mix(IMAGES, LABELS)


@pytest.mark.parametrize(
    ("source", "match"),
    [
        (lambda model, images, targets: None, "saliency: expected maps"),
        (lambda model, images, targets: images, "saliency: expected shape"),
        (lambda model, images, targets: images[:, 0].byte(), "saliency: expected a floating"),
        (lambda model, images, targets: 1 / 0, "got ZeroDivisionError"),
    ],
)
def test_sources_that_give_no_maps(source: Any, match: str) -> None:
    refused_at_first(IMAGES, LABELS, saliency=source, match=match)


def test_too_little_memory_for_a_pass_is_noted() -> None:
    def source(model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("no memory")

    with pytest.raises(torch.OutOfMemoryError) as raised:
        new_mix(saliency=source)(IMAGES, LABELS)
    assert "first batch" in raised.value.__notes__[0]


def test_the_check_changes_no_batch_and_leaves_no_trace() -> None:
    model, unused = Net(), Net()
    schedule = even_schedule([Decision(operator="cutmix"), Decision(operator="rmix")])
    first = new_mix(schedule, model=model, total_steps=2)
    second = new_mix(schedule, model=unused, total_steps=2)
    generator = torch.get_rng_state()
    first(IMAGES, LABELS)
    second.step = 1
    assert torch.equal(first(IMAGES, LABELS)[0], second(IMAGES, LABELS)[0])
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(weight.grad is None and weight.requires_grad for weight in model.parameters())


NO_COUNTS = [math.nan, math.inf, -math.inf, 0, -3, 2.0, 7.5, True, "10", None]


@pytest.mark.parametrize("value", NO_COUNTS)
@pytest.mark.parametrize("name", ["total_steps", "num_classes"])
def test_counts_are_whole_numbers(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{name}: expected a whole number, 1 or more, got"):
        new_mix(**{name: value})
    if name == "num_classes" and value is not None:
        with pytest.raises(ValueError, match="num_classes: expected a whole number"):
            OperatorTransform("mixup", num_classes=value)


@pytest.mark.parametrize("name", ["seed", "rank"])
def test_seed_and_rank_are_whole_numbers(name: str) -> None:
    options: dict[str, Any] = {name: 1.5}
    with pytest.raises(ValueError, match=f"{name}: expected a whole number, 0 or more, got 1.5"):
        new_mix(**options)


def test_positions_that_are_none() -> None:
    mix = new_mix()
    for step in (-1, 0.5, math.nan):
        mix.step = step  # type: ignore[assignment]
        with pytest.raises(ValueError, match="step: expected a whole number"):
            mix(IMAGES, LABELS)
    with pytest.raises(ValueError, match=r"state\.step: expected a whole number"):
        mix.load_state_dict({"step": math.nan, "mixup_enabled": True, "previous": None})  # type: ignore[typeddict-item]
    with pytest.raises(ValueError, match="state: expected mixup_enabled, previous, got"):
        mix.load_state_dict({"step": 1})  # type: ignore[typeddict-item]


@pytest.mark.parametrize("smoothing", [math.nan, 1.0, -0.1])
def test_label_smoothing_is_checked_when_bound(smoothing: float) -> None:
    with pytest.raises(ValueError, match="label_smoothing: expected 0 or more, below 1"):
        new_mix(label_smoothing=smoothing)


def test_flat_shards_are_refused_by_name() -> None:
    from torch.distributed.fsdp import FullyShardedDataParallel  # noqa: PLC0415

    # As if it were wrapped, which needs several processes.
    flat = FullyShardedDataParallel.__new__(FullyShardedDataParallel)
    nn.Module.__init__(flat)
    model = Net()
    model.add_module("flat", flat)
    refused_at_first(
        IMAGES, LABELS, match="got FullyShardedDataParallel .*fully_shard", model=model
    )
    # Without saliency there is no pass, and nothing to refuse.
    new_mix(constant_schedule(Decision(operator=Operator.MIXUP)), model=model)(IMAGES, LABELS)


def test_an_operator_that_learns_is_refused_before_the_first_batch() -> None:
    schedule = constant_schedule(Decision(operator="adautomix"))
    with pytest.raises(ValueError, match="learn nothing in a loop of your own, got adautomix"):
        new_mix(schedule)
    with pytest.raises(ValueError, match="learn nothing in a loop of your own, got adautomix"):
        OperatorTransform("adautomix", num_classes=NUM_CLASSES)
