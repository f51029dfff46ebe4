"""State in a checkpoint of a replay, checked before a run resumes from it.

Its sum says that it is whole, not that it is of a run like this one.
"""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from automix.files import Fields, check_fields, read_checkpoint

STATE_FIELDS: Fields = MappingProxyType(
    {
        **dict.fromkeys(("identity", "trainer", "sums", "decider"), (dict,)),
        "applied": (list,),
        "best": (dict, type(None)),
        "seconds": (float,),
        "metrics": (str,),
    }
)
"""Types of the values of a state."""


def check_best(best: Mapping[str, Any] | None, *, source: str) -> None:
    """Check what a state says about the best validation so far.

    Raises:
        CheckpointError: it is something else.
    """
    if best is not None:
        check_fields(best, {"step": (int,), "metrics": (dict,)}, source=f"{source}: best")
        check_fields(best["metrics"], {"calibrated_nll": (float,)}, source=f"{source}: best")


def read_best(path: Path) -> dict[str, Any]:
    """Read the weights of the best validation, and the step they are of.

    Raises:
        CheckpointError: the file is missing, damaged, or holds something else.
    """
    state = read_checkpoint(path)
    check_fields(state, {"step": (int,), "weights": (dict,)}, source=str(path))
    return state
