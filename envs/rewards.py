"""The rewards: one table, from which configuration, help, and checks follow.

A policy is paid the gain of a potential: r_t = phi(s_{t+1}) - phi(s_t). The rewards of an episode
sum to phi(end) - phi(start), so that without discounting the best policy is the one whose training
run ends best, whatever happens on the way (potential-based shaping with gamma 1, Ng et al. 1999).

Free of torch and Gymnasium, because configuration reads it.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from automix.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from automix.operators.types import MixedBatch
    from automix.schedule import Decision
    from automix.training.metrics import EvalMetrics

# To add a reward, touch three places:
#
# 1. `REWARDS` below: one entry under the reward's name. Its potential is one of
#    - `of_metrics`: a function of the metrics on the reward split (`EvalMetrics`), or
#    - `of_segment`: measured after each segment on a batch of training images and the same batch as
#      the last decision mixes it; the potential is then the mean over the segments of the episode.
#    With it go `at_chance`, what a run is worth that diverged, and one clause of help.
# 2. tests/envs/test_rewards.py: its formula in `FORMULAS` (or a test of its own, for `of_segment`).
# 3. docs/environment.md: its row in the table of rewards.
#
# The rest follows from the entry: `environment.potential` accepts the name and `--help` lists it,
# the probe batch is mixed only for `of_segment`, and searchers that see only how training runs end
# refuse such a reward.

SegmentReward = Callable[["nn.Module", "Tensor", "Tensor", "MixedBatch", "Decision"], float]
"""Takes the classifier in eval mode, normalized images (B, C, H, W) and labels (B,), the same
images as ``decision`` mixes them, and ``decision``; returns the reward of the segment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reward:
    """One reward: ``of_metrics``, a potential where higher is better, or ``of_segment``."""

    help: str
    # From the number of classes K: the worth of a classifier that predicts every class alike. A run
    # that diverged counts as this.
    at_chance: Callable[[int], float]
    of_metrics: "Callable[[EvalMetrics], float] | None" = None
    of_segment: SegmentReward | None = None


def _gradient_similarity(
    model: "nn.Module",
    images_BCHW: "Tensor",
    labels_B: "Tensor",
    mixed: "MixedBatch",
    decision: "Decision",
) -> float:
    from envs.rlmix.similarity import decision_similarity  # noqa: PLC0415 - imports torch

    return decision_similarity(model, images_BCHW, labels_B, mixed, decision)


REWARDS: Mapping[str, Reward] = MappingProxyType(
    {
        # log K is the largest loss that a calibrated classifier can have.
        "calibrated_nll": Reward(
            help="the negative NLL after one fitted temperature (in nats)",
            at_chance=lambda num_classes: -math.log(num_classes),
            of_metrics=lambda metrics: -metrics.calibrated_nll,
        ),
        "nll": Reward(
            help="the negative NLL (in nats)",
            at_chance=lambda num_classes: -math.log(num_classes),
            of_metrics=lambda metrics: -metrics.nll,
        ),
        "accuracy": Reward(
            help="the accuracy (0 to 1)",
            at_chance=lambda num_classes: 1 / num_classes,
            of_metrics=lambda metrics: metrics.accuracy,
        ),
        "worst_class_accuracy": Reward(
            help="the accuracy on the class that is classified worst (0 to 1)",
            # Of equal logits the first class is the answer, for every image.
            at_chance=lambda num_classes: 0.0,
            of_metrics=lambda metrics: metrics.worst_class_accuracy,
        ),
        "mean_average_precision": Reward(
            help="the mean average precision over the classes (0 to 1), of images with several "
            "labels",
            at_chance=lambda num_classes: 0.0,
            of_metrics=lambda metrics: metrics.mean_average_precision or 0.0,
        ),
        "gradient_similarity": Reward(
            help="for comparison only, how much the input gradients of a mixed batch are like "
            "those of the clean one (0 to 1), on training images, which RL-Mix rewards and which "
            "is the highest where nothing is mixed",
            at_chance=lambda num_classes: 0.0,
            of_segment=_gradient_similarity,
        ),
    }
)


_OF_LABEL_ROWS = "mean_average_precision"


def check_rewards(weights: Mapping[str, float], *, has_label_rows: bool) -> None:
    """Refuse a reward that images with one class each do not have.

    Raises:
        ConfigError: there is one.
    """
    if weights.get(_OF_LABEL_ROWS) and not has_label_rows:
        raise ConfigError(
            "environment.potential: expected another reward for images with one class each, got "
            f"'{_OF_LABEL_ROWS}', which is for those of a file of labels (data.labels)"
        )


class Potential:
    """The potential phi whose gain is the reward of a segment; `at_chance` if a run diverged."""

    def __init__(
        self, weights: Mapping[str, float], *, num_classes: int, num_segments: int = 1
    ) -> None:
        """Weight the rewards of the table, by name: `EnvironmentConfig.reward_weights`."""
        self._num_segments = num_segments
        # A reward of weight 0 is not read: 0 * infinity is NaN.
        self._terms = [(weight, REWARDS[name]) for name, weight in weights.items() if weight]
        self.at_chance = math.fsum(
            weight * reward.at_chance(num_classes) for weight, reward in self._terms
        )

    def of(self, metrics: "EvalMetrics", *, segment_sum: float = 0.0) -> float:
        """Return the potential of a training run from its metrics on the reward split.

        ``segment_sum`` is the sum of what ``of_segment`` returned for the segments so far.
        """
        # Segments to come count 0, so that each is paid its own value over the number of segments.
        mean = segment_sum / self._num_segments
        value = math.fsum(
            weight * (reward.of_metrics(metrics) if reward.of_metrics else mean)
            for weight, reward in self._terms
        )
        # What is not finite counts as diverged: a learner cannot take in an infinite return.
        return value if math.isfinite(value) else self.at_chance
