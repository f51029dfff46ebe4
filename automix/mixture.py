"""Decisions on how a batch is mixed, and mixtures of which each batch draws one."""

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, model_validator

from automix.configuration.base import Config
from automix.operator_info import OPERATOR_FACTS, Operator

MAX_MIXTURE = 32
# Weights such as 1/3 are rounded, and so is their sum.
_ROUNDING = 1e-9


class Decision(Config):
    """Mixing of a batch: which operator, how strong, how often."""

    operator: Operator
    """Name of the mixing operator."""

    strength: float = Field(
        default_factory=lambda values: OPERATOR_FACTS[values["operator"]].strength.default
    )
    """The operator's own knob; its range and meaning are in `OPERATOR_FACTS`. Defaults to the
    published value."""

    probability: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Fraction of the batches that are mixed; the others stay as they are. In [0, 1]. In a mixture,
    the weight of the decision."""

    @model_validator(mode="after")
    def _strength_fits_the_operator(self) -> Self:
        facts = OPERATOR_FACTS[self.operator].strength
        if not facts.low <= self.strength <= facts.high:
            raise ValueError(
                f"expected a strength in [{facts.low:g}, {facts.high:g}] for {self.operator.value} "
                f"({facts.meaning}), got {self.strength:g}"
            )
        return self

    @property
    def mixes(self) -> bool:
        """Whether it mixes any batch at all."""
        return self.operator is not Operator.NONE and self.probability > 0

    def label(self) -> str:
        """Return a short name, such as ``mixup 0.2 p=0.5``."""
        if not self.mixes:
            return Operator.NONE.value
        facts = OPERATOR_FACTS[self.operator].strength
        strength = f" {self.strength:g}" if facts.low < facts.high else ""
        probability = f" p={self.probability:g}" if self.probability < 1 else ""
        return f"{self.operator.value}{strength}{probability}"


def _fit_together(decisions: tuple[Decision, ...]) -> tuple[Decision, ...]:
    if len(decisions) == 1:
        return decisions
    total = math.fsum(decision.probability for decision in decisions)
    if total > 1 + _ROUNDING:
        raise ValueError(f"expected probabilities of at most 1 together, got {total:.10g}")
    seen = set()
    for decision in decisions:
        if decision.operator is Operator.NONE:
            raise ValueError(
                "expected operators that mix, got none; batches are left as they are where the "
                "probabilities are less than 1 together"
            )
        if (choice := (decision.operator, decision.strength)) in seen:
            name = decision.model_copy(update={"probability": 1.0}).label()
            raise ValueError(f"expected each operator and strength once, got {name} twice")
        seen.add(choice)
    return decisions


WeightedDecisions = Annotated[
    tuple[Decision, ...],
    Field(min_length=1, max_length=MAX_MIXTURE),
    AfterValidator(_fit_together),
]
"""Decisions that differ, whose probabilities are their weights and at most 1 together."""


class Mixture(Config):
    """Weighted decisions: each batch draws one of them, or with the remaining weight none.

    A mixture of one decision is that decision.

    Examples:
        >>> mixture = Mixture(decisions=(
        ...     Decision(operator="cutmix", probability=0.5),
        ...     Decision(operator="mixup", probability=0.3),
        ... ))
        >>> mixture.label()
        'cutmix 1 p=0.5 + mixup 1 p=0.3'
        >>> [drawn and drawn.operator.value for drawn in map(mixture.draw, (0.1, 0.6, 0.9))]
        ['cutmix', 'mixup', None]
    """

    decisions: WeightedDecisions
    """One to 32 decisions, none of them twice; of several, each mixes."""

    @classmethod
    def of(cls, mixing: "Mixing") -> "Mixture":
        """Return a decision as a mixture, and a mixture as it is."""
        return mixing if isinstance(mixing, Mixture) else cls(decisions=(mixing,))

    @property
    def decision(self) -> Decision:
        """The decision of a mixture of one.

        Raises:
            ValueError: there are several.
        """
        if len(self.decisions) > 1:
            raise ValueError(
                f"expected a single decision, got the mixture {self.label()}; read it with "
                "mixture_at, mixtures or Segment.mixture"
            )
        return self.decisions[0]

    @property
    def operators(self) -> tuple[Operator, ...]:
        """Operators of the decisions, in their order, each once."""
        return tuple(dict.fromkeys(decision.operator for decision in self.decisions))

    @property
    def probability(self) -> float:
        """Fraction of the batches that are mixed, in [0, 1]."""
        return min(1.0, math.fsum(it.probability for it in self.decisions if it.mixes))

    @property
    def mixes(self) -> bool:
        """Whether it mixes any batch at all."""
        return self.probability > 0

    @functools.cached_property
    def keeps_batches(self) -> bool:
        """Whether a mixed batch is kept for the next, because an operator mixes with it."""
        return any(OPERATOR_FACTS[operator].needs_previous for operator in self.operators)

    def to_entry(self) -> dict[str, Any]:
        """Return plain values: a ``decision``, or a ``mixture`` of several."""
        plain = [decision.model_dump(mode="json") for decision in self.decisions]
        return {"decision": plain[0]} if len(plain) == 1 else {"mixture": plain}

    @classmethod
    def from_entry(cls, values: Mapping[str, Any]) -> "Mixture":
        """Return the mixture whose `to_entry` is among ``values``."""
        plain = values["mixture"] if "mixture" in values else [values["decision"]]
        return cls.from_plain({"decisions": plain})

    def draw(self, position: float) -> Decision | None:
        """Return the decision at ``position`` in [0, 1) of the weights laid end to end, if any."""
        for decision, end in zip(self.decisions, self._ends, strict=True):
            if position < end:
                return decision if decision.operator is not Operator.NONE else None
        return None

    @functools.cached_property
    def _ends(self) -> tuple[float, ...]:
        weights = [decision.probability for decision in self.decisions]
        if len(weights) == 1:
            return (weights[0],)
        ends = [math.fsum(weights[:count]) for count in range(1, len(weights) + 1)]
        # Ten weights of 1/10, or three of 1/3, leave no gap at the end.
        return tuple(1.0 if end > 1 - _ROUNDING else end for end in ends)

    def label(self) -> str:
        """Return a short name, such as ``cutmix 1 p=0.5 + mixup 1 p=0.5``."""
        labels = [decision.label() for decision in self.decisions if decision.mixes]
        return " + ".join(labels) or Operator.NONE.value


Mixing = Decision | Mixture
"""What may be said of a batch: a decision, or a mixture of them."""


def equal_mixture(mixings: Sequence[Mixing]) -> Mixture:
    """Return the mixture in which each batch draws one of ``mixings``, all equally likely.

    Examples:
        >>> equal_mixture([Decision(operator="cutmix"), Decision(operator="none")]).label()
        'cutmix 1 p=0.5'
    """
    return weighted_mixture([(mixing, 1 / len(mixings)) for mixing in mixings])


def weighted_mixture(parts: Sequence[tuple[Mixing, float]]) -> Mixture:
    """Return the mixture in which each batch draws a mixing with its weight, and then of that.

    Weights are at most 1 together.
    """
    # Equal choices become one, with their weights added; what does not mix is the rest.
    weights: dict[tuple[Operator, float], float] = {}
    for mixing, part in parts:
        for decision in Mixture.of(mixing).decisions:
            if decision.operator is not Operator.NONE:
                choice = decision.operator, decision.strength
                weights[choice] = weights.get(choice, 0.0) + decision.probability * part
    return Mixture(
        decisions=tuple(
            Decision(operator=operator, strength=strength, probability=min(weight, 1.0))
            for (operator, strength), weight in weights.items()
        )
        or (Decision(operator=Operator.NONE),)
    )
