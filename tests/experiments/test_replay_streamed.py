"""A replay on streamed images: stopped anywhere, decoded by anybody, it ends in the same bits."""

from pathlib import Path

import pytest

from automix.configuration.data import AugmentConfig, DataConfig, DataSource, Loading
from automix.configuration.task import ReplayConfig
from automix.experiments.replay.run import replay
from tests.data.conftest import write_image
from tests.equality import assert_same, untouched_generators
from tests.experiments.tiny_replay import (
    FAMILIES,
    TOTAL_STEPS,
    Stops,
    attempts,
    outputs,
    schedule_of,
    tiny,
)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 training images in two classes, of many sizes; 2 more of each are for selection."""
    root = tmp_path_factory.mktemp("photographs")
    for part, count in (("train", 14), ("test", 2)):
        for class_number, class_name in enumerate(("cat", "dog")):
            for number in range(count):
                seed = 100 * class_number + number + (50 if part == "test" else 0)
                file = root / part / class_name / f"{number}.jpg"
                write_image(file, seed=seed, size=(12 + number, 30 - number))
    return root


def streamed(root: Path, cache: Path, *, workers: int) -> ReplayConfig:
    config = tiny()
    data = DataConfig(
        source=DataSource.FOLDER,
        path=root,
        image_size=8,
        reward_size=0,
        selection_size=2,
        augment=AugmentConfig(resized_crop_scale=(0.3, 1.0), horizontal_flip=True),
        loading=Loading.STREAMING,
        loader_workers=workers,
        evaluation_crop=0.875,
        cache=cache,
    )
    task = config.task.model_copy(update={"data": data})
    return config.model_copy(update={"task": task})


def test_a_streamed_replay_ends_in_the_same_bits(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    schedule = schedule_of(FAMILIES["grafting"])
    alone = streamed(photographs, tmp_path / "cache", workers=0)
    several = streamed(photographs, tmp_path / "cache", workers=2)
    with untouched_generators():
        replay(alone, schedule, tmp_path / "whole")
        replay(several, schedule, tmp_path / "workers")
        stops = Stops(monkeypatch)
        stops.steps = set(range(TOTAL_STEPS))
        assert len(list(attempts(alone, schedule, tmp_path / "cut"))) == TOTAL_STEPS + 1
        stops.steps = {4}
        assert list(attempts(several, schedule, tmp_path / "cut workers")) == [False, True]
    whole = outputs(tmp_path / "whole")
    assert_same(outputs(tmp_path / "cut"), whole)
    for name in ("workers", "cut workers"):
        streamed_outputs = outputs(tmp_path / name)
        assert streamed_outputs["classifier"] == whole["classifier"]
        assert streamed_outputs["metrics"] == whole["metrics"]
    assert whole["result"]["test"]["num_images"] == 4
