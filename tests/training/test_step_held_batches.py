"""With `refresh_every` above 1 a batch is trained on for so many steps, under one saliency map."""

import pytest
import torch
from torch import Tensor, nn

from automix.data.splits import SearchData
from automix.mixing import StepKey
from automix.operator_info import Operator
from automix.saliency.gradient import input_gradient
from automix.saliency.sources import CachedSource, SaliencySource
from automix.schedule import Decision
from automix.training.trainer import ClassifierTrainer
from tests.training.conftest import TOTAL_STEPS, MakeTrainer

RMIX = Decision(operator=Operator.RMIX)


class Watched:
    """The input gradient; keeps the images it was asked about."""

    def __init__(self) -> None:
        self.images: list[Tensor] = []

    def __call__(self, model: nn.Module, images_BCHW: Tensor, targets: Tensor) -> Tensor:
        self.images.append(images_BCHW.clone())
        return input_gradient(model, images_BCHW, targets)


def batches_of(trainer: ClassifierTrainer, decision: Decision) -> tuple[list[Tensor], Watched]:
    """Return the unmixed images of every step, and the source that was asked."""
    source, fetched = Watched(), list[Tensor]()
    watch(trainer, source)
    fetch = trainer.training_step.fetch

    def keep(**names: int) -> tuple[Tensor, Tensor, StepKey]:
        images, labels, key = fetch(**names)
        fetched.append(images.clone())
        return images, labels, key

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer.training_step, "fetch", keep)
        trainer.train(decision, num_steps=TOTAL_STEPS)
    return fetched, source


def watch(trainer: ClassifierTrainer, source: SaliencySource) -> None:
    """Let ``source`` give the maps of a training run."""
    for carried in trainer.training_step._carried:
        refresh_every = carried.saliency.refresh_every
        carried.saliency = CachedSource(source, refresh_every=refresh_every)


@pytest.mark.parametrize("refresh_every", [1, 2, 5])
def test_one_pass_for_each_batch(make_trainer: MakeTrainer, refresh_every: int) -> None:
    trainer = make_trainer(saliency={"refresh_every": refresh_every})
    batches, source = batches_of(trainer, RMIX)
    starts = range(0, TOTAL_STEPS, refresh_every)
    assert len(source.images) == len(starts)
    for start, images in zip(starts, source.images, strict=True):
        for held in batches[start : start + refresh_every]:
            assert torch.equal(held, images)
    assert not torch.equal(source.images[0], source.images[1])


def test_other_operators_train_on_the_same_batches(make_trainer: MakeTrainer) -> None:
    runs = [
        batches_of(make_trainer(saliency={"refresh_every": 4}), decision)
        for decision in (RMIX, Decision(operator=Operator.NONE))
    ]
    for first, second in zip(runs[0][0], runs[1][0], strict=True):
        assert torch.equal(first, second)
    assert not runs[1][1].images


def test_each_step_of_a_held_batch_mixes_anew(make_trainer: MakeTrainer) -> None:
    trainer, seen = make_trainer(saliency={"refresh_every": 4}), list[Tensor]()
    trainer.model.register_forward_pre_hook(
        lambda module, inputs: seen.append(inputs[0].detach().clone()) if module.training else None
    )
    watch(trainer, lambda model, images, targets: images.abs().mean(1))
    trainer.train(RMIX, num_steps=4)
    assert len(seen) == 4
    assert not torch.equal(seen[0], seen[1])


def test_maps_of_stored_images_are_fresh(
    make_trainer: MakeTrainer, search_data: SearchData
) -> None:
    trainer = make_trainer(saliency={"refresh_every": 4})
    trainer.train(RMIX, num_steps=1)
    images, labels = search_data.reward.images[:3], search_data.reward.labels[:3]
    before = trainer.saliency_of(images, labels)
    assert before.shape == (3, *images.shape[2:])
    trainer.train(RMIX, num_steps=1)
    assert not torch.equal(trainer.saliency_of(images, labels), before)
