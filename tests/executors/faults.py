"""A search, a comparison and a sweep whose workers are killed and stopped at random.

``python -m tests.executors.faults EXECUTOR KILLS STOPS FOLDER [COMMAND ...]`` says what became of
each of them: search, compare, ablate.
All must end with the files of one without faults, and leave no process and no temporary file.
"""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from automix.experiments.config import CompareConfig
from tests.cli.sweeps import TINY_TASK, tables, write_sweep
from tests.executors.on_ray import search_config
from tests.experiments.tiny_search import TINY, outputs, without_times
from tests.test_worker_processes import is_running

ROOT = Path(__file__).parents[2]
# Seconds without a sign of life, or for a unit of about one; a unit of a sweep is a whole cell.
TIMEOUT = 10.0
CELL_TIMEOUT = 600.0
# A worker that has just started has said nothing yet; it is waited for longer.
_YOUNGEST = 4.0
_WAIT = 1.5


@dataclass(frozen=True, slots=True)
class Command:
    """A command of the campaign."""

    arguments: tuple[str, ...]  # its name and file
    files: Callable[[Path], Any]  # what must be the same, from its folder
    fraction: float  # of the faults
    timeout: float = TIMEOUT

    @property
    def name(self) -> str:
        return self.arguments[0]


@dataclass(slots=True)
class Report:
    """Faults that a command met, and what became of it."""

    runs: int = 0
    kills: int = 0
    stops: int = 0
    seconds: float = 0.0
    delays: list[float] = field(default_factory=list)  # seconds until a stopped worker was ended
    differing: int = 0  # runs whose files were not those of the run without faults
    left: list[str] = field(default_factory=list)  # processes and temporary files

    def line(self, name: str) -> str:
        ended = f"{max(self.delays):.1f} s at most" if self.delays else "none"
        left = ", ".join(self.left) or "nothing"
        return (
            f"{name}: {self.runs} runs, {self.kills} killed, {self.stops} stopped ({ended} until "
            f"they were ended), {self.differing} with other files, left: {left}, "
            f"{self.seconds:.0f} s"
        )


