"""A schedule as a callback of Lightning; needs the extra ``lightning``."""

from functools import partial
from typing import Any, cast

from automix.errors import MissingExtraError
from automix.integrations.scheduled_mix import MixState, ScheduledMix
from automix.saliency.sources import SaliencySource
from automix.schedule import Schedule

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
except ImportError:
    raise MissingExtraError(
        "automix.integrations.lightning_callback: expected the extra lightning "
        "(pip install 'automix[lightning]'), got an installation without it"
    ) from None


class ScheduledMixCallback(Callback):
    """Mixes every training batch before ``training_step`` sees it: ``[images, soft targets]``.

    The batch must be a list of two, which is what the default collate function makes of
    ``(image, label)`` items; a tuple cannot be replaced from a callback. Where gradients are
    accumulated every micro-batch is mixed on its own. The state is saved in Lightning's
    checkpoints, so that a resumed run draws the same.

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
        saliency: SaliencySource | None = None,
        label_smoothing: float = 0.0,
        seed: int = 0,
    ) -> None:
        """Bind a schedule; the module and the rank come when training starts.

        The arguments are those of `ScheduledMix`; ``total_steps``, the micro-batches of the whole
        training run on one device, are by default what the trainer says.
        """
        super().__init__()
        self._total_steps = total_steps
        # For `on_train_start`: number of steps, module and rank are known only then.
        self._bind = partial(
            ScheduledMix,
            schedule,
            num_classes=num_classes,
            saliency=saliency,
            label_smoothing=label_smoothing,
            seed=seed,
        )
        self._mix: ScheduledMix | None = None
        self._loaded: MixState | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin with the first batch, or with the one after a checkpoint."""
        total_steps = self._total_steps or _micro_batches(trainer)
        self._mix = self._bind(total_steps=total_steps, model=pl_module, rank=trainer.global_rank)
        # Lightning restores callbacks before training starts, when there is no ScheduledMix yet.
        if self._loaded is not None:
            self._mix.load_state_dict(self._loaded)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Replace images and labels of the batch by mixed images and soft targets.

        Raises:
            TypeError: the batch is not a list of two.
        """
        assert self._mix is not None
        if not isinstance(batch, list) or len(batch) != 2:
            got = type(batch).__name__
            got += f" of {len(batch)}" if isinstance(batch, list | tuple) else ""
            raise TypeError(
                f"batch: expected a list [images, labels], got a {got}, which a callback cannot "
                "replace; call automix.integrations.ScheduledMix in on_after_batch_transfer of "
                "the LightningModule"
            )
        # In place: Lightning ignores what the hook returns.
        batch[0], batch[1] = self._mix(batch[0], batch[1])

    def state_dict(self) -> dict[str, Any]:
        """Return the state for Lightning's checkpoint."""
        return {} if self._mix is None else {**self._mix.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the state of a checkpoint for when the training begins."""
        self._loaded = cast("MixState", state_dict) if state_dict else None


def _micro_batches(trainer: Trainer) -> int:
    # Lightning counts optimizer steps in max_steps and micro-batches in an epoch; -1 is no limit.
    if trainer.max_steps >= 0:
        return trainer.max_steps * trainer.accumulate_grad_batches
    if trainer.max_epochs is None or trainer.max_epochs < 0:
        raise ValueError("total_steps: expected a number for a training run without end, got none")
    return trainer.max_epochs * int(trainer.num_training_batches)
