"""Several processes that train together (gloo, on the CPU) against one that trains alone."""

import pytest
import torch

from automix.errors import CheckpointError, ConfigError
from automix.mixture import Decision, Mixing, Mixture
from automix.operator_info import Operator
from automix.operators.registry import OPERATORS
from automix.training.distributed import (
    World,
    current_world,
    highest_of_processes,
    joined_world,
    on_main,
)
from automix.training.metrics import TrainMetrics
from tests.equality import are_same, assert_same
from tests.training import in_worlds
from tests.worlds import RunWorld

NONE = Decision(operator=Operator.NONE)
# Every operator, always and sometimes, in a row: RecursiveMix twice, so that it has a past.
EVERY_OPERATOR = [
    Decision(operator=operator, probability=probability)
    for operator in OPERATORS
    for probability in ((1.0, 1.0) if operator is Operator.RECURSIVEMIX else (1.0, 0.5))
]
# Of a mixture all processes and micro-batches draw the same operator, kept batches and all.
MIXTURE = Mixture(
    decisions=(
        Decision(operator=Operator.CUTMIX, probability=0.4),
        Decision(operator=Operator.RECURSIVEMIX, probability=0.4),
    )
)
STEPS: list[Mixing] = [*EVERY_OPERATOR, *[MIXTURE] * 6]
EPOCHS = {"epochs": len(STEPS)}


def close(value: float | None) -> object:
    return None if value is None else pytest.approx(value, rel=1e-5)


def assert_close(results: list[TrainMetrics], expected: list[TrainMetrics]) -> None:
    for result, reference in zip(results, expected, strict=True):
        assert result.loss == close(reference.loss)
        assert result.clean_accuracy == close(reference.clean_accuracy)
        assert result.mixed_accuracy == close(reference.mixed_accuracy)
        assert (result.mixed_fraction, result.num_images) == (
            reference.mixed_fraction,
            reference.num_images,
        )


@pytest.mark.parametrize("size", [1, 2, 3])
def test_evaluation_reads_every_image_once(run_world: RunWorld, size: int) -> None:
    alone = in_worlds.evaluations()
    by_rank: list[list[in_worlds.Evaluation]] = run_world(size, in_worlds.evaluations)
    for number, expected in enumerate(alone):
        parts = [results[number] for results in by_rank]
        count = in_worlds.SIZES[number]
        assert [image for part in parts for image in part.read_images] == list(range(count))
        for part in parts:
            torch.testing.assert_close(part.logits, expected.logits)
            assert part.metrics == parts[0].metrics
            assert part.metrics.accuracy == expected.metrics.accuracy
            assert part.metrics.nll == pytest.approx(expected.metrics.nll, rel=1e-5)
            assert part.metrics.num_images == count


def test_two_processes_train_as_one_does_on_whole_batches(run_world: RunWorld) -> None:
    steps, fields = [NONE] * 12, {"crop_padding": 0}
    expected = in_worlds.plain_run(steps, fields)
    for results in run_world(2, in_worlds.plain_run, steps, fields):
        assert_close(results, expected)
    assert expected[-1].loss < 0.99 * expected[0].loss


@pytest.mark.parametrize(("size", "accumulation"), [(2, 1), (2, 2)])
def test_processes_train_as_one_does_that_accumulates(
    run_world: RunWorld, size: int, accumulation: int
) -> None:
    # The draws of all operators, of the augmentation and of dropout are those of the micro-batches.
    fields = EPOCHS | {"dropout": 0.2, "max_grad_norm": 0.5}
    alone = fields | {"accumulation": size * accumulation}
    together = fields | {"accumulation": accumulation}
    expected = in_worlds.plain_run(STEPS, alone)
    for results in run_world(size, in_worlds.plain_run, STEPS, together):
        assert_close(results, expected)
    assert {0.0, 1.0} < {metrics.mixed_fraction for metrics in expected}


@pytest.mark.parametrize("size", [2, 3])
def test_all_processes_hold_the_same_bits_after_every_step(run_world: RunWorld, size: int) -> None:
    by_rank = run_world(size, in_worlds.digests, Decision(operator=Operator.RMIX, probability=0.5))
    assert all(results == by_rank[0] for results in by_rank)
    assert len(set(by_rank[0])) == 4


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("operator", [Operator.RECURSIVEMIX, Operator.RMIX])
def test_what_rank_0_saves_is_all_that_is_needed(
    run_world: RunWorld, operator: Operator, accumulation: int
) -> None:
    decision = Decision(operator=operator, probability=0.75)
    fields = {"accumulation": accumulation, "refresh_every": 4}
    whole, _ = run_world(2, in_worlds.saved, decision, fields, 3)
    again, _ = run_world(2, in_worlds.resumed, whole["middle"], decision, fields)
    for state in (whole["final"], again):
        assert state["sums"].pop("seconds") > 0
    assert_same(whole["final"], again)
    micro_batches = whole["middle"]["trainer"]["shares"]
    assert len(micro_batches) == 2 * accumulation
    kept = "previous" if operator is Operator.RECURSIVEMIX else "saliency"
    assert all(micro_batch[kept] is not None for micro_batch in micro_batches)
    assert not are_same(micro_batches[0][kept], micro_batches[1][kept])


def test_a_state_of_another_number_of_processes_is_refused(run_world: RunWorld) -> None:
    whole, _ = run_world(2, in_worlds.saved, NONE, {}, 3)
    trainer = in_worlds.bn_trainer()
    before = in_worlds.digest(trainer)
    with pytest.raises(CheckpointError, match="expected a training run of 1 process, got one of 2"):
        trainer.load_state_dict(whole["middle"]["trainer"])
    assert in_worlds.digest(trainer) == before


def test_a_batch_that_cannot_be_divided_is_refused(run_world: RunWorld) -> None:
    with pytest.raises(ConfigError, match=r"batch_size: expected a multiple of 3 \(3 processes"):
        run_world(3, in_worlds.plain_run, [NONE], {})


@pytest.mark.parametrize("size", [1, 3])
def test_collectives(run_world: RunWorld, size: int) -> None:
    for rank, results in enumerate(run_world(size, in_worlds.collectives)):
        assert results == {
            "world": World(rank=rank, size=size),
            "is_main": rank == 0,
            "sum": [size, sum(range(size))],
            "highest": [size - 1, 0, 0],
            "of_main": {"rank": [0]},
            "from_main": [0.0, 0.0],
            "gathered": [{"ranks": [other]} for other in range(size)] if rank == 0 else [],
        }


def test_a_process_that_torchrun_did_not_start_is_a_world_of_one() -> None:
    with joined_world() as world:
        assert world == current_world() == World(rank=0, size=1)
        assert highest_of_processes(3, True) == [3, True]
        assert on_main(lambda: "done") == "done"


def test_what_fails_on_rank_0_fails_everywhere(run_world: RunWorld) -> None:
    text = "[Errno 28] No space left on device: 'there'"
    assert run_world(2, in_worlds.failing_on_main) == [
        (f"OSError: {text}", 7),
        (f"OtherProcessError: {text}", 7),
    ]
