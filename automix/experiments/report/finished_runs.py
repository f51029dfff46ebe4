"""Finished runs and sweeps, read for the report."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import quote

from automix.configuration.task import ReplayConfig
from automix.errors import CheckpointError
from automix.experiments.common.kept_files import check_whole, without_sum
from automix.experiments.common.run_files import (
    MAX_TABLE_BYTES,
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
from automix.experiments.compare.verdict import Row, judge_comparison
from automix.experiments.config import CompareConfig, SearchConfig
from automix.experiments.search.run import SCHEDULE_NAME
from automix.experiments.sweep.table import TABLE_KIND, TABLE_NAME
from automix.readers import read_json
from automix.reporting.page import Source
from automix.reporting.sections import settings_label
from automix.schedule import Schedule

_CONFIGS: Mapping[object, type[Any]] = MappingProxyType(
    {"search": SearchConfig, "replay": ReplayConfig, "compare": CompareConfig}
)


class FinishedRun:
    """A finished run: its folder, result and configuration."""

    def __init__(self, path: Path, *, slug: str | None = None, folder: Path | None = None) -> None:
        """Read the run in ``path``; names of its figures and tables begin with ``slug``.

        ``folder`` is that of the page, from which links lead to the run.
        """
        self.path = path
        self.slug = slug or slug_of(path.name)
        self.link = "" if folder is None else link_to(path, folder)
        # What tells it from the other runs of its kind on the page, see `name_apart`.
        self.label = ""
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
        if self.kind == "compare" and "verdict" not in self.result:
            # Of an earlier version, which judged nothing.
            for split, rows in self.result["splits"].items():
                self.result["verdict"] = judge_comparison(rows, split=split)

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

    def task_text(self) -> str:
        """Return what was trained, and the seed, in words."""
        config = self.config(_CONFIGS[self.kind])
        return f"{config.task.data.source.value}, {config.task.model.title}, seed {config.seed}"


def name_apart(runs: Sequence[FinishedRun]) -> None:
    """Give each of several runs of a kind a label: what it trained, its seed; never its folder's.

    Runs of equal labels are numbered.
    """
    labels = [run.task_text() for run in runs]
    for number, (run, label) in enumerate(zip(runs, labels, strict=True), start=1):
        if len(runs) > 1:
            run.label = label if labels.count(label) == 1 else f"{label}, number {number}"


def titled(title: str, run: FinishedRun) -> str:
    """Return a title with the label of the run, if there are others of its kind."""
    return f"{title}: {run.label}" if run.label else title


def link_to(path: Path, folder: Path) -> str:
    """Return a link from a page in ``folder`` to what lies at ``path`` below it."""
    # The dot: no name begins an address of its own, such as that of a script.
    return "./" + quote(path.relative_to(folder).as_posix().removeprefix("."))


def slug_in(path: Path, folder: Path) -> str:
    """Return a name for what lies in ``path``, unique among what lies below ``folder``."""
    # By the whole path: two runs of one name in two folders would share their files.
    relative = path.relative_to(folder).as_posix()
    return slug_of(path.resolve().name if relative == "." else relative)


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
        table = read_json(path / TABLE_NAME, limit=MAX_TABLE_BYTES)
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

    @property
    def is_judged(self) -> bool:
        """Whether the verdict of the comparison is about this split."""
        return bool(self.run.result["verdict"]["split"] == self.name)


def compared_splits(runs: Sequence[FinishedRun]) -> list[ComparedSplit]:
    """Return the results of the comparisons among ``runs``, split by split."""
    return [
        ComparedSplit(run=run, name=name, rows=rows)
        for run in runs
        if run.kind == "compare"
        for name, rows in run.result["splits"].items()
    ]
