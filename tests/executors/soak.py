"""Search after search, whose workers and main process are killed at random, for hours.

``python -m tests.executors.soak EXECUTOR MINUTES FOLDER``; the same command resumes it: what it has
seen is in `soak.json` in the folder. A search is resumed after each kill of its main process, and
ends with the files of one without faults, or is kept for a look.
"""

import contextlib
import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

from automix.files import write_json
from tests.executors import faults

STATE_NAME = "soak.json"
# Seconds until the next fault.
_WAIT = 40.0
_MAIN_FRACTION = 0.3


def soak(executor: str, minutes: float, folder: Path) -> dict[str, Any]:
    """Search until the time is over; return what was seen, over all calls."""
    [command, *_] = faults.commands(folder)
    state = read_state(folder)
    if not (folder / "search-expected" / "result.json").exists():
        faults.without_faults(command, folder)
    expected = command.files(folder / "search-expected")
    end = time.monotonic() + 60 * minutes
    while time.monotonic() < end:
        output = folder / f"search-{executor}-{state['searches'] + 1}"
        if not _is_finished_once(command, executor, output, state):
            continue
        state["searches"] += 1
        if command.files(output) == expected:
            shutil.rmtree(output)
        else:
            state["differing"].append(output.name)
        write_json(folder / STATE_NAME, state)
        sys.stdout.write(json.dumps(state) + "\n")
        sys.stdout.flush()
    return state


def read_state(folder: Path) -> dict[str, Any]:
    """Return what earlier calls have seen."""
    path = folder / STATE_NAME
    if path.exists():
        state: dict[str, Any] = json.loads(path.read_text())
        return state
    counts = dict.fromkeys(("searches", "starts", "worker_kills", "main_kills", "seconds"), 0)
    return counts | {"most_bytes": 0, "differing": [], "left": []}


def _is_finished_once(
    command: faults.Command, executor: str, output: Path, state: dict[str, Any]
) -> bool:
    """Start or resume a search, with faults; return whether it ended by itself."""
    source = random.Random(state["starts"])
    began = time.monotonic()
    limits = ("--compute.timeout", "30", "--compute.max-failures", "60")
    seen: set[tuple[int, int]] = set()
    with faults.temporary_folder() as temporary:
        process = faults.started(command, executor, output, temporary, *limits)
        pause = time.monotonic() + source.uniform(0, _WAIT)
        while process.poll() is None:
            time.sleep(0.1)
            seen |= {(one, faults.began_at(one)) for one in faults.descendants(process.pid)}
            workers = faults.workers(process.pid)
            # Not before it has done anything: a busy machine would only start it again and again.
            if not workers:
                pause = time.monotonic() + source.uniform(0, _WAIT)
            if time.monotonic() < pause:
                continue
            pause = time.monotonic() + source.uniform(0, _WAIT)
            if source.random() < _MAIN_FRACTION:
                process.kill()
                state["main_kills"] += 1
            else:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(source.choice(workers), signal.SIGKILL)
                    state["worker_kills"] += 1
        process.wait()
        state["left"] += faults.things_left(seen, temporary)
    state["starts"] += 1
    state["seconds"] += round(time.monotonic() - began)
    sizes = [path.stat().st_size for path in output.rglob("*") if path.is_file()]
    state["most_bytes"] = max(state["most_bytes"], sum(sizes))
    write_json(output.parent / STATE_NAME, state)
    # Anything else that ends it is no fault of ours: it is said, and not tried for ever.
    if process.returncode not in (0, -signal.SIGKILL):
        raise RuntimeError(f"expected a search that ends, got: see {output.with_suffix('.log')}")
    return process.returncode == 0


if __name__ == "__main__":
    name, duration, where = sys.argv[1:]
    soak(name, float(duration), Path(where))
