"""What a probe found, as text."""

from collections.abc import Mapping
from typing import Any

from automix.experiments.forecast import MOST_EPISODES
from automix.experiments.progress import format_seconds
from automix.experiments.text_tables import align, interval_text


def format_findings(result: Mapping[str, Any]) -> str:
    """Return the findings as text, the best constant first."""
    correlation, better = result["intraclass_correlation"], result["mixing"]
    rows = [["constant", "calibrated NLL (nats), 95% interval"]]
    rows += [[row["name"], interval_text(row["interval"], ".4f")] for row in result["constants"]]
    lines = align(rows)
    lines.append(f"random schedules: {result['random_mean']:.4f}")
    lines.append(
        "share of the variance of a training that is its operator's: "
        + interval_text(correlation, ".2f")
    )
    if better is not None:
        lines.append(
            f"{better['name']} against none: {interval_text(better['difference'], '+.4f')}; "
            f"mixing helps here: {better['verdict']}"
        )
    episodes = result["episodes_needed"]
    lines.append(
        f"a search is not expected to find a better schedule {_range(result)}"
        if episodes is None
        else f"a search needs about {episodes} episodes {_range(result)}; with its selection "
        f"{result['trainings_needed']} trainings, {format_seconds(result['seconds_needed'])}"
    )
    return "\n".join([*lines, *(f"warning: {warning}" for warning in result["warnings"])])


def _range(result: Mapping[str, Any]) -> str:
    """Return the interval of the forecast; an open end is more than was simulated."""
    interval = result["episodes_interval"]
    name = f"({interval['confidence']:.0%} interval"
    if interval["low"] is None:
        return f"{name}: more than {MOST_EPISODES})"
    high = interval["high"] or f"more than {MOST_EPISODES}"
    return f"{name}: {interval['low']} to {high})"
