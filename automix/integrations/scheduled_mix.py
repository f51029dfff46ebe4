"""A schedule as a callable that mixes the batches of any training loop.

Shape suffixes: B batch, C channels, H rows, W columns, K classes.
"""

from typing import Self, TypedDict

import torch
from torch import Generator, Tensor, nn

from automix.mixing import StepKey, batch_from_tensors, draw_decision, mix_step, tensors_of
from automix.operator_info import OPERATOR_FACTS
from automix.operators.mixup_cutmix import apply_none, draw_none
from automix.operators.types import BatchShape, MixedBatch
from automix.saliency.gradient import input_gradient
from automix.saliency.sources import SaliencySource
from automix.schedule import Schedule
from automix.training.metrics import smooth_labels


class MixState(TypedDict):
    """State of a `ScheduledMix` in a checkpoint, from which it resumes with the same batches."""

    step: int
    mixup_enabled: bool
    previous: dict[str, Tensor | None] | None


class ScheduledMix:
    """Mixes one batch after the other as a schedule says; stands in for ``timm.data.Mixup``.

    Example:
        >>> import torch
        >>> from automix.schedule import Decision, constant_schedule
        >>> schedule = constant_schedule(Decision(operator="cutmix"))
        >>> mix = ScheduledMix(schedule, num_classes=10, total_steps=100)
        >>> images, targets = mix(torch.rand(8, 3, 32, 32), torch.arange(8))
        >>> images.shape, targets.shape, mix.step
        (torch.Size([8, 3, 32, 32]), torch.Size([8, 10]), 1)

        A checkpoint holds ``mix.state_dict()``; in a resumed run, load it into a new object:

        >>> resumed = ScheduledMix(schedule, num_classes=10, total_steps=100)
        >>> resumed.load_state_dict(mix.state_dict())
        >>> batch = torch.rand(8, 3, 32, 32), torch.arange(8)
        >>> torch.equal(resumed(*batch)[0], mix(*batch)[0])
        True

    Attributes:
        step: number of the next batch.
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
        """Bind a schedule to a training run.

        Args:
            schedule: what to do when.
            num_classes: K, at least 1.
            total_steps: batches of the whole training run, at least 1. Count micro-batches where
                gradients are accumulated.
            model: the classifier; needed if the schedule holds an operator that reads saliency.
                Wrappers of DistributedDataParallel and torch.compile are looked through.
            saliency: where saliency comes from; the input gradient by default.
            label_smoothing: fraction of each target that is spread evenly over all classes, in
                [0, 1).
            seed: names the draws.
            rank: number of this process; processes draw differently.

        Raises:
            ValueError: a number is out of range, or the schedule needs a model and there is none.
        """
        if num_classes < 1 or total_steps < 1:
            raise ValueError(
                f"expected at least 1 class and 1 step, got {num_classes} and {total_steps}"
            )
        with_saliency = [name for name in schedule.operators if OPERATOR_FACTS[name].needs_saliency]
        if with_saliency and model is None:
            raise ValueError(
                f"expected a model for the saliency of {with_saliency[0].value}, got none"
            )
        self.step = 0
        self.mixup_enabled = True
        self.num_classes = num_classes
        self._schedule = schedule
        self._total_steps = total_steps
        self._model = model
        self._saliency = saliency or input_gradient
        self._label_smoothing = label_smoothing
        self._key = seed, rank
        # The batch before, for RecursiveMix; part of the state, as it cannot be drawn again.
        self._previous: MixedBatch | None = None

    @classmethod
    def recommended(
        cls,
        *,
        num_classes: int,
        total_steps: int,
        model: nn.Module | None = None,
        label_smoothing: float = 0.0,
        seed: int = 0,
        rank: int = 0,
    ) -> Self:
        """Return the mix of the schedule to use where nothing was searched.

        Example:
            >>> mix = ScheduledMix.recommended(num_classes=10, total_steps=1000)
            >>> images, targets = mix(torch.rand(8, 3, 32, 32), torch.arange(8))
        """
        return cls(
            Schedule.recommended(),
            num_classes=num_classes,
            total_steps=total_steps,
            model=model,
            label_smoothing=label_smoothing,
            seed=seed,
            rank=rank,
        )

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
        """Return the next batch with partners, weights and mask, before labels are smoothed.

        For a loss that is not linear in the target, take ``own_targets``, ``partner_targets`` and
        ``lam`` to `automix.training.metrics.interpolated_loss`. (Co-Mixup has more than two
        parents: its ``partner_targets`` are None.)
        """
        # A loop may run longer than it said: the last mixture then holds.
        progress = min(self.step / self._total_steps, 1.0)
        mixture = self._schedule.mixture_at(progress)
        seed, rank = self._key
        key = StepKey(seed=seed, rank=rank, step=self.step)
        # Drawn on the host, as in our own training step: an unmixed batch costs no saliency pass.
        decision = draw_decision(mixture, key) if self.mixup_enabled else None
        if decision is None:
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
                previous=self._previous_on(images_BCHW.device),
            )
            # RecursiveMix pastes the last mixed batch, whichever operator of its mixture mixed it;
            # the others need not keep it in memory.
            self._previous = mixed if mixture.keeps_batches else None
        # A batch that is refused is not counted.
        self.step += 1
        return mixed

    def state_dict(self) -> MixState:
        """Return the state for a checkpoint: plain values and tensors, not copied."""
        return MixState(
            step=self.step,
            mixup_enabled=self.mixup_enabled,
            previous=None if self._previous is None else tensors_of(self._previous),
        )

    def load_state_dict(self, state: MixState) -> None:
        """Resume with the batch before which ``state`` was taken.

        The tensors of a state may be on another device than the batches: the next call moves them.
        """
        self.step = state["step"]
        self.mixup_enabled = state["mixup_enabled"]
        previous = state["previous"]
        self._previous = None if previous is None else batch_from_tensors(previous)

    def _previous_on(self, device: torch.device) -> MixedBatch | None:
        # A checkpoint is loaded before the loop has shown which device its batches are on.
        batch = self._previous
        if batch is None or batch.images.device == device:
            return batch
        return batch_from_tensors(tensors_of(batch), device=device)


def _unmixed(images_BCHW: Tensor, targets: Tensor, num_classes: int) -> MixedBatch:
    shape = BatchShape(len(images_BCHW), *images_BCHW.shape[-2:])
    draws = draw_none(shape, strength=0.0, generator=Generator(images_BCHW.device))
    return apply_none(images_BCHW, targets, draws, num_classes=num_classes)
