"""The loop of a replay: trains in stretches, logs, validates, saves, stops where it is asked to.

Processes that train together run it together. They stop, validate and save after the same steps;
rank 0 writes for all, and where it cannot, all of them end.
"""

import math
import time
from collections.abc import Mapping

from automix.data.splits import Split
from automix.errors import DivergedError
from automix.experiments.applied import AppliedDecisions
from automix.experiments.config import ReplayConfig
from automix.experiments.deciders import Decider
from automix.experiments.progress import ProgressBar
from automix.experiments.replay_state import Best, ReplayCheckpoints, ReplayState
from automix.experiments.runs import RunFolder
from automix.experiments.stopping import StopRequest
from automix.schedule import Decision
from automix.training.distributed import current_world, highest_of_processes, on_main
from automix.training.metrics import RunningSums, TrainMetrics
from automix.training.optimization import learning_rate_at
from automix.training.trainer import ClassifierTrainer

# Lines in metrics.jsonl of one training, changes of decision and validations apart.
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
            trainer: of a training that has not begun.
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
        """Train to the end; the last checkpoint is that of the finished training.

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
                f"{self._trainer.step}; a smaller task.trainer.peak-learning-rate may help"
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
