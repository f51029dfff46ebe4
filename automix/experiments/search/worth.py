"""Worth of each part of a schedule, estimated from all training runs of a search.

Runs of the race, of learning and of selection have losses on the same images. Their losses are
regressed on how many batches each decision mixed in each part of the schedule in question:

    loss = mean + seed + sum_{p, d} x[p, d] f[p, d] + noise,  x[p, d] = length of p * weight of d

Effects f of one operator resemble each other, and so do those of all operators in one part; so
they are sums of effects of mixing at all, of an operator and of a decision, each throughout and by
part, all with one Gaussian prior whose width, like that of the noise, maximises the marginal
likelihood (Bayesian ridge regression; MacKay 1992, https://doi.org/10.1162/neco.1992.4.3.415). An
interval holds 95% of the posterior: a statement of this model, not of training runs that repeat
the part.
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from automix.evaluation.statistics import Interval
from automix.experiments.common.summaries import interval_text, plain
from automix.mixture import Decision, Mixture
from automix.operator_info import Operator
from automix.schedule import Schedule
from automix.schedule_words import in_words, names_of, parts_of, percent, timm_flags

# Fewer runs determine no interval that is worth printing.
FEWEST_RUNS = 16
_CONFIDENCE = 0.95
_NORMAL_QUANTILE = 1.96
_NONE = Mixture.of(Decision(operator=Operator.NONE))
Floats = NDArray[np.float64]
Span = tuple[float, float]


@dataclass(frozen=True, slots=True)
class TrainedRun:
    """Outcome of a training run; runs of equal ``pair`` shared their seed."""

    schedule: Schedule
    loss: float
    pair: Hashable


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A part of a schedule and what it is worth, in nats; negative: it lowers the loss."""

    start: float
    end: float
    label: str
    # What the part would have been instead: no mixing or, in a part without, the mixing before it.
    instead: str
    effect: Interval

    def to_plain(self) -> dict[str, Any]:
        """Return the part as it stands in a result."""
        return {
            "start": self.start,
            "end": self.end,
            "label": self.label,
            "instead": self.instead,
            "effect": plain(self.effect),
        }


def worth_of(schedule: Schedule, runs: Sequence[TrainedRun]) -> list[Part]:
    """Return the parts of ``schedule`` with their effects; none where there are too few runs.

    Args:
        schedule: to be explained.
        runs: training runs on the same images, with other schedules or with this one; those that
            diverged (an infinite loss) are left out.
    """
    finite = [run for run in runs if math.isfinite(run.loss)]
    parts = list(parts_of(schedule))
    comparisons = _comparisons(parts)
    if len(finite) < FEWEST_RUNS or not comparisons:
        return []
    # Imported at the end of a search, which would else begin two seconds later.
    from sklearn.linear_model import BayesianRidge  # noqa: PLC0415

    design = _Design([(start, end) for start, end, _ in parts], finite)
    model = BayesianRidge(fit_intercept=True).fit(
        design.rows(finite), np.array([run.loss for run in finite])
    )
    result = []
    for index, (mixture, instead) in comparisons.items():
        change = design.columns(index, mixture) - design.columns(index, instead)
        effect = float(change @ model.coef_)
        # The covariance of the coefficients, as of the difference of two linear functions of them.
        width = _NORMAL_QUANTILE * math.sqrt(float(change @ model.sigma_ @ change))
        start, end, _ = parts[index]
        result.append(
            Part(
                start=start,
                end=end,
                label=names_of(mixture),
                instead=names_of(instead),
                effect=Interval(
                    estimate=effect, low=effect - width, high=effect + width, confidence=_CONFIDENCE
                ),
            )
        )
    return result


def explanation(schedule: Schedule, runs: Sequence[TrainedRun]) -> dict[str, Any]:
    """Return what the schedule does, the parts' effects, and timm's nearest flags, as plain values.

    ``num_runs`` is the number of training runs behind the effects.
    """
    return {
        "words": in_words(schedule),
        "timm": timm_flags(schedule),
        "num_runs": sum(math.isfinite(run.loss) for run in runs),
        "parts": [part.to_plain() for part in worth_of(schedule, runs)],
    }


