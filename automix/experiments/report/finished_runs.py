"""Finished runs and sweeps, read for the report."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from automix.configuration.task import ReplayConfig
from automix.errors import CheckpointError
from automix.evaluation.statistics import Interval, paired_difference
from automix.experiments.common.kept_files import check_whole, without_sum
from automix.experiments.common.run_files import (
    EnvironmentValues,
    SweepTable,
    check_result,
    check_written,
    read_written,
)
from automix.experiments.common.run_folder import (
    CONFIG_NAME,
    ENVIRONMENT_NAME,
    RESULT_NAME,
)
from automix.experiments.config import SearchConfig
from automix.experiments.search.run import SCHEDULE_NAME
from automix.experiments.sweep.table import TABLE_KIND, TABLE_NAME
from automix.operator_info import Operator
from automix.readers import read_json
from automix.reporting.page import Source
from automix.reporting.sections import settings_label
from automix.schedule import Schedule

Row = dict[str, Any]
"""One schedule of a comparison, on one split."""


class FinishedRun:
    """A finished run: its folder, result and configuration."""

    def __init__(self, path: Path, *, slug: str | None = None) -> None:
        """Read the run in ``path``; names of its figures and tables begin with ``slug``."""
        self.path = path
        self.slug = slug or slug_of(path.name)
        file = path / RESULT_NAME
        content = read_json(file)
        self.kind = content.get("kind")
        if not content.get("is_finished", True):
            raise CheckpointError(f"{file}: expected that of a finished run, got one in progress")
        for kind, key in (("search", "verdict"), ("compare", "splits")):
            if self.kind == kind and key not in content:
                raise CheckpointError(
                    f"{file}: expected {key}, got the result of an earlier version; {kind} again, "
                    "in another folder"
                )
        self.result = check_result(content, source=str(file))
        # A value that was changed may fit as well.
        check_whole(path)

    def check(self) -> None:
        """Read all other files that a report needs.

        Raises:
            AutoMixError: one of them is missing or damaged.
        """
        _ = self.source
        if self.kind == "search":
            self.config(SearchConfig)
            Schedule.load(self.path / SCHEDULE_NAME)
        elif self.kind == "replay":
            self.config(ReplayConfig)

    @cached_property
    def source(self) -> Source:
        """Command and versions of the run."""
        return source_in(self.path)

    def config(self, model: type[Any]) -> Any:
        """Return the configuration of the run as a ``model``."""
        return model.from_yaml(self.path / CONFIG_NAME)


def slug_of(name: str) -> str:
    """Return ``name`` as it may be the stem of a file and an identifier of a page."""
    slug = re.sub(r"[^A-Za-z0-9_]+", "-", name).strip("-")
    # An identifier of HTML begins with a letter.
    return slug if slug[:1].isalpha() else f"run-{slug}".rstrip("-")


def source_in(folder: Path) -> Source:
    """Return how to get a result again, from what its run wrote about versions and command."""
    environment = read_written(folder / ENVIRONMENT_NAME, EnvironmentValues)
    versions = {name: environment[name] for name in ("automix", "python")}
    versions |= environment["packages"]
    versions |= {"device": environment["device"], "threads": str(environment["threads"])}
    return Source(command=environment["command"], versions=versions)


# Where, in the folder of a cell, a search leaves its schedule.
_SCHEDULE_PATHS = ("run/search/schedule.json", "run/schedule.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedSweep:
    """A sweep with a table, that of `automix.experiments.sweep.table.build_table`."""

    path: Path
    slug: str
    table: Mapping[str, Any]
    source: Source

    @classmethod
    def read(cls, path: Path, slug: str) -> "FinishedSweep | None":
        """Read the table in the folder of a sweep; None if it is no sweep's."""
        # Other programs write files of this name, too; only the kind tells them apart.
        table = read_json(path / TABLE_NAME)
        if table.get("kind") != TABLE_KIND:
            return None
        check_written(table, SweepTable, source=str(path / TABLE_NAME))
        if without_sum(table) is None:
            raise CheckpointError(
                f"{path / TABLE_NAME}: expected the table of a sweep, got a changed one; write it "
                "again with automix ablate table"
            )
        source = Source(command="automix ablate table")
        if (path / ENVIRONMENT_NAME).exists():
            source = source_in(path)
        return cls(path=path, slug=slug, table=table, source=source)

    def schedules(self) -> dict[str, list[Schedule]]:
        """Return the schedules that the searches of each row found, by label of the row."""
        groups: dict[str, list[Schedule]] = {}
        if not self.table["experiment"].startswith("search"):
            return groups
        for cell in self.table["cells"]:
            # A row of the table is what its cells share: every setting but the seed.
            settings = dict(cell["settings"])
            settings.pop(self.table["seed_key"], None)
            for name in _SCHEDULE_PATHS:
                path = self.path / cell["cell"] / name
                if path.exists():
                    groups.setdefault(settings_label(settings), []).append(Schedule.load(path))
        return groups


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedSplit:
    """The result of a comparison on one split: a row per schedule."""

    run: FinishedRun
    name: str
    rows: Sequence[Row]

    @property
    def slug(self) -> str:
        """Name that its figures and tables begin with."""
        return f"{self.run.slug}-{self.name}"


def compared_splits(runs: Sequence[FinishedRun]) -> list[ComparedSplit]:
    """Return the results of the comparisons among ``runs``, split by split."""
    return [
        ComparedSplit(run=run, name=name, rows=rows)
        for run in runs
        if run.kind == "compare"
        for name, rows in run.result["splits"].items()
    ]


def learned_row(rows: Sequence[Row]) -> Row | None:
    """Return the first row of a comparison that comes from a schedule file."""
    # Controls are made of a schedule or of nothing, but learned by no search.
    drawn = ("shuffled ", "shuffled-before-end ", "marginal-matched ")
    built = ("ramp:", "mix_then_off:", "in_turn:", "mixture:", "strong_to_weak:")
    for row in rows:
        is_control = row["name"] == "random" or row["name"].startswith(drawn + built)
        if not is_control and not is_fixed(row):
            return row
    return None


def is_fixed(row: Row) -> bool:
    """Return whether a row is one operator held constant."""
    return operator_of(row["name"]) is not None


def best_fixed(rows: Sequence[Row]) -> Row | None:
    """Return the constant operator of the lowest mean calibrated NLL."""
    # Without those that diverged: a mean over the seeds that survived would favor them.
    fixed = [row for row in rows if is_fixed(row) and row["calibrated_nll"]["mean"] is not None]
    return min(fixed, key=lambda row: float(row["calibrated_nll"]["mean"]), default=None)


def operator_of(name: str) -> Operator | None:
    """Return the operator of a constant entry, whose name is `Decision.label()`."""
    # The name of a constant schedule begins with its operator, that of others with another word.
    first = name.split(" ", maxsplit=1)[0]
    return Operator(first) if first in set(Operator) else None


def paired(row: Row, other: Row, metric: str) -> Interval:
    """Return the paired difference of two rows over the seeds that neither diverged on."""
    # A seed on which either diverged says nothing about the difference.
    pairs = [
        (a, b)
        for a, b in zip(row[metric]["values"], other[metric]["values"], strict=True)
        if a is not None and b is not None
    ]
    # A fixed seed of the bootstrap: the same runs give the same page.
    values, others = (np.array(column) for column in zip(*pairs, strict=True))
    return paired_difference(values, others, seed=0)
