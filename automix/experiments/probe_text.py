"""What a probe found, as text."""

from collections.abc import Mapping
from typing import Any

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
    lines.append(
        f"a search with its selection takes {result['search_trainings']} training runs, "
        f"{format_seconds(result['search_seconds'])}"
    )
    return "\n".join([*lines, *(f"warning: {warning}" for warning in result["warnings"])])
