"""A schedule in words, and the flags of timm that come nearest to it."""

import itertools
import math
from collections.abc import Iterator

from automix.mixture import Decision, Mixture
from automix.operator_info import Operator
from automix.schedule import Schedule

# More parts than this are counted, not told one by one.
_MOST_PARTS = 6
# Operators that blend whole images, as timm's Mixup does; the others paste regions, as its CutMix.
_BLENDS = frozenset({Operator.MIXUP, Operator.GUIDEDMIXUP})


def parts_of(schedule: Schedule) -> Iterator[tuple[float, float, Mixture]]:
    """Yield begin and end, as fractions of the training run, and mixture of each distinct part."""
    segments = schedule.without_repeats().segments
    ends = [segment.start for segment in segments[1:]] + [1.0]
    for segment, end in zip(segments, ends, strict=True):
        yield segment.start, end, segment.mixture


def in_words(schedule: Schedule) -> str:
    """Return what a schedule does as a sentence without a full stop.

    Examples:
        >>> from automix.schedule import mix_then_off
        >>> in_words(mix_then_off(Decision(operator="cutmix")))
        'until 75% of the training run every batch is mixed by cutmix 1, then none'
    """
    parts = list(parts_of(schedule))
    if len(parts) == 1:
        return f"throughout, {_batches(parts[0][2])}"
    if len(parts) > _MOST_PARTS:
        start, _, last = parts[-1]
        mixed = math.fsum((end - begin) * it.probability for begin, end, it in parts)
        return (
            f"{len(parts) - 1} changes, {mixed:.0%} of batches mixed; from {percent(start)} on, "
            f"{_batches(last)}"
        )
    (_, until, first), *others = parts
    told = [f"until {percent(until)} of the training run {_batches(first)}"]
    for start, _, mixture in others:
        since = "then" if len(others) == 1 else f"from {percent(start)}"
        told.append(f"{since} {_batches(mixture) if mixture.mixes else 'none'}")
    return ", ".join(told)


def names_of(mixture: Mixture) -> str:
    """Return the decisions of a mixture by name, with their weights where these differ.

    Examples:
        >>> from automix.schedule import equal_mixture
        >>> names_of(equal_mixture([Decision(operator="cutmix"), Decision(operator="mixup")]))
        'cutmix 1 or mixup 1'
    """
    decisions = [decision for decision in mixture.decisions if decision.mixes]
    names = [it.model_copy(update={"probability": 1.0}).label() for it in decisions]
    if len({round(decision.probability, 9) for decision in decisions}) > 1:
        names = [
            f"{name} ({decision.probability:.0%})"
            for name, decision in zip(names, decisions, strict=True)
        ]
    return " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names) or "none"


def percent(fraction: float) -> str:
    """Return a fraction of a training run as text: ``87.5%``, ``75%``."""
    return f"{100 * fraction:.3g}%"


def timm_flags(schedule: Schedule, *, epochs: int = 300) -> str:
    """Return the flags of timm's training script that come nearest, and what they leave out.

    timm has one strength of each operator, one probability, and one epoch from which nothing is
    mixed. So strengths and weights are averaged over the part that mixes; operators that paste a
    region, guided by saliency or not, become CutMix.

    Args:
        schedule: to be described.
        epochs: length of the training run, from which the epoch of the end follows.

    Examples:
        >>> from automix.schedule import equal_mixture, mix_then_off
        >>> both = equal_mixture([Decision(operator="cutmix"), Decision(operator="mixup")])
        >>> timm_flags(mix_then_off(both))
        '--mixup 1 --cutmix 1 --mixup-switch-prob 0.5 --mixup-off-epoch 225 (of 300)'
    """
    mixing = [part for part in parts_of(schedule) if part[2].mixes]
    if not mixing:
        return "--mixup 0 --cutmix 0"
    off_from = mixing[-1][1]
    weighted = [
        ((end - start) * decision.probability, decision)
        for start, end, mixture in mixing
        for decision in mixture.decisions
        if decision.mixes
    ]
    blends = [it for it in weighted if it[1].operator in _BLENDS]
    pastes = [it for it in weighted if it[1].operator not in _BLENDS]
    total = math.fsum(weight for weight, _ in weighted)
    flags = []
    if blends:
        flags.append(f"--mixup {_mean_alpha(blends, Operator.MIXUP):.2g}")
    if pastes:
        flags.append(f"--cutmix {_mean_alpha(pastes, Operator.CUTMIX):.2g}")
    if (probability := total / off_from) < 1 - 1e-9:
        flags.append(f"--mixup-prob {probability:.2g}")
    if blends and pastes:
        flags.append(f"--mixup-switch-prob {math.fsum(weight for weight, _ in pastes) / total:.2g}")
    if off_from < 1:
        flags.append(f"--mixup-off-epoch {round(off_from * epochs)} (of {epochs})")
    text = " ".join(flags)
    lost = list(_left_out(mixing))
    return f"{text}; not said by them: {', '.join(lost)}" if lost else text


def _batches(mixture: Mixture) -> str:
    if not mixture.mixes:
        return "no batch is mixed"
    is_all = mixture.probability > 1 - 1e-9
    subject = "every batch is" if is_all else f"{mixture.probability:.0%} of batches are"
    return f"{subject} mixed by {names_of(mixture)}"


def _mean_alpha(weighted: list[tuple[float, Decision]], operator: Operator) -> float:
    """Return the mean strength of the operator; 1 if only its relatives are there."""
    alphas = [(weight, it.strength) for weight, it in weighted if it.operator is operator]
    if not alphas:
        return 1.0
    return math.fsum(w * strength for w, strength in alphas) / math.fsum(w for w, _ in alphas)


def _left_out(mixing: list[tuple[float, float, Mixture]]) -> Iterator[str]:
    """Yield what timm's flags cannot say of the parts that mix."""
    operators = dict.fromkeys(op for _, _, mixture in mixing for op in mixture.operators)
    for operator in operators:
        if operator not in (Operator.MIXUP, Operator.CUTMIX):
            yield operator.value
    if mixing[0][0] > 0:
        yield f"no mixing before {percent(mixing[0][0])}"
    if any(end != start for (_, end, _), (start, _, _) in itertools.pairwise(mixing)):
        yield "the pauses"
    if len({mixture.label() for _, _, mixture in mixing}) > 1:
        yield "the changes before the end"
