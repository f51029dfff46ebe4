"""The callback in Lightning's own trainer."""

import importlib
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from automix.errors import MissingExtraError
from automix.operator_info import Operator
from automix.schedule import Decision, Schedule, constant_schedule, even_schedule, mix_then_off

lightning = pytest.importorskip("lightning.pytorch", reason="lightning is an extra")
MODULE = "automix.integrations.lightning_callback"

# Lightning's own words about torch's tree utilities, and about loaders without workers.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
]


class Module(lightning.LightningModule):  # type: ignore[misc,name-defined]
    def __init__(self, *, as_tuple: bool = False) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten())
        self.head = nn.Linear(144, 3)
        self.batches: list[tuple[Tensor, Tensor]] = []
        self.as_tuple = as_tuple

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return tuple(batch) if self.as_tuple else batch

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.network(images))
        return logits

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        images, targets = batch
        self.batches.append((images.clone(), targets.clone()))
        return F.cross_entropy(self(images), targets)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def loader() -> DataLoader[tuple[Tensor, ...]]:
    # The last batch is short.
    images = torch.rand(14, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    return DataLoader(TensorDataset(images, torch.arange(14) % 3), batch_size=4)


def fitted(
    schedule: Schedule,
    folder: Path,
    *,
    module: Module | None = None,
    data: DataLoader[tuple[Tensor, ...]] | None = None,
    total_steps: int | None = None,
    **options: Any,
) -> tuple[Module, Any]:
    callbacks = importlib.import_module(MODULE)
    torch.manual_seed(0)
    module = module or Module()
    checkpoint = options.pop("checkpoint", None)
    others = options.pop("callbacks", [])
    places = options.pop("mix", {})
    mixes = callbacks.ScheduledMixCallback(
        schedule, num_classes=3, total_steps=total_steps, **places
    )
    trainer = lightning.Trainer(
        **{"max_epochs": 2, "accelerator": "cpu", "default_root_dir": folder} | options,
        callbacks=[mixes, *others],
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
    )
    data = loader() if data is None else data
    trainer.fit(module, data, ckpt_path=checkpoint, weights_only=True)
    return module, trainer


def test_a_training_sees_mixed_batches_and_soft_targets(tmp_path: Path) -> None:
    module, _ = fitted(mix_then_off(Decision(operator=Operator.RMIX), off_from=0.5), tmp_path)
    assert [len(images) for images, _ in module.batches] == [4, 4, 4, 2] * 2
    first, last = module.batches[:4], module.batches[4:]
    originals = list(loader())
    # Two images may draw themselves as partners.
    assert not torch.equal(first[0][0], originals[0][0])
    for images, targets in first:
        assert targets.shape == (len(images), 3)
        torch.testing.assert_close(targets.sum(1), torch.ones(len(images)))
    for (images, targets), (original, labels) in zip(last, originals, strict=True):
        assert torch.equal(images, original)
        assert torch.equal(targets, F.one_hot(labels, 3).float())


HALF = mix_then_off(Decision(operator=Operator.MIXUP), off_from=0.5)


def mixed_batches(module: Module) -> list[bool]:
    return [bool((targets.amax(1) < 1).any()) for _, targets in module.batches]


# Of 4 batches in an epoch: which limits, and how many batches there are then.
LIMITS: list[tuple[dict[str, Any], int]] = [
    ({"max_epochs": 2}, 8),
    ({"max_epochs": -1, "max_steps": 6}, 6),
    ({"max_epochs": 2, "max_steps": 1000}, 8),
    ({"max_epochs": 1000, "max_steps": 6}, 6),
    ({"max_epochs": 2, "limit_train_batches": 3}, 6),
    ({"max_epochs": 2, "limit_train_batches": 0.5}, 4),
    ({"max_epochs": 2, "accumulate_grad_batches": 2}, 8),
    ({"max_epochs": 3, "max_steps": 4, "accumulate_grad_batches": 2}, 8),
    # The last step of an epoch takes the one batch that is left.
    ({"max_epochs": -1, "max_steps": 4, "accumulate_grad_batches": 3}, 8),
    ({"max_epochs": 9, "max_steps": 3, "accumulate_grad_batches": 3}, 7),
    ({"max_epochs": 2, "max_steps": 1000, "accumulate_grad_batches": 8}, 8),
]


@pytest.mark.parametrize(("limits", "count"), LIMITS)
def test_a_schedule_is_as_long_as_the_trainer_runs(
    tmp_path: Path, limits: dict[str, Any], count: int
) -> None:
    module, _ = fitted(HALF, tmp_path, **limits)
    first = -(-count // 2)
    assert mixed_batches(module) == [True] * first + [False] * (count - first)


class Stream(IterableDataset[tuple[Tensor, int]]):
    """Images without a known number."""

    def __iter__(self) -> Iterator[tuple[Tensor, int]]:
        return ((torch.rand(1, 8, 8), index % 3) for index in range(16))


def stream() -> Any:
    return DataLoader(Stream(), batch_size=4)


@pytest.mark.parametrize("limits", [{"max_epochs": 2}, {"max_epochs": 2, "max_steps": 6}])
def test_a_stream_has_no_length(tmp_path: Path, limits: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"total_steps: .* data has no length; give total_steps"):
        fitted(HALF, tmp_path, data=stream(), **limits)


@pytest.mark.parametrize(
    "limits",
    [
        {"max_epochs": 2, "total_steps": 8},
        {"max_epochs": -1, "max_steps": 8},
        {"max_epochs": 2, "limit_train_batches": 4},
    ],
)
def test_a_stream_with_a_length_that_is_said(tmp_path: Path, limits: dict[str, Any]) -> None:
    module, _ = fitted(HALF, tmp_path, data=stream(), **limits)
    assert mixed_batches(module) == [True] * 4 + [False] * 4


def test_runs_whose_end_is_not_known(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the training run has no end"):
        fitted(HALF, tmp_path, max_epochs=-1)
    changing = lightning.callbacks.GradientAccumulationScheduler({0: 1, 1: 2})
    with pytest.raises(ValueError, match="the accumulation changes"):
        fitted(HALF, tmp_path, callbacks=[changing], max_steps=4)
    manual = Module()
    manual.automatic_optimization = False
    with pytest.raises(ValueError, match="max_steps counts the steps of your own optimizers"):
        fitted(HALF, tmp_path, module=manual, max_steps=4)
    with pytest.warns(UserWarning, match="total_steps: expected a number for a run that its time"):
        fitted(HALF, tmp_path, max_epochs=1, max_time={"hours": 1})


@pytest.mark.parametrize("total_steps", [0, math.nan, math.inf, -1, 3.0, True])
def test_lengths_that_are_none(total_steps: Any) -> None:
    callback = importlib.import_module(MODULE).ScheduledMixCallback
    with pytest.raises(ValueError, match="total_steps: expected a whole number, 1 or more"):
        callback(HALF, num_classes=3, total_steps=total_steps)


def test_what_a_later_operator_needs_is_checked_at_the_first_batch(tmp_path: Path) -> None:
    class Loss(Module):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images).sum()

    late = even_schedule([Decision(operator=name) for name in ["mixup"] * 7 + ["rmix"]])
    module = Loss()
    with pytest.raises(ValueError, match=r"saliency: expected logits .*, got logits \(\)"):
        fitted(late, tmp_path, module=module)
    assert not module.batches


def test_a_checkpoint_continues_with_the_same_batches(tmp_path: Path) -> None:
    schedule = constant_schedule(Decision(operator=Operator.RECURSIVEMIX))
    whole, _ = fitted(schedule, tmp_path)
    _, trainer = fitted(schedule, tmp_path, max_epochs=1)
    trainer.save_checkpoint(tmp_path / "state.ckpt")
    # `total_steps` differs between the two runs, but the schedule is constant.
    second, _ = fitted(schedule, tmp_path, checkpoint=tmp_path / "state.ckpt")
    assert len(second.batches) == 4
    for (images, targets), expected in zip(second.batches, whole.batches[4:], strict=True):
        assert torch.equal(images, expected[0])
        assert torch.equal(targets, expected[1])


class Pair(NamedTuple):
    image: Tensor
    label: Tensor


MAKERS: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "list": lambda images, labels: [images, labels],
    "longer list": lambda images, labels: [images, labels, torch.arange(len(labels))],
    "tuple": lambda images, labels: (images, labels),
    "named tuple": Pair,
    "dictionary": lambda images, labels: {"image": images, "label": labels},
}


class Transferring(Module):
    """Makes batches of another kind, and records what it trains on as pairs."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return MAKERS[self.kind](*batch)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        assert type(batch) is type(MAKERS[self.kind](torch.ones(1), torch.ones(1)))
        items = list(batch.values()) if isinstance(batch, dict) else list(batch)
        return super().training_step(items[:2], batch_idx)


@pytest.mark.parametrize("kind", MAKERS)
def test_batches_of_any_kind(tmp_path: Path, kind: str) -> None:
    mixin: Any = importlib.import_module(MODULE).MixedBatches
    names = {"images": "image", "labels": "label"} if kind == "dictionary" else {}
    schedule = constant_schedule(Decision(operator=Operator.MIXUP))
    expected, _ = fitted(schedule, tmp_path)
    modules = [type("Mixed", (mixin, Transferring), {})(kind)]
    if "tuple" not in kind:
        modules.append(Transferring(kind))
    for module in modules:
        trained, _ = fitted(schedule, tmp_path, module=module, mix=names)
        assert len(trained.batches) == len(expected.batches)
        for (images, targets), (others, soft) in zip(
            trained.batches, expected.batches, strict=True
        ):
            assert torch.equal(images, others)
            assert torch.equal(targets, soft)


def test_a_dictionary_without_its_names_is_refused(tmp_path: Path) -> None:
    schedule = constant_schedule(Decision(operator=Operator.MIXUP))
    with pytest.raises(TypeError, match=r"images in 0 and labels in 1, got a dict of image, label"):
        fitted(schedule, tmp_path, module=Transferring("dictionary"))


def test_a_checkpoint_without_the_state_says_where_the_run_is(tmp_path: Path) -> None:
    schedule = mix_then_off(Decision(operator=Operator.MIXUP), off_from=0.75)
    whole, _ = fitted(schedule, tmp_path)
    _, trainer = fitted(schedule, tmp_path, max_epochs=1)
    trainer.save_checkpoint(tmp_path / "state.ckpt")
    state = torch.load(tmp_path / "state.ckpt", weights_only=True)
    assert len(state["callbacks"]) == 1
    torch.save(state | {"callbacks": {}}, tmp_path / "state.ckpt")
    second, _ = fitted(schedule, tmp_path, checkpoint=tmp_path / "state.ckpt")
    assert len(second.batches) == 4
    for (images, targets), expected in zip(second.batches, whole.batches[4:], strict=True):
        assert torch.equal(images, expected[0])
        assert torch.equal(targets, expected[1])


def test_a_tuple_is_refused_with_the_way_out(tmp_path: Path) -> None:
    schedule = constant_schedule(Decision(operator=Operator.MIXUP))
    with pytest.raises(TypeError, match=r"got a tuple of 2.*on_after_batch_transfer"):
        fitted(schedule, tmp_path, module=Module(as_tuple=True))


def test_without_lightning_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lightning.pytorch", None)
    monkeypatch.delitem(sys.modules, MODULE, raising=False)
    with pytest.raises(MissingExtraError, match=r"expected the extra lightning \(pip install"):
        importlib.import_module(MODULE)
