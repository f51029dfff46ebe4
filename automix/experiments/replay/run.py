"""Replay of a schedule or policy: one training run with checkpoints, resumed bit for bit."""

import contextlib
import dataclasses
import itertools
import logging
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypedDict, cast

import torch
from torch import Tensor

from automix.data.load import load_data
from automix.data.splits import DataSet, Split
from automix.errors import CheckpointError, ConfigError, DivergedError
from automix.experiments.common.config import ReplayConfig
from automix.experiments.common.cost import CostEstimate, estimate_cost
from automix.experiments.common.progress import ProgressBar, StopRequest
from automix.experiments.common.run_folder import RunFolder, versions
from automix.experiments.common.trained_classifier import ClassifierFacts, save_classifier
from automix.experiments.replay.sources import SCHEDULE_NAME, Decider, ReplaySource
from automix.files import CheckpointFolder, read_checkpoint, write_checkpoint, write_json
from automix.schedule import Decision, decisions_hash
from automix.training.distributed import current_world, highest_of_processes, on_main
from automix.training.metrics import EvalMetrics, RunningSums, SumsState, TrainMetrics
from automix.training.optimizer import learning_rate_at
from automix.training.trainer import ClassifierTrainer, TrainerState, build_trainer, check_model

CHECKPOINTS_NAME = "checkpoints"
_BEST_NAME = "best.ckpt"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Best:
    """The best validation so far.

    Attributes:
        step: optimizer steps before it.
        metrics: on the selection split.
    """

    step: int
    metrics: EvalMetrics

    def to_plain(self) -> dict[str, Any]:
        """Return nested dicts of numbers."""
        return dataclasses.asdict(self)

    @classmethod
    def from_plain(cls, values: dict[str, Any]) -> "Best":
        """Return the validation whose `to_plain` is ``values``."""
        return cls(step=values["step"], metrics=EvalMetrics(**values["metrics"]))


class ReplayState(TypedDict):
    """A checkpoint: tensors and plain values.

    Everything in it but ``seconds`` (wall-clock time of all attempts) is a function of
    configuration, data and step.
    """

    identity: dict[str, str]
    trainer: TrainerState
    sums: SumsState
    applied: list[dict[str, Any]]
    decider: dict[str, Any]
    best: dict[str, Any] | None
    seconds: float
    metrics_lines: int


class ReplayCheckpoints:
    """The newest checkpoints of a replay, and the weights of its best validation."""

    def __init__(self, run: Path, *, keep: int, identity: Mapping[str, str]) -> None:
        """Use the folder of checkpoints in the folder of a run.

        Args:
            run: folder of the run.
            keep: how many checkpoints are kept.
            identity: what must be the same for a checkpoint to be continued, by what it is called.
        """
        self._folder = CheckpointFolder(run / CHECKPOINTS_NAME, keep=keep)
        self.identity = dict(identity)

    def save(self, state: ReplayState) -> None:
        """Write a checkpoint; only then is the oldest one removed.

        Raises:
            OSError: it cannot be written; those before it are as they were.
        """
        self._folder.save(state["trainer"]["step"], {**state})

    def load_newest(self) -> ReplayState | None:
        """Return the newest readable state, or None if there never was one.

        Raises:
            CheckpointError: there are checkpoints, but of something else, or all are damaged.
        """
        state = self._folder.load_newest()
        if state is None:
            return None
        found = state.get("identity", {})
        for name, wanted in self.identity.items():
            if found.get(name) != wanted:
                raise CheckpointError(
                    f"{self._folder.path}: expected checkpoints with {name} {wanted}, got "
                    f"{found.get(name)}; continue what was begun, or begin in another folder"
                )
        return cast("ReplayState", state)

    def save_best(self, step: int, weights: dict[str, Tensor]) -> None:
        """Write the weights of the best validation so far."""
        write_checkpoint(self._folder.path / _BEST_NAME, {"step": step, "weights": weights})

    def load_best(self, step: int) -> dict[str, Tensor]:
        """Return the weights of the best validation, which was after ``step`` optimizer steps.

        Raises:
            CheckpointError: the file that holds them is missing, damaged, or of another validation.
        """
        path = self._folder.path / _BEST_NAME
        state = read_checkpoint(path)
        if state["step"] != step:
            raise CheckpointError(
                f"{path}: expected the weights after step {step}, got those after {state['step']}"
            )
        weights: dict[str, Tensor] = state["weights"]
        return weights


