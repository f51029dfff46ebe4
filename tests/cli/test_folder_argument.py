"""A folder of images as an argument: its preset, and what comes before it."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from automix.configuration.arguments import Arguments, read_arguments
from automix.configuration.task import TaskConfig
from automix.data.load import load_data
from automix.data.pools import images_checksum
from automix.errors import ConfigError
from automix.experiments.commands import COMMANDS
from tests.cli.bad_folders import image_folder, plain
from tests.cli.running import RunCommand


@pytest.fixture
def photos(folder: Path) -> Path:
    """Two classes of eight images, without train/ and test/."""
    for name, content in plain("cat", "dog").items():
        assert isinstance(content, bytes)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return Path("photos")


def search(*argv: str) -> Any:
    return read_arguments(COMMANDS["search"], argv).config


@pytest.mark.parametrize("word", ["photos", "photos/"])
def test_a_folder_alone_has_a_preset_and_ten_minutes(photos: Path, word: str) -> None:
    config = search(word)
    assert (config.task.data.source, config.task.data.path) == ("folder", photos)
    assert config.task.data.image_size == 32
    assert (config.minutes, config.runs) == (10, None)
    # 5 of the 8 images of a class are left to train on: one step per epoch.
    assert config.task.trainer.total_steps(10) == config.task.trainer.epochs >= 100


@pytest.mark.parametrize(
    ("name", "minutes", "size", "network"),
    [
        ("quick", 10, 32, "small_cnn"),
        ("medium", 60, 48, "small_cnn"),
        ("best", 480, 64, "resnet20"),
    ],
)
def test_presets_differ_in_images_network_and_time(
    photos: Path, name: str, minutes: float, size: int, network: str
) -> None:
    config = search("photos", "--preset", name)
    assert (config.minutes, config.task.data.image_size) == (minutes, size)
    assert config.task.model.name == network
    # A replay of what was found is one of the same task.
    replayed = read_arguments(COMMANDS["replay"], ["good.json", "photos", "--preset", name]).config
    assert replayed.task.model == config.task.model
    assert (name == "quick") == (config == search("photos"))
    assert search("photos", "--preset", name, "--runs", "64").minutes is None


def test_what_is_wrong_is_said_before_the_images_are_counted(folder: Path) -> None:
    assert folder == Path.cwd()
    # Not even there: the flag is looked at first.
    for argv in (["--runs", "8"], ["--preset", "best", "--task.trainer.epochs", "0"]):
        with pytest.raises(ConfigError, match=rf"^{argv[-2]}: expected"):
            search("photos/", *argv)
    with pytest.raises(ConfigError, match=r"^--preset: expected a folder of images beside it"):
        search("--preset", "best")


def test_more_images_have_fewer_epochs(photos: Path) -> None:
    small_batches = search("photos", "--task.trainer.batch-size", "2").task.trainer
    assert small_batches.epochs < search("photos").task.trainer.epochs
    one_label = search("photos", "--task.data.labels-per-class", "1").task.trainer
    assert one_label.epochs == search("photos").task.trainer.epochs
    assert search("photos", "--task.trainer.epochs", "3").task.trainer.epochs == 3


@pytest.mark.parametrize(
    ("argv", "budget"),
    [
        (["--runs", "64"], (64, None)),
        (["--minutes", "20"], (None, 20)),
        (["--minutes", "null"], 2 * (None,)),
    ],
)
def test_flags_come_before_the_preset(
    photos: Path, argv: list[str], budget: tuple[float | None, float | None]
) -> None:
    config = search("photos", *argv, "--task.data.image-size", "16")
    assert (config.runs, config.minutes) == budget
    assert config.task.data.image_size == 16
    assert config.task.model.width == 8


def test_with_a_file_there_is_no_preset(photos: Path) -> None:
    Path("my.yaml").write_text("task: {data: {path: elsewhere, source: folder}, model: {width: 4}}")
    config = search("photos", "my.yaml")
    assert config.minutes is None
    assert config.task.data.path == photos
    assert config.task.model.width == 4
    assert config.task.trainer == TaskConfig().trainer


@pytest.mark.parametrize("name", ["search", "compare", "replay"])
def test_every_command_of_a_task_takes_a_folder(photos: Path, name: str) -> None:
    positionals = ["good.json"] if name == "replay" else []
    arguments: Arguments = read_arguments(COMMANDS[name], [*positionals, "photos"])
    assert arguments.folder == photos
    assert arguments.positionals == tuple(positionals)
    task = search("photos").task
    if name == "replay":
        # What chose the schedule is trained on, too; the test images stay the same ones.
        parts = {"reward_size": 0, "selection_size": 0.1}
        task = task.model_copy(update={"data": task.data.model_copy(update=parts)})
    assert arguments.config.task == task


def test_a_replay_trains_on_what_a_search_holds_out(photos: Path) -> None:
    searched = load_data(search("photos").task.data)
    config = read_arguments(COMMANDS["replay"], ["good.json", "photos"]).config
    replayed = load_data(config.task.data)
    assert images_checksum(replayed.test) == images_checksum(searched.test)
    # Of 8 images of each class one is for the test, one for the temperature, one for the reward.
    assert (len(searched.seen.train), len(replayed.seen.train)) == (2 * 5, 2 * 6)
    kept = read_arguments(
        COMMANDS["replay"], ["good.json", "photos", "--task.data.reward-size", "2"]
    )
    assert kept.config.task.data.reward_size == 2


def test_the_configuration_of_a_folder_can_be_printed_and_read(
    photos: Path, run_command: RunCommand
) -> None:
    outcome = run_command("config", "search", "photos")
    assert (outcome.code, outcome.err) == (0, "")
    Path("mine.yaml").write_text(outcome.out)
    assert yaml.safe_load(outcome.out)["task"]["data"]["path"] == "photos"
    assert search("mine.yaml") == search("photos")


def test_help_shows_the_preset(photos: Path, run_command: RunCommand) -> None:
    text = " ".join(run_command("search", "photos", "--help").out.split())
    assert "usage: automix search [FOLDER] [CONFIG.yaml]" in text
    assert "10 minutes for a search" in text


def test_a_folder_with_test_images_has_a_preset_too(folder: Path) -> None:
    for name, content in image_folder().items():
        assert isinstance(content, bytes)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    assert search("images").task.data.path == Path("images")
