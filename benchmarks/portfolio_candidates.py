"""Schedules that nobody searched for, of which a portfolio is chosen: `benchmarks.portfolio`.

Constants are the bar. Everything else mixes, then stops or gets weaker: the end of a training run
is where schedules differ most (`docs/results.md`).
"""

from collections.abc import Mapping, Sequence

from automix.mixture import Decision, Mixing, Mixture, equal_mixture
from automix.operator_info import OPERATOR_FACTS, Operator
from automix.schedule import (
    Schedule,
    Segment,
    constant_schedule,
    in_turn,
    mix_then_off,
    strong_to_weak,
)

NONE = Decision(operator=Operator.NONE)
# The operators of the default environment: the best constant of a task is one of theirs.
_OPERATORS = (Operator.MIXUP, Operator.CUTMIX, Operator.SALIENCYMIX, Operator.SALIENCY_GRAFTING)
_OFF_FROM = {"3/4": 0.75, "7/8": 0.875}
_TURNS_IN_ALL = 16


def constants() -> dict[str, Schedule]:
    """Return none, each operator of the default environment at each of its strengths, ResizeMix."""
    decisions = [NONE] + [
        Decision(operator=operator, strength=strength)
        for operator in _OPERATORS
        for strength in OPERATOR_FACTS[operator].strength.levels
    ]
    # A search does not choose it by default, but a bar without the operator that wins on the digits
    # would be too low.
    decisions.append(_decision(Operator.RESIZEMIX, 0.8))
    return {decision.label(): constant_schedule(decision) for decision in decisions}


def candidates() -> dict[str, Schedule]:
    """Return the schedules by name; `constants` are not among them."""
    return _stopping(_alone()) | _stopping(_mixtures()) | _turns() | _ends() | _falling()


def _alone() -> dict[str, Mixing]:
    decisions = (
        _decision(Operator.MIXUP, 0.2),
        _decision(Operator.MIXUP, 1),
        _decision(Operator.MIXUP, 2),
        _decision(Operator.CUTMIX, 1),
        _decision(Operator.CUTMIX, 2),
        _decision(Operator.SALIENCYMIX, 1),
        _decision(Operator.SALIENCY_GRAFTING, 0.2),
        _decision(Operator.SALIENCY_GRAFTING, 0.5),
        _decision(Operator.RESIZEMIX, 0.8),
    )
    return {decision.label(): decision for decision in decisions}


def _mixtures() -> dict[str, Mixing]:
    cutmix, mixup = Operator.CUTMIX, Operator.MIXUP
    grafting, resizemix = Operator.SALIENCY_GRAFTING, Operator.RESIZEMIX
    return {
        "cutmix 1 or mixup 1": _equal((cutmix, 1), (mixup, 1)),
        "mixup 1 or resizemix 0.8": _equal((mixup, 1), (resizemix, 0.8)),
        "cutmix 1, mixup 1 or saliency_grafting 0.5": _equal(
            (cutmix, 1), (mixup, 1), (grafting, 0.5)
        ),
        "cutmix 1, mixup 1 or resizemix 0.8": _equal((cutmix, 1), (mixup, 1), (resizemix, 0.8)),
    }


def _stopping(mixings: Mapping[str, Mixing]) -> dict[str, Schedule]:
    return {
        f"{name}, off from {text}": mix_then_off(mixing, off_from=start)
        for name, mixing in mixings.items()
        for text, start in _OFF_FROM.items()
    }


def _turns() -> dict[str, Schedule]:
    turns = [_decision(Operator.CUTMIX, 2), _decision(Operator.MIXUP, 2)]
    return {
        f"cutmix 2 and mixup 2 in turn, off from {text}": in_turn(
            turns, num_segments=round(start * _TURNS_IN_ALL), off_from=start
        )
        for text, start in _OFF_FROM.items()
    }


def _ends() -> dict[str, Schedule]:
    """Return schedules that end otherwise: later, earlier, never, or with weak mixing."""
    weak = _decision(Operator.MIXUP, 0.2)
    three, both = "cutmix 1, mixup 1 or resizemix 0.8", _mixtures()["cutmix 1 or mixup 1"]
    grafting = _decision(Operator.SALIENCY_GRAFTING, 0.5)
    return {
        "none, mixup 0.2 from 3/4": _segments((0, NONE), (0.75, weak)),
        "cutmix 1 or mixup 1": constant_schedule(both),
        "cutmix 1 or mixup 1, off from 5/8": mix_then_off(both, off_from=0.625),
        # What is good for photographs of things is bad for hands, and the other way round: weaker
        # mixtures, and ones with more of the operator that hurts least.
        "half of the batches cutmix 1 or mixup 1, off from 3/4": mix_then_off(
            _weighted((Operator.CUTMIX, 1, 0.25), (Operator.MIXUP, 1, 0.25))
        ),
        "mixup 1, or half as often each cutmix 1 and resizemix 0.8, off from 3/4": mix_then_off(
            _weighted(
                (Operator.MIXUP, 1, 0.5),
                (Operator.CUTMIX, 1, 0.25),
                (Operator.RESIZEMIX, 0.8, 0.25),
            )
        ),
        f"{three}, off from 5/8": mix_then_off(_mixtures()[three], off_from=0.625),
        "resizemix 0.8, off from 5/8": mix_then_off(
            _decision(Operator.RESIZEMIX, 0.8), off_from=0.625
        ),
        "cutmix 1 or mixup 1, mixup 0.2 from 7/8": _segments((0, both), (0.875, weak)),
        "cutmix 1 or mixup 1, off from 5/8, mixup 0.2 from 7/8": _segments(
            (0, both), (0.625, NONE), (0.875, weak)
        ),
        "saliency_grafting 0.5, mixup 0.2 from 7/8": _segments((0, grafting), (0.875, weak)),
        "saliency_grafting 0.5, off from 5/8, mixup 0.2 from 7/8": _segments(
            (0, grafting), (0.625, NONE), (0.875, weak)
        ),
    }


def _falling() -> dict[str, Schedule]:
    return {
        f"{operator.value} strong to weak, off from 7/8": strong_to_weak(operator)
        for operator in (Operator.CUTMIX, Operator.MIXUP)
    }


def _decision(operator: Operator, strength: float) -> Decision:
    return Decision(operator=operator, strength=strength)


def _equal(*choices: tuple[Operator, float]) -> Mixing:
    return equal_mixture([_decision(*choice) for choice in choices])


def _weighted(*choices: tuple[Operator, float, float]) -> Mixing:
    return Mixture(
        decisions=tuple(
            Decision(operator=operator, strength=strength, probability=weight)
            for operator, strength, weight in choices
        )
    )


def _segments(*parts: tuple[float, Mixing]) -> Schedule:
    # A mixture of one decision is that decision.
    return Schedule(
        segments=tuple(
            Segment(start=start, mixture=equal_mixture([mixing])) for start, mixing in parts
        )
    )


def every_schedule(names: Sequence[str] = ()) -> dict[str, Schedule]:
    """Return constants and candidates; of ``names`` only, if there are any."""
    everything = constants() | candidates()
    return {name: everything[name] for name in names or everything}
