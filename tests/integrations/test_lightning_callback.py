"""The callback in Lightning's own trainer."""

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from automix.errors import MissingExtraError
from automix.operator_info import Operator
from automix.schedule import Decision, Schedule, constant_schedule, mix_then_off

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
    schedule: Schedule, folder: Path, *, module: Module | None = None, **options: Any
) -> tuple[Module, Any]:
    callbacks = importlib.import_module(MODULE)
    torch.manual_seed(0)
    module = module or Module()
    checkpoint = options.pop("checkpoint", None)
    trainer = lightning.Trainer(
        **{"max_epochs": 2, "accelerator": "cpu", "default_root_dir": folder} | options,
        callbacks=[callbacks.ScheduledMixCallback(schedule, num_classes=3)],
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
    )
    trainer.fit(module, loader(), ckpt_path=checkpoint, weights_only=True)
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


@pytest.mark.parametrize("limit", [{"max_epochs": -1, "max_steps": 4}, {"max_epochs": 2}])
def test_micro_batches_are_counted(tmp_path: Path, limit: dict[str, Any]) -> None:
    schedule = mix_then_off(Decision(operator=Operator.MIXUP), off_from=0.5)
    module, _ = fitted(schedule, tmp_path, accumulate_grad_batches=2, **limit)
    num_mixed = sum(bool((targets.amax(1) < 1).any()) for _, targets in module.batches)
    assert (num_mixed, len(module.batches)) == (4, 8)


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


def test_a_tuple_is_refused_with_the_way_out(tmp_path: Path) -> None:
    schedule = constant_schedule(Decision(operator=Operator.MIXUP))
    with pytest.raises(TypeError, match=r"got a tuple of 2.*on_after_batch_transfer"):
        fitted(schedule, tmp_path, module=Module(as_tuple=True))


def test_without_lightning_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lightning.pytorch", None)
    monkeypatch.delitem(sys.modules, MODULE, raising=False)
    with pytest.raises(MissingExtraError, match=r"expected the extra lightning \(pip install"):
        importlib.import_module(MODULE)
