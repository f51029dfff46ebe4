"""A schedule as a callback of fastai's Learner; needs the extra ``fastai``."""

import functools
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from automix.errors import MissingExtraError
from automix.integrations.scheduled_mix import ScheduledMix
from automix.saliency.losses import Loss
from automix.saliency.sources import SaliencySource
from automix.schedule import Schedule

try:
    from fastai.callback.core import Callback
    from fastai.callback.mixup import MixHandler
    from fastai.losses import BaseLoss, LabelSmoothingCrossEntropy
    from fastai.torch_core import rank_distrib
except ImportError:
    raise MissingExtraError(
        "automix.integrations.fastai: expected the extra fastai (pip install 'automix[fastai]'), "
        "got an installation without it"
    ) from None


class ScheduledMixCallback(Callback):
    """Mixes every training batch of a fit, and trains on the cross-entropy of soft targets.

    The schedule is as long as a fit; ``fine_tune`` is two. The epoch says where it is, so that
    ``fit(..., start_epoch=...)`` continues there. Validation is not mixed, and its loss stays.

    Example::

        learn = vision_learner(dls, resnet18, cbs=ScheduledMixCallback(schedule, num_classes=10))
        learn.fit_one_cycle(10)
    """

    run_valid = False

    def __init__(
        self,
        schedule: Schedule,
        *,
        num_classes: int,
        soft_loss: Loss | None = None,
        saliency: SaliencySource | None = None,
        loss: Loss | None = None,
        seed: int = 0,
    ) -> None:
        """Bind a schedule; the network and the number of batches come with a fit.

        Args:
            schedule: what to do when.
            num_classes: K.
            soft_loss: takes predictions and (B, K) targets; by default the Learner's own loss, if
                that is a cross-entropy.
            saliency: as in `ScheduledMix`.
            loss: as in `ScheduledMix`, for saliency.
            seed: names the draws.
        """
        self._bind = functools.partial(
            ScheduledMix, schedule, num_classes=num_classes, saliency=saliency, loss=loss, seed=seed
        )
        self._soft_loss = soft_loss
        self.mix: ScheduledMix | None = None
        self._hard_loss: Any = None

    def before_fit(self) -> None:
        """Begin with the first batch of the fit.

        Raises:
            ValueError: the Learner mixes on its own, or its loss takes no soft targets.
        """
        learn = self.learn
        if others := [type(it).__name__ for it in learn.cbs if isinstance(it, MixHandler)]:
            raise ValueError(f"cbs: expected one callback that mixes, got {others[0]}, too")
        self._training_loss = self._soft_loss or _soft_form(learn.loss_func)
        self.mix = self._bind(
            total_steps=max(1, learn.n_epoch * len(learn.dls.train)),
            model=learn.model,
            rank=rank_distrib(),
        )

    def before_train(self) -> None:
        """Go to the epoch of the fit, and take the loss for soft targets."""
        assert self.mix is not None
        self.mix.set_progress(epoch=self.learn.epoch, num_epochs=self.learn.n_epoch)
        self._hard_loss, self.learn.loss_func = self.learn.loss_func, self._training_loss

    def before_batch(self) -> None:
        """Mix the batch."""
        assert self.mix is not None
        # Plain tensors: fastai's own kinds of images and labels draw through other functions.
        images, targets = self.mix(self.learn.xb[0].as_subclass(Tensor), _plain(self.learn.yb[0]))
        self.learn.xb, self.learn.yb = (images, *self.learn.xb[1:]), (targets,)

    def after_train(self) -> None:
        """Give the loss back, for validation."""
        if self._hard_loss is not None:
            self.learn.loss_func, self._hard_loss = self._hard_loss, None

    def after_cancel_train(self) -> None:
        """Give the loss back."""
        self.after_train()

    def after_cancel_fit(self) -> None:
        """Give the loss back."""
        self.after_train()


def _plain(labels: Tensor) -> Tensor:
    return labels.as_subclass(Tensor)


def _soft_form(loss: Any) -> Loss:
    """Return a cross-entropy of the Learner as one that takes soft targets.

    Raises:
        ValueError: it is another loss.
    """
    # fastai's losses flatten their targets, which makes K times as many of soft ones.
    inner = loss.func if isinstance(loss, BaseLoss) else loss
    if isinstance(inner, nn.CrossEntropyLoss) or inner is F.cross_entropy:
        return inner
    if isinstance(inner, LabelSmoothingCrossEntropy):
        return nn.CrossEntropyLoss(inner.weight, label_smoothing=inner.eps)
    raise ValueError(
        "loss_func: expected a cross-entropy, got "
        f"{getattr(inner, '__name__', type(inner).__name__)}; give a loss for soft targets as "
        "soft_loss= to the callback"
    )
