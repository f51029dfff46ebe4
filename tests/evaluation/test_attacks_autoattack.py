import importlib.util

import pytest
import torch
from torch import Tensor, nn

from automix.errors import MissingExtraError
from automix.evaluation import attacks
from automix.evaluation.attacks import PixelModel, check_autoattack, survivors_of_autoattack
from automix.evaluation.inference import EvaluationImages
from tests.evaluation.photos import make_photos


def test_without_the_extra_one_line_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attacks, "_MODULE", "a_module_that_is_not_there")
    with pytest.raises(
        MissingExtraError, match=r"the extra autoattack \(pip install 'automix\[auto"
    ):
        check_autoattack(10)


def test_too_few_classes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attacks, "_MODULE", "math")
    with pytest.raises(ValueError, match=r"expected at least 4 classes, .* got 3"):
        check_autoattack(3)
    check_autoattack(4)


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("pyautoattack") is None, reason="the extra autoattack is not installed"
)
def test_it_beats_a_linear_model_exactly_where_the_optimum_does() -> None:
    source = torch.Generator().manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(48, 5))
    weights = 0.5 * torch.randn(5, 48, generator=source)
    with torch.no_grad():
        network[1].weight.copy_(weights)  # type: ignore[operator]
        network[1].bias.zero_()  # type: ignore[operator]
    model = PixelModel(network, mean=(0.5,) * 3, std=(0.25,) * 3).eval()
    pixels = make_photos(40, height=4, width=4)
    labels: Tensor = model(pixels.float() / 255).argmax(1)
    epsilon = 4 / 255
    state = torch.get_rng_state()
    result = survivors_of_autoattack(
        model, EvaluationImages.whole(pixels, labels), epsilon=epsilon, num_classes=5, seed=0
    )
    assert torch.equal(torch.get_rng_state(), state)
    # For each wrong class the best move is known; clamping to [0, 1] included.
    images = pixels.float() / 255
    robust = torch.ones(40, dtype=torch.bool)
    for other in range(5):
        direction = (weights[other] - weights[labels]).sign().view(images.shape)
        moved = (images + epsilon * direction).clamp(0, 1)
        logits = model(moved).detach()
        by_hand = logits.gather(1, labels[:, None])[:, 0]
        robust &= (logits[:, other] <= by_hand) | (labels == other)
    assert 0 < robust.sum() < 40
    assert result == int(robust.sum())
