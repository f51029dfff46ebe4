"""The probe: every operator, deterministic, and no trace in the network."""

import copy
import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from automix.configuration.data import AugmentConfig
from automix.configuration.task import ModelConfig
from automix.data.batches import BatchPreparer
from automix.data.splits import SearchData
from automix.mixing import StepKey, mix_step
from automix.models.build import build_model
from automix.operator_info import OPERATOR_FACTS, Operator
from automix.random_streams import Stream, derived_seed, stream_generator
from automix.saliency.gradient import input_gradient
from envs.measurement import MixedProbe, fixed_sample, middle_decision
from envs.rlmix.similarity import batch_similarity, gradient_cells, image_similarity
from tests.envs.conftest import ACTIONS, MakeEnv
from tests.equality import assert_same, untouched_generators

ALL = tuple(Operator)


def network() -> torch.nn.Module:
    model = build_model(
        ModelConfig(width=2),
        num_classes=10,
        channels=1,
        generator=stream_generator(0, Stream.INITIALIZATION),
    )
    return model.eval()


def probe_of(data: SearchData, operators: tuple[Operator, ...] = ALL) -> MixedProbe:
    batch = fixed_sample(data.train, 12)
    images = BatchPreparer(data.statistics, AugmentConfig()).evaluation(batch.images)
    return MixedProbe(
        images, batch.labels, num_classes=10, operators=operators, saliency=input_gradient
    )


def test_every_operator_is_probed_and_leaves_no_trace(smoke_data: SearchData) -> None:
    model = network()
    before = copy.deepcopy(model.state_dict())
    with untouched_generators():
        probe = probe_of(smoke_data)
        losses = probe.losses(model)
        again = probe.losses(model)
    assert losses == again
    assert len(losses) == len(ALL)
    assert all(math.isfinite(loss) and loss > 0 for loss in losses)
    assert_same(before, model.state_dict())
    assert not any(parameter.grad is not None for parameter in model.parameters())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not any(module.training for module in model.modules())
    assert probe_of(smoke_data).losses(model) == losses


@torch.no_grad()
def test_losses_are_those_of_the_mixed_batches(smoke_data: SearchData) -> None:
    model, probe = network(), probe_of(smoke_data)
    losses = dict(zip(ALL, probe.losses(model), strict=True))
    plain = F.cross_entropy(model(probe._images), probe._labels)
    assert losses[Operator.NONE] == pytest.approx(float(plain), rel=1e-5)
    for operator in (Operator.MIXUP, Operator.PUZZLEMIX, Operator.SALIENCY_GRAFTING):
        mixed = mix_step(
            middle_decision(operator),
            probe._images,
            probe._labels,
            key=StepKey(seed=derived_seed(0, Stream.PROBE), step=0),
            num_classes=10,
            model=model,
            saliency=input_gradient,
        )
        loss = F.cross_entropy(model(mixed.images), mixed.targets)
        assert losses[operator] == pytest.approx(float(loss), rel=1e-4)


def test_an_operator_that_needs_a_batch_before_gets_one(smoke_data: SearchData) -> None:
    probe = probe_of(smoke_data, (Operator.NONE, Operator.RECURSIVEMIX))
    plain, mixed = (probe._kept[operator].images for operator in probe._kept)
    assert (plain != mixed).any()


def test_middle_levels() -> None:
    for operator in Operator:
        decision = middle_decision(operator)
        assert decision.strength in OPERATOR_FACTS[operator].strength.levels
        assert decision.probability == 1
    assert middle_decision(Operator.MIXUP).strength == 1.0


def test_probing_changes_nothing_of_a_training_run(make_env: MakeEnv) -> None:
    states = []
    for groups in (["progress"], ["progress", "probe"]):
        fields = {"operators": ["none", "mixup", "saliencymix"], "probe_images": 500}
        env = make_env(observation=groups, **fields)
        env.reset(options={"training_seed": 4})
        for action in ACTIONS:
            env.step(action)
        states.append(copy.deepcopy(env.trainer.state_dict()))
    assert_same(states[0], states[1])


def test_the_probe_tells_networks_apart(make_env: MakeEnv) -> None:
    env = make_env()
    before, _ = env.reset(seed=1)
    after = env.step(ACTIONS[0])[0]
    index = [feature.name for feature in env.observation_features].index("probe_mixup")
    assert before[index] != after[index]
    np.testing.assert_array_equal(env.reset(seed=1)[0], before)


def test_similarities_in_closed_form() -> None:
    a = torch.tensor([[[1.0, 0.0], [0.0, 0.0]], [[0.0, 2.0], [0.0, 0.0]]])
    b = torch.tensor([[[0.0, 0.0], [3.0, 0.0]], [[0.0, 5.0], [0.0, 0.0]]])
    assert image_similarity(a, b).tolist() == pytest.approx([0.0, 1.0])
    expected = 10 / math.sqrt(5 * 34)
    assert float(batch_similarity(a, b)) == pytest.approx(expected)
    assert float(batch_similarity(1e-30 * a, 1e30 * b)) == pytest.approx(expected)
    assert float(batch_similarity(a, torch.zeros_like(a))) == 0.0


def test_gradient_cells_are_those_of_autograd(smoke_data: SearchData) -> None:
    model, probe = network(), probe_of(smoke_data, ())
    images = probe._images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(F.cross_entropy(model(images), probe._labels), images)
    expected = F.avg_pool2d(gradient.square().mean(dim=1, keepdim=True).sqrt(), 2).squeeze(1)
    maps, _ = gradient_cells(model, probe._images, probe._labels, cells=4)
    torch.testing.assert_close(maps / maps.sum(), expected / expected.sum())
