"""Schemas of the files of a finished run, as far as reports, cards and evaluations read them.

A run may come from others, or be damaged: a file that does not fit is one line that names it.
Values that nobody reads are not checked, so that results of other versions stay readable.
"""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from automix.configuration.base import shown
from automix.errors import CheckpointError, ConfigError
from automix.experiments.common.evaluation_files import EvaluationResult
from automix.experiments.common.summaries import METRICS
from automix.experiments.common.written import (
    Count,
    Fraction,
    Names,
    NotNegative,
    Number,
    Positive,
    Text,
    Written,
)
from automix.readers import read_json
from automix.reporting.tables import Direction

# What is validated is in memory several times over.
MAX_SMALL_BYTES = 1_000_000
MAX_TABLE_BYTES = 8_000_000
# Joined to the path of the sweep: the name of a folder in it, and no way out of it.
CellName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,200}$")]


class IntervalValues(Written):
    """An estimate and its interval."""

    model_config = ConfigDict(extra="forbid")

    estimate: Number
    low: Number
    high: Number
    confidence: Fraction

    @model_validator(mode="after")
    def _low_is_not_above_high(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"expected low of at most high, got {self.low:g} and {self.high:g}")
        return self


class Scores(Written):
    """Scores of a classifier on a split."""

    accuracy: Fraction
    nll: Number
    calibrated_nll: Number
    num_images: Count


class Picture(Written):
    """The picture of mixed images that a run kept in its folder."""

    file: Literal["mixed.webp"]
    rows: Annotated[tuple[Text, ...], Field(min_length=1, max_length=16)]


class ReplayResult(Written):
    """Result of `automix replay`."""

    picture: Picture | None = None
    test: Scores
    steps: Count
    data: Text
    schedule_hash: Text


class Cost(Written):
    """The cost of a search."""

    runs: Annotated[Count, Field(alias="trainings")]
    seconds: NotNegative
    seconds_by_stage: dict[Text, NotNegative]
    runs_by_stage: Annotated[dict[Text, Count], Field(alias="trainings_by_stage")]
    seconds_per_training: Positive


class Finalist(Written):
    """A schedule in the final of a search."""

    name: Text
    also: Names = ()
    origin: Text
    num_seeds: Count
    mean_calibrated_nll: Number | None
    interval: IntervalValues | None = None


class Standing(Finalist):
    """A schedule in the selection of a search."""

    is_constant: bool
    difference_to_first: IntervalValues | None


class Judgement(Written):
    """The verdict of any experiment; some of its values are newer than the sentence."""

    sentence: Text
    pays: Literal["yes", "no", "unclear"] = "unclear"
    against: Text | None = None
    difference: IntervalValues | None = None
    num_seeds: Count = 0
    more_seeds: Count | None = None
    split: Text = ""


class Verdict(Judgement):
    """The end of a search."""

    kind: Text
    differences: dict[Text, IntervalValues | None]


class EpisodeValues(Written):
    """An episode of a search."""

    potential: Number
    total_reward: Number


class PartWorth(Written):
    """The worth of a part of the selected schedule."""

    label: Text
    start: Fraction
    end: Fraction
    instead: Text
    effect: IntervalValues


class Explanation(Written):
    """Why a schedule was selected."""

    sentence: Annotated[Text, Field(alias="words")]
    timm: Text
    num_runs: Count
    parts: Annotated[tuple[PartWorth, ...], Field(max_length=10_000)]


class SearchResult(Written):
    """Result of `automix search`."""

    selected: Text
    picture: Picture | None = None
    verdict: Verdict
    final: Annotated[tuple[Finalist, ...], Field(min_length=1, max_length=10_000)]
    standings: Annotated[tuple[Standing, ...], Field(max_length=10_000)]
    episodes: Annotated[tuple[EpisodeValues, ...], Field(max_length=1_000_000)]
    why: Explanation | None = None
    cost: Cost