def commands(folder: Path) -> list[Command]:
    """Write the files of the three commands into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    search = folder / "search.yaml"
    search.write_text(search_config("in_process").to_yaml())
    compare = folder / "compare.yaml"
    config = CompareConfig(
        schedules=("none", "constant:mixup", "constant:cutmix"),
        num_seeds=8,
        task=TINY.task,
        environment=TINY.environment,
        compute=search_config("in_process").compute,
    )
    compare.write_text(config.to_yaml())
    sweep = write_sweep(folder / "sweep.yaml", TINY_TASK, seeds=3)
    return [
        Command(("search", str(search)), outputs, 0.5),
        Command(("compare", str(compare)), _result, 0.24),
        Command(("ablate", str(sweep)), tables, 0.26, CELL_TIMEOUT),
    ]


def _result(folder: Path) -> Any:
    return without_times(json.loads((folder / "result.json").read_text()))


def started(
    command: Command, executor: str, folder: Path, temporary: Path, *more: str
) -> "subprocess.Popen[str]":
    """Start a command, whose temporary files are in a folder of their own."""
    log = folder.with_suffix(".log").open("w")
    arguments = [*command.arguments, "--output", str(folder), "--compute.executor", executor, *more]
    with log:
        return subprocess.Popen(
            [sys.executable, "-m", "automix", *arguments],
            cwd=ROOT,
            env=os.environ
            | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TMPDIR": str(temporary)},
            stdout=log,
            stderr=log,
            text=True,
        )


def descendants(process: int) -> dict[int, tuple[int, str]]:
    """Return parent and command line of all processes below one."""
    table: dict[int, tuple[int, str]] = {}
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError):
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            arguments = (
                (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            )
            table[int(path.name)] = (parent, arguments)
    descended: dict[int, tuple[int, str]] = {}
    below = {process}
    while below:
        below = {child for child, (parent, _) in table.items() if parent in below}
        descended |= {child: table[child] for child in below}
    return descended


def workers(process: int) -> list[int]:
    """Return the workers of a command: children of its fork server, or actors."""
    below = descendants(process)
    return sorted(
        child
        for child, (parent, arguments) in below.items()
        if arguments.startswith("ray::Actor")
        or ("forkserver" in arguments and "forkserver" in below.get(parent, (0, ""))[1])
    )


def began_at(process: int) -> int:
    """Return when a process began, in ticks since the machine did; -1 if it is gone."""
    with contextlib.suppress(OSError, IndexError):
        return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19])
    return -1


def age(process: int) -> float:
    """Return the seconds since a process began; 0 if it is gone."""
    ticks = began_at(process)
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    return uptime - ticks / os.sysconf("SC_CLK_TCK") if ticks >= 0 else 0.0


def campaign(
    executor: str, num_kills: int, num_stops: int, folder: Path, names: Sequence[str] = ()
) -> dict[str, Report]:
    """Run the commands, or those of ``names``, until each had its part of the faults."""
    source = random.Random(0)
    reports = {}
    for command in commands(folder):
        if names and command.name not in names:
            continue
        report = reports[command.name] = Report()
        expected = without_faults(command, folder)
        faults = [signal.SIGKILL] * round(command.fraction * num_kills)
        faults += [signal.SIGSTOP] * round(command.fraction * num_stops)
        source.shuffle(faults)
        while faults:
            _run_with_faults(command, executor, folder, expected, faults, source, report)
        sys.stdout.write(report.line(f"{executor}, {command.name}") + "\n")
        sys.stdout.flush()
    return reports


def without_faults(command: Command, folder: Path) -> Any:
    """Run a command in one process; return what must be the same."""
    output = folder / f"{command.name}-expected"
    with temporary_folder() as temporary:
        assert started(command, "in_process", output, temporary).wait() == 0
    return command.files(output)


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """Yield a folder for the temporary files of a command."""
    # A short one: it is a part of the paths of Ray's sockets.
    with tempfile.TemporaryDirectory(prefix="f", dir="/tmp") as name:
        yield Path(name)


def _run_with_faults(
    command: Command,
    executor: str,
    folder: Path,
    expected: Any,
    faults: list[signal.Signals],
    source: random.Random,
    report: Report,
) -> None:
    report.runs += 1
    output = folder / f"{command.name}-{executor}-{report.runs}"
    limits = ("--compute.timeout", str(command.timeout), "--compute.max-failures", "60")
    began = time.monotonic()
    # With its beginning: numbers of processes are used again.
    seen: set[tuple[int, int]] = set()
    with temporary_folder() as temporary:
        process = started(command, executor, output, temporary, *limits)
        stopped: dict[int, float] = {}
        pause = time.monotonic() + source.uniform(0, _WAIT)
        while process.poll() is None:
            time.sleep(0.05)
            seen |= {(one, began_at(one)) for one in descendants(process.pid)}
            for worker in [worker for worker in stopped if not is_running(worker)]:
                report.delays.append(time.monotonic() - stopped.pop(worker))
            if not faults or time.monotonic() < pause:
                continue
            old = [one for one in workers(process.pid) if age(one) > _YOUNGEST]
            old = [one for one in old if one not in stopped]
            if old:
                _inflict(source.choice(old), faults.pop(), stopped, report)
                pause = time.monotonic() + source.uniform(0, _WAIT)
        report.seconds += time.monotonic() - began
        report.differing += process.returncode != 0 or command.files(output) != expected
        report.left += things_left(seen, temporary)


def _inflict(worker: int, fault: signal.Signals, stopped: dict[int, float], report: Report) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(worker, fault)
        if fault == signal.SIGKILL:
            report.kills += 1
        else:
            report.stops += 1
            stopped[worker] = time.monotonic()


def things_left(seen: set[tuple[int, int]], temporary: Path) -> list[str]:
    """Return what is left of a command, a moment after its end."""
    # A fork server takes its time to end on a busy machine.
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        left = [f"process {one}" for one, began in seen if began_at(one) == began >= 0]
        left = [name for name in left if is_running(int(name.split()[1]))]
        # PyTorch's cache is that of a user, and not of a run.
        left += [str(path) for path in temporary.iterdir() if "torchinductor" not in path.name]
        if not left:
            break
        time.sleep(0.1)
    return left


def last_line_over_the_limit(executor: str, folder: Path) -> str:
    """Return what a search says last whose worker is killed where none may be lost."""
    [command, *_] = commands(folder)
    output = folder / f"limit-{executor}"
    with temporary_folder() as temporary:
        process = started(command, executor, output, temporary, "--compute.max-failures", "0")
        while process.poll() is None:
            time.sleep(0.05)
            for worker in [one for one in workers(process.pid) if age(one) > _YOUNGEST][:1]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(worker, signal.SIGKILL)
        assert process.returncode == 2
    return output.with_suffix(".log").read_text().splitlines()[-1]


if __name__ == "__main__":
    name, kills, stops, where, *only = sys.argv[1:]
    campaign(name, int(kills), int(stops), Path(where), only)
    sys.stdout.write(last_line_over_the_limit(name, Path(where)) + "\n")
