"""A run folder: complete, written atomically, and recognized when it is finished or interrupted."""

import json
import platform
import shlex
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import filelock
import torch
from torch.utils.tensorboard import SummaryWriter

import automix
from automix.configuration.base import Config
from automix.errors import CheckpointError
from automix.files import write_json, write_text

CONFIG_NAME = "config.yaml"
ENVIRONMENT_NAME = "environment.json"
METRICS_NAME = "metrics.jsonl"
RESULT_NAME = "result.json"
_LOCK_NAME = ".lock"
_PACKAGES = ("torch", "torchvision", "numpy", "gymnasium", "stable-baselines3", "pydantic")


class RunFolder:
    """The folder of one run; a context manager that holds it against other processes.

    `config.yaml` (resolved), `environment.json`, `metrics.jsonl` and TensorBoard events are
    there from the start, `result.json` only once the run is finished.
    """

    def __init__(self, path: Path, config: Config) -> None:
        """Claim ``path`` for ``config``; nothing is written before the context is entered."""
        self.path = path
        self._config = config
        self._lock = filelock.FileLock(path / _LOCK_NAME)
        self._board: SummaryWriter | None = None
        self._purge_from: int | None = None

    def __enter__(self) -> Self:
        """Create the folder or continue in it.

        Raises:
            CheckpointError: it holds a run of another configuration, is in use, or cannot be
                written.
        """
        try:
            self._check_configuration()
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
        except filelock.Timeout:
            raise CheckpointError(
                f"{self.path}: expected a folder of our own, got one in use by another process"
            ) from None
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise CheckpointError(
                f"{self.path}: expected a folder that can be written, got: {reason}"
            ) from None
        if not (self.path / CONFIG_NAME).exists():
            write_json(self.path / ENVIRONMENT_NAME, describe_environment())
            write_text(self.path / CONFIG_NAME, self._config.to_yaml())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let go of the folder."""
        if self._board is not None:
            self._board.close()
            self._board = None
        self._lock.release()

    @property
    def is_finished(self) -> bool:
        """Whether the result is there."""
        return (self.path / RESULT_NAME).exists()

    def log(self, step: int, values: Mapping[str, float | str]) -> None:
        """Append one line to `metrics.jsonl`; numbers go to TensorBoard too, under ``step``."""
        with (self.path / METRICS_NAME).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"step": step, **values}) + "\n")
        if self._board is None:
            self._board = SummaryWriter(str(self.path / "tensorboard"), purge_step=self._purge_from)
        for name, value in values.items():
            if isinstance(value, int | float):
                self._board.add_scalar(name, value, step)

    @property
    def metrics_size(self) -> int:
        """Bytes in `metrics.jsonl`, to cut it back to when a run continues from a checkpoint."""
        path = self.path / METRICS_NAME
        return path.stat().st_size if path.exists() else 0

    @property
    def metrics_lines(self) -> int:
        """Lines in `metrics.jsonl`, for `keep_metrics`; unlike bytes, the same in every run."""
        path = self.path / METRICS_NAME
        return path.read_bytes().count(b"\n") if path.exists() else 0

    def keep_metrics(self, num_lines: int, *, next_step: int = 0) -> None:
        """Keep the first lines that an interrupted run wrote: those before its checkpoint.

        Args:
            num_lines: how many are kept.
            next_step: TensorBoard shows nothing that was logged from this step on.
        """
        self._purge_from = next_step
        path = self.path / METRICS_NAME
        if path.exists():
            lines = path.read_bytes().splitlines(keepends=True)
            self.cut_metrics(sum(map(len, lines[:num_lines])))

    def cut_metrics(self, size: int) -> None:
        """Drop the lines that an interrupted run wrote after its last checkpoint."""
        path = self.path / METRICS_NAME
        if path.exists():
            with path.open("r+b") as stream:
                stream.truncate(size)

    def finish(self, result: dict[str, Any]) -> None:
        """Write `result.json`, which marks the run as finished."""
        write_json(self.path / RESULT_NAME, result)

    def read_result(self) -> dict[str, Any]:
        """Return the result of a finished run."""
        return read_json(self.path / RESULT_NAME)

    def _check_configuration(self) -> None:
        path = self.path / CONFIG_NAME
        if path.exists() and path.read_text(encoding="utf-8") != self._config.to_yaml():
            raise CheckpointError(
                f"{self.path}: expected an empty folder or a run of the same configuration, got "
                f"one of another (compare with {path})"
            )


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object that a run wrote.

    Raises:
        CheckpointError: the file is missing or not a JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise CheckpointError(f"{path}: expected a readable file, got: {reason}") from None
    except ValueError:
        raise CheckpointError(f"{path}: expected JSON, got text that does not parse") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: expected a JSON object, got {type(content).__name__}")
    return content


def describe_environment() -> dict[str, Any]:
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
