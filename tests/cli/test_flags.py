"""Flags mean what the keys of a file mean."""

import pytest

from automix.configuration.arguments import flag_name, read_words
from automix.configuration.flags import RunFlags
from automix.experiments.config import SearchConfig


class Everything(RunFlags, SearchConfig):
    """All fields of `automix search`."""


def values(*argv: str) -> dict[str, object]:
    return read_words(argv, Everything, command="automix search").values


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["--seed", "3"], {"seed": 3}),
        (["--seed=3"], {"seed": 3}),
        (["--agent.learning-rate", "1e-3"], {"agent": {"learning_rate": 1e-3}}),
        (["--agent.learning_rate", "1e-3"], {"agent": {"learning_rate": 1e-3}}),
        (["--agent.patience", "null"], {"agent": {"patience": None}}),
        (["--agent.patience", "None"], {"agent": {"patience": None}}),
        (["--agent.hidden-sizes", "8", "4"], {"agent": {"hidden_sizes": [8, 4]}}),
        (["--agent.hidden-sizes"], {"agent": {"hidden_sizes": []}}),
        (["--agent.hidden-sizes=8"], {"agent": {"hidden_sizes": [8]}}),
        (
            ["--environment.operators", "none", "mixup"],
            {"environment": {"operators": ["none", "mixup"]}},
        ),
        (["--environment.operators", "none"], {"environment": {"operators": ["none"]}}),
        (["--task.data.image-size", "32"], {"task": {"data": {"image_size": 32}}}),
        (["--task.data.image-size", "32", "24"], {"task": {"data": {"image_size": [32, 24]}}}),
        (["--task.data.image-size", "none"], {"task": {"data": {"image_size": None}}}),
        (["--task.data.reward-size", "0.25"], {"task": {"data": {"reward_size": 0.25}}}),
        (["--task.data.reward-size", "25"], {"task": {"data": {"reward_size": 25}}}),
        (["--task.data.download"], {"task": {"data": {"download": True}}}),
        (["--task.data.no-download"], {"task": {"data": {"download": False}}}),
        (["--task.data.download=false"], {"task": {"data": {"download": False}}}),
        (["--dry-run"], {"dry_run": True}),
        (["--no-dry-run"], {"dry_run": False}),
        (["--output", "2026"], {"output": "2026"}),
        (["--task.data.path", "1e3"], {"task": {"data": {"path": "1e3"}}}),
        (["--task.data.path", "none"], {"task": {"data": {"path": None}}}),
        (["--task.data.path=--odd"], {"task": {"data": {"path": "--odd"}}}),
        (["--task.data.normalization", "none"], {"task": {"data": {"normalization": "none"}}}),
        (["--seed", "-1"], {"seed": -1}),
        (
            ["--seed", "1", "--agent.episodes", "8", "--agent.patience", "2"],
            {"seed": 1, "agent": {"episodes": 8, "patience": 2}},
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_flag_is_a_key_of_the_file(argv: list[str], expected: dict[str, object]) -> None:
    assert values(*argv) == expected


def test_files_may_stand_before_between_and_after_flags() -> None:
    argv = read_words(
        ["one.yaml", "--seed", "1", "two.yaml", "--dry-run", "three.yaml"],
        Everything,
        command="automix search",
    )
    assert argv.files == ("one.yaml", "two.yaml", "three.yaml")
    assert argv.paths == {("seed",), ("dry_run",)}


def test_the_flag_of_a_field() -> None:
    assert flag_name(("task", "trainer", "batch_size")) == "--task.trainer.batch-size"
    assert flag_name(("environment", "operators", 1)) == "--environment.operators"
