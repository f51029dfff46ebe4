"""Schemas of the files of a finished run, as far as reports, cards and evaluations read them.

A run may come from others, or be damaged: a file that does not fit is one line that names it.
Values that nobody reads are not checked, so that results of other versions stay readable.
"""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from automix.configuration.base import Config, shown
from automix.errors import CheckpointError, ConfigError
from automix.experiments.common.summaries import METRICS
from automix.readers import read_json
from automix.reporting.tables import Direction

# What lies beyond was measured by nobody, and pictures of it overflow.
Number = Annotated[float, Field(ge=-1e9, le=1e9)]
Positive = Annotated[float, Field(gt=1e-9, le=1e12)]
NotNegative = Annotated[float, Field(ge=0, le=1e12)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0, le=10**12)]
Text = Annotated[str, Field(max_length=2000)]
Names = Annotated[tuple[Text, ...], Field(max_length=1000)]
Fractions = Annotated[tuple[Fraction, ...], Field(min_length=1, max_length=100_000)]
# What is validated is in memory several times over.
MAX_SMALL_BYTES = 1_000_000
MAX_TABLE_BYTES = 8_000_000
# Joined to the path of the sweep: the name of a folder in it, and no way out of it.
CellName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,200}$")]


class Written(Config):
    """A part of a file that a run wrote; other keys may be there."""

    model_config = ConfigDict(extra="ignore")


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


class Diagram(Written):
    """Bins of a reliability diagram."""

    count: Annotated[tuple[NotNegative, ...], Field(min_length=1, max_length=1000)]
    accuracy: Fractions
    confidence: Fractions

    @model_validator(mode="after")
    def _all_of_each_bin(self) -> Self:
        _check_lengths(self.count, self.accuracy, self.confidence)
        return self


class Calibration(Written):
    """Scores before or after temperature scaling."""

    nll: Number
    brier: Number
    ece: Fraction
    adaptive_ece: Fraction
    diagram: Diagram


class Groups(Written):
    """Accuracy of each class or group."""

    values: Annotated[tuple[Fraction | None, ...], Field(min_length=1, max_length=100_000)]
    counts: Annotated[tuple[Count, ...], Field(min_length=1, max_length=100_000)]
    macro: Fraction
    standard_deviation: Number
    worst: Fraction
    worst_group: Count
    names: tuple[Text, ...] | None = None

    @model_validator(mode="after")
    def _all_of_each_group(self) -> Self:
        _check_lengths(self.values, self.counts, *([] if self.names is None else [self.names]))
        if self.worst_group >= len(self.values):
            raise ValueError(f"expected the worst of {len(self.values)}, got {self.worst_group}")
        return self


class Classification(Written):
    """The task `classification` of an evaluation."""

    as_trained: Calibration
    rescaled: Calibration
    top1: Fraction
    top1_interval: tuple[Number, Number]
    top5: Fraction | None
    temperature: Number
    num_validation_images: Count
    classes: Groups
    class_names: tuple[Text, ...]
    groups: Groups | None = None

    @model_validator(mode="after")
    def _names_of_all(self) -> Self:
        _check_lengths(self.class_names, self.classes.values)
        if self.groups is not None and self.groups.names is None:
            raise ValueError("expected the names of the groups, got none")
        return self


class Corruptions(Written):
    """The task `corruptions` of an evaluation."""

    source: Text
    archive: Text | None
    num_images: Count
    unnormalized_mean_corruption_error: Fraction
    errors: Annotated[dict[Text, Fractions], Field(min_length=1, max_length=1000)]

    @model_validator(mode="after")
    def _each_severity(self) -> Self:
        _check_lengths(*self.errors.values())
        return self


class Occlusion(Written):
    """A task of occlusion of an evaluation."""

    num_images: Count
    fractions: Fractions
    accuracies: Fractions
    patch_size: Count = 0
    object_from: Text = ""

    @model_validator(mode="after")
    def _one_of_each(self) -> Self:
        _check_lengths(self.fractions, self.accuracies)
        if 0.5 not in self.fractions:
            raise ValueError("expected the accuracy with half hidden, got none")
        return self


class AttackSettings(Written):
    """Settings of the attacks."""

    epsilon: Fraction
    step_size: Fraction
    num_steps: Count
    num_restarts: Count


class Attacks(Written):
    """The task `attacks` of an evaluation."""

    num_images: Count
    settings: AttackSettings
    clean: Fraction
    clean_interval: tuple[Number, Number]
    fgsm: Fraction = 0.0
    fgsm_interval: tuple[Number, Number] = (0.0, 0.0)
    pgd: Fraction = 0.0
    pgd_interval: tuple[Number, Number] = (0.0, 0.0)
    autoattack: Fraction = 0.0
    autoattack_interval: tuple[Number, Number] = (0.0, 0.0)

    @model_validator(mode="after")
    def _intervals_of_all(self) -> Self:
        for name in ("fgsm", "pgd", "autoattack"):
            if name in self.model_fields_set and f"{name}_interval" not in self.model_fields_set:
                raise ValueError(f"expected the interval of {name}, got none")
        return self


class Localization(Written):
    """The task `localization` of an evaluation."""

    num_images: Count
    layer: Text
    iou_levels: Fractions
    max_box_acc_v2: Fraction
    max_box_acc_v2_cross_fitted: Fraction | None = None
    max_box_acc_v2_per_level: Fractions
    top1_max_box_acc_v2: Fraction
    top1_max_box_acc_v2_cross_fitted: Fraction | None = None
    top1_max_box_acc_v2_per_level: Fractions

    @model_validator(mode="after")
    def _one_of_each_level(self) -> Self:
        per_level = (self.max_box_acc_v2_per_level, self.top1_max_box_acc_v2_per_level)
        _check_lengths(self.iou_levels, *per_level)
        return self


class EvaluationResult(Written):
    """Result of `automix evaluate`; a task that was not chosen is not there."""

    run: Text
    model: Text
    num_parameters: Count
    weights_hash: Text
    training_seed: Count
    num_images: Count
    split: Text
    data_source: Text
    num_classes: Annotated[int, Field(ge=1, le=10**9)]
    classification: Classification | None = None
    corruptions: Corruptions | None = None
    patch_occlusion: Occlusion | None = None
    object_occlusion: Occlusion | None = None
    attacks: Attacks | None = None
    localization: Localization | None = None

    @model_validator(mode="after")
    def _curves_side_by_side(self) -> Self:
        curves = [it for it in (self.patch_occlusion, self.object_occlusion) if it is not None]
        _check_lengths(*(curve.fractions for curve in curves))
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


def _check_lengths(*parts: tuple[object, ...]) -> None:
    lengths = [len(part) for part in parts]
    if len(set(lengths)) > 1:
        raise ValueError(f"expected lists of equal length, got {lengths}"[:200])
