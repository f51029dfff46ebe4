"""Images are prepared as the weights of a library expect, unless a configuration says otherwise."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from pydantic import ValidationError
from safetensors.torch import save_file

from automix.configuration.data import DataConfig, DataSource, Interpolation, Normalization
from automix.configuration.task import ModelConfig, TaskConfig
from automix.data.load import load_data
from automix.models.build import build_model
from automix.models.pretrained import images_of, pretrained_input

timm = pytest.importorskip("timm", reason="needs the extra timm")
timm_networks = pytest.importorskip("tests.models.timm_networks", reason="needs the extra timm")

TINY = f"timm/{timm_networks.NAME}"
WEIGHTS = Path("weights.safetensors")
SHARED = Path(__file__).parents[2] / "../shared/data/efficientnet_lite0_imagenet.safetensors"


def folder_of(path: Path) -> DataConfig:
    generator = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (path / "photos" / name).mkdir(parents=True)
        for number in range(6):
            pixels = generator.integers(0, 256, (20, 24, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path / "photos" / name / f"{number}.png")
    return DataConfig(
        source=DataSource.FOLDER,
        path=path / "photos",
        cache=path / "cache",
        test_size=1,
        reward_size=1,
        selection_size=1,
    )


def test_all_is_taken_from_the_networks_own_configuration(tmp_path: Path) -> None:
    model = ModelConfig(name=TINY, weights=WEIGHTS)
    data = images_of(TaskConfig(model=model, data=folder_of(tmp_path)))
    assert data.target_size == (16, 16)
    assert (data.mean, data.std) == ((0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
    assert data.interpolation is Interpolation.BICUBIC
    assert data.evaluation_crop == 0.8
    loaded = load_data(data)
    assert loaded.seen.image_shape == (3, 16, 16)
    assert loaded.statistics.mean == (0.4, 0.5, 0.6)
    # Every decoded image is one of the files, scaled with the filter that is named.
    expected = []
    for file in sorted((tmp_path / "photos").rglob("*.png")):
        image = ImageOps.fit(Image.open(file), (16, 16), Image.Resampling.BICUBIC)
        expected.append(torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1))
    assert all(any(torch.equal(image, it) for it in expected) for image in loaded.test.images)


@pytest.mark.parametrize(
    ("model", "data"),
    [
        ({"name": TINY}, {}),
        ({"weights": WEIGHTS}, {}),
        ({"name": TINY, "weights": WEIGHTS}, {"normalization": Normalization.TRAIN}),
        ({"name": TINY, "weights": WEIGHTS}, {"mean": (0.1,), "std": (0.2,)}),
        ({"name": "timm/no_such_network", "weights": WEIGHTS}, {}),
        ({"name": "torchvision/no_such_network", "weights": WEIGHTS}, {}),
    ],
    ids=["random", "of this package", "train", "values", "timm", "torchvision"],
)
def test_nothing_changes_otherwise(model: dict[str, Any], data: dict[str, Any]) -> None:
    task = TaskConfig(model=ModelConfig(**model), data=DataConfig(**data))
    assert images_of(task) == task.data


def test_what_is_set_stays() -> None:
    model = ModelConfig(name=TINY, weights=WEIGHTS)
    data = DataConfig(source=DataSource.CIFAR10, image_size=24, interpolation=Interpolation.LANCZOS)
    result = images_of(TaskConfig(model=model, data=data))
    assert (result.target_size, result.interpolation) == ((24, 24), Interpolation.LANCZOS)
    assert result.mean == (0.4, 0.5, 0.6)


def test_a_network_of_torchvision() -> None:
    expected = pretrained_input(ModelConfig(name="torchvision/resnet18", weights="pretrained"))
    assert expected is not None
    assert (expected.size, expected.crop) == ((224, 224), 224 / 256)
    assert expected.mean == (0.485, 0.456, 0.406)
    assert expected.interpolation is Interpolation.BILINEAR


def test_gray_images_have_the_mean_of_the_colors() -> None:
    task = TaskConfig(model=ModelConfig(name=TINY, weights=WEIGHTS))
    statistics = load_data(images_of(task)).statistics
    assert statistics.mean == pytest.approx((0.5,))
    assert statistics.std == pytest.approx((0.25,))


@pytest.mark.parametrize(
    "fields",
    [
        {"mean": (0.5,)},
        {"std": (0.5,)},
        {"mean": (0.5,), "std": (0.5, 0.5)},
        {"mean": (0.5,), "std": (0.0,)},
        {"mean": (0.5,), "std": (0.5,), "normalization": "imagenet"},
        {"interpolation": "cubic"},
    ],
)
def test_values_that_do_not_fit_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        DataConfig.model_validate(fields)


def test_a_file_of_weights_gives_all_but_the_head(tmp_path: Path) -> None:
    saved = timm.create_model(timm_networks.NAME)
    save_file(saved.state_dict(), tmp_path / "weights.safetensors")
    model = build_model(
        ModelConfig(name=TINY, weights=tmp_path / "weights.safetensors"),
        num_classes=4,
        channels=3,
        image_size=(16, 16),
        generator=torch.Generator().manual_seed(0),
    )
    assert torch.equal(model.get_parameter("cls_token"), saved.get_parameter("cls_token"))
    assert model.get_parameter("head.weight").shape == (4, 8)


@pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared/data")
def test_the_weights_of_efficientnet_lite0_fit() -> None:
    config = ModelConfig(name="timm/tf_efficientnet_lite0", weights=SHARED)
    expected = pretrained_input(config)
    assert expected is not None
    assert (expected.mean, expected.std) == ((0.5,) * 3, (0.5,) * 3)
    model = build_model(
        config, num_classes=10, channels=3, generator=torch.Generator().manual_seed(0)
    )
    assert model.get_parameter("classifier.weight").shape == (10, 1280)
