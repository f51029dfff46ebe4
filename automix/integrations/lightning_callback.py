"""A schedule as a callback of Lightning; needs the extra ``lightning``."""

import math
import warnings
from collections.abc import Mapping, MutableMapping
from functools import partial
from typing import Any, cast

from automix.errors import MissingExtraError
from automix.first_batch import whole_number
from automix.integrations.scheduled_mix import MixState, ScheduledMix
from automix.saliency.losses import Loss
from automix.saliency.sources import SaliencySource
from automix.schedule import Schedule

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
    from lightning.pytorch.callbacks import GradientAccumulationScheduler, Timer
except ImportError:
    raise MissingExtraError(
        "automix.integrations.lightning_callback: expected the extra lightning "
        "(pip install 'automix[lightning]'), got an installation without it"
    ) from None


class ScheduledMixCallback(Callback):
    """Mixes every training batch before ``training_step`` sees it: ``[images, soft targets]``.

    The batch is a list, which is what the default collate function makes of ``(image, label)``
    items, or a dictionary; for a tuple, which a callback cannot replace, derive the module from
    `MixedBatches`, too. Where gradients are accumulated every micro-batch is mixed on its own. The
    state is saved in Lightning's checkpoints, so that a resumed run draws the same; a checkpoint
    without it says where the run is, which is all but the last batch of RecursiveMix.

    Example::

        callback = ScheduledMixCallback(Schedule.load(Path("schedule.json")), num_classes=10)
        lightning.pytorch.Trainer(max_epochs=10, callbacks=[callback]).fit(module, loader)
    """

    def __init__(
        self,
        schedule: Schedule,
        *,
        num_classes: int,
        total_steps: int | None = None,
        images: int | str = 0,
        labels: int | str = 1,
        saliency: SaliencySource | None = None,
        loss: Loss | None = None,
        label_smoothing: float = 0.0,
        seed: int = 0,
    ) -> None:
        """Bind a schedule; the module and the rank come when training starts.

        The arguments are those of `ScheduledMix`; ``total_steps``, the micro-batches of the whole
        training run on one device, are by default those after which the trainer ends: at the first
        of its limits ``max_steps`` and ``max_epochs``. ``images`` and ``labels`` are the places of
        both in a batch: positions, or names in a dictionary.

        Raises:
            ValueError: ``total_steps`` is no whole number above 0; when training starts, also
                where there is none and the trainer's limits do not say it.
        """
        super().__init__()
        if total_steps is not None:
            total_steps = whole_number("total_steps", total_steps, at_least=1)
        self._total_steps = total_steps
        self._images, self._labels = images, labels
        # For `on_train_start`: number of steps, module and rank are known only then.
        self._bind = partial(
            ScheduledMix,
            schedule,
            num_classes=num_classes,
            saliency=saliency,
            loss=loss,
            label_smoothing=label_smoothing,
            seed=seed,
        )
        self._mix: ScheduledMix | None = None
        self._loaded: MixState | None = None
        # Whether `MixedBatches` has mixed the batch that training begins with.
        self._is_mixed = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin with the first batch, or with the one after a checkpoint."""
        total_steps = self._total_steps or _micro_batches(trainer, pl_module)
        self._mix = self._bind(total_steps=total_steps, model=pl_module, rank=trainer.global_rank)
        # Lightning restores callbacks before training starts, when there is no ScheduledMix yet.
        if self._loaded is not None:
            self._mix.load_state_dict(self._loaded)
        else:
            self._mix.set_progress(step=trainer.fit_loop.epoch_loop.total_batch_idx + 1)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Replace images and labels of the batch by mixed images and soft targets.

        Raises:
            TypeError: the batch is no list or dictionary with both, and was not mixed before.
        """
        if self._is_mixed:
            self._is_mixed = False
            return
        if not isinstance(batch, list | MutableMapping):
            raise TypeError(
                f"batch: expected a list or a dictionary, got a {_described(batch)}, which a "
                "callback cannot replace; derive the LightningModule from "
                "automix.integrations.lightning_callback.MixedBatches, too, which mixes in "
                "on_after_batch_transfer"
            )
        # In place: Lightning ignores what the hook returns.
        self._replace(batch)

    def transferred(self, batch: Any) -> Any:
        """Return a batch of any kind mixed, for `MixedBatches`.

        Raises:
            TypeError: it is no list, tuple or dictionary with images and labels.
        """
        items = list(batch) if isinstance(batch, tuple) else batch
        self._replace(items)
        self._is_mixed = True
        if not isinstance(batch, tuple):
            return items
        is_named = hasattr(batch, "_make")
        return cast("Any", batch)._make(items) if is_named else tuple(items)

    def _replace(self, items: Any) -> None:
        assert self._mix is not None
        try:
            images, labels = items[self._images], items[self._labels]
        except (KeyError, IndexError, TypeError):
            raise TypeError(
                f"batch: expected images in {self._images!r} and labels in {self._labels!r}, got a "
                f"{_described(items)}; give the places as images= and labels= to the callback"
            ) from None
        items[self._images], items[self._labels] = self._mix(images, labels)

    def state_dict(self) -> dict[str, Any]:
        """Return the state for Lightning's checkpoint."""
        return {} if self._mix is None else {**self._mix.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the state of a checkpoint for when the training begins."""
        self._loaded = cast("MixState", state_dict) if state_dict else None


class MixedBatches:
    """Mixin for a LightningModule that trains on tuples, or on batches that it changes itself.

    Example::

        class Classifier(MixedBatches, LightningModule):
            ...

        Trainer(callbacks=[ScheduledMixCallback(schedule, num_classes=10)]).fit(Classifier(), data)
    """

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Return what the module's other classes make of the batch, mixed if it trains."""
        batch = cast("Any", super()).on_after_batch_transfer(batch, dataloader_idx)
        trainer = cast("Any", self).trainer
        if trainer.training:
            for callback in trainer.callbacks:
                if isinstance(callback, ScheduledMixCallback):
                    batch = callback.transferred(batch)
        return batch


def _described(batch: Any) -> str:
    """Return type and size, or names, of a batch."""
    if isinstance(batch, Mapping):
        return f"{type(batch).__name__} of {', '.join(map(str, batch))}"
    return type(batch).__name__ + (f" of {len(batch)}" if isinstance(batch, list | tuple) else "")


def _micro_batches(trainer: Trainer, module: LightningModule) -> int:
    """Return after how many micro-batches the trainer ends, on this device."""
    # -1 is no limit; infinite, the length of a stream.
    per_epoch, accumulation = float(trainer.num_training_batches), trainer.accumulate_grad_batches
    epochs, steps = trainer.max_epochs, trainer.max_steps
    callbacks: list[Callback] = cast("Any", trainer).callbacks
    counted = [epochs * per_epoch] if epochs is not None and epochs >= 0 else []
    if steps >= 0:
        if not module.automatic_optimization:
            raise _unknown("max_steps counts the steps of your own optimizers")
        if any(isinstance(it, GradientAccumulationScheduler) for it in callbacks):
            raise _unknown("the accumulation changes during the run")
        counted.append(_batches_of_steps(steps, per_epoch, accumulation))
    if not counted:
        raise _unknown("the training run has no end")
    if math.inf in counted:
        raise _unknown("the training data has no length")
    # `max_time` of the trainer is such a callback.
    if any(isinstance(it, Timer) for it in callbacks):
        warnings.warn(
            "total_steps: expected a number for a run that its time may end, got none; the "
            "schedule is laid over max_steps and max_epochs",
            stacklevel=2,
        )
    return max(1, int(min(counted)))


def _batches_of_steps(steps: int, per_epoch: float, accumulation: int) -> float:
    """Return the micro-batches of so many optimizer steps."""
    if math.isinf(per_epoch):
        return steps * accumulation
    # The last step of an epoch takes what is left of it: of 10 batches, 4 steps of 4 take 14.
    steps_per_epoch = math.ceil(per_epoch / accumulation)
    epochs, others = divmod(steps, max(1, steps_per_epoch))
    return epochs * per_epoch + others * accumulation


def _unknown(reason: str) -> ValueError:
    return ValueError(
        f"total_steps: expected a number of batches for the whole training run, got none: {reason}"
        "; give total_steps to ScheduledMixCallback"
    )
