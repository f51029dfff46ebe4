"""One run of a command: its folder, progress on screen, a request to stop, finished units.

Every experiment has the same skeleton::

    with RunFolder(output, config) as run:
        if (result := run.result()) is not None:
            return result  # finished earlier
        ...  # units of work, resumed from a `Journal` or a `CheckpointFolder` in run.path
        return run.finish({"kind": ...})
"""

import json
import logging
import platform
import shlex
import signal
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from types import FrameType
from typing import Any, Self

import numpy as np
import rich.console
import rich.progress
import torch
from numpy.typing import NDArray
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

import automix
from automix.configuration.base import MAX_CONFIG_BYTES, Config
from automix.errors import AutoMixError, CheckpointError
from automix.escapes import one_line
from automix.experiments.common.folder_claim import ClaimedError, FolderClaim
from automix.experiments.common.kept_files import (
    check_kept,
    damaged_output,
    keep,
    keep_json,
    note_outputs,
)
from automix.experiments.common.run_logs import MetricsLog
from automix.readers import read_bytes, read_json

CONFIG_NAME = "config.yaml"
ENVIRONMENT_NAME = "environment.json"
METRICS_NAME = "metrics.jsonl"
RESULT_NAME = "result.json"
_LOCK_NAME = ".lock"
# Their versions are in every result: the ones whose numerics have changed between releases.
_PACKAGES = ("torch", "torchvision", "numpy", "gymnasium", "stable-baselines3", "pydantic")
_SECONDS_BETWEEN_LINES = 10.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
# `torchrun` passes on a Ctrl-C that its processes got from the terminal as well.
_SECONDS_OF_ECHO = 2.0
_LOG = logging.getLogger(__name__)

Json = dict[str, Any]


