"""A schedule as a callable that mixes the batches of any training loop.

Shape suffixes: B batch, C channels, H rows, W columns, K classes.
"""

import dataclasses
import warnings
from collections.abc import Sequence
from typing import Self, TypedDict

import torch
from torch import Generator, Tensor, nn

from automix.first_batch import (
    check_pairs,
    check_ranks_agree,
    check_values,
    checked_batch,
    refuse_learning,
    rehearse,
    whole_number,
)
from automix.integrations.progress import (
    Calls,
    refuse_collator_of_trainer,
    refuse_worker,
    steps_of,
)
from automix.integrations.targets_in_use import TargetsInUse
from automix.mixing import StepKey, batch_from_tensors, draw_decision, mix_step, tensors_of
from automix.operator_info import OPERATOR_FACTS, Operator
from automix.operators.blend import soft_targets
from automix.operators.mixup_cutmix import apply_none, draw_none
from automix.operators.types import BatchShape, MixedBatch
from automix.saliency.gradient import input_gradient
from automix.saliency.losses import Loss, check_sums_to_one
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

    The first batch is mixed once by every operator of the schedule, so that what does not fit
    (labels, images, the network, its loss) is refused there and not in the middle of the run.

    Examples:
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
        loss: Loss | None = None,
        label_smoothing: float = 0.0,
        seed: int = 0,
        rank: int = 0,
        optimizer: torch.optim.Optimizer | None = None,
        accumulation: int = 1,
    ) -> None:
        """Bind a schedule to a training run.

        Args:
            schedule: what to do when.
            num_classes: K, at least 1.
            total_steps: batches of the whole training run, at least 1. Count micro-batches where
                gradients are accumulated.
            model: the classifier; needed if the schedule holds an operator that reads saliency.
                Wrappers of DistributedDataParallel and torch.compile are looked through. It may
                return logits, one logit, or an object, dict or tuple that holds them.
            saliency: where saliency comes from; the input gradient by default.
            loss: takes (logits, (B, K) float32 targets): the training's own loss, whose gradient
                the default saliency then is. Without it, the cross-entropy of a softmax or, for a
                network with one logit, of a sigmoid. Needed for several labels per image.
            label_smoothing: fraction of each target that is spread evenly over all classes, in
                [0, 1).
            seed: names the draws; the same in all processes that train together.
            rank: number of this process; processes draw differently.
            optimizer: that of the run. Where it was resumed and this object was not, the first
                batch takes its number from the steps that the optimizer has done, with a warning.
            accumulation: batches of each of its steps.

        Raises:
            ValueError: a number is out of range or no whole number, the schedule needs a model and
                there is none, it mixes within it (Manifold Mixup) or learns, or there are a source
                and a loss.
        """
        num_classes = whole_number("num_classes", num_classes, at_least=1)
        total_steps = whole_number("total_steps", total_steps, at_least=1)
        seed, rank = (
            whole_number("seed", seed, at_least=0),
            whole_number("rank", rank, at_least=0),
        )
        accumulation = whole_number("accumulation", accumulation, at_least=1)
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing: expected 0 or more, below 1, got {label_smoothing}")
        if saliency is not None and loss is not None:
            raise ValueError(
                "loss: expected none with a saliency source of your own, got both; give it to the "
                "source, as functools.partial(input_gradient, loss=loss)"
            )
        if hidden := [it.value for it in schedule.operators if OPERATOR_FACTS[it].mixes_features]:
            raise ValueError(
                f"schedule: expected operators that mix images, got {hidden[0]}, which mixes in "
                "the network: train with automix replay, or pass each batch through it within "
                "automix.operators.manifold_mixup.manifold_mixup"
            )
        refuse_learning(schedule.operators)
        with_saliency = [name for name in schedule.operators if _reads_saliency([name])]
        if with_saliency and model is None:
            raise ValueError(
                f"model: expected a model for the saliency of {with_saliency[0].value}, got none"
            )
        self.step = 0
        self.mixup_enabled = True
        self.num_classes = num_classes
        self._schedule = schedule
        self._total_steps = total_steps
        self._model = model
        self._saliency = saliency or _gradient_of(loss, num_classes)
        # Of rows with several labels, which the default loss is not for.
        self._checks_sums = bool(with_saliency) and saliency is None and loss is None
        self._label_smoothing = label_smoothing
        self._key = seed, rank
        self._optimizer, self._accumulation = optimizer, accumulation
        self._calls = Calls()
        self._in_use = TargetsInUse(model, optimizer)
        self._is_checked = False
        # The batch before, for RecursiveMix; part of the state, as it cannot be drawn again.
        self._previous: MixedBatch | None = None

    @classmethod
    def recommended(
        cls,
        *,
        num_classes: int,
        total_steps: int,
        model: nn.Module | None = None,
        loss: Loss | None = None,
        label_smoothing: float = 0.0,
        seed: int = 0,
        rank: int = 0,
    ) -> Self:
        """Return the mix of the schedule to use where nothing was searched.

        Examples:
            >>> mix = ScheduledMix.recommended(num_classes=10, total_steps=1000)
            >>> images, targets = mix(torch.rand(8, 3, 32, 32), torch.arange(8))
        """
        return cls(
            Schedule.recommended(),
            num_classes=num_classes,
            total_steps=total_steps,
            model=model,
            loss=loss,
            label_smoothing=label_smoothing,
            seed=seed,
            rank=rank,
        )

    def __call__(self, images_BCHW: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return mixed images and soft targets of the next batch; the inputs stay as they are.

        Args:
            images_BCHW: floating point, normalized or not, on any device. Not bytes, as
                timm's ``FastCollateMixup`` takes them: for its training script there is
                `automix.integrations.timm`.
                Images that need a gradient keep it.
            targets: (B,) integer classes of any type, or rows (B, K): one-hot, soft or multi-label.

        Returns:
            Images of the same shape and dtype, and (B, K) float32 targets.

        Warns:
            UserWarning: weights have changed, and nothing has used the targets of the first batch,
                but labels, say. Only where there is a model or an optimizer.

        Raises:
            TypeError: images or targets of another type; at the first batch, also a network without
                logits.
            ValueError: another shape or, at the first batch and on a CPU, values out of range; at
                the first batch, what any operator of the schedule refuses.
            RuntimeError: in a loader's worker, in the collator of Transformers' Trainer, or where
                a network of Transformers made a binary cross-entropy of the first targets.
        """
        mixed = self.mixed(images_BCHW, targets)
        targets_BK = smooth_labels(mixed.targets, self._label_smoothing)
        return mixed.images, self._in_use.passed(targets_BK)

    def mixed(self, images_BCHW: Tensor, targets: Tensor) -> MixedBatch:
        """Return the next batch with partners, weights and mask, before labels are smoothed.

        For a loss that is not linear in the target, take ``own_targets``, ``partner_targets`` and
        ``lam`` to `automix.training.metrics.interpolated_loss`. (Co-Mixup has more than two
        parents: its ``partner_targets`` are None.)
        """
        refuse_worker()
        targets = checked_batch(images_BCHW, targets, num_classes=self.num_classes)
        if not self._is_checked:
            self._follow_optimizer()
            self._check_first(images_BCHW, targets)
        # A loop may run longer than it said: the last mixture then holds.
        progress = min(self.step / self._total_steps, 1.0)
        mixture = self._schedule.mixture_at(progress)
        key = self._step_key()
        # All ranks make the saliency pass of a step, or none: in a network with synchronized norms
        # or sharded weights it waits for all of them.
        choice = dataclasses.replace(key, rank=0) if _reads_saliency(mixture.operators) else key
        # Drawn on the host, as in our own training step: an unmixed batch costs no saliency pass.
        decision = draw_decision(mixture, choice) if self.mixup_enabled else None
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
            # the others need not keep it in memory. Its graph, if any, ends with its own step.
            self._previous = _detached(mixed) if mixture.keeps_batches else None
        # A batch that is refused is not counted.
        self.step += 1
        self._calls.count(decision.operator.value if decision else "unmixed")
        return mixed

    def set_progress(
        self, *, step: int | None = None, epoch: int | None = None, num_epochs: int | None = None
    ) -> None:
        """Say where the run is, in a loop that has no place for `state_dict`.

        RecursiveMix begins anew there; all other batches are those of an uninterrupted run.

        Args:
            step: number of the next batch, from 0; or
            epoch: number of the next epoch, from 0, of ``num_epochs`` of equal length.
            num_epochs: epochs of the whole run, of ``total_steps`` batches.

        Raises:
            ValueError: neither a step, nor an epoch and the number of all.

        Examples:
            >>> mix = ScheduledMix.recommended(num_classes=10, total_steps=1000)
            >>> mix.set_progress(epoch=3, num_epochs=10)
            >>> mix.step
            300
        """
        if step is None and epoch is not None and num_epochs is not None:
            num_epochs = whole_number("num_epochs", num_epochs, at_least=1)
            epoch = whole_number("epoch", epoch, at_least=0)
            step = epoch * self._total_steps // num_epochs
        elif step is None or epoch is not None or num_epochs is not None:
            raise ValueError(
                "set_progress: expected step=, or epoch= and num_epochs=, got "
                f"step={step}, epoch={epoch}, num_epochs={num_epochs}"
            )
        step = whole_number("step", step, at_least=0)
        # Where the run is need not be asked any more.
        self._optimizer = None
        if step != self.step:
            self.step, self._previous = step, None

    def summary(self) -> str:
        """Return in one line where the schedule is, and what was done to batches until now.

        Examples:
            >>> mix = ScheduledMix.recommended(num_classes=10, total_steps=1000)
            >>> mix.summary()
            'next batch 0 of 1000; since it was bound: no batch'
        """
        return self._calls.line(step=self.step, total_steps=self._total_steps)

    def _follow_optimizer(self) -> None:
        """Go where the optimizer is, if it was resumed and the schedule was not."""
        if self._optimizer is None or self.step > 0:
            return
        if steps := steps_of(self._optimizer):
            self.step = steps * self._accumulation
            warnings.warn(
                f"step: expected the state of the schedule in a resumed run, got none; the "
                f"optimizer has done {steps} steps, so it resumes at batch {self.step}",
                stacklevel=4,
            )

    def _step_key(self) -> StepKey:
        seed, rank = self._key
        return StepKey(seed=seed, rank=rank, step=whole_number("step", self.step, at_least=0))

    def _check_first(self, images_BCHW: Tensor, targets: Tensor) -> None:
        """Refuse what would fail later in the run; waits for the device, once in a run."""
        operators, model = self._schedule.operators, self._model
        refuse_collator_of_trainer(knows_position=False)
        check_values(images_BCHW, targets, num_classes=self.num_classes)
        if self.step == 0:
            # A resumed run may begin with the short last batch of an epoch.
            check_pairs(operators, len(images_BCHW))
        if self._checks_sums and targets.ndim == 2 and self.num_classes > 1:
            check_sums_to_one(targets)
        key = self._step_key()
        if model is not None and _reads_saliency(operators):
            named = f"{key.seed} {self._total_steps} {key.step} {self._schedule.decision_hash()}"
            check_ranks_agree(model, images_BCHW.device, named=named)
        rehearse(
            operators,
            images_BCHW,
            targets,
            key=key,
            num_classes=self.num_classes,
            model=model,
            saliency=self._saliency,
        )
        self._is_checked = True

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

        Raises:
            ValueError: it is no state, or its step no number of a batch.
        """
        if missing := MixState.__required_keys__ - state.keys():
            raise ValueError(f"state: expected {', '.join(sorted(missing))}, got {list(state)}")
        self.step = whole_number("state.step", state["step"], at_least=0)
        self._optimizer = None
        self.mixup_enabled = bool(state["mixup_enabled"])
        previous = state["previous"]
        self._previous = None if previous is None else batch_from_tensors(previous)

    def _previous_on(self, device: torch.device) -> MixedBatch | None:
        # A checkpoint is loaded before the loop has shown which device its batches are on.
        batch = self._previous
        if batch is None or batch.images.device == device:
            return batch
        return batch_from_tensors(tensors_of(batch), device=device)


def _reads_saliency(operators: Sequence[Operator]) -> bool:
    return any(OPERATOR_FACTS[operator].needs_saliency for operator in operators)


def _gradient_of(loss: Loss | None, num_classes: int) -> SaliencySource:
    """Return the input gradient as a source, of a loss that takes the targets that it trains on."""
    if loss is None:
        return input_gradient

    def source(model: nn.Module, images_BCHW: Tensor, targets: Tensor) -> Tensor:
        rows_BK = soft_targets(targets, len(images_BCHW), num_classes)
        return input_gradient(model, images_BCHW, rows_BK, loss=loss)

    return source


def _detached(batch: MixedBatch) -> MixedBatch:
    tensors = tensors_of(batch).items()
    return batch_from_tensors(
        {name: value if value is None else value.detach() for name, value in tensors}
    )


def _unmixed(images_BCHW: Tensor, targets: Tensor, num_classes: int) -> MixedBatch:
    shape = BatchShape(len(images_BCHW), *images_BCHW.shape[-2:])
    draws = draw_none(shape, strength=0.0, generator=Generator(images_BCHW.device))
    return apply_none(images_BCHW, targets, draws, num_classes=num_classes)
