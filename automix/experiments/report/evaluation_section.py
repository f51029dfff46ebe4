"""The part of a report about an evaluation."""

import functools
from typing import Any

from automix.evaluation.statistics import Interval
from automix.experiments.evaluate.config import EvaluationTask
from automix.experiments.report.finished import FinishedRun
from automix.reporting.figures.evaluation import (
    Heatmap,
    ReliabilityPanel,
    OcclusionLine,
    attacks_figure,
    heatmap_figure,
    occlusion_figure,
    reliability_figure,
)
from automix.reporting.page import ReportFigure, Section
from automix.reporting.tables import Column, Direction, Table

_ATTACKS = {
    "clean": "no attack",
    "fgsm": "FGSM",
    "pgd": "PGD",
    "autoattack": "AutoAttack",
}
_CONFIDENCE = 0.95

Block = ReportFigure | Table


def evaluation_section(run: FinishedRun, number: int) -> Section:
    """Return what an evaluation measured: figures, and the numbers behind them as tables.

    Args:
        run: the finished evaluation.
        number: distinguishes the files of several evaluations in one report.
    """
    result, prefix = run.result, f"evaluation-{number}"
    blocks: list[Block] = []
    if found := result.get(EvaluationTask.CLASSIFICATION):
        blocks += _classification(found, run, prefix)
    if found := result.get(EvaluationTask.CORRUPTIONS):
        blocks += _corruptions(found, run, prefix)
    curves = {
        name: result[task]
        for task, name in (
            (EvaluationTask.PATCH_OCCLUSION, "random patches"),
            (EvaluationTask.OBJECT_OCCLUSION, "object"),
        )
        if task in result
    }
    if curves:
        blocks += _occlusion(curves, run, prefix)
    if found := result.get(EvaluationTask.ATTACKS):
        blocks += _attacks(found, run, prefix)
    if found := result.get(EvaluationTask.LOCALIZATION):
        blocks.append(_localization(found, prefix))
    facts = (
        f"{result['model']} ({result['num_parameters']:,} weights) of the run {result['run']}, "
        f"training seed {result['training_seed']}, on {result['num_images']} images of the "
        f"{result['split']} split of {result['data_source']}. One training: intervals cover the "
        "choice of the images, not the seed."
    )
    return Section(title=f"Evaluation of {result['run']}", text=(facts,), blocks=tuple(blocks))


def _classification(found: dict[str, Any], run: FinishedRun, prefix: str) -> list[Block]:
    before, after = found["as_trained"], found["rescaled"]
    panels = [
        ReliabilityPanel(title=f"{title}: ECE {scores['ece']:.1%}", **scores["diagram"])
        for title, scores in (("as trained", before), ("temperature scaled", after))
    ]
    figure = ReportFigure(
        name=f"{prefix}-reliability",
        title="Reliability: accuracy against confidence",
        description="Accuracy of the images in each of 15 bins of confidence, before and after "
        "temperature scaling.",
        draw=functools.partial(reliability_figure, panels),
        caption=f"15 bins of equal width; temperature {found['temperature']:.3f} fitted on "
        f"{found['num_validation_images']} validation images.",
        source=run.source,
    )
    low, high = found["top1_interval"]
    scores = [
        ("accuracy (top 1)", _interval(found["top1"], low, high), None),
        ("accuracy (top 5)", found["top5"], None),
        ("NLL (nats)", before["nll"], after["nll"]),
        ("Brier score", before["brier"], after["brier"]),
        ("ECE, 15 equal-width bins", before["ece"], after["ece"]),
        ("adaptive ECE, 15 equal bins", before["adaptive_ece"], after["adaptive_ece"]),
    ]
    table = Table(
        name=f"{prefix}-scores",
        title="Scores",
        columns=(
            Column(name="score"),
            Column(name="as trained", digits=4),
            Column(name="temperature scaled", digits=4),
        ),
        rows=tuple(row for row in scores if row[1] is not None),
        caption="A temperature changes no prediction. 95% Wilson interval over the images.",
    )
    blocks: list[Block] = [figure, table, _groups(found["classes"], found["class_names"], prefix)]
    if "groups" in found:
        blocks.append(_groups(found["groups"], found["groups"]["names"], prefix, kind="group"))
    return blocks


def _groups(groups: dict[str, Any], names: list[str], prefix: str, *, kind: str = "class") -> Table:
    rows = [
        (name, count, share)
        for name, count, share in zip(names, groups["counts"], groups["values"], strict=True)
    ]
    return Table(
        name=f"{prefix}-{kind}",
        title=f"Accuracy of each {kind}",
        columns=(
            Column(name=kind),
            Column(name="images", digits=9),
            Column(name="accuracy", better=Direction.HIGHER, digits=4),
        ),
        rows=tuple(rows),
        caption=f"Mean over the {kind}s that have images {groups['macro']:.4f}, standard deviation "
        f"between them {groups['standard_deviation']:.4f}; worst {names[groups['worst_group']]}: "
        f"{groups['worst']:.4f}.",
    )