class Summary(Written):
    """Summary of a metric over paired runs, by `automix.experiments.common.summaries`."""

    num_runs: Count
    mean: Number | None
    interval: IntervalValues | None
    interquartile_mean: Number | None
    standard_deviation: Number | None
    values: Annotated[tuple[Number | None, ...], Field(max_length=100_000)]
    difference: IntervalValues | None
    probability_of_improvement: IntervalValues | None
    p_value: Fraction | None
    p_value_holm: Fraction | None

    @model_validator(mode="after")
    def _the_mean_is_of_all(self) -> Self:
        if self.mean is not None and (not self.values or None in self.values):
            raise ValueError("expected no mean where a run diverged, got one")
        return self


class ComparedSchedule(Written):
    """A schedule of a comparison, on one split."""

    name: Text
    also: Names = ()
    num_diverged: Count
    calibrated_nll: Summary
    nll: Summary
    accuracy: Summary


class CompareResult(Written):
    """Result of `automix compare`."""

    verdict: Judgement | None = None
    num_seeds: Count
    baseline: Text
    splits: dict[
        Text, Annotated[tuple[ComparedSchedule, ...], Field(min_length=1, max_length=10_000)]
    ]

    @model_validator(mode="after")
    def _rows_are_paired(self) -> Self:
        for split, rows in self.splits.items():
            names = [name for row in rows for name in (row.name, *row.also)]
            if len(set(names)) < len(names):
                raise ValueError(f"expected each schedule once in {split}, got one twice")
            for metric in METRICS:
                if len({len(getattr(row, metric).values) for row in rows}) > 1:
                    raise ValueError(f"expected a {metric} of each seed in {split}, got fewer")
        return self


class MeasureValues(Written):
    """A measure of a sweep."""

    name: Text
    better: Direction


class SweepRow(Written):
    """Cells of a sweep that differ in the seed alone."""

    settings: dict[Text, Any]
    measures: dict[Text, Summary]


class SweepCell(Written):
    """A finished cell of a sweep."""

    cell: CellName
    settings: dict[Text, Any]
    values: dict[Text, Number | None]


class SweepTable(Written):
    """The table of a sweep."""

    name: Text
    experiment: Text
    seed_key: Text | None
    num_cells: Count
    measures: Annotated[tuple[MeasureValues, ...], Field(max_length=1000)]
    rows: Annotated[tuple[SweepRow, ...], Field(min_length=1, max_length=100_000)]
    cells: Annotated[tuple[SweepCell, ...], Field(max_length=1_000_000)]

    @model_validator(mode="after")
    def _every_measure_everywhere(self) -> Self:
        for name in (measure.name for measure in self.measures):
            in_rows = all(name in row.measures for row in self.rows)
            if not in_rows or not all(name in cell.values for cell in self.cells):
                raise ValueError(f"expected a value of {name} in every row, got none")
        return self


class EnvironmentValues(Written):
    """Versions, device and command of a run."""

    command: Annotated[str, Field(max_length=100_000)]
    automix: Text
    python: Text
    device: Text
    threads: Count
    packages: Annotated[dict[Text, Text], Field(max_length=100)]


_RESULTS: Mapping[str, type[Written]] = MappingProxyType(
    {
        "search": SearchResult,
        "replay": ReplayResult,
        "compare": CompareResult,
        "evaluation": EvaluationResult,
    }
)


def check_result(content: dict[str, Any], *, source: str) -> dict[str, Any]:
    """Return a result, if it is what its kind of run writes; see `check_written`."""
    kind = content.get("kind")
    if not isinstance(kind, str) or kind not in _RESULTS:
        raise CheckpointError(
            f"{source}: kind: expected one of {', '.join(_RESULTS)}, got {shown(kind)}"
        )
    return check_written(content, _RESULTS[kind], source=source)


def check_written(content: dict[str, Any], model: type[Written], *, source: str) -> dict[str, Any]:
    """Return ``content``, if it is what ``model`` describes.

    Raises:
        CheckpointError: it is not; in one line that begins with ``source``.
    """
    try:
        model.from_mapping(content, source=source)
    except ConfigError as error:
        raise CheckpointError(str(error)) from None
    return content


def read_written(path: Path, model: type[Written]) -> dict[str, Any]:
    """Return what a JSON file of a run says; see `check_written`."""
    return check_written(read_json(path, limit=MAX_SMALL_BYTES), model, source=str(path))