class RunFolder:
    """The folder of one run; a context manager that locks it against other processes.

    `config.yaml` (resolved), `environment.json`, `metrics.jsonl` and TensorBoard events are
    there from the start, `result.json` only once the run is finished.
    """

    def __init__(self, path: Path, config: Config) -> None:
        """Claim ``path`` for ``config``; nothing is written before the context is entered."""
        self.path = path
        self._config = config
        self._claimed = FolderClaim(path, lock_name=_LOCK_NAME)
        self._board: SummaryWriter | None = None
        self._purge_from: int | None = None
        self._metrics = MetricsLog(path / METRICS_NAME)

    def __enter__(self) -> Self:
        """Create the folder, or resume the run in it.

        Raises:
            CheckpointError: it holds a run of another configuration, is in use, or cannot be
                written.
        """
        try:
            # Compared before the folder is touched: a refused folder stays as it was.
            self._check_configuration()
            self.path.mkdir(parents=True, exist_ok=True)
            self._claimed.acquire(wait=True)
        except ClaimedError as owner:
            raise CheckpointError(
                f"{self.path}: expected a folder of our own, got one in use by {owner}"
            ) from None
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise CheckpointError(
                f"{self.path}: expected a folder that can be written, got: {reason}"
            ) from None
        try:
            self._claim()
        except BaseException:
            self._claimed.release()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        """Release the folder."""
        if self._board is not None:
            self._board.close()
            self._board = None
        self._claimed.release()

    def result(self) -> Json | None:
        """Return the result if the run is finished.

        If it, a log or another output is not as it was written, there is none: what is in
        checkpoints and journals gives them again.
        """
        damaged = damaged_output(self.path)
        if damaged is None:
            return finished_result(self.path)
        _LOG.warning("%s: got a damaged or missing file; written again", self.path / damaged)
        return None

    @property
    def config_hash(self) -> str:
        """Hash of the configuration that names the run."""
        return self._config.content_hash()

    def publish(self, result: Json) -> None:
        """Write what is known so far as `result.json`; its ``is_finished`` is false."""
        keep_json(self.path, RESULT_NAME, result | {"is_finished": False}, again=True)

    def finish(self, result: Json, *, outputs: Iterable[str] = ()) -> Json:
        """Write `result.json`, which marks the run as finished; return ``result``.

        ``outputs`` are names of files that the run has written and would write again.
        """
        note_outputs(self.path, outputs)
        keep_json(self.path, RESULT_NAME, result, again=True)
        return result

    def log(self, step: int, values: Mapping[str, float | str]) -> None:
        """Append one line to `metrics.jsonl`; numbers go to TensorBoard too, under ``step``."""
        self._metrics.add({"step": step, **values})
        for name, value in values.items():
            # TensorBoard draws numbers; text, such as a schedule, is in the file alone.
            if isinstance(value, int | float):
                self._opened_board().add_scalar(one_line(name), value, step)

    def log_picture(self, name: str, pixels: NDArray[np.uint8]) -> None:
        """Show pixels, (H, W, 3), in TensorBoard alone."""
        self._opened_board().add_image(name, pixels, dataformats="HWC")

    def log_hyperparameters(self, metrics: Mapping[str, float]) -> None:
        """Show the configuration beside ``metrics`` in TensorBoard's table of hyperparameters."""
        board, values = self._opened_board(), _flat(self._config.model_dump(mode="json"))
        # `add_hparams` would write them to a folder of its own, beside the curves of this run.
        for summary in hparams(values, dict(metrics)):  # type: ignore[no-untyped-call]
            board._get_file_writer().add_summary(summary)  # type: ignore[no-untyped-call]
        for name, value in metrics.items():
            board.add_scalar(name, value, 0)

    def _opened_board(self) -> SummaryWriter:
        # Opened with the first number: reading a finished run leaves no empty event file.
        if self._board is None:
            self._board = SummaryWriter(str(self.path / "tensorboard"), purge_step=self._purge_from)
        return self._board

    def metrics_text(self) -> str:
        """Return the text of `metrics.jsonl` for a checkpoint, once all of it is on the disk."""
        return self._metrics.synchronized()

    def restore_metrics(self, text: str, *, next_step: int | None = 0) -> None:
        """Let `metrics.jsonl` be that of a checkpoint; an interrupted run writes the rest again.

        Args:
            text: what `metrics_text` returned; empty where there is no checkpoint.
            next_step: TensorBoard hides what was logged from this step on; None: it hides nothing.
        """
        self._purge_from = next_step
        self._metrics.restore(text)

    def _claim(self) -> None:
        """Check the files of an earlier attempt, or write those that begin a run."""
        check_kept(self.path)
        if not (self.path / CONFIG_NAME).exists():
            # The configuration comes last: it marks a folder whose run can be resumed.
            keep_json(self.path, ENVIRONMENT_NAME, describe_environment())
            keep(self.path, CONFIG_NAME, self._config.to_yaml().encode())

    def _check_configuration(self) -> None:
        path = self.path / CONFIG_NAME
        if path.exists() and not self._agrees_with(path):
            check_kept(self.path)
            raise CheckpointError(
                f"{self.path}: expected an empty folder or a run of the same configuration, got "
                f"one of another (compare with {path})"
            )

    def _agrees_with(self, path: Path) -> bool:
        """Return whether results of the configuration in a file are those of this one."""
        # Bytes: a damaged file may be no text.
        if read_bytes(path, limit=MAX_CONFIG_BYTES) == self._config.to_yaml().encode():
            return True
        try:
            before = type(self._config).from_yaml(path)
        except AutoMixError:
            return False
        return before.content_hash() == self._config.content_hash()


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, float | str]:
    """Return nested values under dotted names; what is no number is text."""
    flat: dict[str, float | str] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            is_number = isinstance(value, int | float)
            flat[prefix + name] = value if is_number else one_line(json.dumps(value))
    return flat


def finished_result(folder: Path) -> Json | None:
    """Return the result of the run in ``folder`` if there is one and it is final."""
    path = folder / RESULT_NAME
    result = read_json(path) if path.exists() else None
    return result if result is not None and result.get("is_finished", True) else None


def describe_environment() -> Json:
    """Return versions, device and command: what is needed to repeat a run."""
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    return {
        "command": shlex.join(["automix", *sys.argv[1:]]),
        "automix": automix.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": platform.machine(),
        "threads": torch.get_num_threads(),
        "device": str(accelerator or "cpu"),
        "packages": versions(),
    }


