"""Transformers' Trainer with a schedule: its loss, its position, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import default_collate

from automix.integrations import ScheduledMix
from automix.integrations.torchvision_transform import OperatorTransform
from automix.schedule import Decision, even_schedule
from tests.worlds import RunWorld

pytest.importorskip("transformers", reason="transformers is an extra")
pytest.importorskip("accelerate", reason="accelerate is an extra")
from automix.integrations.transformers import mix_in_trainer
from tests.integrations.in_trainer import IMAGES, NUM_CLASSES, new_trainer, seen, seen_in_ranks

OPERATORS = ("cutmix", "mixup", "saliencymix")
IN_TURN = even_schedule([Decision(operator=name) for name in OPERATORS])
BATCHES = IMAGES // 4
STEPS = [(step, OPERATORS[step // BATCHES]) for step in range(3 * BATCHES)]


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("workers", [0, 1])
def test_the_loss_is_the_cross_entropy_of_what_the_schedule_mixed(
    tmp_path: Path, accumulation: int, workers: int
) -> None:
    run = seen(
        IN_TURN,
        tmp_path,
        gradient_accumulation_steps=accumulation,
        dataloader_num_workers=workers,
    )
    assert run.steps == STEPS
    by_step = torch.tensor(run.by_hand).view(-1, accumulation).mean(1)
    # The Trainer rounds what it logs to 4 significant digits.
    assert torch.allclose(torch.tensor([float(it) for it in run.logged]), by_step, rtol=1e-3)
    assert run.problem_type is None


def test_a_resumed_run_draws_what_the_whole_one_does(tmp_path: Path) -> None:
    whole = seen(IN_TURN, tmp_path, save_strategy="steps", save_steps=8)
    resumed = seen(IN_TURN, tmp_path, resume=str(tmp_path / "checkpoint-8"))
    assert resumed.steps == STEPS[8:]
    assert resumed.by_hand == pytest.approx(whole.by_hand[8:], rel=1e-5)
    assert all(map(torch.equal, resumed.images, whole.images[8:]))


def test_two_processes_draw_on_their_own(run_world: RunWorld, tmp_path: Path) -> None:
    (first_rank, first), (second_rank, second) = run_world(2, seen_in_ranks, IN_TURN, tmp_path)
    assert (first_rank, second_rank) == (0, 1)
    operators = [OPERATORS[step // 3] for step in range(9)]
    assert first.steps == second.steps == list(enumerate(operators))
    assert first.by_hand != second.by_hand
    assert torch.allclose(
        torch.tensor([float(it) for it in first.logged]),
        torch.tensor([first.by_hand, second.by_hand]).mean(0),
        rtol=1e-3,
    )


def test_epochs_that_end_within_a_step_keep_the_numbers_of_a_resumed_run(tmp_path: Path) -> None:
    run = seen(IN_TURN, tmp_path, gradient_accumulation_steps=4, num_train_epochs=2)
    # Steps of 4 and 2 batches; the last one's numbers are left out.
    assert [step for step, _ in run.steps] == [0, 1, 2, 3, 4, 5, 8, 9, 10, 11, 12, 13]


def test_an_evaluation_is_not_mixed_and_a_second_run_begins_anew(tmp_path: Path) -> None:
    run = seen(IN_TURN, tmp_path, num_train_epochs=1, label_smoothing_factor=0.3)
    assert len(run.steps) == BATCHES
    trainer = new_trainer(tmp_path, num_train_epochs=1)
    mixed = mix_in_trainer(trainer, IN_TURN)
    expected = new_trainer(tmp_path).evaluate()["eval_loss"]
    assert trainer.evaluate()["eval_loss"] == pytest.approx(expected, rel=1e-5)
    for _ in range(2):
        trainer.train()
        assert mixed.mix is not None
        assert mixed.mix.step == BATCHES


def test_a_loss_of_the_user_takes_the_soft_targets(tmp_path: Path) -> None:
    taken: list[Tensor] = []

    def own_loss(outputs: Any, labels: Tensor, num_items_in_batch: Any = None) -> Tensor:
        taken.append(labels)
        return F.cross_entropy(outputs.logits, labels)

    seen(IN_TURN, tmp_path, num_train_epochs=1, compute_loss_func=own_loss)
    assert all(labels.shape == (4, NUM_CLASSES) for labels in taken)
    assert len(taken) == BATCHES


def mixed_collate(items: list[dict[str, Tensor]], mix: Any) -> dict[str, Tensor]:
    batch = default_collate(items)
    images, labels = mix(batch["pixel_values"], batch["labels"])
    return {"pixel_values": images, "labels": labels}


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("is_schedule", [True, False])
def test_a_collator_that_mixes_is_refused(tmp_path: Path, workers: int, is_schedule: bool) -> None:
    mix: Any = OperatorTransform("mixup", num_classes=NUM_CLASSES)
    if is_schedule:
        mix = ScheduledMix.recommended(num_classes=NUM_CLASSES, total_steps=18)
    trainer = new_trainer(
        tmp_path,
        data_collator=lambda items: mixed_collate(items, mix),
        dataloader_num_workers=workers,
    )
    with pytest.raises(RuntimeError, match=r"mix_in_trainer|ScheduledMix: expected a call in the"):
        trainer.train()


def test_an_operator_in_the_collator_is_right_with_a_loss_for_it(tmp_path: Path) -> None:
    mix = OperatorTransform("mixup", num_classes=NUM_CLASSES)
    trainer = new_trainer(
        tmp_path,
        data_collator=lambda items: mixed_collate(items, mix),
        compute_loss_func=lambda outputs, labels, **_: F.cross_entropy(outputs.logits, labels),
        num_train_epochs=1,
    )
    assert trainer.train().training_loss < 2


def test_a_batch_without_labels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^labels: expected in a batch, got only pixel_values"):
        seen(
            IN_TURN,
            tmp_path,
            data_collator=lambda items: {
                "pixel_values": torch.stack([item["pixel_values"] for item in items])
            },
        )
