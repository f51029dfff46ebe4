"""The same numbers, bit for bit, however a training run is cut, continued or repeated."""

import copy
import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor

from automix.data.splits import SearchData
from automix.files import read_checkpoint, write_checkpoint
from automix.operator_info import Operator
from automix.operators.registry import OPERATORS
from automix.schedule import Decision, Schedule, Segment
from automix.training.metrics import RunningSums
from automix.training.trainer import ClassifierTrainer
from tests.equality import are_same, assert_same, untouched_generators
from tests.training.conftest import TOTAL_STEPS, MakeTrainer

NONE = Decision(operator=Operator.NONE)
MIXUP = Decision(operator=Operator.MIXUP, probability=0.5)
EVERY_OPERATOR = pytest.mark.parametrize(
    "decision",
    [Decision(operator=operator, probability=0.75) for operator in OPERATORS],
    ids=lambda decision: decision.operator.value,
)


def snapshot(trainer: ClassifierTrainer) -> dict[str, object]:
    return copy.deepcopy({**trainer.state_dict()})


def tensors_of(trainer: ClassifierTrainer) -> list[Tensor]:
    average = trainer.evaluated_model
    assert average is not trainer.model
    momenta = [state["momentum_buffer"] for state in trainer.training_step.optimizer.state.values()]
    return [*trainer.model.state_dict().values(), *average.state_dict().values(), *momenta]


@EVERY_OPERATOR
def test_same_seed_same_bits_and_cuts_do_not_matter(
    make_trainer: MakeTrainer, decision: Decision
) -> None:
    whole, cut = make_trainer(seed=1), make_trainer(seed=1)
    whole.train(decision, num_steps=TOTAL_STEPS)
    for num_steps in (1, 4, 2, 5):
        cut.train(decision, num_steps=num_steps)
    assert_same(snapshot(whole), snapshot(cut))


def test_another_seed_gives_other_weights(make_trainer: MakeTrainer) -> None:
    states = []
    for seed in (1, 2):
        trainer = make_trainer(seed=seed)
        trainer.train(NONE, num_steps=2)
        states.append(snapshot(trainer)["model"])
    assert not are_same(*states)


@EVERY_OPERATOR
def test_every_operator_trains_other_weights_than_none(
    make_trainer: MakeTrainer, decision: Decision
) -> None:
    mixed, clean = make_trainer(), make_trainer()
    mixed.train(decision, num_steps=6)
    clean.train(NONE, num_steps=6)
    same = are_same(snapshot(mixed)["model"], snapshot(clean)["model"])
    assert same == (decision.operator is Operator.NONE)


@EVERY_OPERATOR
def test_a_reset_trainer_equals_a_fresh_one(make_trainer: MakeTrainer, decision: Decision) -> None:
    used, fresh = make_trainer(seed=1), make_trainer(seed=2)
    # RecursiveMix leaves a batch behind, and a diverged training leaves NaN everywhere.
    used.train(Decision(operator=Operator.RECURSIVEMIX), num_steps=7)
    for tensor in tensors_of(used):
        if tensor.is_floating_point():
            tensor.data.fill_(torch.nan)
    used.reset(2)
    for trainer in (used, fresh):
        trainer.train(decision, num_steps=5)
    assert_same(snapshot(used), snapshot(fresh))


