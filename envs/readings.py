"""What is known of a training after each of its segments, as a value that goes into checkpoints."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from automix.schedule import Decision
from automix.training.metrics import EvalMetrics, TrainMetrics


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What is known of a training after a segment (or before the first).

    Attributes:
        progress: share of the training done, in [0, 1].
        learning_rate_share: learning rate over its peak, in [0, 1].
        reward: metrics on the reward split.
        clean: metrics on unmixed training images; None if nothing reads them.
        train: means over the last segment; None before the first.
        decision: the last decision; None before the first.
        probe: loss on the probe batch as each operator mixes it, in nats; empty if not observed.
        similarity: sum over the segments so far of the gradient similarity, each in [0, 1]; 0 if
            it is not the potential.
    """

    progress: float
    learning_rate_share: float
    reward: EvalMetrics
    clean: EvalMetrics | None
    train: TrainMetrics | None
    decision: Decision | None
    probe: tuple[float, ...] = ()
    similarity: float = 0.0

    def to_plain(self) -> dict[str, Any]:
        """Return nested dicts of numbers and text; `from_plain` is the inverse."""
        return dataclasses.asdict(self) | {
            "decision": self.decision.model_dump(mode="json") if self.decision else None,
            "probe": list(self.probe),
        }

    @classmethod
    def from_plain(cls, values: dict[str, Any]) -> "Reading":
        """Return the reading whose `to_plain` is ``values``."""
        decision, clean, train = values["decision"], values["clean"], values["train"]
        return cls(
            progress=values["progress"],
            learning_rate_share=values["learning_rate_share"],
            reward=EvalMetrics(**values["reward"]),
            clean=EvalMetrics(**clean) if clean else None,
            train=TrainMetrics(**train) if train else None,
            decision=Decision.model_validate(decision) if decision else None,
            probe=tuple(values["probe"]),
            similarity=values["similarity"],
        )
