"""The decisions that the steps of a replay followed, and whether they are the expected ones."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from automix.errors import CheckpointError
from automix.mixture import Mixing, Mixture
from automix.schedule import decisions_hash


def note_applied(applied: list[dict[str, Any]], mixing: Mixing, *, stop: int) -> None:
    """Note that all steps before ``stop`` that are not noted yet followed ``mixing``."""
    mixture = Mixture.of(mixing)
    if applied and Mixture.from_entry(applied[-1]) == mixture:
        applied[-1]["stop"] = stop
    else:
        start = applied[-1]["stop"] if applied else 0
        applied.append({"start": start, "stop": stop, **mixture.to_entry()})


def check_applied(applied: Sequence[dict[str, Any]], step: int) -> None:
    """Check that decisions are noted for each of the first ``step`` steps, and no others.

    Raises:
        ValueError: they are not.
    """
    stops = [0, *(run["stop"] for run in applied)]
    if stops[-1] != step or stops[:-1] != [run["start"] for run in applied]:
        raise ValueError(f"other decisions than those of the first {step} steps")
    for run in applied:
        Mixture.from_entry(run)


def check_decisions(
    applied: Sequence[dict[str, Any]], expected: Sequence[Mixing], *, where: Path
) -> str:
    """Return the hash of the decisions that the steps followed, if they are the expected ones."""
    steps = (
        itertools.repeat(Mixture.from_entry(run), run["stop"] - run["start"]) for run in applied
    )
    applied_hash = decisions_hash(list(itertools.chain.from_iterable(steps)))
    expected_hash = decisions_hash(expected)
    if applied_hash != expected_hash:
        raise CheckpointError(
            f"{where}: expected steps that followed the decisions {expected_hash} of the schedule, "
            f"got {applied_hash}; start anew in an empty folder"
        )
    return applied_hash
