"""Options of operators in a step: those of published recipes."""

import pytest
import torch

from automix.configuration.operators import CoMixupOptions, OperatorOptions, RMixOptions
from automix.mixing import StepKey, mix_step
from automix.operator_info import OPERATOR_FACTS, Operator
from automix.operators.rmix import apply_rmix, draw_rmix
from automix.operators.types import BatchShape, MixedBatch
from automix.random_streams import Stream, stream_generator
from automix.schedule import Decision

IMAGES = torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))
MAPS = torch.rand(8, 16, 16, generator=torch.Generator().manual_seed(1)) ** 3
LABELS = torch.arange(8)


def mixed(operator: Operator, options: OperatorOptions | None, *, step: int = 0) -> MixedBatch:
    return mix_step(
        Decision(operator=operator),
        IMAGES,
        LABELS,
        key=StepKey(seed=0, step=step),
        num_classes=8,
        model=torch.nn.Identity(),
        saliency=lambda *_: MAPS,
        options=options,
    )


def same(one: MixedBatch, other: MixedBatch) -> bool:
    return torch.equal(one.images, other.images) and torch.equal(one.targets, other.targets)


@pytest.mark.parametrize("operator", Operator)
def test_the_defaults_change_nothing(operator: Operator) -> None:
    assert not OperatorOptions().changes(operator)
    assert same(mixed(operator, None), mixed(operator, OperatorOptions()))


@pytest.mark.parametrize("operator", Operator)
def test_an_operator_that_pastes_shows_one_image_at_each_pixel(operator: Operator) -> None:
    if not OPERATOR_FACTS[operator].pastes:
        return
    for step in range(5):
        result = mixed(operator, None, step=step)
        assert result.mask is not None
        assert bool(((result.mask == 0) | (result.mask == 1)).all())
        torch.testing.assert_close(result.lam, 1 - result.mask.mean((1, 2, 3)))


def test_rmix_as_published_draws_a_grid_and_one_weight_for_each_batch() -> None:
    options = OperatorOptions(rmix=RMixOptions(grids=(2, 4), per="batch"))
    grids = []
    for step in range(40):
        generator = stream_generator(0, Stream.MIXING, rank=0, step=step)
        draws = draw_rmix(BatchShape(8, 16, 16), strength=1.0, generator=generator, per="batch")
        assert draws.lam.min() == draws.lam.max()
        result = mixed(Operator.RMIX, options, step=step)

        matching = [
            grid
            for grid in (2, 4)
            if same(
                result,
                apply_rmix(IMAGES, LABELS, draws, saliency_BHW=MAPS, num_classes=8, grid=grid),
            )
        ]
        assert len(matching) == 1
        grids += matching
    # 20 of 40 expected, with a standard deviation of 3.
    assert 8 <= grids.count(2) <= 32


def test_comixup_without_a_limit_shows_more_images() -> None:
    options = OperatorOptions(comixup=CoMixupOptions(most_inputs=None))
    few, many = (mixed(Operator.COMIXUP, chosen).targets for chosen in (None, options))
    assert (few > 0).sum(1).max() <= 3
    assert (many > 0).sum(1).float().mean() > 3
    apart = OperatorOptions(comixup=CoMixupOptions(group=2, peak_window=8))
    targets = mixed(Operator.COMIXUP, apart).targets
    # Images 2 i and 2 i + 1 are a group.
    is_group = torch.arange(8).unsqueeze(1) // 2 == torch.arange(8) // 2
    assert (targets[~is_group] == 0).all()
