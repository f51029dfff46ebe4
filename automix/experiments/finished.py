"""Finished runs, and what their results say: read for the report."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from automix.evaluation.statistics import Interval, paired_difference
from automix.experiments.runs import CONFIG_NAME, ENVIRONMENT_NAME, RESULT_NAME, read_json
from automix.reporting.report import Source
from automix.vocabulary import Operator


class FinishedRun:
    """A finished run: its folder, result and configuration."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.result = read_json(path / RESULT_NAME)
        self.environment = read_json(path / ENVIRONMENT_NAME)

    @property
    def kind(self) -> str:
        """Return search, replay or compare."""
        return str(self.result["kind"])

    def config(self, model: type[Any]) -> Any:
        """Return the configuration of the run as a ``model``."""
        return model.from_yaml(self.path / CONFIG_NAME)

    @property
    def source(self) -> Source:
        """Return how to get the result again."""
        packages = {str(k): str(v) for k, v in self.environment["packages"].items()}
        versions = {"automix": self.environment["automix"], **packages}
        versions |= {"device": self.environment["device"]}
        return Source(command=self.environment["command"], versions=versions)


def learned_row(run: FinishedRun) -> dict[str, Any] | None:
    """Return the first row of a comparison that comes from a schedule file."""
    rows = run.result["rows"]
    return next((row for row in rows if not is_fixed(row) and _is_learned(row["name"])), None)


def _is_learned(name: str) -> bool:
    return name != "random" and not name.startswith(("shuffled", "ramp:", "mix_then_off:"))


def is_fixed(row: dict[str, Any]) -> bool:
    """Return whether a row is one operator held constant."""
    return operator_of(row["name"]) is not None


def best_fixed(run: FinishedRun) -> dict[str, Any] | None:
    """Return the constant operator of the lowest mean calibrated NLL."""
    rows = [row for row in run.result["rows"] if is_fixed(row) and row["calibrated_nll"]["mean"]]
    return min(rows, key=lambda row: float(row["calibrated_nll"]["mean"]), default=None)


def operator_of(name: str) -> Operator | None:
    """Return the operator of a constant entry, whose name is `Decision.label()`."""
    first = name.split(" ", maxsplit=1)[0]
    return Operator(first) if first in set(Operator) else None


def paired(row: dict[str, Any], other: dict[str, Any], metric: str) -> Interval:
    """Return the paired difference of two rows over the seeds that neither diverged on."""
    pairs = [
        (a, b)
        for a, b in zip(row[metric]["values"], other[metric]["values"], strict=True)
        if a is not None and b is not None
    ]
    own, best = (np.array(values) for values in zip(*pairs, strict=True))
    return paired_difference(own, best, seed=0)


def mean_interval(values: Sequence[float]) -> Interval:
    """Return the mean of the finite values with its interval."""
    array = np.array([value for value in values if value is not None and math.isfinite(value)])
    return paired_difference(array, np.zeros_like(array), seed=0)


def interval(values: dict[str, float] | None) -> Interval | None:
    """Return an interval from its JSON form."""
    return Interval(**values) if values else None
