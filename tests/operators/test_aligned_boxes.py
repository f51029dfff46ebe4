"""Boxes and holes aligned to the patches of a vision transformer: no patch is of two images."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from automix.configuration.operators import BOX_OPERATORS, OperatorOptions
from automix.configuration.task import ModelConfig
from automix.errors import ConfigError
from automix.mixing import StepKey, mix_step
from automix.models.patches import options_for, patch_side
from automix.operator_info import Operator
from automix.operators.gridmix import apply_gridmix, draw_gridmix
from automix.operators.resizemix import draw_resizemix
from automix.operators.sampling import box_mask, centered_box
from automix.operators.types import BatchShape, MixedBatch
from automix.schedule import Decision
from automix.training.check import check_model
from automix.training.trainer import build_trainer, load_search_data
from envs.config import EnvironmentConfig
from envs.mixing_env import MixingEnv
from tests.equality import assert_same
from tests.operators.cases import seeded
from tests.training.conftest import TASK
from tests.training.test_trainer_determinism import snapshot

BOXES = sorted(BOX_OPERATORS)


def mixed(
    operator: Operator, side: int | None, size: tuple[int, int], *, seed: int, batch: int = 6
) -> MixedBatch:
    """Mix images whose pixels are the number of their image."""
    images = torch.arange(float(batch)).view(batch, 1, 1, 1).expand(batch, 3, *size)
    maps = torch.rand(batch, *size, generator=seeded(seed))
    result = None
    # RecursiveMix pastes the batch before.
    for step in range(2):
        result = mix_step(
            Decision(operator=operator),
            images,
            torch.arange(batch),
            key=StepKey(seed=seed, step=step),
            num_classes=batch,
            model=nn.Identity(),
            saliency=lambda *_: maps,
            previous=result,
            options=OperatorOptions(patch_size=side),
        )
    assert result is not None
    return result


@pytest.mark.parametrize("operator", BOXES)
@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 10_000),
    side=st.integers(2, 5),
    rows=st.integers(1, 6),
    columns=st.integers(1, 6),
)
def test_a_patch_is_of_one_image_and_labels_are_areas(
    operator: Operator, seed: int, side: int, rows: int, columns: int
) -> None:
    result = mixed(operator, side, (rows * side, columns * side), seed=seed)
    cells = result.images[:, 0].view(-1, rows, side, columns, side)
    if operator is not Operator.RECURSIVEMIX:  # which shows two images inside its box
        assert cells.amin((2, 4)).equal(cells.amax((2, 4)))
        assert result.mask is not None
        mask = result.mask.view(-1, rows, side, columns, side)
        assert mask.amin((2, 4)).equal(mask.amax((2, 4)))
        torch.testing.assert_close(result.lam, 1 - result.mask.mean((1, 2, 3)))
    # Of areas that are whole patches.
    patches = result.lam * rows * columns
    torch.testing.assert_close(patches, patches.round(), atol=1e-4, rtol=0)
    torch.testing.assert_close(result.targets.sum(1), torch.ones(6))


@pytest.mark.parametrize("operator", BOXES)
def test_patches_of_one_pixel_change_nothing(operator: Operator) -> None:
    plain, single = (mixed(operator, side, (8, 12), seed=3) for side in (None, 1))
    assert plain.images.equal(single.images)
    assert plain.lam.equal(single.lam)


@given(
    fraction=st.floats(0, 1),
    row=st.integers(0, 23),
    column=st.integers(0, 15),
    side=st.sampled_from([2, 4, 8]),
)
def test_bounds_are_rounded_one_by_one(fraction: float, row: int, column: int, side: int) -> None:
    arguments = (torch.tensor([fraction]), torch.tensor([row]), torch.tensor([column]), (24, 16))
    plain = centered_box(*arguments)[0].tolist()
    # The nearest multiple, the larger one of two.
    expected = [min(range(0, 25, side), key=lambda m: (abs(m - b), -m)) for b in plain]
    assert centered_box(*arguments, align=side)[0].tolist() == expected


@pytest.mark.parametrize("operator", BOXES)
def test_areas_stay_as_large_as_they_were(operator: Operator) -> None:
    lam = [
        torch.cat([mixed(operator, side, (64, 64), seed=seed, batch=64).lam for seed in range(8)])
        for side in (None, 4)
    ]
    # 512 draws with a standard deviation of 0.3: 0.013 each. Holes of GridMix that are not aligned
    # are smaller by up to a pixel.
    assert lam[0].mean().item() == pytest.approx(lam[1].mean().item(), abs=0.05)


def test_every_variant_is_aligned() -> None:
    shape = BatchShape(32, 16, 24)
    draws = draw_resizemix(shape, strength=1.0, generator=seeded(0), placement="inside", align=4)
    assert not (draws.box % 4).any()
    assert box_mask(draws.box, (16, 24)).mean() > 0
    lattice = draw_gridmix(shape, strength=1.0, generator=seeded(0))
    images = torch.zeros(32, 1, 16, 24)
    for clamp in (False, True):
        mask = apply_gridmix(
            images, torch.arange(32), lattice, num_classes=32, clamp_holes=clamp, align=4
        ).mask
        assert mask is not None
        cells = mask.view(32, 4, 4, 6, 4)
        assert cells.amin((2, 4)).equal(cells.amax((2, 4)))


def test_a_size_that_does_not_divide_is_refused() -> None:
    for operator in BOXES:
        with pytest.raises(ValueError, match=r"^align: expected a divisor of 8 x 9 pixels, got 4$"):
            mixed(operator, 4, (8, 9), seed=0)


@pytest.mark.parametrize(
    ("side", "message"),
    [
        (3, "expected a divisor of 8 x 8 pixels, got 3"),
        ("network", "expected a number of pixels for a network whose first convolution"),
    ],
)
def test_what_does_not_fit_the_task_is_one_line(side: int | str, message: str) -> None:
    options = OperatorOptions.model_validate({"patch_size": side})
    task = TASK.model_copy(update={"operators": options})
    data = load_search_data(TASK.data)
    for refused in (lambda: check_model(task, data), lambda: build_trainer(task, data, seed=0)):
        with pytest.raises(ConfigError, match=rf"^task\.operators\.patch_size: {message}"):
            refused()


def test_the_network_gives_the_size_and_a_run_resumes() -> None:
    pytest.importorskip("timm", reason="needs the extra timm")
    model = ModelConfig(factory="tests.models.users_networks:timm_vit")
    options = OperatorOptions(patch_size="network")
    task = TASK.model_copy(update={"operators": options, "model": model})
    data = load_search_data(TASK.data)
    check_model(task, data, operators=BOXES)
    whole, cut = (build_trainer(task, data, seed=1) for _ in range(2))
    assert whole.training_step.options.patch_size == 2
    decision = Decision(operator=Operator.SALIENCYMIX, probability=0.75)
    whole.train(decision, num_steps=6)
    cut.train(decision, num_steps=2)
    state = snapshot(cut)
    cut = build_trainer(task, data, seed=9)
    cut.load_state_dict(state)  # type: ignore[arg-type]
    cut.train(decision, num_steps=4)
    assert_same(snapshot(whole), snapshot(cut))
    # The probe of a search mixes as the run does.
    config = EnvironmentConfig.model_validate({"observation": ["progress", "probe"]})
    env = MixingEnv(task, config, data=data)
    env.reset(seed=0)
    env.step(env.action_space.sample())


@pytest.mark.parametrize("kind", ["torchvision", "transformers"])
def test_patches_of_libraries_are_known(kind: str) -> None:
    library = pytest.importorskip(kind, reason=f"needs the extra {kind}")
    if kind == "torchvision":
        network = library.models.VisionTransformer(
            image_size=16, patch_size=8, num_layers=1, num_heads=1, hidden_dim=4, mlp_dim=4
        )
    else:
        sizes = {"hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 1}
        config = library.ViTConfig(**sizes, intermediate_size=4, image_size=16, patch_size=8)
        network = library.ViTForImageClassification(config)
    assert patch_side(network) == 8
    options = OperatorOptions(patch_size="network")
    assert options_for(options, network, image_size=(16, 32)).patch_size == 8
