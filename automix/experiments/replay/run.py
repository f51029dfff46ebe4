"""Replay of a schedule or policy: one training run with checkpoints, resumed bit for bit.

Following a schedule needs neither Gymnasium nor Stable-Baselines3; a policy is in a module of its
own, `automix.experiments.replay.policy`.
"""

import contextlib
import dataclasses
import logging
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from automix.configuration.task import ReplayConfig
from automix.data.load import load_data
from automix.data.splits import Dataset, Split
from automix.errors import CheckpointError, ConfigError, DivergedError
from automix.experiments.common.cost import CostEstimate, estimate_cost
from automix.experiments.common.kept_files import keep
from automix.experiments.common.run_folder import ProgressBar, RunFolder, StopRequest, versions
from automix.experiments.common.saved_classifier import (
    FACTS_NAME,
    WEIGHTS_NAME,
    ClassifierFacts,
    save_classifier,
)
from automix.experiments.replay.applied import check_applied, check_decisions, note_applied
from automix.experiments.replay.deciders import SCHEDULE_NAME, Decider, ReplaySource
from automix.experiments.replay.final_test import final_picture, final_scores
from automix.experiments.replay.saved_state import STATE_FIELDS, check_best, read_best
from automix.files import CheckpointFolder, write_checkpoint, write_json
from automix.mixing import StepKey, draw_decision
from automix.mixture import Mixture
from automix.models.pretrained import images_of
from automix.readers import parsing
from automix.training.check import check_model
from automix.training.distributed import current_world, highest_of_processes, on_main
from automix.training.metrics import RunningSums, TrainMetrics
from automix.training.trainer import ClassifierTrainer, build_trainer

DECISIONS_NAME = "decisions.json"
CHECKPOINTS_NAME = "checkpoints"
_BEST_NAME = "best.ckpt"

# Lines in metrics.jsonl of one training run, changes of decision and validations apart.
_LOGGED_STRETCHES = 100
# Between two checks whether to stop or to save: a Ctrl-C is answered at once, and the clock and
# the other processes are asked so rarely that it costs nothing.
_SECONDS_PER_CHUNK = 0.25
_LONGEST_CHUNK = 1000

_LOG = logging.getLogger(__name__)


def replay(config: ReplayConfig, source: ReplaySource, output: Path) -> dict[str, Any]:
    """Train as ``source`` says in ``output``; return the result, also if it is there already.

    An interrupted run in ``output`` is resumed from its newest checkpoint, bit for bit. The
    classifier (averaged weights, if any) is written as safetensors.

    Raises:
        AutoMixError: data or folder do not fit, or the training run diverged.
        KeyboardInterrupt: it was asked to stop; what was trained is saved.
    """
    # All that can be wrong with data, model and source is noticed before anything is written.
    data = load_data(images_of(config.task))
    check_model(config.task, data.seen, operators=source.operators)
    selection = _selection_split(config, data)
    torch.set_num_threads(config.compute.threads)
    trainer = build_trainer(config.task, data.seen, seed=config.seed)
    decider = source.decider(config.task, data.seen, num_steps=trainer.total_steps)
    run = RunFolder(output, config)
    with contextlib.ExitStack() as stack:
        # Files are written by rank 0 alone; the other processes get its result, or its error.
        if (finished := on_main(lambda: stack.enter_context(run).result())) is not None:
            return finished
        on_main(lambda: source.claim(output))
        # A checkpoint can be resumed only where all of this is the same.
        identity = {
            "configuration": config.content_hash(),
            **source.identity,
            "data": data.fingerprint,
            "number of processes": str(current_world().size),
        }
        loop = ReplayLoop(config, trainer, decider, run, selection=selection, identity=identity)
        loop.train()
        return _finish(config, data, loop, source, run)


