"""Predictions come within seconds, whatever the network."""

import pytest
import torch

from automix.configuration.task import ComputeConfig
from automix.experiments.common import cost
from automix.experiments.common.cost import estimate_cost
from automix.experiments.config import SearchConfig
from automix.operator_info import Operator
from automix.schedule import Decision
from automix.training.metrics import TrainMetrics
from automix.training.trainer import ClassifierTrainer, load_search_data


@pytest.mark.parametrize(
    ("seconds_per_step", "steps_per_operator"), [(2.0, 1), (0.1, 11), (0.001, 21)]
)
def test_slow_networks_are_timed_by_fewer_steps(
    seconds_per_step: float, steps_per_operator: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed = []

    def train(self: ClassifierTrainer, decision: Decision, *, num_steps: int) -> TrainMetrics:
        timed.append(num_steps)
        return TrainMetrics(
            loss=1.0,
            clean_accuracy=None,
            mixed_accuracy=None,
            mixed_fraction=0.0,
            num_images=num_steps,
            seconds=seconds_per_step * num_steps,
        )

    monkeypatch.setattr(ClassifierTrainer, "train", train)
    # By the clock: these steps take no processor time.
    monkeypatch.setattr(cost, "training_device", lambda: torch.device("meta"))
    task = SearchConfig().task
    estimate = estimate_cost(
        task,
        load_search_data(task.data),
        operators=(Operator.NONE, Operator.CUTMIX),
        num_runs=4,
        evaluations_per_run=0,
        compute=ComputeConfig(workers=2, population=1),
    )
    assert sum(timed) == 3 + 2 * steps_per_operator
    assert estimate.seconds_per_run == pytest.approx(seconds_per_step * estimate.steps_per_run)
    assert estimate.seconds == pytest.approx(4 / 2 * estimate.seconds_per_run)


def test_evaluations_count_for_all_of_their_images() -> None:
    task = SearchConfig().task
    data = load_search_data(task.data)
    costs = [
        estimate_cost(
            task,
            data,
            operators=(Operator.NONE,),
            num_runs=1,
            evaluations_per_run=evaluations,
            compute=ComputeConfig(population=1),
        ).seconds
        for evaluations in (0, 1000)
    ]
    assert costs[1] > costs[0]
