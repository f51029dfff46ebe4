"""Verdict of a search in one sentence, by its final, whose seeds and images chose nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from automix.evaluation.statistics import Interval, paired_difference
from automix.experiments.common.cost import runs_text
from automix.experiments.common.equal_schedules import row_label
from automix.experiments.common.run_folder import format_seconds
from automix.experiments.common.summaries import mean_interval, plain
from automix.experiments.common.verdicts import (
    Pays,
    basis_text,
    difference_text,
    seeds_missing,
    shortage_text,
    verdict_values,
)
from automix.experiments.search.worth import explanation_text

Losses = Mapping[str, NDArray[np.float64]]
"""(num_seeds,) calibrated NLL of each finalist, in nats; seeds are paired."""

Kind = Literal["none", "zero-search", "learned", "unclear"]

# Of the images of a final.
_SPLIT = "selection"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Schedule to use, and why.

    Attributes:
        kind: no mixing; a schedule that needs no search; the learned one; or mixing that is not
            shown to help, where no mixing is as good.
        selected: name of the finalist to use.
        sentence: why, with intervals of 95%.
        calibrated_nll: its mean loss in the final, in nats; None where a run diverged.
        differences: of the selected finalist to the others, in nats; negative: it is better.
        to_none: of the schedule that the sentence is about, to no mixing; None without a proof in
            numbers.
        num_seeds: training runs of each finalist.
        more_seeds: that would decide where ``kind`` is unclear; None: it is not, or too many.
    """

    kind: Kind
    selected: str
    sentence: str
    calibrated_nll: float | None
    differences: Mapping[str, Interval]
    to_none: Interval | None
    num_seeds: int
    more_seeds: int | None = None

    def to_plain(self) -> dict[str, Any]:
        """Return the verdict as plain values."""
        # Of the other kinds the interval decides.
        pays: dict[Kind, Pays] = {"none": "no", "unclear": "unclear"}
        return {
            **verdict_values(
                against="none",
                difference=self.to_none,
                num_seeds=self.num_seeds,
                split=_SPLIT,
                pays=pays.get(self.kind),
                more_seeds=self.more_seeds,
            ),
            "kind": self.kind,
            "selected": self.selected,
            "sentence": self.sentence,
            "calibrated_nll": self.calibrated_nll,
            "differences": {name: plain(value) for name, value in self.differences.items()},
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Finalists:
    """Names of the finalists by the part they play; one may play several.

    Attributes:
        winner: what the stages before the final rank first.
        is_learned: whether the winner was learned here.
        zero_search: the best schedule that ships and mixes, None without one.
        none: no mixing.
        also: other names of the same schedules, by name.
    """

    winner: str
    is_learned: bool
    zero_search: str | None
    none: str
    also: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def label(self, name: str) -> str:
        """Return a name as sentences have it, with the other names of the schedule."""
        return row_label({"name": name, "also": self.also.get(name, ())})


def judge(losses: Losses, finalists: Finalists, *, seed: int) -> Verdict:
    """Return the verdict of a final.

    The winner of the stages before is used where it is shown to be better than the best schedule
    that ships, or is that. Without such a proof the schedule that ships is used, because it was
    fitted to nothing here; and no mixing where mixing is shown to be worse, or where the stages
    before preferred it and the final does not disagree.

    Args:
        losses: of at least two seeds; runs that diverged are infinite.
        finalists: who is who.
        seed: of the bootstrap.
    """
    none, winner = finalists.none, finalists.winner
    rival = finalists.zero_search or winner
    gain = None if winner == none else _difference(losses, winner, rival, seed=seed)
    is_better = gain is not None and gain.high < 0
    chosen = winner if is_better else rival
    to_none = _difference(losses, chosen, none, seed=seed)
    label = finalists.label
    effect = (
        "" if to_none is None else f"{label(chosen)} against no mixing {difference_text(to_none)}"
    )

    kind: Kind
    more_seeds = None
    if chosen == none or _is_broken(losses, chosen):
        kind, chosen = "none", none
        sentence = "mixing does not pay here: nothing that mixes was better than no mixing"
    elif to_none is not None and to_none.low > 0:
        kind, chosen, sentence = "none", none, f"mixing does not pay here, it hurts: {effect}"
    elif to_none is not None and to_none.high >= 0:
        more_seeds = seeds_missing(losses[chosen] - losses[none])
        sentence = f"mixing is not shown to pay here: {effect}; {shortage_text(more_seeds)}"
        kind, chosen = "unclear", none if winner == none else chosen
    elif is_better and gain is not None:
        kind = "learned" if finalists.is_learned else "zero-search"
        subject = f"the learned schedule ({label(winner)})" if finalists.is_learned else "it"
        sentence = f"mixing pays here: {effect}; " if effect else ""
        sentence += f"{subject} is better than {label(rival)}: {difference_text(gain)}"
    else:
        kind = "zero-search"
        sentence = f"mixing pays here: {effect}; " if effect else ""
        sentence += f"{label(chosen)} is as good as anything found"
        if gain is not None:
            sentence += f", {label(winner)} against it {difference_text(gain)}"
    num_seeds = len(losses[none])
    differences = {
        name: difference
        for name in losses
        if (difference := _difference(losses, chosen, name, seed=seed)) is not None
    }
    return Verdict(
        kind=kind,
        selected=chosen,
        sentence=f"{sentence} {basis_text(num_seeds, _SPLIT)}",
        to_none=to_none,
        num_seeds=num_seeds,
        more_seeds=more_seeds,
        calibrated_nll=None if _is_broken(losses, chosen) else float(losses[chosen].mean()),
        differences=differences,
    )


def final_row(losses: NDArray[np.float64], *, seed: int) -> dict[str, Any]:
    """Return the losses of a finalist for a result, with the interval of their mean."""
    is_whole = bool(np.isfinite(losses).all())
    return {
        "num_seeds": len(losses),
        # JSON has no infinity: None where a run diverged.
        "mean_calibrated_nll": float(losses.mean()) if is_whole else None,
        "interval": mean_interval(losses, seed=seed) if is_whole else None,
        "values": [float(loss) if np.isfinite(loss) else None for loss in losses],
    }


def summarize_search(result: Mapping[str, Any]) -> str:
    """Return what a finished search found, what it cost, and the schedule that it selected."""
    cost = result["cost"]
    seconds = format_seconds(cost["seconds"])
    # A search that an earlier version finished says no more.
    why = f"why: {explanation_text(result['why'])}\n" if "why" in result else ""
    return (
        f"verdict: {result['verdict']['sentence']}\n"
        f"{why}"
        f"cost: {cost['trainings']} training runs ({runs_text(cost)}), {seconds}\n"
        f"selected: {_selected(result)}"
    )


def _is_broken(losses: Losses, name: str) -> bool:
    return not bool(np.isfinite(losses[name]).all())


def _difference(losses: Losses, name: str, other: str, *, seed: int) -> Interval | None:
    if name == other or _is_broken(losses, name) or _is_broken(losses, other):
        return None
    if len(losses[name]) < 2:
        return None
    return paired_difference(losses[name], losses[other], seed=seed)


def _selected(result: Mapping[str, Any]) -> str:
    """Return the names of the selected schedule."""
    rows = [row for row in result.get("final", ()) if row["name"] == result["selected"]]
    return row_label(rows[0]) if rows else str(result["selected"])
