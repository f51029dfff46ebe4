import copy
import dataclasses
import itertools

import pytest
import torch
from torch import Tensor, nn

from automix.evaluation.attacks import PgdSettings, PixelModel, count_survivors, fgsm, pgd
from automix.evaluation.inference import EvaluationImages
from tests.evaluation.photos import make_photos


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def filled(model: nn.Module, seed: int, scale: float = 1.0) -> nn.Module:
    """Draw the parameters from a generator of our own."""
    source = generator(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(scale * torch.randn(parameter.shape, generator=source))
    return model


def linear_model(num_classes: int = 2, std: float = 0.25) -> PixelModel:
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, num_classes))
    return PixelModel(filled(network, 0, scale=0.1), mean=(0.5, 0.4, 0.3), std=(std,) * 3)


def convolutional_model() -> PixelModel:
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        nn.Dropout(0.5),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(32, 5),
    )
    return PixelModel(filled(network, 1), mean=(0.5,) * 3, std=(0.25,) * 3)


def photos(num_images: int = 12) -> Tensor:
    return make_photos(num_images, height=8, width=8).float() / 255


@pytest.mark.parametrize("epsilon", [8 / 255, 0.3])
def test_attacks_on_a_linear_model_are_the_analytic_optimum(epsilon: float) -> None:
    model, images = linear_model(), photos()
    labels = torch.arange(12) % 2
    weights = model.model[1].weight.detach()  # type: ignore[index]
    # The loss falls with the label's logit alone: move along the difference of the two rows.
    direction = (weights[1 - labels] - weights[labels]).sign().view(images.shape)
    optimum = (images + epsilon * direction).clamp(0, 1)
    torch.testing.assert_close(fgsm(model, images, labels, epsilon=epsilon), optimum)
    settings = PgdSettings(epsilon=epsilon, step_size=epsilon / 4, num_steps=20, num_restarts=2)
    result = pgd(model, images, labels, settings=settings, seed=0)
    torch.testing.assert_close(result, optimum)
    assert not torch.equal(optimum, images + epsilon * direction)


@pytest.mark.parametrize("epsilon", [0.0, 1 / 255, 8 / 255, 0.7])
def test_attacks_stay_in_the_ball_and_in_the_range(epsilon: float) -> None:
    model = convolutional_model()
    images = photos(40)
    images[0], images[1] = 0, 1
    labels = torch.arange(40) % 5
    settings = PgdSettings(epsilon=epsilon, step_size=0.1, num_steps=5, num_restarts=2)
    for moved in (
        fgsm(model, images, labels, epsilon=epsilon),
        pgd(model, images, labels, settings=settings, seed=3),
    ):
        assert moved.min() >= 0
        assert moved.max() <= 1
        assert (moved - images).abs().max() <= epsilon + 1e-7
    if epsilon == 0:
        assert torch.equal(pgd(model, images, labels, settings=settings, seed=3), images)


def test_epsilon_is_in_pixels_whatever_the_normalization() -> None:
    model, images = linear_model(), photos()
    rescaled = copy.deepcopy(model)
    rescaled.std.mul_(10)
    with torch.no_grad():
        rescaled.model[1].weight.mul_(10)  # type: ignore[index]
    torch.testing.assert_close(model(images), rescaled(images), rtol=1e-4, atol=1e-4)
    labels = torch.zeros(12, dtype=torch.int64)
    settings = PgdSettings(num_steps=3)
    torch.testing.assert_close(
        pgd(model, images, labels, settings=settings, seed=0),
        pgd(rescaled, images, labels, settings=settings, seed=0),
    )


def test_more_restarts_and_steps_are_never_weaker_and_no_attack_helps() -> None:
    model = convolutional_model().eval()
    images = photos(60)
    labels = model(images).argmax(1)
    wrong = []
    for num_restarts in (1, 4):
        settings = PgdSettings(num_steps=4, num_restarts=num_restarts)
        moved = pgd(model, images, labels, settings=settings, seed=1)
        wrong.append(model(moved).argmax(1) != labels)
    assert (wrong[0] <= wrong[1]).all()
    assert wrong[1].any()
    unlucky = (labels + 1) % 5
    settings = PgdSettings(epsilon=0.5, step_size=0.25, num_steps=1, num_restarts=1)
    moved = pgd(model, images, unlucky, settings=settings, seed=1)
    assert (model(moved).argmax(1) != unlucky).all()