def _finish(
    config: ReplayConfig,
    data: Dataset,
    loop: "ReplayLoop",
    source: ReplaySource,
    run: RunFolder,
) -> dict[str, Any]:
    """Evaluate the trained classifier, write it with its result, and return the result."""
    trainer, step = loop.trainer, loop.trainer.total_steps
    # The schedule of a policy is known only now.
    schedule = loop.decider.schedule
    schedule_hash = schedule.decision_hash()
    applied_hash = check_decisions(loop.applied, schedule.mixtures(step), where=run.path)
    if config.weights == "best" and loop.best is not None:
        step = loop.best["step"]
        trainer.evaluated_model.load_state_dict(on_main(lambda: loop.load_best(step)))
    result = {
        "kind": "replay",
        **final_scores(trainer, data),
        "best": loop.best,
        "weights": {"which": config.weights, "step": step},
        "seed": config.seed,
        "steps": trainer.total_steps,
        "seconds": loop.seconds,
        "data": data.fingerprint,
        "follows": source.identity,
        "schedule_hash": schedule_hash,
        "decisions_hash": applied_hash,
    }

    def write() -> None:
        write_json(run.path / DECISIONS_NAME, {"hash": applied_hash, "runs": loop.applied})
        keep(run.path, SCHEDULE_NAME, schedule.to_json().encode())
        provenance = {
            "config": config.content_hash(),
            "schedule": schedule_hash,
            "data": data.fingerprint,
            "seed": str(config.seed),
            "step": str(step),
            **versions(),
        }
        facts = ClassifierFacts.of(config.task.model, data, provenance=provenance)
        save_classifier(run.path, facts, trainer.evaluated_model)
        result["picture"] = final_picture(trainer, data, schedule, run.path, config.task)
        # Last, because it says that the others are there.
        run.finish(result, outputs=(DECISIONS_NAME, FACTS_NAME, WEIGHTS_NAME))

    on_main(write)
    return result


def predict_cost(config: ReplayConfig, source: ReplaySource) -> CostEstimate:
    """Return what `replay` will cost, measured on a few steps; nothing is written."""
    return estimate_cost(
        config.task,
        load_data(images_of(config.task)).seen,
        operators=source.operators,
        num_runs=1,
        evaluations_per_run=2 + config.validations,
        compute=config.compute.model_copy(update={"workers": 1}),
    )


