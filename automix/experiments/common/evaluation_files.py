"""Schemas of the result of an evaluation, see `automix.experiments.common.run_files`."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from automix.experiments.common.written import (
    Count,
    Fraction,
    Fractions,
    NotNegative,
    Number,
    Text,
    Written,
    check_lengths,
)


class Diagram(Written):
    """Bins of a reliability diagram."""

    count: Annotated[tuple[NotNegative, ...], Field(min_length=1, max_length=1000)]
    accuracy: Fractions
    confidence: Fractions

    @model_validator(mode="after")
    def _all_of_each_bin(self) -> Self:
        check_lengths(self.count, self.accuracy, self.confidence)
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
    macro_std: Fraction | None = None

    @model_validator(mode="after")
    def _all_of_each_group(self) -> Self:
        check_lengths(self.values, self.counts, *([] if self.names is None else [self.names]))
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
        check_lengths(self.class_names, self.classes.values)
        if self.groups is not None and self.groups.names is None:
            raise ValueError("expected the names of the groups, got none")
        return self


class SeveralLabels(Written):
    """The task `several_labels` of an evaluation."""

    num_images: Count
    num_validation_images: Count
    nll: Number
    calibrated_nll: Number
    accuracy: Fraction
    temperature: Number
    worst_class_accuracy: Fraction
    mean_average_precision: Fraction
    class_names: tuple[Text, ...]
    counts: Annotated[tuple[Count, ...], Field(min_length=1, max_length=100_000)]
    average_precisions: tuple[Fraction | None, ...]
    recalls: tuple[Fraction | None, ...]

    @model_validator(mode="after")
    def _all_of_each_class(self) -> Self:
        check_lengths(self.class_names, self.counts, self.average_precisions, self.recalls)
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
        check_lengths(*self.errors.values())
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
        check_lengths(self.fractions, self.accuracies)
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
        check_lengths(self.iou_levels, *per_level)
        return self


class Removal(Written):
    """Accuracy while the cells are removed that one saliency source ranks."""

    fractions: Fractions
    salient: Fractions
    random: Fractions
    least: Fractions
    margin: Number
    margin_interval: tuple[Number, Number]

    @model_validator(mode="after")
    def _one_of_each(self) -> Self:
        check_lengths(self.fractions, self.salient, self.random, self.least)
        return self


class SaliencyRemoval(Written):
    """The task `saliency_removal` of an evaluation."""

    num_images: Count
    patch_size: Count
    sources: Annotated[dict[Text, Removal], Field(min_length=1, max_length=100)]


class Agreement(Written):
    """Agreement of the maps of two training runs."""

    rank_correlation: Number
    rank_correlation_interval: tuple[Number, Number]
    top_quarter: Fraction
    top_quarter_interval: tuple[Number, Number]


class RunAgreement(Written):
    """Agreement with another run, by saliency source."""

    run: Text
    sources: Annotated[dict[Text, Agreement], Field(min_length=1, max_length=100)]


class AttributionConsistency(Written):
    """The task `attribution_consistency` of an evaluation."""

    num_images: Count
    grid: Count
    runs: Annotated[tuple[RunAgreement, ...], Field(min_length=1, max_length=1000)]


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
    saliency_removal: SaliencyRemoval | None = None
    attribution_consistency: AttributionConsistency | None = None
    several_labels: SeveralLabels | None = None

    @model_validator(mode="after")
    def _curves_side_by_side(self) -> Self:
        curves = [it for it in (self.patch_occlusion, self.object_occlusion) if it is not None]
        check_lengths(*(curve.fractions for curve in curves))
        return self
