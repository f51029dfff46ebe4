"""Sections of a report made of plain results: of an evaluation, of a sweep."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from automix.evaluation.calibration import TEMPERATURE_FROM
from automix.evaluation.statistics import Interval
from automix.reporting.figures.comparison import Comparison, ComparisonRow, comparison_figure
from automix.reporting.figures.evaluation import (
    attacks_figure,
    heatmap_figure,
    occlusion_figure,
    reliability_figure,
)
from automix.reporting.figures.schedule import SchedulePanel, schedule_figure
from automix.reporting.page import Block, ReportFigure, Section, Source
from automix.reporting.tables import (
    Column,
    Direction,
    Table,
    cells_table,
    interval_of,
    measure_table,
)
from automix.schedule import Schedule

_ALPHA = 0.05  # of the p-values after Holm's correction
_ATTACKS = {"clean": "no attack", "fgsm": "FGSM", "pgd": "PGD", "autoattack": "AutoAttack"}

Json = Mapping[str, Any]


def evaluation_section(result: Json, source: Source, number: int, *, link: str = "") -> Section:
    """Return what an evaluation measured; tasks that are missing in its result are not shown.

    ``number`` distinguishes the files of several evaluations in one report; ``link`` leads to its
    folder.
    """
    prefix = f"evaluation-{number}"
    blocks: list[Block] = []
    if scores := result.get("classification"):
        blocks += _classification(scores, prefix)
    if labels := result.get("several_labels"):
        blocks += _several_labels(labels, prefix)
    if errors := result.get("corruptions"):
        blocks += _corruptions(errors, prefix)
    names = (("patch_occlusion", "random patches"), ("object_occlusion", "object"))
    if curves := {name: result[task] for task, name in names if task in result}:
        blocks += _occlusion(curves, prefix, chance=1 / result["num_classes"])
    if attacks := result.get("attacks"):
        blocks += _attacks(attacks, prefix)
    if localization := result.get("localization"):
        blocks.append(_localization(localization, prefix))
    if removal := result.get("saliency_removal"):
        blocks.append(_removal(removal, prefix))
    if consistency := result.get("attribution_consistency"):
        blocks.append(_consistency(consistency, prefix))
    facts = (
        f"{result['model']} ({result['num_parameters']:,} weights), training seed "
        f"{result['training_seed']}, on {result['num_images']} images of the "
        f"{result['split']} split of {result['data_source']}. One training run: intervals cover "
        "the choice of the images, not the seed."
    )
    # Never by the name of a folder, which may be any word.
    title = f"Evaluation{'' if number == 1 else f' {number}'}: {result['model']}, "
    title += f"seed {result['training_seed']}"
    return Section(title=title, text=(facts,), blocks=tuple(blocks), source=source, link=link)


def _classification(part: Json, prefix: str) -> list[Block]:
    before, after = part["as_trained"], part["rescaled"]
    is_worse = after["ece"] > before["ece"]
    panels = [
        (f"{title}: ECE {scores['ece']:.1%}{mark}", scores["diagram"])
        for title, scores, mark in (
            ("as trained", before, ""),
            ("temperature scaled", after, ", worse" if is_worse else ""),
        )
    ]
    figure = ReportFigure(
        name=f"{prefix}-reliability",
        title="Reliability: accuracy against confidence",
        description="Accuracy of the images in each of 15 bins of confidence, before and after "
        "temperature scaling.",
        draw=functools.partial(reliability_figure, panels),
        caption=f"15 bins of equal width; {TEMPERATURE_FROM} ({part['num_validation_images']}): "
        f"{part['temperature']:.3f}."
        + (" It is fitted for NLL, and here it makes ECE worse." if is_worse else ""),
    )
    scores = [
        ("accuracy (top 1)", _interval(part["top1"], *part["top1_interval"]), None),
        ("accuracy (top 5)", part["top5"], None),
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
        # With at most five classes there is no top 5.
        rows=tuple(row for row in scores if row[1] is not None),
        caption=f"Temperature scaled: {TEMPERATURE_FROM}; its NLL is the calibrated NLL. A "
        "temperature changes no prediction. 95% Wilson interval over the images."
        + (" The scaling makes ECE worse here." if is_worse else ""),
    )
    classes = _groups(part["classes"], part["class_names"], prefix)
    blocks: list[Block] = [figure, table, classes]
    if "groups" in part:
        blocks.append(_groups(part["groups"], part["groups"]["names"], prefix, kind="group"))
    return blocks


def _several_labels(part: Json, prefix: str) -> list[Block]:
    scores = (
        ("mean average precision", part["mean_average_precision"]),
        ("fraction of the labels that are right", part["accuracy"]),
        ("recall of the worst class", part["worst_class_accuracy"]),
        ("NLL (nats)", part["nll"]),
        ("calibrated NLL (nats)", part["calibrated_nll"]),
    )
    table = Table(
        name=f"{prefix}-scores",
        title="Scores",
        columns=(Column(name="score"), Column(name="value", digits=4)),
        rows=scores,
        caption=f"NLL: mean over the labels. {TEMPERATURE_FROM} "
        f"({part['num_validation_images']}): {part['temperature']:.3f}.",
    )
    rows = zip(
        part["class_names"],
        part["counts"],
        part["average_precisions"],
        part["recalls"],
        strict=True,
    )
    classes = Table(
        name=f"{prefix}-class",
        title="Scores of each class",
        columns=(
            Column(name="class"),
            Column(name="images", digits=9),
            Column(name="average precision", better=Direction.HIGHER, digits=4),
            Column(name="recall", better=Direction.HIGHER, digits=4),
        ),
        rows=tuple(rows),
    )
    return [table, classes]


def _groups(groups: Json, names: list[str], prefix: str, *, kind: str = "class") -> Table:
    return Table(
        name=f"{prefix}-{kind}",
        title=f"Accuracy of each {kind}",
        columns=(
            Column(name=kind),
            Column(name="images", digits=9),
            Column(name="accuracy", better=Direction.HIGHER, digits=4),
        ),
        rows=tuple(zip(names, groups["counts"], groups["values"], strict=True)),
        caption=f"Mean over {'classes' if kind == 'class' else 'groups'} that have images "
        f"{groups['macro']:.4f}, standard deviation "
        f"between them {groups['standard_deviation']:.4f}; worst {names[groups['worst_group']]}: "
        f"{groups['worst']:.4f}.",
    )


def _corruptions(part: Json, prefix: str) -> list[Block]:
    errors = part["errors"]
    names = [name.replace("_", " ") for name in errors]
    values = [[100 * value for value in row] for row in errors.values()]
    origin = part["archive"] or "our own seeded implementations of the corruptions"
    caption = (
        f"Errors in % on {part['num_images']} images per cell, {origin}. Unnormalized mean "
        f"corruption error {part['unnormalized_mean_corruption_error']:.2%}."
    )
    if not part["archive"]:
        caption += " They do not compare with errors on the published arrays of CIFAR-C."
    severities = [str(severity) for severity in range(1, len(values[0]) + 1)]
    figure = ReportFigure(
        name=f"{prefix}-corruptions",
        title="Errors under corruption",
        description="Error of each of the 15 corruptions at severities 1 to 5.",
        draw=functools.partial(
            heatmap_figure,
            values,
            rows=names,
            columns=severities,
            column_title="severity",
        ),
        caption=caption,
    )
    table = Table(
        name=f"{prefix}-corruptions",
        title="Errors under corruption, as numbers",
        columns=(
            Column(name="corruption"),
            *(Column(name=f"severity {number}", unit="%") for number in severities),
            Column(name="mean", unit="%", better=Direction.LOWER),
        ),
        rows=tuple(
            (name, *row, sum(row) / len(row)) for name, row in zip(names, values, strict=True)
        ),
    )
    return [figure, table]


def _occlusion(curves: Json, prefix: str, *, chance: float) -> list[Block]:
    details = [
        f"{name}: {curve['num_images']} images"
        + (f", patches of {curve['patch_size']} pixels square" if "patch_size" in curve else "")
        + (f", from {curve['object_from']}" if "object_from" in curve else "")
        for name, curve in curves.items()
    ]
    figure = ReportFigure(
        name=f"{prefix}-occlusion",
        title="Accuracy while the image is hidden",
        description="Accuracy over the fraction of the image or of the object that is hidden.",
        draw=functools.partial(occlusion_figure, curves, chance=chance),
        caption="; ".join(details) + ". Filled with the mean color of the training images.",
    )
    (first, *_) = curves.values()
    table = Table(
        name=f"{prefix}-occlusion",
        title="Accuracy while the image is hidden, as numbers",
        columns=(Column(name="hidden"), *(Column(name=name, digits=4) for name in curves)),
        rows=tuple(
            (f"{fraction:.0%}", *(curve["accuracies"][index] for curve in curves.values()))
            for index, fraction in enumerate(first["fractions"])
        ),
    )
    return [figure, table]


def _attacks(part: Json, prefix: str) -> list[Block]:
    rows = [
        (title, _interval(part[name], *part[f"{name}_interval"]))
        for name, title in _ATTACKS.items()
        if name in part
    ]
    settings = part["settings"]
    caption = (
        f"{part['num_images']} images; maximum norm {settings['epsilon'] * 255:g}/255 in pixel "
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
    )
    table = Table(
        name=f"{prefix}-attacks",
        title="Accuracy under attack, as numbers",
        columns=(Column(name="attack"), Column(name="accuracy", digits=4)),
        rows=tuple(rows),
    )
    return [figure, table]


def _localization(part: Json, prefix: str) -> Table:
    kinds = (("class known", "max_box_acc_v2"), ("and predicted right", "top1_max_box_acc_v2"))
    rows = tuple(
        (title, part[name], part.get(f"{name}_cross_fitted"), *part[f"{name}_per_level"])
        for title, name in kinds
    )
    return Table(
        name=f"{prefix}-localization",
        title="Weakly supervised localization",
        columns=(
            Column(name="images counted"),
            Column(name="MaxBoxAccV2", digits=4),
            Column(name="cross-fitted", digits=4),
            *(Column(name=f"overlap {level:g}", digits=4) for level in part["iou_levels"]),
        ),
        rows=rows,
        caption=f"Class activation maps at {part['layer']}, {part['num_images']} images with "
        "boxes. MaxBoxAccV2 chooses thresholds on the images themselves, which flatters; "
        "cross-fitted chooses them on the other half.",
    )


def _removal(part: Json, prefix: str) -> Table:
    half = {name: row["fractions"].index(0.5) for name, row in part["sources"].items()}
    return Table(
        name=f"{prefix}-saliency-removal",
        title="Accuracy while cells are removed",
        columns=(
            Column(name="saliency source"),
            Column(name="salient half removed", digits=4),
            Column(name="random half removed", digits=4),
            Column(name="other half removed", digits=4),
            Column(name="margin", digits=4),
        ),
        rows=tuple(
            (
                name,
                *(row[kind][half[name]] for kind in ("salient", "random", "least")),
                _interval(row["margin"], *row["margin_interval"]),
            )
            for name, row in part["sources"].items()
        ),
        caption=f"{part['num_images']} images, cells of {part['patch_size']} pixels square. The "
        "margin is the accuracy with random cells removed less that with the most salient ones, "
        "mean over 10 to 90% of the cells: above 0 the map means something.",
    )


def _consistency(part: Json, prefix: str) -> Table:
    return Table(
        name=f"{prefix}-attribution-consistency",
        title="Agreement of saliency maps with other training runs",
        columns=(
            Column(name="run"),
            Column(name="saliency source"),
            Column(name="rank correlation", digits=4),
            Column(name="common top quarter", digits=4),
        ),
        rows=tuple(
            (
                f"{number}: {other['run']}",
                name,
                _interval(row["rank_correlation"], *row["rank_correlation_interval"]),
                _interval(row["top_quarter"], *row["top_quarter_interval"]),
            )
            for number, other in enumerate(part["runs"], start=1)
            for name, row in other["sources"].items()
        ),
        caption=f"{part['num_images']} images, {part['grid']} x {part['grid']} cells; intervals "
        "over the images. By chance the quarters have a quarter in common.",
    )


def _interval(estimate: float, low: float, high: float) -> Interval:
    return Interval(estimate=estimate, low=low, high=high, confidence=0.95)


def sweep_section(
    table: Json, slug: str, source: Source, schedules: Mapping[str, Sequence[Schedule]]
) -> Section:
    """Return effects and table of every measure of a sweep, then the schedules that were found.

    ``table`` is of `automix.experiments.sweep.table.build_table`, with the ``name`` of the sweep;
    ``slug`` begins the names of its figures and tables; ``schedules`` are those of the searches in
    the sweep, by `settings_label` of their row.
    """
    blocks: list[Block] = []
    is_seeded = table["seed_key"] is not None
    for number, measure in enumerate(table["measures"], start=1):
        if is_seeded:
            blocks += _measure_blocks(table, measure, f"{slug}-{number}")
    if schedules:
        blocks.append(_schedules_of_rows(schedules, f"{slug}-schedules"))
    blocks.append(cells_table(table, name=f"{slug}-cells"))
    is_compared = is_seeded and len(table["rows"]) > 1
    sentences = [_effect(table, measure) for measure in table["measures"] if is_compared]
    count, total = len(table["cells"]), table["num_cells"]
    text = f"{count} of {total} cells are finished; a cell is one {table['experiment']}."
    return Section(
        title=f"Ablation: {table['name']}",
        text=(text.replace("_", " "), *sentences),
        blocks=tuple(blocks),
        source=source,
    )


def sweep_sentence(table: Json) -> str:
    """Return the effect on the first measure of a sweep, or how much of the sweep is done."""
    if not table["measures"] or table["seed_key"] is None or len(table["rows"]) < 2:
        count, total = len(table["cells"]), table["num_cells"]
        return f"Ablation {table['name']}: {count} of {total} cells are finished."
    return f"Ablation {table['name']}: {_effect(table, table['measures'][0])}"


def settings_label(settings: Json) -> str:
    """Return the settings of a row in one line; without any, `all`."""
    return ", ".join(f"{key}={value}" for key, value in settings.items()) or "all"


def _effect(table: Json, measure: Json) -> str:
    """Return which rows differ significantly from the first in a measure."""
    first, *others = table["rows"]
    p_values = {
        settings_label(row["settings"]): row["measures"][measure["name"]]["p_value_holm"]
        for row in others
    }
    tested = {label: value for label, value in p_values.items() if value is not None}
    different = [label for label, value in tested.items() if value <= _ALPHA]
    verdict = f"{', '.join(different)} differ" if different else "none is shown to differ"
    return (
        f"{measure['name']}: of {len(tested)} rows compared with "
        f"{settings_label(first['settings'])!r}, {verdict} at 5% after Holm's correction."
    )


def _measure_blocks(table: Json, measure: Json, name: str) -> list[Block]:
    """Return the figure of a measure, where rows have intervals, and its table."""
    seed_key, first = table["seed_key"], settings_label(table["rows"][0]["settings"])
    caption = (
        f"Over the values of {seed_key!r}; differences to {first!r} are paired. 95% intervals: "
        "BCa of means and differences, Wilson of probabilities; p-values by sign flips, corrected "
        "for the number of rows."
    )
    blocks: list[Block] = [measure_table(table, measure, name=name, caption=caption)]
    if (comparison := _comparison(table, measure)) is not None:
        figure = ReportFigure(
            name=name,
            title=measure["name"],
            description=f"{measure['name']} of each row, and its paired difference to the first.",
            draw=functools.partial(comparison_figure, comparison),
            caption=f"Over the values of {seed_key!r}, 95% BCa intervals.",
        )
        blocks.insert(0, figure)
    return blocks


def _comparison(table: Json, measure: Json) -> Comparison | None:
    """Return the rows that have intervals; None without the first, or without any other."""
    first = table["rows"][0]
    summaries = [(row, row["measures"][measure["name"]]) for row in table["rows"]]
    # Every row but the first is shown with its difference to the first.
    shown = [
        (row, summary)
        for row, summary in summaries
        if summary["interval"] is not None and (summary["difference"] is None) == (row is first)
    ]
    if len(shown) < 2 or shown[0][0] is not first:
        return None
    rows = tuple(
        ComparisonRow(
            label=settings_label(row["settings"]).removeprefix("variant="),
            value=Interval(**summary["interval"]),
            difference=interval_of(summary["difference"]),
        )
        for row, summary in shown
    )
    return Comparison(
        metric=measure["name"],
        statistic=f"mean of {max(summary['num_runs'] for _, summary in shown)} cells",
        better=Direction(measure["better"]),
        rows=rows,
    )


def _schedules_of_rows(schedules: Mapping[str, Sequence[Schedule]], name: str) -> ReportFigure:
    """Return means and quartiles, over the seeds, of the schedules that each row found."""
    panels = [
        SchedulePanel(
            title=f"{label.removeprefix('variant=')}, {len(group)} seeds", schedules=tuple(group)
        )
        for label, group in schedules.items()
    ]
    return ReportFigure(
        name=name,
        title="What was found",
        description="Fraction of batches mixed by each operator over the training run, by row.",
        draw=functools.partial(schedule_figure, panels),
        caption="Means over the seeds of the search; whiskers and bands are quartiles.",
    )