def test_reset_allocates_nothing(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer()
    trainer.train(MIXUP, num_steps=2)
    before = [tensor.data_ptr() for tensor in tensors_of(trainer)]
    for seed in (1, 2):
        trainer.reset(seed)
        trainer.train(MIXUP, num_steps=2)
    assert [tensor.data_ptr() for tensor in tensors_of(trainer)] == before


def test_a_reset_forgets_saliency_maps(make_trainer: MakeTrainer) -> None:
    decision = Decision(operator=Operator.RMIX)
    used, fresh = (make_trainer(seed=seed, saliency={"refresh_every": 4}) for seed in (1, 2))
    used.train(decision, num_steps=2)
    used.reset(2)
    for trainer in (used, fresh):
        trainer.train(decision, num_steps=3)
    assert_same(snapshot(used), snapshot(fresh))


@EVERY_OPERATOR
def test_a_saved_state_continues_with_the_same_bits(
    make_trainer: MakeTrainer, decision: Decision, tmp_path: Path
) -> None:
    whole, first, second = make_trainer(seed=3), make_trainer(seed=3), make_trainer(seed=4)
    whole.train(decision, num_steps=TOTAL_STEPS)
    first.train(decision, num_steps=5)
    write_checkpoint(tmp_path / "state.bin", {"trainer": first.state_dict()})
    # Neither what came before nor training on after saving may leave a trace.
    second.train(Decision(operator=Operator.RECURSIVEMIX), num_steps=4)
    first.train(NONE, num_steps=2)
    loaded = read_checkpoint(tmp_path / "state.bin")
    second.load_state_dict(loaded["trainer"])
    assert (second.seed, second.step) == (3, 5)
    second.train(decision, num_steps=TOTAL_STEPS - 5)
    assert_same(snapshot(whole), snapshot(second))


@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
def test_a_state_continues_from_every_step(make_trainer: MakeTrainer, ema_decay: float) -> None:
    decision = Decision(operator=Operator.RECURSIVEMIX, probability=0.5)
    whole, other = make_trainer(ema_decay=ema_decay), make_trainer(seed=9, ema_decay=ema_decay)
    _assert_continues_from_every_step(whole, other, decision)


def test_kept_saliency_maps_continue_from_every_step(make_trainer: MakeTrainer) -> None:
    # Of the four steps of a batch some are not mixed, in some batches the first.
    decision = Decision(operator=Operator.RMIX, probability=0.5)
    whole, other = (make_trainer(seed=seed, saliency={"refresh_every": 4}) for seed in (0, 9))
    _assert_continues_from_every_step(whole, other, decision)


def _assert_continues_from_every_step(
    whole: ClassifierTrainer, other: ClassifierTrainer, decision: Decision
) -> None:
    states = []
    for _ in range(TOTAL_STEPS):
        states.append(snapshot(whole))
        whole.train(decision, num_steps=1)
    for state in states:
        other.load_state_dict(copy.deepcopy(state))  # type: ignore[arg-type]
        other.train(decision, num_steps=TOTAL_STEPS - other.step)
        assert_same(snapshot(whole), snapshot(other), where=f"from step {state['step']}")


def test_a_loaded_state_is_not_changed_by_training_on(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer()
    trainer.train(MIXUP, num_steps=3)
    state = snapshot(trainer)
    expected = copy.deepcopy(state)
    trainer.load_state_dict(state)  # type: ignore[arg-type]
    trainer.train(MIXUP, num_steps=3)
    assert_same(expected, state)


@pytest.mark.parametrize("longest", [1, 5, None])
def test_where_a_stretch_ends_changes_no_bit(
    make_trainer: MakeTrainer, longest: int | None
) -> None:
    schedule = Schedule(
        segments=(
            Segment(start=0.0, decision=Decision(operator=Operator.RECURSIVEMIX)),
            Segment(start=0.3, decision=MIXUP),
            Segment(start=0.8, decision=NONE),
        )
    )
    replayed, stepped = make_trainer(), make_trainer()
    stretches = list(replayed.replay(schedule, longest=longest))
    for decision in schedule.decisions(TOTAL_STEPS):
        stepped.train(decision, num_steps=1)
    assert_same(snapshot(stepped), snapshot(replayed))
    assert sum(train.num_images for _, train in stretches) == TOTAL_STEPS * 8
    assert len(stretches) == {1: 12, 5: 4, None: 3}[longest]


def test_sums_that_are_cut_and_continued_are_the_same_to_the_last_bit(
    make_trainer: MakeTrainer,
) -> None:
    whole, cut = make_trainer(), make_trainer()
    expected = whole.train(MIXUP, num_steps=TOTAL_STEPS)
    sums = RunningSums(cut.device)
    for num_steps in (1, 4, 2, 5):
        cut.train(MIXUP, num_steps=num_steps, sums=sums)
        continued = RunningSums(cut.device)
        continued.load_state_dict(sums.state_dict())
        sums = continued
    mine = sums.read()
    assert 0 < mine.mixed_fraction < 1
    assert dataclasses.replace(mine, seconds=0) == dataclasses.replace(expected, seconds=0)
    assert mine.seconds > 0


@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
def test_evaluation_leaves_no_trace(
    make_trainer: MakeTrainer, search_data: SearchData, ema_decay: float
) -> None:
    watched, unwatched = make_trainer(ema_decay=ema_decay), make_trainer(ema_decay=ema_decay)
    for _ in range(4):
        watched.train(MIXUP, num_steps=1)
        first = watched.evaluate(search_data.reward)
        assert watched.evaluate(search_data.reward) == first
        unwatched.train(MIXUP, num_steps=1)
    assert_same(snapshot(watched), snapshot(unwatched))


def test_global_generators_are_neither_read_nor_advanced(
    make_trainer: MakeTrainer, search_data: SearchData
) -> None:
    states = []
    for global_seed in (1, 2):
        torch.manual_seed(global_seed)
        with untouched_generators():
            trainer = make_trainer()
            trainer.reset(5)
            for operator in list(OPERATORS)[:TOTAL_STEPS]:
                trainer.train(Decision(operator=operator), num_steps=1)
            trainer.evaluate(search_data.reward)
        states.append(snapshot(trainer))
    assert_same(*states)