def _corruptions(found: dict[str, Any], run: FinishedRun, prefix: str) -> list[Block]:
    errors = found["errors"]
    names = [name.replace("_", " ") for name in errors]
    values = [[100 * value for value in row] for row in errors.values()]
    source = found["archive"] or "our own seeded implementations of the corruptions"
    caption = (
        f"Errors in % on {found['num_images']} images per cell, {source}. Unnormalized mean "
        f"corruption error {found['unnormalized_mean_corruption_error']:.2%}."
    )
    if not found["archive"]:
        caption += " They do not compare with errors on the published arrays of CIFAR-C."
    heatmap = Heatmap(
        values=values,
        rows=names,
        columns=[str(severity) for severity in range(1, len(values[0]) + 1)],
        better=Direction.LOWER,
        column_title="severity",
    )
    figure = ReportFigure(
        name=f"{prefix}-corruptions",
        title="Errors under corruption",
        description="Error of each of the 15 corruptions at severities 1 to 5.",
        draw=functools.partial(heatmap_figure, heatmap),
        caption=caption,
        source=run.source,
    )
    table = Table(
        name=f"{prefix}-corruptions",
        title="Errors under corruption, as numbers",
        columns=(
            Column(name="corruption"),
            *(Column(name=f"severity {number}", unit="%") for number in heatmap.columns),
            Column(name="mean", unit="%", better=Direction.LOWER),
        ),
        rows=tuple(
            (name, *row, sum(row) / len(row)) for name, row in zip(names, values, strict=True)
        ),
    )
    return [figure, table]


def _occlusion(curves: dict[str, Any], run: FinishedRun, prefix: str) -> list[Block]:
    drawn = [
        OcclusionLine(name=name, fractions=curve["fractions"], accuracies=curve["accuracies"])
        for name, curve in curves.items()
    ]
    details = [
        f"{name}: {curve['num_images']} images"
        + (f", patches of {curve['patch_size']} pixels square" if "patch_size" in curve else "")
        + (f", from {curve['object_from']}" if "object_from" in curve else "")
        for name, curve in curves.items()
    ]
    figure = ReportFigure(
        name=f"{prefix}-occlusion",
        title="Accuracy while the image is hidden",
        description="Accuracy over the share of the image or of the object that is hidden.",
        draw=functools.partial(occlusion_figure, drawn, chance=1 / run.result["num_classes"]),
        caption="; ".join(details) + ". Filled with the mean color of the training images.",
        source=run.source,
    )
    first = next(iter(curves.values()))
    table = Table(
        name=f"{prefix}-occlusion",
        title="Accuracy while the image is hidden, as numbers",
        columns=(
            Column(name="hidden"),
            *(Column(name=name, digits=4) for name in curves),
        ),
        rows=tuple(
            (f"{share:.0%}", *(curve["accuracies"][index] for curve in curves.values()))
            for index, share in enumerate(first["fractions"])
        ),
    )
    return [figure, table]


def _attacks(found: dict[str, Any], run: FinishedRun, prefix: str) -> list[Block]:
    rows = [
        (title, _interval(found[name], *found[f"{name}_interval"]))
        for name, title in _ATTACKS.items()
        if name in found
    ]
    settings = found["settings"]
    caption = (
        f"{found['num_images']} images; maximum norm {settings['epsilon'] * 255:g}/255 in pixel "
        f"space, PGD with {settings['num_steps']} steps of {settings['step_size'] * 255:g}/255 "
        f"from {settings['num_restarts']} random starts. 95% Wilson intervals over the images. "
        "FGSM alone is no evidence of robustness."
    )
    figure = ReportFigure(
        name=f"{prefix}-attacks",
        title="Accuracy under attack",
        description="Accuracy without attack and under each attack.",
        draw=functools.partial(attacks_figure, rows),
        caption=caption,
        source=run.source,
    )
    table = Table(
        name=f"{prefix}-attacks",
        title="Accuracy under attack, as numbers",
        columns=(Column(name="attack"), Column(name="accuracy", digits=4)),
        rows=tuple(rows),
    )
    return [figure, table]


def _localization(found: dict[str, Any], prefix: str) -> Table:
    levels = [f"overlap {level:g}" for level in found["iou_levels"]]
    kinds = (("class known", "max_box_acc_v2"), ("and predicted right", "top1_max_box_acc_v2"))
    rows = tuple(
        (title, found[name], found.get(f"{name}_cross_fitted"), *found[f"{name}_per_level"])
        for title, name in kinds
    )
    return Table(
        name=f"{prefix}-localization",
        title="Weakly supervised localization",
        columns=(
            Column(name="images counted"),
            Column(name="MaxBoxAccV2", digits=4),
            Column(name="cross-fitted", digits=4),
            *(Column(name=level, digits=4) for level in levels),
        ),
        rows=rows,
        caption=f"Class activation maps at {found['layer']}, {found['num_images']} images with "
        "boxes. MaxBoxAccV2 chooses thresholds on the images themselves, which flatters; "
        "cross-fitted chooses them on the other half.",
    )


def _interval(estimate: float, low: float, high: float) -> Interval:
    return Interval(estimate=estimate, low=low, high=high, confidence=_CONFIDENCE)