class AppliedDecisions:
    """What was handed to the trainer, in order."""

    def __init__(self) -> None:
        self._runs: list[tuple[Decision, int]] = []

    def add(self, decision: Decision, num_steps: int) -> None:
        """Note that ``num_steps`` more steps followed ``decision``."""
        if self._runs and self._runs[-1][0] == decision:
            num_steps += self._runs.pop()[1]
        self._runs.append((decision, num_steps))

    def __len__(self) -> int:
        """Return how many steps have been taken."""
        return sum(count for _, count in self._runs)

    def hash(self) -> str:
        """Return the hash of the decision of every step, that of `decisions_hash`."""
        steps = (itertools.repeat(decision, count) for decision, count in self._runs)
        return decisions_hash(list(itertools.chain.from_iterable(steps)))

    def to_plain(self) -> list[dict[str, Any]]:
        """Return the first step, the step after the last, and the decision of each run."""
        stops = list(itertools.accumulate(count for _, count in self._runs))
        return [
            {"start": stop - count, "stop": stop, "decision": decision.model_dump(mode="json")}
            for (decision, count), stop in zip(self._runs, stops, strict=True)
        ]

    @classmethod
    def from_plain(cls, runs: list[dict[str, Any]]) -> Self:
        """Return the decisions whose `to_plain` is ``runs``."""
        applied = cls()
        for run in runs:
            applied.add(Decision.from_plain(run["decision"]), run["stop"] - run["start"])
        return applied


# Lines in metrics.jsonl of one training run, changes of decision and validations apart.
_LOGGED_STRETCHES = 100
# Between two looks at whether to stop or to save.
_SECONDS_PER_CHUNK = 0.25
_LONGEST_CHUNK = 1000