def explanation_text(values: Mapping[str, Any]) -> str:
    """Return an `explanation` as one paragraph."""
    sentences = [f"The schedule: {values['words']}."]
    if values["parts"]:
        told = [
            f"{part['label']} from {percent(part['start'])} to {percent(part['end'])} instead of "
            f"{part['instead']} {interval_text(part['effect'], '+.4f')} nats"
            for part in values["parts"]
        ]
        sentences.append(
            f"What its parts are worth, by an additive fit to {values['num_runs']} training runs: "
            f"{'; '.join(told)}."
        )
    sentences.append(f"The nearest flags of timm: {values['timm']}.")
    return " ".join(sentences)


def _comparisons(
    parts: Sequence[tuple[float, float, Mixture]],
) -> dict[int, tuple[Mixture, Mixture]]:
    """Return for each part, by its place, its mixture and what it is compared with."""
    result = {}
    before = _NONE
    for index, (_, _, mixture) in enumerate(parts):
        instead = before if mixture == _NONE else _NONE
        # No mixing that follows nothing could only be compared with an operator chosen at will.
        if mixture != instead:
            result[index] = (mixture, instead)
        before = mixture
    return result


class _Design:
    """Columns of the regression: effects at three levels, throughout and by part; seeds."""

    def __init__(self, spans: Sequence[Span], runs: Sequence[TrainedRun]) -> None:
        self._spans = spans
        levels: dict[Hashable, None] = {}
        pairs: dict[Hashable, int] = {}
        for run in runs:
            for _, _, mixture in parts_of(run.schedule):
                for decision in mixture.decisions:
                    levels.update(dict.fromkeys(_levels(decision)))
            pairs[run.pair] = pairs.get(run.pair, 0) + 1
        self._levels = {level: place for place, level in enumerate(levels)}
        # A seed of a single run explains that run alone, whatever it did.
        shared = [pair for pair, count in pairs.items() if count > 1]
        self._pairs = {pair: place for place, pair in enumerate(shared)}

    def rows(self, runs: Sequence[TrainedRun]) -> Floats:
        """Return (num_runs, num_columns)."""
        return np.stack([self._row(run) for run in runs])

    def columns(self, part: int, mixture: Mixture) -> Floats:
        """Return the columns of ``mixture`` in one part, (num_columns,); without a seed."""
        amounts = np.zeros((len(self._spans), len(self._levels)))
        start, end = self._spans[part]
        self._add(amounts[part], end - start, mixture)
        return self._flat(amounts, None)

    def _row(self, run: TrainedRun) -> Floats:
        amounts = np.zeros((len(self._spans), len(self._levels)))
        for begin, stop, mixture in parts_of(run.schedule):
            for part, (start, end) in enumerate(self._spans):
                if (overlap := min(end, stop) - max(start, begin)) > 0:
                    self._add(amounts[part], overlap, mixture)
        return self._flat(amounts, run.pair)

    def _add(self, amounts: Floats, length: float, mixture: Mixture) -> None:
        for decision in mixture.decisions:
            for level in _levels(decision):
                if (place := self._levels.get(level)) is not None:
                    amounts[place] += length * decision.probability

    def _flat(self, amounts: Floats, pair: Hashable | None) -> Floats:
        seeds = np.zeros(len(self._pairs))
        if pair in self._pairs:
            seeds[self._pairs[pair]] = 1.0
        # By length of the part, so that a short one may matter as much as a long one.
        lengths = np.array([end - start for start, end in self._spans])
        by_part = amounts / np.sqrt(lengths)[:, None]
        return np.concatenate([amounts.sum(axis=0), by_part.ravel(), seeds])


def _levels(decision: Decision) -> tuple[Hashable, ...]:
    if not decision.mixes:
        return ()
    return ("mixing", decision.operator, (decision.operator, decision.strength))
