"""Learned mixers: each learns where the right answer is known, and not with the sign turned."""

import copy

import pytest
import torch
from torch import Tensor, nn

from automix.data.splits import SearchData
from automix.mixing import StepKey
from automix.mixture import Decision
from automix.operator_info import Operator
from automix.operators.mixup_cutmix import MixupDraws, apply_mixup
from automix.operators.types import MixedBatch
from automix.training.mixers.actor_critic import ActorCritic, standardized
from automix.training.mixers.adversarial import AdversarialMixer
from automix.training.mixers.gate import Gate, gated
from automix.training.mixers.learned import divergences, image_states, pairs_of
from automix.training.population import Population
from automix.training.targets import cross_entropy
from automix.training.trainer import build_trainer
from tests.equality import assert_same, untouched_generators
from tests.training.conftest import TASK, TOTAL_STEPS, MakeTrainer

CPU = torch.device("cpu")
ADVERSARIAL = Decision(operator=Operator.ADAUTOMIX, probability=0.75)


class LeftHalf(nn.Module):
    """Sees the left half of an image alone."""

    def forward(self, images: Tensor) -> Tensor:
        brightness = images[..., : images.shape[3] // 2].mean(dim=(1, 2, 3))
        return torch.stack((-2 * brightness, 2 * brightness), dim=1)


class Friendly(AdversarialMixer):
    """Trained with the classifier instead of against it."""

    direction = -1.0


def opposites(seed: int, *, lam: float = 0.5) -> tuple[Tensor, Tensor, MixedBatch]:
    """Return dark (class 0) and bright images (1), each mixed with one of the other class."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(16) % 2
    images = (labels * 2.0 - 1).view(-1, 1, 1, 1).expand(16, 1, 8, 8)
    images = images + 0.3 * torch.randn(16, 1, 8, 8, generator=generator)
    draws = MixupDraws(torch.arange(16).roll(1), torch.full((16,), lam))
    return images, labels, apply_mixup(images, labels, draws, num_classes=2)


def hardness(kind: type[AdversarialMixer], *, steps: int) -> tuple[float, float]:
    """Return the divergence of a classifier on batches of a mixer, and of Mixup."""
    mixer, model = kind.fresh(1, seed=0, rank=0, device=CPU), LeftHalf()
    for step in range(steps):
        images, labels, mixed = opposites(step)
        key = StepKey(seed=0, step=step)
        mixed_again = mixer.rework(model, images, labels, mixed, key=key, progress=0.0)
    results = []
    for batch in (mixed_again, mixed):
        pairs = pairs_of(labels, batch.partner, batch.lam)
        results.append(float(divergences(model(batch.images), pairs).mean()))
    return results[0], results[1]


def test_the_adversary_finds_masks_that_are_hard_and_the_wrong_sign_does_not() -> None:
    hard, mixup = hardness(AdversarialMixer, steps=45)
    easy, _ = hardness(Friendly, steps=45)
    assert hard > mixup + 0.1
    assert easy < mixup + 0.01


def assert_resumes(make_trainer: MakeTrainer, **fields: object) -> None:
    whole, cut, resumed = (make_trainer(seed, **fields) for seed in (0, 0, 9))
    whole.train(ADVERSARIAL, num_steps=TOTAL_STEPS)
    cut.train(ADVERSARIAL, num_steps=7)
    state = copy.deepcopy(cut.state_dict())
    assert all(carried["mixer"] for carried in state["shares"])
    # Another run in between leaves nothing behind.
    resumed.train(ADVERSARIAL, num_steps=5)
    resumed.load_state_dict(state)
    resumed.train(ADVERSARIAL, num_steps=TOTAL_STEPS - 7)
    assert_same({**whole.state_dict()}, {**resumed.state_dict()})
    cut.reset(0)
    cut.train(ADVERSARIAL, num_steps=TOTAL_STEPS)
    assert_same({**whole.state_dict()}, {**cut.state_dict()})


def test_a_run_with_it_resumes_bit_for_bit(make_trainer: MakeTrainer) -> None:
    assert_resumes(make_trainer)


def test_micro_batches_have_networks_of_their_own(make_trainer: MakeTrainer) -> None:
    assert_resumes(make_trainer, accumulation=2)


def test_it_changes_what_is_trained(make_trainer: MakeTrainer) -> None:
    learned, mixup = make_trainer(), make_trainer()
    of_learned = learned.train(Decision(operator="adautomix"), num_steps=TOTAL_STEPS)
    of_mixup = mixup.train(Decision(operator="mixup"), num_steps=TOTAL_STEPS)
    assert of_learned.loss != of_mixup.loss
    assert of_learned.mixed_fraction == 1


def test_members_of_a_population_learn_for_themselves(search_data: SearchData) -> None:
    alone, joined = (
        [build_trainer(TASK, search_data, seed=number) for number in range(2)] for _ in range(2)
    )
    population = Population(joined)
    assert population.obstacle is None
    population.train([(ADVERSARIAL, 6)] * 2)
    for one, other in zip(joined, alone, strict=True):
        other.train(ADVERSARIAL, num_steps=6)
        for name, value in other.model.state_dict().items():
            torch.testing.assert_close(one.model.state_dict()[name], value, rtol=1e-3, atol=1e-4)


def test_looking_at_the_classifier_leaves_no_trace(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer()
    stages = trainer.training_step
    images, labels, key = stages.fetch(seed=0, step=0)
    mixed = stages.mix(Decision(operator="mixup"), images, labels, key=key)
    draws = MixupDraws(torch.arange(len(labels)).flip(0), torch.full((len(labels),), 0.4))
    batch = apply_mixup(images, labels, draws, num_classes=10)
    before = copy.deepcopy(trainer.model.state_dict())
    validation = images[:4], labels[:4]
    mixers = (
        AdversarialMixer.fresh(1, seed=0, rank=0, device=CPU),
        Gate(10, lambda number: validation, seed=0, device=CPU),
        ActorCritic(10, seed=0, device=CPU),
    )
    with untouched_generators():
        for mixer in mixers:
            reworked = mixer.rework(trainer.model, images, labels, batch, key=key, progress=0.5)
            assert reworked.images.shape == images.shape
            assert bool(((reworked.lam >= 0) & (reworked.lam <= 1)).all())
    assert_same(trainer.model.state_dict(), before)
    assert all(parameter.grad is None for parameter in trainer.model.parameters())
    assert mixed.is_mixed


GATE_CLASSES = 3


def states_of(labels: Tensor) -> Tensor:
    return image_states(torch.zeros(len(labels), GATE_CLASSES), labels, progress=0.5)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_gate_opens_for_images_that_are_worth_it_alone(sign: float) -> None:
    gate = Gate(GATE_CLASSES, lambda number: (torch.empty(0), torch.empty(0)), seed=0, device=CPU)
    generator = torch.Generator().manual_seed(0)
    for _ in range(150):
        labels = torch.randint(GATE_CLASSES, (32,), generator=generator)
        worth = (labels == 0).float() - 0.5 + torch.randn(32, generator=generator)
        gate.learn(states_of(labels), sign * worth)
    opened = gate.probabilities(states_of(torch.arange(GATE_CLASSES)))
    right = torch.tensor([1.0, 0.0, 0.0])
    expected = right if sign > 0 else 1 - right
    torch.testing.assert_close(opened, expected, atol=0.2, rtol=0)


def test_the_worth_of_mixing_is_the_change_of_the_validation_loss() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2)).requires_grad_(False)
    images, labels, mixed = opposites(0, lam=0.7)
    validation = opposites(1)[:2]
    gate = Gate(2, lambda number: validation, seed=0, device=CPU)
    worth = gate.worth(model, images, labels, mixed, number=0)
    rate, expected = 1e-3, []
    for index in range(len(labels)):
        losses = [
            loss_after_a_step(model, batch, labels, index, validation, lam=lam, rate=rate)
            for batch, lam in ((images, torch.ones(16)), (mixed.images, mixed.lam))
        ]
        expected.append((losses[0] - losses[1]) / rate)
    torch.testing.assert_close(worth, torch.tensor(expected), rtol=0.05, atol=0.01)


def loss_after_a_step(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    index: int,
    validation: tuple[Tensor, Tensor],
    *,
    lam: Tensor,
    rate: float,
) -> float:
    """Return the validation loss after one step of gradient descent on one image."""
    stepped = copy.deepcopy(model).double().requires_grad_()
    pairs = pairs_of(labels, torch.arange(len(labels)).roll(1), lam)
    loss = cross_entropy(stepped(images.double()), pairs, reduction="none")[index]
    gradients = torch.autograd.grad(loss, list(stepped.parameters()))
    with torch.no_grad():
        for parameter, gradient in zip(stepped.parameters(), gradients, strict=True):
            parameter.sub_(rate * gradient)
        logits = stepped(validation[0].double())
        return float(nn.functional.cross_entropy(logits, validation[1]))


def test_a_gate_leaves_images_or_mixes_them() -> None:
    images, _, mixed = opposites(0, lam=0.7)
    amount = (torch.arange(16) % 3 == 0).float()
    reworked = gated(images, mixed, amount)
    for index, is_open in enumerate(amount.bool().tolist()):
        assert torch.equal(reworked.images[index], (mixed if is_open else reworked).images[index])
        assert torch.equal(reworked.images[index], images[index]) != is_open
        assert float(reworked.lam[index]) == pytest.approx(0.7 if is_open else 1.0)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_an_actor_learns_the_amount_of_each_class(sign: float) -> None:
    agent = ActorCritic(GATE_CLASSES, seed=0, device=CPU)
    generator = torch.Generator().manual_seed(0)
    best = torch.tensor([0.2, 0.5, 0.9])
    for _ in range(200):
        labels = torch.randint(GATE_CLASSES, (32,), generator=generator)
        states = states_of(labels)
        amount = agent.draw(states, generator)
        agent.learn(states, amount, standardized(-sign * (amount - best[labels]).abs()))
    labels = torch.arange(GATE_CLASSES).repeat(200)
    distance = (agent.draw(states_of(labels), generator) - best[labels]).abs().mean()
    # Uniform amounts are 0.34 away on average.
    assert distance < 0.15 if sign > 0 else distance > 0.45
