"""A schedule as a callable that mixes the batches of any training loop."""

from torch import Tensor, nn

from automix.mixing import StepKey, is_mixed, mix_step
from automix.operators.targets import soft_targets
from automix.operators.types import MixedBatch
from automix.saliency.gradient import InputGradient
from automix.saliency.types import SaliencySource
from automix.schedule import Schedule
from automix.training.loss import smooth_labels
from automix.vocabulary import OPERATOR_FACTS


class ScheduledMix:
    """Mixes one batch after the other as a schedule says; stands in for ``timm.data.Mixup``.

    Attributes:
        step: number of the next batch. It is the whole state: save it with a checkpoint, and set
            it to continue.
        mixup_enabled: set to False to mix nothing from now on, as timm's training script does
            with ``--mixup-off-epoch``.
    """

    def __init__(
        self,
        schedule: Schedule,
        *,
        num_classes: int,
        total_steps: int,
        model: nn.Module | None = None,
        saliency: SaliencySource | None = None,
        label_smoothing: float = 0.0,
        seed: int = 0,
        rank: int = 0,
    ) -> None:
        """Bind a schedule to a training.

        Args:
            schedule: what to do when.
            num_classes: K, at least 1.
            total_steps: batches of the whole training, at least 1. Count micro-batches where
                gradients are accumulated.
            model: the classifier; needed if the schedule holds an operator that reads saliency.
                Wrappers of DistributedDataParallel and torch.compile are looked through.
            saliency: where saliency comes from; the input gradient by default.
            label_smoothing: share of each target that is spread evenly over all classes, in [0, 1).
            seed: names the draws.
            rank: number of this process; processes draw differently.

        Raises:
            ValueError: a number is out of range, or the schedule needs a model and there is none.
        """
        if num_classes < 1 or total_steps < 1:
            raise ValueError(
                f"expected at least 1 class and 1 step, got {num_classes} and {total_steps}"
            )
        needy = [
            segment.decision.operator.value
            for segment in schedule.segments
            if OPERATOR_FACTS[segment.decision.operator].needs_saliency
        ]
        if needy and model is None:
            raise ValueError(f"expected a model for the saliency of {needy[0]}, got none")
        self.step = 0
        self.mixup_enabled = True
        self.num_classes = num_classes
        self._schedule = schedule
        self._total_steps = total_steps
        self._model = model
        self._saliency = saliency or InputGradient()
        self._label_smoothing = label_smoothing
        self._key = seed, rank
        self._previous: MixedBatch | None = None

    def __call__(self, images_BCHW: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return mixed images and soft targets of the next batch; the inputs stay as they are.

        Args:
            images_BCHW: floating point, normalised or not, on any device.
            targets: (B,) int64 classes or (B, K) floating-point targets.

        Returns:
            Images of the same shape and dtype, and (B, K) float32 targets.
        """
        progress = min(self.step / self._total_steps, 1.0)
        decision = self._schedule.at(progress)
        seed, rank = self._key
        key = StepKey(seed=seed, rank=rank, step=self.step)
        self.step += 1
        if not self.mixup_enabled or not is_mixed(decision, key):
            plain = soft_targets(targets, len(images_BCHW), self.num_classes)
            return images_BCHW, smooth_labels(plain, self._label_smoothing)
        mixed = mix_step(
            decision,
            images_BCHW,
            targets,
            key=key,
            num_classes=self.num_classes,
            model=self._model,
            saliency=self._saliency,
            previous=self._previous,
        )
        needs_previous = OPERATOR_FACTS[decision.operator].needs_previous
        self._previous = mixed if needs_previous else None
        return mixed.images, smooth_labels(mixed.targets, self._label_smoothing)
