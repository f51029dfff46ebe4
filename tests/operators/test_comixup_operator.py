"""Co-Mixup as an operator: groups, pixels and labels."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from automix.operator_info import Operator
from automix.operators.comixup import operator as comixup
from automix.operators.comixup.energy import input_weights
from automix.operators.comixup.operator import CoMixupDraws, apply_comixup, draw_comixup
from automix.operators.comixup.solver import solve_comixup
from automix.operators.types import BatchShape, MixedBatch
from tests.operators import references as ref
from tests.operators.cases import (
    NUM_CLASSES,
    Scenario,
    classes,
    constant_images,
    draw,
    random_images,
    random_saliency,
    seeded,
)
from tests.operators.published import published_case


def mixed_by(
    scenario: Scenario, images: Tensor, draws: CoMixupDraws, *, group: int = 20
) -> MixedBatch:
    return apply_comixup(
        images,
        torch.arange(scenario.batch),
        draws,
        num_classes=scenario.batch,
        saliency_BHW=random_saliency(scenario),
        group=group,
    )


@pytest.mark.parametrize("name", [f"comixup_{letter}_32x32" for letter in "abcd"])
def test_recorded_images_and_targets(
    shared_folder: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = published_case(shared_folder, name)
    z = case["z"]
    members = len(z)
    number = torch.arange(members)
    first = torch.where(z > 0, number, members).amin(3)
    second = torch.where(z > 0, number, -1).amax(3)
    recorded = torch.stack((first, second), 3).unsqueeze(0)
    assert torch.equal(input_weights(recorded, members)[0], z)

    def published_solution(*_: object, **__: object) -> Tensor:
        return recorded

    monkeypatch.setattr(comixup, "solve_comixup", published_solution)
    mixed = apply_comixup(
        case["x"],
        case["y"],
        CoMixupDraws(torch.ones(members), torch.rand(members)),
        num_classes=10,
        saliency_BHW=case["saliency"],
    )
    assert torch.equal(mixed.images, case["x_mixed"])
    torch.testing.assert_close(mixed.targets, case["target"], atol=1e-6, rtol=0)
    fraction = z.sum((1, 2)) / 16
    assert torch.equal(mixed.lam, fraction.diagonal())
    others = fraction - torch.diag(fraction.diagonal())
    rows = torch.arange(members)
    assert torch.equal(others[rows, mixed.partner], others.amax(1))


@pytest.mark.parametrize(
    ("batch", "group", "sizes"),
    [(1, 20, [1]), (7, 20, [7]), (21, 20, [10, 11]), (8, 3, [2, 3, 3]), (5, 1, [1] * 5)],
)
def test_groups_are_equal_and_apart(batch: int, group: int, sizes: list[int]) -> None:
    scenario = Scenario(batch, size=(16, 16))
    images = random_images(scenario)
    draws = draw_comixup(BatchShape(batch, 16, 16), strength=2.0, generator=seeded(0))
    mixed = mixed_by(scenario, images, draws, group=group)
    edges = [0, *itertools.accumulate(sizes)]
    assert edges[-1] == batch
    for start, end in itertools.pairwise(edges):
        assert mixed.targets[start:end].sum() == mixed.targets[start:end, start:end].sum()
        alone = apply_comixup(
            images[start:end],
            torch.arange(start, end),
            CoMixupDraws(draws.prior[start:end], draws.order[start:end]),
            num_classes=batch,
            saliency_BHW=random_saliency(scenario)[start:end],
            group=group,
        )
        assert torch.equal(mixed.images[start:end], alone.images)
        assert torch.equal(mixed.targets[start:end], alone.targets)
        assert torch.equal(mixed.partner[start:end], alone.partner + start)


@pytest.mark.parametrize("size", [(8, 8), (9, 14)])
def test_agrees_with_loops(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Pixels, labels and partners, by loops, of the inputs that the solver chooses.

    What it chooses is compared with all masks in `test_comixup_solver`.
    """
    scenario = Scenario(5, size=size)
    images = random_images(scenario)
    chosen: list[Tensor] = []

    def recorded(*arguments: Any, **options: Any) -> Tensor:
        chosen.append(solve_comixup(*arguments, **options))
        return chosen[0]

    monkeypatch.setattr(comixup, "solve_comixup", recorded)
    mixed = mixed_by(scenario, images, draw(Operator.COMIXUP, images))
    height, width = size
    for output, inputs in enumerate(chosen[0][0].tolist()):
        shown = np.zeros((3, height, width))
        weights = [0.0] * 5
        for y in range(height):
            for x in range(width):
                for image in inputs[y * 4 // height][x * 4 // width]:
                    shown[:, y, x] += ref.array(images[image, :, y, x]) / 2
                    weights[image] += 0.5 / (height * width)
        np.testing.assert_allclose(ref.array(mixed.images[output]), shown, atol=1e-6)
        np.testing.assert_allclose(ref.array(mixed.targets[output]), weights, atol=1e-6)
        assert float(mixed.lam[output]) == pytest.approx(weights[output], abs=1e-6)
        others = {image: weight for image, weight in enumerate(weights) if image != output}
        partner = int(mixed.partner[output])
        assert weights[partner] == max(others.values()) or partner == output


@pytest.mark.parametrize("size", [(32, 32), (34, 30), (13, 17)])
def test_labels_follow_the_pixels(size: tuple[int, int]) -> None:
    scenario = Scenario(11, size=size)
    images = constant_images(scenario)
    mixed = mixed_by(scenario, images, draw(Operator.COMIXUP, images))
    values = torch.arange(11) / 16
    assert mixed.lam.min() < 0.9
    torch.testing.assert_close(
        mixed.targets @ values, mixed.images.mean((1, 2, 3)), atol=1e-6, rtol=0
    )


def test_form_of_the_result() -> None:
    scenario = Scenario(9)
    images = random_images(scenario)
    mixed = mixed_by(scenario, images, draw(Operator.COMIXUP, images))
    assert mixed.mask is None
    assert mixed.partner_targets is None
    assert torch.equal(mixed.lam, mixed.targets.diagonal())
    is_mixed = mixed.lam < 1
    assert is_mixed.any()
    assert (mixed.partner != torch.arange(9))[is_mixed].all()


def test_autocast_changes_nothing() -> None:
    scenario = Scenario(9)
    images = random_images(scenario)
    draws = draw(Operator.COMIXUP, images)
    expected = mixed_by(scenario, images, draws)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = mixed_by(scenario, images, draws)
    assert torch.equal(mixed.images, expected.images)
    assert torch.equal(mixed.targets, expected.targets)


def test_soft_targets_are_mixed_like_images() -> None:
    scenario = Scenario(6)
    images = random_images(scenario)
    draws = draw(Operator.COMIXUP, images)
    rows = torch.rand((6, NUM_CLASSES), generator=seeded(1))
    shares = mixed_by(scenario, images, draws).targets
    mixed = apply_comixup(images, rows, draws, saliency_BHW=random_saliency(scenario))
    torch.testing.assert_close(mixed.targets, shares @ rows, atol=1e-6, rtol=0)
    assert classes(scenario).shape == mixed.lam.shape


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"group": 0}, "group: expected 1 or more, got 0"),
        ({"most_inputs": 0}, "most_inputs: expected 1 or more, or None, got 0"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, int], message: str) -> None:
    scenario = Scenario(3)
    images = random_images(scenario)
    with pytest.raises(ValueError, match=message):
        apply_comixup(
            images,
            classes(scenario),
            draw(Operator.COMIXUP, images),
            num_classes=NUM_CLASSES,
            saliency_BHW=random_saliency(scenario),
            **options,  # type: ignore[arg-type]
        )
