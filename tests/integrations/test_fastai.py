"""Losses of fastai's Learner, and its own mixing."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from automix.schedule import Decision, constant_schedule

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.jit.script:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*mode.chained_assignment"),
]
MIXUP = constant_schedule(Decision(operator="mixup"))
LOGITS, SOFT = torch.randn(4, 3), torch.rand(4, 3).softmax(1)


@pytest.fixture
def fastai() -> Any:
    return pytest.importorskip("fastai.vision.all", reason="fastai is an extra")


@pytest.fixture
def callback(fastai: Any) -> Any:
    from automix.integrations import fastai as client  # noqa: PLC0415

    return client


def new_learner(fastai: Any, loss: Any, callbacks: list[Any]) -> Any:
    data = torch.utils.data.TensorDataset(torch.rand(8, 3, 8, 8), torch.arange(8) % 3)
    loaders = [torch.utils.data.DataLoader(data, 4) for _ in range(2)]
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    dls = fastai.DataLoaders(*loaders, device=torch.device("cpu"))
    return fastai.Learner(dls, model, loss_func=loss, cbs=callbacks)


LOSSES: dict[str, tuple[Callable[[Any], Any], float]] = {
    "flat": (lambda fastai: fastai.CrossEntropyLossFlat(), 0.0),
    "plain": (lambda _: nn.CrossEntropyLoss(), 0.0),
    "function": (lambda _: F.cross_entropy, 0.0),
    "smooth": (lambda fastai: fastai.LabelSmoothingCrossEntropy(eps=0.2), 0.2),
    "flat smooth": (lambda fastai: fastai.LabelSmoothingCrossEntropyFlat(eps=0.2), 0.2),
}


@pytest.mark.parametrize("name", LOSSES)
def test_cross_entropies_take_soft_targets(fastai: Any, callback: Any, name: str) -> None:
    make, smoothing = LOSSES[name]
    loss = make(fastai)
    mixes = callback.ScheduledMixCallback(MIXUP, num_classes=3)
    learn = new_learner(fastai, loss, [mixes])
    with learn.no_bar(), learn.no_logging():
        learn.fit(1)
    assert learn.loss_func is loss
    assert mixes.mix.step == 2
    by_hand = -(((1 - smoothing) * SOFT + smoothing / 3) * LOGITS.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(torch.as_tensor(mixes._training_loss(LOGITS, SOFT)), by_hand)


def test_other_losses_are_refused_unless_their_soft_form_is_given(
    fastai: Any, callback: Any
) -> None:
    mixes = callback.ScheduledMixCallback(MIXUP, num_classes=3)
    with pytest.raises(ValueError, match=r"loss_func: expected a cross-entropy, got FocalLoss"):
        new_learner(fastai, fastai.FocalLossFlat(), [mixes]).fit(1)
    with_loss = callback.ScheduledMixCallback(MIXUP, num_classes=3, soft_loss=F.cross_entropy)
    learn = new_learner(fastai, fastai.FocalLossFlat(), [with_loss])
    with learn.no_bar(), learn.no_logging():
        learn.fit(1)
    assert with_loss.mix.step == 2


def test_mixing_of_its_own_is_refused(fastai: Any, callback: Any) -> None:
    mixes = callback.ScheduledMixCallback(MIXUP, num_classes=3)
    learn = new_learner(fastai, fastai.CrossEntropyLossFlat(), [mixes, fastai.CutMix()])
    with pytest.raises(ValueError, match=r"cbs: expected one callback that mixes, got CutMix"):
        learn.fit(1)