class ReplayLoop:
    """One training that follows a decider, and continues from its newest checkpoint.

    Attributes:
        applied: the decisions of all steps so far.
        best: the best validation so far.
    """

    def __init__(
        self,
        config: ReplayConfig,
        trainer: ClassifierTrainer,
        decider: Decider,
        run: RunFolder,
        *,
        checkpoints: ReplayCheckpoints,
        validation: Split | None,
    ) -> None:
        """Continue from the newest checkpoint, if there is one.

        Args:
            config: how often to validate and to save.
            trainer: of a training run that has not begun.
            decider: what the training follows.
            run: where numbers go; entered on rank 0 alone.
            checkpoints: where the training is kept.
            validation: images of the validations; None for none.

        Raises:
            CheckpointError: there are checkpoints, but of something else, or all are damaged.
        """
        self.applied = AppliedDecisions()
        self.best: Best | None = None
        self._config = config
        self._trainer = trainer
        self._decider = decider
        self._run = run
        self._checkpoints = checkpoints
        self._validation = validation if config.validations else None
        self._sums = RunningSums(trainer.device)
        self._seconds_before = 0.0
        self._started = self._saved_at = time.monotonic()
        self._chunk = 1
        self._world = current_world()
        self._restore()

    @property
    def seconds(self) -> float:
        """Wall-clock time of all attempts."""
        return self._seconds_before + time.monotonic() - self._started

    def run(self) -> None:
        """Train to the end; the last checkpoint is that of the finished training run.

        Raises:
            KeyboardInterrupt: somebody wanted it to stop, and what was trained is saved.
            DivergedError: the loss is not finite; no checkpoint was written since.
            OSError: a checkpoint cannot be written; those before it are as they were.
        """
        trainer, total = self._trainer, self._trainer.total_steps
        bar = ProgressBar("replay", total, done=trainer.step, is_shown=self._world.is_main)
        with StopRequest() as stop, bar:
            while trainer.step < total:
                decision = self._decider.decide(trainer)
                limit = next_mark(trainer.step, total, _LOGGED_STRETCHES)
                end = self._decider.holds_until(trainer.step, limit=limit, num_steps=total)
                while trainer.step < end:
                    count = self._train_chunk(decision, end)
                    if trainer.step == end:
                        self._end_stretch(decision)
                    if self._is_validated(trainer.step):
                        self._validate()
                    bar.advance(count, note=self._note(decision))
                    is_stopped, is_due = self._look_up(is_stopped=stop.is_made)
                    if is_stopped or is_due or self._is_saved(trainer.step):
                        self._save()
                    if is_stopped:
                        raise KeyboardInterrupt

    def _train_chunk(self, decision: Decision, end: int) -> int:
        """Train a few steps, at most up to ``end``; return how many."""
        step = self._trainer.step
        count = min(end, step + self._chunk, self._next_stop()) - step
        started = time.perf_counter()
        self._trainer.run(decision, self._sums, num_steps=count)
        seconds = time.perf_counter() - started
        self.applied.add(decision, count)
        wanted = round(_SECONDS_PER_CHUNK * count / max(seconds, 1e-9))
        self._chunk = min(max(wanted, 1), 2 * self._chunk, _LONGEST_CHUNK)
        return count

    def _look_up(self, *, is_stopped: bool) -> tuple[bool, bool]:
        """Return whether to stop and whether a checkpoint is due: the same in all processes.

        So is, afterwards, the number of steps until the next time. Processes that train together
        wait for one another at every step; here, a few times per second, their hosts do too.
        """
        every_minutes = self._config.checkpoints.every_minutes
        minutes = (time.monotonic() - self._saved_at) / 60
        is_due = self._world.is_main and every_minutes is not None and minutes >= every_minutes
        stops, dues, negative = highest_of_processes(is_stopped, is_due, -self._chunk)
        self._chunk = -negative
        return bool(stops), bool(dues)

    def _next_stop(self) -> int:
        """Return the next step after which to validate or to save."""
        step, total = self._trainer.step, self._trainer.total_steps
        stops = [total]
        if self._validation is not None:
            stops.append(next_mark(step, total, self._config.validations))
        if (every := self._config.checkpoints.every_steps) is not None:
            stops.append((step // every + 1) * every)
        return min(stops)

    def _is_validated(self, step: int) -> bool:
        if self._validation is None:
            return False
        return next_mark(step - 1, self._trainer.total_steps, self._config.validations) == step

    def _is_saved(self, step: int) -> bool:
        every_steps = self._config.checkpoints.every_steps
        is_last = step == self._trainer.total_steps
        return is_last or (every_steps is not None and step % every_steps == 0)

    def _end_stretch(self, decision: Decision) -> None:
        metrics = self._finite_metrics()
        self._sums = RunningSums(self._trainer.device)
        self._decider.take_in(metrics)
        self._log(
            {
                "train/loss": metrics.loss,
                "train/clean_accuracy": metrics.clean_accuracy,
                "train/mixed_accuracy": metrics.mixed_accuracy,
                "train/mixed_share": metrics.mixed_share,
                "train/images_per_second": metrics.images_per_second,
                "train/learning_rate": learning_rate_at(
                    self._trainer.config, self._trainer.progress
                ),
                f"operator/{decision.operator.value}": metrics.mixed_share,
                "decision": decision.label(),
            }
        )

    def _log(self, values: Mapping[str, float | str | None]) -> None:
        known = {name: value for name, value in values.items() if value is not None}
        on_main(lambda: self._run.log(self._trainer.step, known))

    def _finite_metrics(self) -> TrainMetrics:
        metrics = self._sums.read()
        if not math.isfinite(metrics.loss):
            raise DivergedError(
                f"{self._run.path}: expected a finite loss, got {metrics.loss} before step "
                f"{self._trainer.step}; a smaller task.trainer.learning-rate may help"
            )
        return metrics

    def _validate(self) -> None:
        assert self._validation is not None
        self._finite_metrics()
        step = self._trainer.step
        metrics = self._trainer.evaluate(self._validation)
        names = ("nll", "calibrated_nll", "accuracy", "temperature")
        self._log({f"selection/{name}": getattr(metrics, name) for name in names})
        if self.best is None or metrics.calibrated_nll < self.best.metrics.calibrated_nll:
            self.best = Best(step=step, metrics=metrics)
            weights = self._trainer.evaluated_model.state_dict()
            on_main(lambda: self._checkpoints.save_best(step, weights))

    def _note(self, decision: Decision) -> str:
        if self.best is None:
            return decision.label()
        return f"{decision.label()}, best selection NLL {self.best.metrics.calibrated_nll:.4f}"

    def _save(self) -> None:
        # Nobody wants to continue from weights that are not numbers.
        self._finite_metrics()
        state = ReplayState(
            identity=self._checkpoints.identity,
            trainer=self._trainer.state_dict(),
            sums=self._sums.state_dict(),
            applied=self.applied.to_plain(),
            decider=self._decider.state_dict(),
            best=self.best.to_plain() if self.best else None,
            seconds=self.seconds,
            metrics_lines=on_main(lambda: self._run.metrics_lines),
        )
        on_main(lambda: self._checkpoints.save(state))
        self._saved_at = time.monotonic()

    def _restore(self) -> None:
        state = on_main(self._checkpoints.load_newest)
        if state is None:
            on_main(lambda: self._run.keep_metrics(0))
            return
        self._trainer.load_state_dict(state["trainer"])
        self._sums.load_state_dict(state["sums"])
        self.applied = AppliedDecisions.from_plain(state["applied"])
        self._decider.load_state_dict(state["decider"])
        self.best = Best.from_plain(state["best"]) if state["best"] else None
        self._seconds_before = state["seconds"]
        lines, next_step = state["metrics_lines"], self._trainer.step + 1
        on_main(lambda: self._run.keep_metrics(lines, next_step=next_step))


def next_mark(step: int, total: int, count: int) -> int:
    """Return the first step after ``step`` at which one of ``count`` equal parts ends.

    Args:
        step: 0 or more, less than ``total``.
        total: steps of the training, where the last part ends.
        count: number of parts, at least 1; with more parts than steps, every step ends one.
    """
    return -(-(step * count // total + 1) * total // count)


DECISIONS_NAME = "decisions.json"
_LOG = logging.getLogger(__name__)


def replay(config: ReplayConfig, source: ReplaySource, output: Path) -> dict[str, Any]:
    """Train as ``source`` says in ``output``; return the result, also if it is there already.

    An interrupted run in ``output`` is continued from its newest checkpoint, bit for bit. The
    classifier (averaged weights, if any) is written as safetensors.

    Raises:
        AutoMixError: data or folder do not fit, or the training diverged.
        KeyboardInterrupt: it was asked to stop; what was trained is saved.
    """
    data = load_data(config.task.data)
    check_model(config.task, data.seen)
    validation = _validation(config, data)
    torch.set_num_threads(config.compute.threads)
    trainer = build_trainer(config.task, data.seen, seed=config.seed)
    decider = source.decider(config.task, data.seen, num_steps=trainer.total_steps)
    with contextlib.ExitStack() as stack:
        run = RunFolder(output, config)
        on_main(lambda: _enter(stack, run))
        if (finished := on_main(lambda: _result_of(run))) is not None:
            return finished
        on_main(lambda: source.claim(output))
        checkpoints = ReplayCheckpoints(
            output,
            keep=config.checkpoints.keep,
            identity={
                "configuration": config.content_hash(),
                **source.identity,
                "data": data.fingerprint,
                "number of processes": str(current_world().size),
            },
        )
        loop = ReplayLoop(
            config, trainer, decider, run, checkpoints=checkpoints, validation=validation
        )
        loop.run()
        schedule = decider.schedule()
        applied = check_decisions(
            loop.applied, schedule.decisions(trainer.total_steps), where=output
        )
        if config.weights == "best" and (best := loop.best) is not None:
            weights = on_main(lambda: checkpoints.load_best(best.step))
            trainer.evaluated_model.load_state_dict(weights)
        result = _result(config, data, trainer, loop)
        result |= {
            "follows": source.identity,
            "schedule_hash": schedule.decision_hash(),
            "decisions_hash": applied,
        }

        def finish() -> None:
            decisions = {"hash": applied, "runs": loop.applied.to_plain()}
            write_json(output / DECISIONS_NAME, decisions)
            # Of a policy, it is known only now.
            schedule.save(output / SCHEDULE_NAME)
            save_classifier(output, _facts(config, data, result), trainer.evaluated_model)
            run.finish(result)

        on_main(finish)
        return result


def predict_cost(config: ReplayConfig, source: ReplaySource) -> CostEstimate:
    """Return what `replay` will cost, measured on a few steps; nothing is written."""
    return estimate_cost(
        config.task,
        load_data(config.task.data).seen,
        operators=source.operators,
        num_trainings=1,
        evaluations_per_training=2 + config.validations,
        compute=config.compute.model_copy(update={"workers": 1}),
    )


def check_decisions(
    applied: AppliedDecisions, wanted_decisions: Sequence[Decision], *, where: Path
) -> str:
    """Return the hash of the decisions that the steps followed.

    Args:
        applied: what the trainer was told, step by step.
        wanted_decisions: what the schedule says for every step of the training.
        where: folder of the run.

    Raises:
        CheckpointError: they are not the same.
    """
    found = applied.hash()
    wanted = decisions_hash(wanted_decisions)
    if found != wanted:
        raise CheckpointError(
            f"{where}: expected steps that followed the decisions {wanted} of the schedule, "
            f"got {found}; start anew in an empty folder"
        )
    return found


def _enter(stack: contextlib.ExitStack, run: RunFolder) -> None:
    stack.enter_context(run)


def _result_of(run: RunFolder) -> dict[str, Any] | None:
    return run.read_result() if run.is_finished else None


def _validation(config: ReplayConfig, data: DataSet) -> Split | None:
    """Return the selection split, or None where there is none.

    Raises:
        ConfigError: there is none, and the best weights on it are wanted.
    """
    if len(data.seen.selection):
        return data.seen.selection
    if config.weights == "best":
        raise ConfigError(
            "weights: expected last without a selection split (task.data.selection-size 0), got "
            "best"
        )
    if config.validations:
        _LOG.info("no selection split: nothing is evaluated during training, no best is kept")
    return None


def _result(
    config: ReplayConfig, data: DataSet, trainer: ClassifierTrainer, loop: ReplayLoop
) -> dict[str, Any]:
    selection = data.seen.selection
    step = trainer.total_steps
    if config.weights == "best" and loop.best is not None:
        step = loop.best.step
    return {
        "kind": "replay",
        "test": dataclasses.asdict(trainer.evaluate(data.test)),
        "selection": dataclasses.asdict(trainer.evaluate(selection)) if len(selection) else None,
        "best": loop.best.to_plain() if loop.best else None,
        "weights": {"which": config.weights, "step": step},
        "seed": config.seed,
        "steps": trainer.total_steps,
        "seconds": loop.seconds,
        "data": data.fingerprint,
    }


def _facts(config: ReplayConfig, data: DataSet, result: dict[str, Any]) -> ClassifierFacts:
    statistics = data.statistics
    return ClassifierFacts(
        model=config.task.model.model_copy(update={"weights": None}),
        class_names=data.class_names,
        image_shape=data.seen.image_shape,
        mean=statistics.mean,
        std=statistics.std,
        provenance={
            "config": config.content_hash(),
            "schedule": result["schedule_hash"],
            "data": data.fingerprint,
            "seed": str(config.seed),
            "step": str(result["weights"]["step"]),
            **versions(),
        },
    )
