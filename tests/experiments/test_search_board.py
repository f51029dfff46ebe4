"""TensorBoard, as the event files of a search tell it."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from automix.reporting.canvas import rgb_array
from automix.reporting.figures.schedule import SchedulePanel, schedule_figure
from automix.schedule import Schedule
from tests.experiments.tiny_search import TINY


@pytest.fixture(scope="module")
def board(finished_search: Path) -> Any:
    events = EventAccumulator(str(finished_search / "tensorboard"))
    events.Reload()
    return events


def test_the_usual_tags_are_there(board: Any, finished_search: Path) -> None:
    tags = set(board.Tags()["scalars"])
    losses = {"loss", "policy_gradient_loss", "value_loss", "entropy_loss", "approx_kl"}
    others = {"clip_fraction", "clip_range", "explained_variance", "learning_rate"}
    assert {f"train/{name}" for name in losses | others} <= tags
    assert {"rollout/ep_rew_mean", "rollout/ep_len_mean", "time/fps"} <= tags
    # One point per rollout of 4 episodes of 3 decisions; means over all episodes so far.
    rewards = [
        one["total_reward"]
        for one in json.loads((finished_search / "result.json").read_text())["episodes"]
    ]
    points = board.Scalars("rollout/ep_rew_mean")
    assert [point.step for point in points] == [12, 24, 36]
    expected = [np.mean(rewards[:count]) for count in (4, 8, 12)]
    np.testing.assert_allclose([point.value for point in points], expected, rtol=1e-6)
    assert all(point.value == 3 for point in board.Scalars("rollout/ep_len_mean"))
    assert all(point.value > 0 for point in board.Scalars("time/fps"))


def test_the_schedule_is_a_picture(board: Any, finished_search: Path) -> None:
    (picture,) = board.Images("schedule")
    shown = np.asarray(Image.open(io.BytesIO(picture.encoded_image_string)))
    selected = json.loads((finished_search / "result.json").read_text())["selected"]
    schedule = Schedule.load(finished_search / "schedule.json")
    panel = SchedulePanel(title=selected, schedules=(schedule,))
    np.testing.assert_array_equal(shown, rgb_array(schedule_figure([panel])))


def test_hyperparameters_are_beside_what_was_measured(board: Any, finished_search: Path) -> None:
    content = board.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    values = HParamsPluginData.FromString(content).session_start_info.hparams
    assert values["agent.learning_rate"].number_value == TINY.agent.learning_rate
    assert values["environment.operators"].string_value == '["none", "mixup", "cutmix"]'
    assert values["seed"].number_value == TINY.seed
    result = json.loads((finished_search / "result.json").read_text())
    means = {row["name"]: row["mean_calibrated_nll"] for row in result["final"]}
    for tag, name in {"selected": result["selected"], "none": "none"}.items():
        (point,) = board.Scalars(f"final/{tag}")
        assert point.value == pytest.approx(means[name], rel=1e-6)
