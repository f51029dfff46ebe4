"""Units that end, fail, die, hang or stop, as they are told; a counter that must be resumed."""

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

FATE = "fate"


class Held:
    """A number that grows with every call, held by a worker."""

    def __init__(self, offset: int = 0) -> None:
        self.count = offset


def square(held: Held, value: int) -> int:
    held.count += 1
    return value * value


def count(held: Held) -> int:
    held.count += 1
    return held.count


def resumed_count(held: Held, state: int) -> int:
    held.count = state
    return count(held)


def process_of(held: Held) -> int:
    return os.getpid()


def refuse(held: Held, value: int) -> None:
    raise ValueError(f"expected another value, got {value}")


def unreadable(held: Held) -> Any:
    return lambda: None


def meet(held: Held, folder: Path, value: int, fates: dict[int, str]) -> int:
    """Square ``value``, the first time after what its fate says."""
    mark = folder / str(value)
    fate = fates.get(value, "")
    if fate and not (mark.exists() and fate != "always dies"):
        mark.touch()
        if fate in ("dies", "always dies"):
            sys.stderr.write(f"no memory for {value}\n")
            sys.stderr.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        if fate == "stops":
            os.kill(os.getpid(), signal.SIGSTOP)
        if fate == "hangs":
            time.sleep(600)
    return square(held, value)