class ReplayLoop:
    """One training run that follows a decider, resumed from its newest checkpoint if there is one.

    `applied` holds the decisions of all steps so far, each from a `start` to the step before its
    `stop`; `best`, the best validation so far: its `metrics`, and the `step` that it followed.
    `trainer` and `decider` are those of the run.
    """

    def __init__(
        self,
        config: ReplayConfig,
        trainer: ClassifierTrainer,
        decider: Decider,
        run: RunFolder,
        *,
        selection: Split | None,
        identity: dict[str, str],
    ) -> None:
        """Resume from the newest checkpoint, or begin; ``run`` is entered on rank 0 alone."""
        self.applied: list[dict[str, Any]] = []
        self.best: dict[str, Any] | None = None
        self._config = config
        self.trainer = trainer
        self.decider = decider
        self._run = run
        self._selection = selection
        self._identity = identity
        self._checkpoints = CheckpointFolder(
            run.path / CHECKPOINTS_NAME, keep=config.checkpoints.keep, fields=STATE_FIELDS
        )
        self._sums = RunningSums(trainer.device)
        self._started = self._saved_at = time.monotonic()
        self._lost_best: int | None = None
        self._restore()

    @property
    def seconds(self) -> float:
        """Wall-clock time of all attempts."""
        return time.monotonic() - self._started

    def train(self) -> None:
        """Train to the end; on `KeyboardInterrupt`, what was trained is saved."""
        trainer, total, config = self.trainer, self.trainer.total_steps, self._config
        world, chunk = current_world(), 1
        bar = ProgressBar("replay", total, done=trainer.step, is_shown=world.is_main)
        with StopRequest() as stop, bar:
            while (step := trainer.step) < total:
                # Decide, and find the next step after which something else has to be done.
                logged_at = next_mark(step, total, _LOGGED_STRETCHES)
                mixture, stretch_end = self.decider.decide(trainer, limit=logged_at)
                validated_at = (
                    next_mark(step, total, config.validations) if self._selection else total + 1
                )
                every = config.checkpoints.every_steps or total
                saved_at = min((step // every + 1) * every, total)

                # Train up to it, but not for long. The host does not wait for the device here.
                end = min(step + chunk, stretch_end, validated_at, saved_at)
                started = time.perf_counter()
                trainer.train(mixture, num_steps=end - step, sums=self._sums)
                seconds = time.perf_counter() - started
                note_applied(self.applied, mixture, stop=end)

                # Log and validate. Both wait for the device.
                if end == stretch_end:
                    self._end_stretch(mixture)
                if end == validated_at:
                    self._validate()
                note = mixture.label()
                if self.best:
                    note += f", best selection NLL {self.best['metrics']['calibrated_nll']:.4f}"
                bar.advance(end - step, note=note)

                # Agree with the other processes on whether to stop, whether a checkpoint is due by
                # time, and on the number of steps until the next time they agree: the fewest that
                # one of them wants. They wait for one another at every step anyway.
                chunk = min(
                    max(round(_SECONDS_PER_CHUNK * (end - step) / max(seconds, 1e-9)), 1),
                    2 * chunk,
                    _LONGEST_CHUNK,
                )
                is_stopped, is_due, negative = highest_of_processes(
                    stop.is_made, world.is_main and self._is_due(), -chunk
                )
                chunk = -negative
                if is_stopped or is_due or end == saved_at:
                    self._save()
                if is_stopped:
                    raise KeyboardInterrupt

    def load_best(self, step: int) -> dict[str, Tensor]:
        """Return the weights of the best validation, which was after ``step`` optimizer steps."""
        path = self._checkpoints.path / _BEST_NAME
        state = read_best(path)
        if state["step"] != step:
            raise CheckpointError(
                f"{path}: expected the weights after step {step}, got those after {state['step']}"
            )
        return state["weights"]  # type: ignore[no-any-return]

    def _is_due(self) -> bool:
        minutes = self._config.checkpoints.every_minutes
        return minutes is not None and time.monotonic() - self._saved_at >= 60 * minutes

    def _end_stretch(self, mixture: Mixture) -> None:
        metrics = self._finite_metrics()
        self._sums = RunningSums(self.trainer.device)
        self.decider.take_in(metrics)
        self._log(
            {
                "train/loss": metrics.loss,
                "train/clean_accuracy": metrics.clean_accuracy,
                "train/mixed_accuracy": metrics.mixed_accuracy,
                "train/mixed_fraction": metrics.mixed_fraction,
                "train/images_per_second": metrics.images_per_second,
                "train/learning_rate": self.trainer.config.learning_rate_at(self.trainer.progress),
                **self._fractions(mixture, metrics),
                "decision": mixture.label(),
            }
        )

    def _fractions(self, mixture: Mixture, metrics: TrainMetrics) -> dict[str, float]:
        """Return the fraction of the images of a stretch that each operator mixed, to be logged."""
        if len(mixture.decisions) == 1:
            return {f"operator/{mixture.decision.operator.value}": metrics.mixed_fraction}
        # All processes and micro-batches of a step draw the same: it is drawn again to be counted.
        stop, count = self.trainer.step, metrics.num_images // self.trainer.batch_size
        drawn = [
            decision.operator
            for step in range(stop - count, stop)
            if (decision := draw_decision(mixture, StepKey(seed=self.trainer.seed, step=step)))
        ]
        return {f"operator/{it.value}": drawn.count(it) / count for it in mixture.operators}

    def _validate(self) -> None:
        assert self._selection is not None
        self._finite_metrics()
        step = self.trainer.step
        metrics = dataclasses.asdict(self.trainer.evaluate(self._selection))
        names = ("nll", "calibrated_nll", "accuracy", "temperature")
        self._log({f"selection/{name}": metrics[name] for name in names})
        # Calibrated: mixing makes a network underconfident, which plain NLL punishes.
        nll = metrics["calibrated_nll"]
        if self.best is None or nll < self.best["metrics"]["calibrated_nll"]:
            self.best = {"step": step, "metrics": metrics}
            state = {"step": step, "weights": self.trainer.evaluated_model.state_dict()}
            on_main(lambda: write_checkpoint(self._checkpoints.path / _BEST_NAME, state))

    def _finite_metrics(self) -> TrainMetrics:
        metrics = self._sums.read()
        if not math.isfinite(metrics.loss):
            raise DivergedError(
                f"{self._run.path}: expected a finite loss, got {metrics.loss} before step "
                f"{self.trainer.step}; a smaller task.trainer.learning-rate may help"
            )
        return metrics

    def _log(self, values: Mapping[str, float | str | None]) -> None:
        defined = {name: value for name, value in values.items() if value is not None}
        on_main(lambda: self._run.log(self.trainer.step, defined))

    def _save(self) -> None:
        # Weights that are not numbers would replace the checkpoint that can still be resumed.
        self._finite_metrics()
        # All of it but the seconds is a function of configuration, data and step.
        state = {
            "identity": self._identity,
            "trainer": self.trainer.state_dict(),
            "sums": self._sums.state_dict(),
            "applied": self.applied,
            "decider": self.decider.state_dict(),
            "best": self.best,
            "seconds": self.seconds,
            "metrics": on_main(self._run.metrics_text),
        }
        on_main(lambda: self._checkpoints.save(self.trainer.step, state))
        self._saved_at = time.monotonic()

    def _restore(self) -> None:
        state = on_main(self._load_newest)
        if state is None:
            on_main(lambda: self._run.restore_metrics(""))
            return
        # Its sum is right, so that it is whole; but it may be another program's.
        with parsing(str(self._checkpoints.path), "the state of a training run like this one"):
            self.trainer.load_state_dict(state["trainer"])
            self._sums.load_state_dict(state["sums"])
            check_applied(state["applied"], self.trainer.step)
            self.decider.load_state_dict(state["decider"])
        self.applied, self.best = state["applied"], state["best"]
        self._started -= state["seconds"]
        # Steps after the checkpoint are trained again, and logged again.
        text, next_step = state["metrics"], self.trainer.step + 1
        on_main(lambda: self._run.restore_metrics(text, next_step=next_step))

    def _load_newest(self) -> dict[str, Any] | None:
        state = self._checkpoints.load_newest(check=self._check_best)
        saved = state.get("identity", {}) if state else self._identity
        for name, value in self._identity.items():
            if saved.get(name) != value:
                raise CheckpointError(
                    f"{self._checkpoints.path}: expected checkpoints with {name} {value}, got "
                    f"{saved.get(name)}; continue what was begun, or begin in another folder"
                )
        return state

    def _check_best(self, state: dict[str, Any]) -> None:
        """Refuse a checkpoint whose best weights are lost, unless it comes before them."""
        check_best(state["best"], source=str(self._checkpoints.path))
        if self._config.weights != "best" or state.get("best") is None:
            return
        path, step = self._checkpoints.path / _BEST_NAME, state["best"]["step"]
        # What a later checkpoint calls the best is found again on the way there.
        if self._lost_best is not None and step < self._lost_best:
            return
        try:
            # Later ones come from steps after the checkpoint, which are trained again.
            is_lost = read_best(path)["step"] < step
        except CheckpointError:
            is_lost = True
        if is_lost:
            self._lost_best = step
            raise CheckpointError(
                f"{path}: expected the weights after step {step}, got others or a damaged file"
            )


def next_mark(step: int, total: int, count: int) -> int:
    """Return the first step after ``step``, of ``total``, where one of ``count`` equal parts ends.

    With more parts than steps, every step ends one.
    """
    # Part p ends at ceil(p * total / count): of the first p that is above step * count / total.
    return -(-(step * count // total + 1) * total // count)


def _selection_split(config: ReplayConfig, data: Dataset) -> Split | None:
    """Return the images of the validations, or None where nothing is validated."""
    if len(data.seen.selection):
        return data.seen.selection if config.validations else None
    if config.weights == "best":
        raise ConfigError(
            "weights: expected last without a selection split (task.data.selection-size 0), got "
            "best"
        )
    if config.validations:
        _LOG.info("no selection split: nothing is evaluated during training, no best is kept")
    return None