def test_the_start_of_an_image_does_not_depend_on_its_batch() -> None:
    model, images = linear_model(num_classes=4), photos()
    labels = torch.arange(12) % 4
    settings = PgdSettings(num_steps=2, num_restarts=2)
    whole = pgd(model, images, labels, settings=settings, seed=5)
    chosen = torch.tensor([7, 2])
    part = pgd(model, images[chosen], labels[chosen], settings=settings, seed=5, indices=chosen)
    torch.testing.assert_close(part, whole[chosen])
    other = pgd(model, images, labels, settings=settings, seed=6)
    assert not torch.equal(other, whole)


def test_the_model_is_left_as_it_was() -> None:
    model = convolutional_model().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    images = EvaluationImages.whole((photos() * 255).byte(), torch.arange(12) % 5)
    count_survivors(model, images, settings=PgdSettings(num_steps=2), seed=0)
    assert all(module.training for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(parameter.requires_grad for parameter in model.parameters())
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_counts_agree_with_attacks_by_hand_whatever_the_batches() -> None:
    model = convolutional_model().eval()
    pixels = make_photos(60, height=8, width=8, seed=2)
    images = pixels.float() / 255
    labels = model(images).argmax(1)
    labels[:20] = (labels[:20] + 1) % 5
    settings = PgdSettings(epsilon=4 / 255, step_size=1 / 255, num_steps=6, num_restarts=2)
    whole = EvaluationImages.whole(pixels, labels)
    counts = count_survivors(model, whole, settings=settings, seed=4)
    one_step = fgsm(model, images, labels, epsilon=settings.epsilon)
    many_steps = pgd(model, images, labels, settings=settings, seed=4)
    assert (counts.num_images, counts.clean) == (60, 40)
    assert counts.fgsm == (model(one_step).argmax(1) == labels).sum()
    assert counts.pgd == (model(many_steps).argmax(1) == labels).sum()
    assert max(counts.pgd, counts.fgsm) < counts.clean
    for parts in ((0, 25, 60), (0, 1, 31, 60)):
        result = [
            count_survivors(
                model,
                dataclasses.replace(whole.part(start, stop), batch_size=11),
                settings=settings,
                seed=4,
            )
            for start, stop in itertools.pairwise(parts)
        ]
        assert sum(part.pgd for part in result) == counts.pgd
        assert sum(part.fgsm for part in result) == counts.fgsm


@pytest.mark.parametrize("num_classes", [1, 2, 3])
def test_ties_and_few_classes(num_classes: int) -> None:
    """A network that answers the same for everything is right for class 0 alone."""

    class Constant(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return 0 * images.mean(dim=(1, 2, 3))[:, None].expand(-1, num_classes)

    labels = torch.arange(12) % num_classes
    pixels = make_photos(12, height=5, width=9, channels=1)
    counts = count_survivors(
        Constant(), EvaluationImages.whole(pixels, labels), settings=PgdSettings(), seed=0
    )
    assert counts.clean == counts.fgsm == counts.pgd == (labels == 0).sum()


def test_what_is_not_a_number_does_not_count_as_robust() -> None:
    class Broken(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return torch.full((len(images), 3), torch.nan) * images.mean(dim=(1, 2, 3))[:, None]

    whole = EvaluationImages.whole(make_photos(4), torch.zeros(4, dtype=torch.int64))
    counts = count_survivors(Broken(), whole, settings=PgdSettings(num_steps=1), seed=0)
    assert (counts.clean, counts.fgsm, counts.pgd) == (0, 0, 0)


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="expected epsilon and step_size of at least 0"):
        PgdSettings(epsilon=-0.1)
    with pytest.raises(ValueError, match="expected at least one step and one restart"):
        PgdSettings(num_restarts=0)
