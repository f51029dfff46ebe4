"""Work for the processes of `test_distributed`; each function runs in each process of a world."""

import copy
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from automix.configuration.task import SaliencyConfig
from automix.configuration.trainer import TrainerConfig
from automix.data.splits import Split
from automix.errors import AutoMixError
from automix.mixture import Decision, Mixing
from automix.training import distributed
from automix.training.metrics import EvalMetrics, RunningSums, TrainMetrics
from automix.training.trainer import ClassifierTrainer, build_trainer
from tests.training.conftest import TASK
from tests.training.plain_network import digits, plain_trainer

SIZES = range(1, 18)


@dataclass(frozen=True, kw_only=True)
class Watched(Split):
    """A split that notes which of its images are read."""

    read_images: list[int] = field(default_factory=list)

    def read(self, start: int, stop: int) -> Tensor:
        self.read_images.extend(range(len(self))[start:stop])
        return super().read(start, stop)


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The images that one process read of a split, and its results."""

    read_images: list[int]
    logits: Tensor
    metrics: EvalMetrics


def evaluations() -> list[Evaluation]:
    """Evaluate an untrained network on splits of each of `SIZES`."""
    trainer = bn_trainer()
    results = []
    for size in SIZES:
        split = digits().train.subset(torch.arange(size))
        watched = Watched(images=split.images, labels=split.labels, num_classes=split.num_classes)
        logits = trainer.logits(watched)
        read_images = list(watched.read_images)
        metrics = trainer.evaluate(watched)
        results.append(Evaluation(read_images=read_images, logits=logits, metrics=metrics))
    return results


def bn_trainer(seed: int = 0, **fields: Any) -> ClassifierTrainer:
    """Return a trainer of a network with batch norm."""
    saliency = SaliencyConfig(refresh_every=fields.pop("refresh_every", 1))
    config = TrainerConfig.model_validate(TASK.trainer.model_dump() | {"batch_size": 12} | fields)
    task = TASK.model_copy(update={"trainer": config, "saliency": saliency})
    return build_trainer(task, digits(), seed=seed)


def plain_run(decisions: Sequence[Mixing], fields: dict[str, Any]) -> list[TrainMetrics]:
    """Train one step by each decision; each metrics are those of one step."""
    trainer = plain_trainer(**fields)
    return [trainer.train(decision, num_steps=1) for decision in decisions]


def digests(decision: Decision) -> list[str]:
    """Return a hash of all weights, averages and buffers after each of a few steps."""
    trainer, results = bn_trainer(), []
    for _ in range(4):
        trainer.train(decision, num_steps=1)
        results.append(digest(trainer))
    return results


def digest(trainer: ClassifierTrainer) -> str:
    state = hashlib.sha256()
    for module in (trainer.model, trainer.evaluated_model):
        for tensor in module.state_dict().values():
            state.update(tensor.numpy().tobytes())
    return state.hexdigest()


def saved(decision: Decision, fields: dict[str, Any], at: int) -> dict[str, Any]:
    """Train to the end; return the state after ``at`` steps, sums too, and the final ones."""
    trainer = bn_trainer(3, **fields)
    sums = RunningSums(trainer.device)
    trainer.train(decision, num_steps=at, sums=sums)
    middle = copy.deepcopy({"trainer": trainer.state_dict(), "sums": sums.state_dict()})
    trainer.train(decision, num_steps=trainer.total_steps - at, sums=sums)
    final = copy.deepcopy({"trainer": trainer.state_dict(), "sums": sums.state_dict()})
    return {"middle": middle, "final": final}


def resumed(state: dict[str, Any], decision: Decision, fields: dict[str, Any]) -> dict[str, Any]:
    """Load a state and train to the end; return the final state."""
    trainer = bn_trainer(9, **fields)
    trainer.train(decision, num_steps=1)
    sums = RunningSums(trainer.device)
    trainer.load_state_dict(state["trainer"])
    sums.load_state_dict(state["sums"])
    trainer.train(decision, num_steps=trainer.total_steps - trainer.step, sums=sums)
    return {"trainer": trainer.state_dict(), "sums": sums.state_dict()}


def failing_on_main() -> tuple[str, int]:
    """Fail on rank 0 alone; return what each process heard of it, and carry on together."""

    def fail() -> None:
        assert distributed.current_world().is_main
        raise OSError(28, "No space left on device", "there")

    try:
        distributed.on_main(fail)
    except (AutoMixError, OSError) as error:
        heard = f"{type(error).__name__}: {error}"
    return heard, distributed.on_main(lambda: 7)


def collectives() -> dict[str, Any]:
    """Call the functions that concern all processes."""
    world = distributed.current_world()
    tensor = torch.full((2,), float(world.rank))
    distributed.copy_from_main_([tensor])
    return {
        "world": world,
        "is_main": world.is_main,
        "sum": distributed.sum_over_processes_(torch.tensor([1.0, world.rank])).tolist(),
        "highest": distributed.highest_of_processes(world.rank, -world.rank, False),
        "of_main": distributed.on_main(lambda: {"rank": [world.rank]}),
        "from_main": tensor.tolist(),
        "gathered": distributed.gather_on_main({"ranks": [torch.tensor(world.rank)]}),
    }
