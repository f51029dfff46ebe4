"""Values that a data configuration accepts, and messages about the rest."""

import subprocess
import sys
from pathlib import Path

import pytest

from automix.configuration.data import AugmentConfig, DataConfig, DataSource
from automix.errors import ConfigError


def test_defaults_are_the_embedded_digits_without_augmentation() -> None:
    config = DataConfig()
    assert config.source is DataSource.DIGITS
    assert config.augment == AugmentConfig(crop_padding=0, horizontal_flip=False)
    assert config.part_sizes(has_val=False) == (0.2, 0.2)
    assert config.part_sizes(has_val=True) == (0.5, 0.5)
    assert config.test_part_size == 0.2


def test_yaml_and_back_is_the_identity(tmp_path: Path) -> None:
    config = DataConfig(
        source=DataSource.FOLDER, path=Path("photos"), image_size=(32, 48), reward_size=20
    )
    file = tmp_path / "data.yaml"
    file.write_text(config.to_yaml())
    assert DataConfig.from_yaml(file) == config
    assert config.target_size == (32, 48)
    assert DataConfig(image_size=16).target_size == (16, 16)


def test_a_whole_number_is_a_count_and_a_decimal_a_fraction() -> None:
    for value in (20, 20.0):
        size = DataConfig.from_mapping({"reward_size": value}, source="here").reward_size
        assert size == 20
        assert isinstance(size, int)
    assert DataConfig(reward_size=0.25).reward_size == 0.25
    assert DataConfig(reward_size=0).part_sizes(has_val=False) == (0, 0.2)


def test_a_cache_folder_may_start_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert DataConfig(cache=Path("~/cache")).cache_folder == tmp_path / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert DataConfig().cache_folder.name == "data"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"source": "cifar11"}, "source: expected 'digits', 'folder', 'cifar10'"),
        ({"souce": "digits"}, "got the unknown key 'souce' (did you mean 'source'?)"),
        (
            {"source": "folder"},
            "path: expected a folder of images, got nothing",
        ),
        ({"path": "x"}, "path: expected no path for the source 'digits', got 'x'"),
        ({"download": True}, "download: expected false for the source 'digits', got true"),
        ({"image_size": 0}, "image_size"),
        ({"image_size": [32, 32, 3]}, "image_size"),
        ({"labels_per_class": 0}, "labels_per_class: expected greater than or equal to 1, got 0"),
        ({"reward_size": -1}, "reward_size"),
        ({"reward_size": 2.5}, "expected a fraction below 1 or a whole number, got 2.5"),
        ({"test_size": 0}, "test_size"),
        (
            {"source": "cifar10", "test_size": 10},
            "test_size: expected nothing for the source 'cifar10', which has test images, got 10",
        ),
        ({"split_seed": -1}, "split_seed: expected greater than or equal to 0, got -1"),
        ({"augment": {"crop_padding": -1}}, "augment.crop_padding"),
        (
            {"augment": {"padding_mode": "reflect"}},
            "augment.padding_mode: expected 'zero' where crop_padding is 0, got 'reflect'",
        ),
        (
            {"augment": {"crop_padding": 4, "resized_crop_scale": [0.1, 1]}},
            "augment.resized_crop_scale: expected nothing where crop_padding is above 0, got "
            "[0.1, 1]",
        ),
        (
            {"augment": {"resized_crop_scale": [1, 0.1]}},
            "augment.resized_crop_scale: expected the smaller number first, got [1, 0.1]",
        ),
        ({"augment": {"resized_crop_scale": [0, 1]}}, "augment.resized_crop_scale"),
        ({"augment": {"resized_crop_scale": [0.5, 1.5]}}, "augment.resized_crop_scale"),
        (
            {"augment": {"resized_crop_ratio": [0.5, 2]}},
            "resized_crop_ratio: expected nothing where resized_crop_scale is not given, got "
            "[0.5, 2]",
        ),
        (
            {"augment": {"resized_crop_scale": [0.5, 1], "resized_crop_ratio": [2, 1]}},
            "resized_crop_ratio: expected the smaller number first, got [2, 1]",
        ),
        (
            {"loading": "streaming", "image_size": 32},
            "loading: expected no streaming of the source 'digits', got 'streaming'",
        ),
        (
            {"source": "folder", "path": "x", "loading": "streaming"},
            "loading: expected data.image_size beside it, got 'streaming' alone",
        ),
        (
            {"source": "folder", "path": "x", "loading": "resident", "loader_workers": 2},
            "loader_workers: expected nothing where loading is 'resident', got 2",
        ),
        (
            {"loader_workers": 2},
            "loader_workers: expected nothing for the source 'digits', got 2",
        ),
        (
            {"source": "folder", "path": "x", "image_size": 32, "evaluation_crop": 0.875},
            "evaluation_crop: expected 1 where loading is 'auto', got 0.875",
        ),
    ],
)
def test_a_wrong_value_is_one_line(values: dict[str, object], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        DataConfig.from_mapping(values, source="data.yaml")
    message = str(caught.value)
    assert message.startswith("data.yaml: ")
    assert expected in message
    assert "\n" not in message


def test_help_texts_load_without_torch() -> None:
    script = "import automix.configuration.data, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_every_field_has_a_help_text() -> None:
    for model in (DataConfig, AugmentConfig):
        for name, field in model.model_fields.items():
            assert field.description, name
