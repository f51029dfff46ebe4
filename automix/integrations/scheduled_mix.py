"""A schedule as a callable that mixes the batches of any training loop.

Shape suffixes: B batch, C channels, H rows, W columns, K classes.
"""

import dataclasses
from typing import TypedDict

from torch import Generator, Tensor, nn

from automix.mixing import StepKey, is_mixed, mix_step
from automix.operator_info import OPERATOR_FACTS
from automix.operators.mixup_cutmix import apply_none, draw_none
from automix.operators.types import BatchShape, MixedBatch
from automix.saliency.gradient import input_gradient
from automix.saliency.sources import SaliencySource
from automix.schedule import Schedule
from automix.training.metrics import smooth_labels


class MixState(TypedDict):
    """What a `ScheduledMix` needs to continue with the same batches."""

    step: int
    mixup_enabled: bool
    previous: dict[str, Tensor | None] | None


class ScheduledMix:
    """Mixes one batch after the other as a schedule says; stands in for ``timm.data.Mixup``.

    Attributes:
        step: number of the next batch.
        mixup_enabled: set to False to mix nothing from now on, as timm's training script does
            with ``--mixup-off-epoch``.
        num_classes: K.
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
        """Bind a schedule to a training run.

        Args:
            schedule: what to do when.
            num_classes: K, at least 1.
            total_steps: batches of the whole training run, at least 1. Count micro-batches where
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
        self._saliency = saliency or input_gradient
        self._label_smoothing = label_smoothing
        self._key = seed, rank
        self._previous: MixedBatch | None = None

    def __call__(self, images_BCHW: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return mixed images and soft targets of the next batch; the inputs stay as they are.

        Args:
            images_BCHW: floating point, normalized or not, on any device. Not bytes: in timm's
                training script this goes with ``--no-prefetcher``, and it cannot replace
                ``FastCollateMixup``, because there is no model in a loader's worker.
            targets: (B,) int64 classes or (B, K) floating-point targets.

        Returns:
            Images of the same shape and dtype, and (B, K) float32 targets.
        """
        mixed = self.mixed(images_BCHW, targets)
        return mixed.images, smooth_labels(mixed.targets, self._label_smoothing)

    def mixed(self, images_BCHW: Tensor, targets: Tensor) -> MixedBatch:
        """Return all there is to know of the next batch, before labels are smoothed.

        For a loss that is not linear in the target, take ``own_targets``, ``partner_targets`` and
        ``lam`` to `automix.training.metrics.interpolated_loss`. (Co-Mixup has more than two
        parents: its ``partner_targets`` are None.)

        Args:
            images_BCHW: as in a call.
            targets: as in a call.
        """
        progress = min(self.step / self._total_steps, 1.0)
        decision = self._schedule.at(progress)
        seed, rank = self._key
        key = StepKey(seed=seed, rank=rank, step=self.step)
        if not self.mixup_enabled or not is_mixed(decision, key):
            mixed = _unmixed(images_BCHW, targets, self.num_classes)
        else:
            mixed = mix_step(
                decision,
                images_BCHW,
                targets,
                key=key,
                num_classes=self.num_classes,
                model=self._model,
                saliency=self._saliency,
                previous=_on_device_of(images_BCHW, self._previous),
            )
            needs_previous = OPERATOR_FACTS[decision.operator].needs_previous
            self._previous = mixed if needs_previous else None
        # A batch that is refused is not counted.
        self.step += 1
        return mixed

    def state_dict(self) -> MixState:
        """Return what a checkpoint has to hold: plain values and tensors, not copied."""
        return MixState(
            step=self.step,
            mixup_enabled=self.mixup_enabled,
            previous=None if self._previous is None else _tensors_of(self._previous),
        )

    def load_state_dict(self, state: MixState) -> None:
        """Continue after the batch before which ``state`` was taken.

        The tensors of a state may be on another device than the batches: the next call moves them.
        """
        self.step = state["step"]
        self.mixup_enabled = state["mixup_enabled"]
        previous = state["previous"]
        self._previous = None
        if previous is not None:
            self._previous = MixedBatch(**previous)  # type: ignore[arg-type]


def _unmixed(images_BCHW: Tensor, targets: Tensor, num_classes: int) -> MixedBatch:
    shape = BatchShape(len(images_BCHW), *images_BCHW.shape[-2:])
    draws = draw_none(shape, strength=0.0, generator=Generator(images_BCHW.device))
    return apply_none(images_BCHW, targets, draws, num_classes=num_classes)


def _tensors_of(mixed: MixedBatch) -> dict[str, Tensor | None]:
    return {field.name: getattr(mixed, field.name) for field in dataclasses.fields(mixed)}


def _on_device_of(images_BCHW: Tensor, batch: MixedBatch | None) -> MixedBatch | None:
    if batch is None or batch.images.device == images_BCHW.device:
        return batch
    moved = {
        name: None if value is None else value.to(images_BCHW.device)
        for name, value in _tensors_of(batch).items()
    }
    return MixedBatch(**moved)  # type: ignore[arg-type]
