"""The data of figures as tables, for those who want the numbers or cannot see the picture."""

from automix.reporting.figures.comparison import Comparison
from automix.reporting.figures.cost import Cost
from automix.reporting.palette import OPERATOR_NAMES
from automix.reporting.tables import Column, Table
from automix.schedule import Schedule
from automix.vocabulary import Operator


def schedule_table(schedule: Schedule, *, name: str, title: str, caption: str = "") -> Table:
    """Return one row per segment: where it begins, operator, strength and mixed share."""
    rows = []
    for segment in schedule.segments:
        decision = segment.decision
        is_mixing = decision.operator is not Operator.NONE and decision.probability > 0
        rows.append(
            (
                100 * segment.start,
                OPERATOR_NAMES[decision.operator if is_mixing else Operator.NONE],
                decision.strength if is_mixing else None,
                100 * decision.probability if is_mixing else 0,
            )
        )
    columns = (
        Column(name="start", unit="% of training"),
        Column(name="operator"),
        Column(name="strength"),
        Column(name="mixed batches", unit="%"),
    )
    return Table(name=name, title=title, columns=columns, rows=tuple(rows), caption=caption)


def comparison_table(comparison: Comparison, *, name: str, title: str, caption: str = "") -> Table:
    """Return one row per schedule: its value and its paired difference to the baseline."""
    columns = (
        Column(name="schedule"),
        Column(name=comparison.metric, unit=comparison.statistic, better=comparison.better),
        Column(name=f"difference to {comparison.baseline}"),
    )
    rows = tuple((row.label, row.value, row.difference) for row in comparison.rows)
    return Table(name=name, title=title, columns=columns, rows=rows, caption=caption)


def cost_table(cost: Cost, *, name: str, title: str, caption: str = "") -> Table:
    """Return one row per stage, and their sum: seconds, and plain trainings of that length."""
    total = sum(seconds for _, seconds in cost.stages)
    stages = (*cost.stages, ("total", total))
    columns = (
        Column(name="stage"),
        Column(name="time", unit="s"),
        Column(name="plain trainings", digits=2),
    )
    rows = tuple((stage, seconds, cost.in_trainings(seconds)) for stage, seconds in stages)
    return Table(name=name, title=title, columns=columns, rows=rows, caption=caption)
