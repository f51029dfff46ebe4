"""A schedule in the Trainer of Transformers; needs the extra ``transformers``.

Shape suffixes: B batch, K classes.
"""

import functools
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from automix.errors import MissingExtraError
from automix.integrations.scheduled_mix import ScheduledMix
from automix.saliency.losses import Loss
from automix.saliency.sources import SaliencySource
from automix.schedule import Schedule

try:
    from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState
    from transformers.training_args import TrainingArguments
except ImportError:
    raise MissingExtraError(
        "automix.integrations.transformers: expected the extra transformers "
        "(pip install 'automix[transformers]'), got an installation without it"
    ) from None


def mix_in_trainer(
    trainer: Trainer,
    schedule: Schedule,
    *,
    num_classes: int | None = None,
    images: str = "pixel_values",
    saliency: SaliencySource | None = None,
    loss: Loss | None = None,
    seed: int | None = None,
) -> "TrainerMix":
    """Make a Trainer mix every batch that it trains on, and take the loss of soft targets.

    Batches are mixed in the training process, on the device, right before the forward pass:
    whatever the collator, the worker processes and the accumulation are. The position is that of
    the Trainer's state, also after ``resume_from_checkpoint``. Evaluation stays as it is.

    Args:
        trainer: before it trains. Without a ``compute_loss_func`` of its own it gets
            `soft_cross_entropy`: its models make a binary cross-entropy of soft labels.
        schedule: what to do when; as long as the run, to ``max_steps``.
        num_classes: K; ``model.config.num_labels`` by default.
        images: name of the images in a batch; (B, C, H, W) floating point. Labels are ``"labels"``.
        saliency: as in `ScheduledMix`.
        loss: as in `ScheduledMix`, for saliency.
        seed: names the draws; the Trainer's own by default.

    Example::

        trainer = Trainer(model, TrainingArguments("run"), train_dataset=photos)
        mix_in_trainer(trainer, Schedule.load(Path("schedule.json")))
        trainer.train()
    """
    bind = functools.partial(ScheduledMix, schedule, saliency=saliency, loss=loss)
    callback = TrainerMix(trainer, bind, num_classes=num_classes, images=images, seed=seed)
    trainer.add_callback(callback)
    return callback


def soft_cross_entropy(
    outputs: Any, labels_BK: Tensor, num_items_in_batch: Tensor | int | None = None
) -> Tensor:
    """Return the cross-entropy of soft targets, for ``Trainer(..., compute_loss_func=...)``.

    Args:
        outputs: of the model, with (B, K) ``logits``.
        labels_BK: soft targets, or (B,) classes in an evaluation.
        num_items_in_batch: images in all batches of one optimizer step, as the Trainer counts them
            by the labels of the loader. (Of soft labels from a collator it counts K per image.)

    Returns:
        The mean over the images of this batch or, with a number of items, their part of the mean
        over the step.
    """
    logits_BK: Tensor = outputs["logits"] if isinstance(outputs, dict) else outputs[0]
    losses_B = F.cross_entropy(logits_BK.float(), labels_BK.to(logits_BK.device), reduction="none")
    if num_items_in_batch is None:
        return losses_B.mean()
    return losses_B.sum() / num_items_in_batch


class TrainerMix(TrainerCallback):
    """Stands between a Trainer and its loss; made by `mix_in_trainer`.

    Attributes:
        mix: the schedule in the current run, from the first batch on.
    """

    def __init__(
        self,
        trainer: Trainer,
        bind: "functools.partial[ScheduledMix]",
        *,
        num_classes: int | None,
        images: str,
        seed: int | None,
    ) -> None:
        self.mix: ScheduledMix | None = None
        self._trainer, self._bind = trainer, bind
        self._num_classes, self._images, self._seed = num_classes, images, seed
        # Micro-batches of the optimizer step that the Trainer is at.
        self._global_step, self._micro_batch = -1, 0
        self._smoothing = 0.0
        if trainer.compute_loss_func is None:
            trainer.compute_loss_func = soft_cross_entropy
            # Of the Trainer's own label smoother, whose place the loss takes.
            self._smoothing = trainer.args.label_smoothing_factor
        self._compute_loss = trainer.compute_loss
        trainer.compute_loss = self.compute_loss

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Forget the run before: another one may have another length and network."""
        self.mix, self._global_step = None, -1

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Return what the Trainer's own method does, of a batch that is mixed if it trains."""
        if model.training:
            inputs = self._mixed(inputs)
        return self._compute_loss(model, inputs, *args, **kwargs)

    def _mixed(self, inputs: dict[str, Any]) -> dict[str, Any]:
        for name in (self._images, "labels"):
            if name not in inputs:
                raise ValueError(f"{name}: expected in a batch, got only {', '.join(inputs)}")
        if self.mix is None:
            self.mix = self._bound()
        state, accumulation = self._trainer.state, self._trainer.args.gradient_accumulation_steps
        if state.global_step != self._global_step:
            self._global_step, self._micro_batch = state.global_step, 0
        # The last step of an epoch may have fewer batches than the others: their numbers are left
        # out, so that a resumed run, which knows its steps alone, draws the same.
        self.mix.step = state.global_step * accumulation + self._micro_batch
        self._micro_batch += 1
        images, targets = self.mix(inputs[self._images], inputs["labels"])
        return {**inputs, self._images: images, "labels": targets}

    def _bound(self) -> ScheduledMix:
        trainer = self._trainer
        return self._bind(
            num_classes=self._num_classes or trainer.model.config.num_labels,
            total_steps=trainer.state.max_steps * trainer.args.gradient_accumulation_steps,
            model=trainer.model,
            label_smoothing=self._smoothing,
            seed=trainer.args.seed if self._seed is None else self._seed,
            rank=trainer.args.process_index,
        )
