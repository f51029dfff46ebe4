"""Small results to draw and to write; the numbers mean nothing."""

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch

from automix.evaluation.statistics import Interval
from automix.operator_info import OPERATOR_FACTS, Operator
from automix.operators.types import MixedBatch
from automix.reporting.canvas import FigureFunction
from automix.reporting.contact_sheet import Originals
from automix.reporting.figures.comparison import (
    Comparison,
    ComparisonRow,
    Cost,
    GainPoint,
    comparison_figure,
    cost_figure,
    gain_figure,
)
from automix.reporting.figures.evaluation import (
    Diagram,
    attacks_figure,
    heatmap_figure,
    occlusion_figure,
    reliability_figure,
)
from automix.reporting.figures.learning import learning_curve_figure
from automix.reporting.figures.schedule import SchedulePanel, schedule_figure
from automix.reporting.tables import Column, Direction, Table
from automix.schedule import Decision, Schedule, Segment

HOSTILE = "<script>alert('x')</script> & \"quoted\" $\\alpha$ </td>"


def schedule_of(*segments: tuple[float, str, float]) -> Schedule:
    """Segments as (start, operator, probability), at the operator's strongest level."""
    return Schedule(
        segments=tuple(
            Segment(
                start=start,
                decision=Decision(
                    operator=Operator(operator),
                    strength=OPERATOR_FACTS[Operator(operator)].strength.levels[-1],
                    probability=probability,
                ),
            )
            for start, operator, probability in segments
        )
    )


LEARNED = schedule_of(
    (0, "mixup", 1), (0.3, "cutmix", 0.75), (0.6, "guidedmixup", 0.5), (0.9, "none", 0)
)
CROWDED = schedule_of(
    *(
        (index / len(Operator), operator.value, 0.25 * (1 + index % 4))
        for index, operator in enumerate(Operator)
    )
)


def interval(estimate: float, half: float = 0.003) -> Interval:
    return Interval(estimate=estimate, low=estimate - half, high=estimate + half, confidence=0.95)


COMPARISON = Comparison(
    metric="calibrated NLL (nats)",
    statistic="mean of 100 seeds",
    better=Direction.LOWER,
    rows=(
        ComparisonRow(label="learned", value=interval(0.088), difference=interval(-0.004)),
        ComparisonRow(
            label="Mixup 0.2", value=interval(0.092), difference=None, operator=Operator.MIXUP
        ),
        ComparisonRow(label=HOSTILE[:24], value=interval(0.12), difference=interval(0.028)),
    ),
)
COST = Cost(
    stages=(("search", 310.0, 300), ("greedy", None, 4), ("replay", 1.1, None)),
    training_seconds=1.0,
)
RETURNS = [0.5 + 0.01 * (index % 7) + 0.004 * index for index in range(50)]
GAINS = tuple(
    GainPoint(label=row.label, cost=cost, gain=interval(-0.01 * cost / 100))
    for row, cost in zip(COMPARISON.rows, (300.0, 1.0, 1.01), strict=True)
)
RELIABILITY: tuple[str, Diagram] = (
    "before: ECE 6.1%",
    {
        "count": [0, 3, 10, 40],
        "accuracy": [0.0, 0.5, 0.7, 0.95],
        "confidence": [0.0, 0.4, 0.6, 0.9],
    },
)
ERRORS = np.outer([1.0, 2.0], [3.0, 4.0, 5.0]).tolist()
CURVES = {
    "random patches": {"fractions": (0, 0.5, 0.9), "accuracies": (0.95, 0.4, 0.11)},
    HOSTILE[:30]: {"fractions": (0, 0.5, 0.9), "accuracies": (0.95, 0.3, 0.1)},
}
ATTACKS = (
    ("no attack", interval(1.0, 0.0)),
    ("FGSM", interval(0.4, 0.05)),
    ("PGD", interval(0.0, 0.0)),
)
PANELS = (
    SchedulePanel(title="learned", schedules=(LEARNED,)),
    SchedulePanel(title="every operator", schedules=(CROWDED,)),
    SchedulePanel(title="two seeds", schedules=(LEARNED, CROWDED)),
    SchedulePanel(title="in progress", schedules=(LEARNED,), until=0.5),
)
FIGURES: dict[str, FigureFunction] = {
    "schedule": partial(schedule_figure, PANELS),
    "learning": partial(learning_curve_figure, RETURNS, per_rollout=8),
    "comparison": partial(comparison_figure, COMPARISON),
    "cost": partial(cost_figure, COST),
    "gain": partial(gain_figure, GAINS, metric="calibrated NLL", better=Direction.LOWER),
    "reliability": partial(reliability_figure, [RELIABILITY, RELIABILITY]),
    "heatmap": partial(
        heatmap_figure,
        ERRORS,
        rows=["fog", "gaussian_noise"],
        columns=["1", "3", "5"],
        column_title="severity",
    ),
    "occlusion": partial(occlusion_figure, CURVES, chance=0.1),
    "attacks": partial(attacks_figure, ATTACKS),
}


def half_and_half(images: torch.Tensor, labels: Sequence[int], *, num_classes: int) -> MixedBatch:
    """Mix each image with the next one: the right half of the pixels comes from the partner."""
    batch, _, height, width = images.shape
    mask = torch.zeros(batch, 1, height, width)
    mask[..., width // 2 :] = 1
    partner = (torch.arange(batch) + 1) % batch
    labels_B = torch.tensor(labels)
    lam = 1 - mask.mean(dim=(1, 2, 3))
    one_hot = torch.nn.functional.one_hot(labels_B, num_classes).float()
    return MixedBatch(
        images=torch.where(mask > 0, images[partner], images),
        targets=lam[:, None] * one_hot + (1 - lam[:, None]) * one_hot[partner],
        partner=partner,
        lam=lam,
        mask=mask,
        own_targets=labels_B,
        partner_targets=labels_B[partner],
    )


def small_images(
    batch: int = 3, channels: int = 1, height: int = 8, width: int = 8
) -> torch.Tensor:
    """Distinct images in [0, 1] without a global generator."""
    size = batch * channels * height * width
    return (torch.arange(size) % 256).float().div(255).reshape(batch, channels, height, width)


def small_originals(images: torch.Tensor, **changes: torch.Tensor) -> Originals:
    return Originals(images=images, class_names=["cat", "dog", HOSTILE], **changes)


def comparison_table(*, name: str, title: str, caption: str = "") -> Table:
    """Return the numbers of `COMPARISON` as a table: differences before means, as in reports."""
    columns = (
        Column(name="schedule"),
        Column(name="difference", unit=f"to {COMPARISON.baseline}"),
        Column(name=COMPARISON.metric, better=COMPARISON.better),
    )
    rows = tuple((row.label, row.difference, row.value) for row in COMPARISON.rows)
    return Table(name=name, title=title, columns=columns, rows=rows, caption=caption)
