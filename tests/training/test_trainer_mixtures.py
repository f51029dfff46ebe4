"""Training with mixtures: a mixture of one is its decision, and cuts do not matter."""

import copy

import pytest
import torch

from automix.data.splits import SearchData
from automix.integrations import ScheduledMix
from automix.mixing import StepKey, draw_decision
from automix.mixture import Decision, Mixture, equal_mixture
from automix.operator_info import Operator
from automix.schedule import Schedule, Segment, constant_schedule
from automix.training.population import Population
from automix.training.trainer import build_trainer
from tests.equality import assert_same
from tests.training.conftest import TASK, TOTAL_STEPS, MakeTrainer

CUTMIX = Decision(operator=Operator.CUTMIX, probability=0.4)
SALIENCYMIX = Decision(operator=Operator.SALIENCYMIX, probability=0.3)
RECURSIVE = Decision(operator=Operator.RECURSIVEMIX, probability=0.5)
PAIRS = Mixture(decisions=(CUTMIX, SALIENCYMIX))
KEEPING = Mixture(decisions=(CUTMIX, RECURSIVE))
SCHEDULE = Schedule(
    segments=(
        Segment(start=0.0, mixture=PAIRS),
        Segment(start=0.4, mixture=KEEPING),
        Segment(start=0.9, decision=CUTMIX),
    )
)


@pytest.mark.parametrize("operator", [Operator.RMIX, Operator.RECURSIVEMIX, Operator.NONE])
def test_a_mixture_of_one_trains_as_its_decision(
    make_trainer: MakeTrainer, operator: Operator
) -> None:
    decision = Decision(operator=operator, probability=0.75)
    said, mixed = make_trainer(accumulation=2), make_trainer(accumulation=2)
    losses = [said.train(decision, num_steps=1).loss for _ in range(TOTAL_STEPS)]
    assert losses == [mixed.train(Mixture.of(decision), num_steps=1).loss for _ in losses]
    assert_same({**said.state_dict()}, {**mixed.state_dict()})


@pytest.mark.parametrize("longest", [1, 5])
def test_a_run_resumes_in_the_middle_of_a_mixture(make_trainer: MakeTrainer, longest: int) -> None:
    whole, cut, resumed = make_trainer(), make_trainer(), make_trainer(seed=9)
    list(whole.replay(SCHEDULE))
    stretches = cut.replay(SCHEDULE, longest=longest)
    while cut.step < 7:
        next(stretches)
    state = copy.deepcopy(cut.state_dict())
    assert state["shares"][0]["previous"] is not None
    resumed.load_state_dict(state)
    stretches = resumed.replay(SCHEDULE, longest=longest)
    assert [mixture.label() for mixture, _ in stretches][-1] == "cutmix 1 p=0.4"
    assert_same({**whole.state_dict()}, {**resumed.state_dict()})


def test_recursivemix_pastes_the_last_mixed_batch_of_its_mixture() -> None:
    draws = [draw_decision(KEEPING, StepKey(seed=0, step=step)) for step in range(400)]
    step = next(
        step
        for step in range(400)
        if draws[step : step + 3] == [CUTMIX, None, RECURSIVE]  # kept over an unmixed batch, too
    )
    mix = ScheduledMix(constant_schedule(KEEPING), num_classes=4, total_steps=400)
    mix.step = step
    generator = torch.Generator().manual_seed(0)
    images = [torch.rand(6, 3, 8, 8, generator=generator) for _ in range(3)]
    first, unmixed, last = (mix.mixed(batch, torch.arange(6) % 4) for batch in images)
    assert torch.equal(unmixed.images, images[1])
    assert last.partner_targets is not None
    assert torch.equal(last.partner_targets, first.targets)
    changed = (last.images != images[2]).any(dim=1, keepdim=True).expand_as(images[2])
    assert torch.isin(last.images[changed], first.images).all()


def test_members_of_a_population_draw_for_themselves(search_data: SearchData) -> None:
    plans = [(PAIRS, 6), (PAIRS, 6), (KEEPING, 6), (KEEPING, 5)]
    alone, joined = (
        [build_trainer(TASK, search_data, seed=10 + number) for number in range(len(plans))]
        for _ in range(2)
    )
    population = Population(joined)
    assert population.obstacle is None
    for metrics, trainer, (mixture, steps) in zip(
        population.train(plans), alone, plans, strict=True
    ):
        expected = trainer.train(mixture, num_steps=steps)
        assert metrics.loss == pytest.approx(expected.loss, rel=1e-4)
        assert metrics.mixed_fraction == expected.mixed_fraction
    for one, other in zip(joined, alone, strict=True):
        for name, value in other.model.state_dict().items():
            torch.testing.assert_close(one.model.state_dict()[name], value, rtol=1e-3, atol=1e-4)


def test_a_population_replays_mixtures(search_data: SearchData) -> None:
    alone, joined = (
        [build_trainer(TASK, search_data, seed=number) for number in range(2)] for _ in range(2)
    )
    schedules = [SCHEDULE, constant_schedule(equal_mixture([CUTMIX, SALIENCYMIX]))]
    Population(joined).replay(schedules)
    for one, other, schedule in zip(joined, alone, schedules, strict=True):
        list(other.replay(schedule))
        for name, value in other.model.state_dict().items():
            torch.testing.assert_close(one.model.state_dict()[name], value, rtol=1e-3, atol=1e-4)