def versions() -> dict[str, str]:
    """Return the versions of the packages that results depend on."""
    return {name: metadata.version(name) for name in _PACKAGES}


class ProgressBar:
    """Counts finished units of work on standard error: a bar on a terminal, else a line in 10 s."""

    def __init__(self, title: str, total: int, *, done: int = 0, is_shown: bool = True) -> None:
        self._is_shown = is_shown
        self._title, self._total, self._done = title, total, done
        self._first = done
        self._started = self._last_line = time.monotonic()
        self._live: rich.progress.Progress | None = None

    def __enter__(self) -> Self:
        """Show the start."""
        # In a log file, a bar that redraws itself would be thousands of lines.
        if self._is_shown and sys.stderr.isatty():
            self._live = rich.progress.Progress(
                rich.progress.TextColumn("{task.description}", markup=False),
                rich.progress.BarColumn(),
                rich.progress.MofNCompleteColumn(),
                rich.progress.TimeElapsedColumn(),
                rich.progress.TimeRemainingColumn(elapsed_when_finished=True),
                rich.progress.TextColumn("{task.fields[note]}", markup=False),
                console=rich.console.Console(stderr=True),
            )
            self._live.start()
            self._task = self._live.add_task(
                self._title, total=self._total, completed=self._done, note=""
            )
        return self

    def __exit__(self, *error: object) -> None:
        """Show the end."""
        if self._live is not None:
            self._live.stop()

    def advance(self, count: int = 1, *, note: str = "") -> None:
        """Count ``count`` more finished units; ``note`` is shown beside them."""
        self._done += count
        note = one_line(note)
        if self._live is not None:
            self._live.update(self._task, advance=count, note=note)
            return
        now = time.monotonic()
        is_due = now - self._last_line >= _SECONDS_BETWEEN_LINES or self._done >= self._total
        if self._is_shown and is_due:
            self._last_line = now
            sys.stderr.write(self._line(now, note) + "\n")
            sys.stderr.flush()

    def skip(self, count: int) -> None:
        """Count ``count`` units of an earlier attempt: they say nothing about the time left."""
        self._done += count
        self._first += count
        if self._live is not None and count:
            self._live.reset(self._task, completed=self._done)

    def _line(self, now: float, note: str) -> str:
        elapsed = now - self._started
        # By the units of this attempt: those of an earlier one took none of this time.
        rate = (self._done - self._first) / elapsed if elapsed else 0.0
        remaining = (self._total - self._done) / rate if rate else 0.0
        text = f"{self._title}: {self._done}/{self._total}, {format_seconds(elapsed)} spent"
        text += f", about {format_seconds(remaining)} left" if self._done < self._total else ""
        return text + (f", {note}" if note else "")


def format_seconds(seconds: float) -> str:
    """Return a duration in its two largest units: ``45 s``, ``3 min 20 s``, ``2 h 5 min``."""
    # Rounded to the smallest unit that is shown before it is cut: never "60 s" or "1 h 60 min".
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min"


class StopRequest:
    """A context manager within which the first Ctrl-C or SIGTERM only sets `is_made`.

    Another one, two seconds later or more, raises `KeyboardInterrupt` at once. Off the main
    thread, which alone gets signals, it does nothing.
    """

    def __init__(self) -> None:
        self._made_at: float | None = None
        self._previous_handlers: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        """Take over the two signals."""
        # Python refuses signal handlers elsewhere.
        if threading.current_thread() is threading.main_thread():
            self._previous_handlers = {
                number: signal.signal(number, self._take) for number in _SIGNALS
            }
        return self

    def __exit__(self, *error: object) -> None:
        """Give the signals back."""
        for number, handler in self._previous_handlers.items():
            signal.signal(number, handler)

    @property
    def is_made(self) -> bool:
        """Whether the loop should stop."""
        return self._made_at is not None

    def _take(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._made_at is None:
            self._made_at = now
            _LOG.info("stopping after this step; what is trained so far will be saved")
        elif now - self._made_at > _SECONDS_OF_ECHO:
            raise KeyboardInterrupt
