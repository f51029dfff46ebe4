"""Flags that are wrong."""

from tests.cli.mistake import BadInput


def bad_flag(name: str, flags: str, message: str) -> BadInput:
    return BadInput(name=f"flag: {name}", argv=f"search {flags}", message=message)


FLAGS = [
    bad_flag(
        "unknown",
        "--color red",
        "automix search: expected a known flag, got --color; --help all lists them",
    ),
    bad_flag(
        "misspelt",
        "--task.trainer.epoch 3",
        "automix search: expected a known flag, got --task.trainer.epoch "
        "(did you mean --task.trainer.epochs?)",
    ),
    bad_flag(
        "without its section",
        "--epochs 3",
        "automix search: expected a known flag, got --epochs (did you mean --task.trainer.epochs?)",
    ),
    bad_flag(
        "an old name",
        "--task.trainer.peak-learning-rate 0.1",
        "--task.trainer.peak-learning-rate: expected its new name learning-rate, got the old one",
    ),
    bad_flag(
        "removed",
        "--environment.halving_rungs 3",
        "--environment.halving-rungs: expected no such key (removed, see CHANGELOG.md), got "
        "'halving-rungs'",
    ),
    bad_flag("one dash", "-seed 3", "automix search: expected a known flag, got -seed..."),
    bad_flag("no value", "--seed", "--seed: expected a value, got nothing"),
    bad_flag("no value but a flag", "--seed --dry-run", "--seed: expected a value, got nothing"),
    bad_flag("twice", "--seed 1 --seed=2", "--seed: expected once, got twice"),
    bad_flag("text for a number", "--seed x", "--seed: expected an integer, got 'x'"),
    bad_flag("negative", "--seed -1", "--seed: expected greater than or equal to 0, got -1"),
    bad_flag("a truth value", "--seed true", "--seed: expected an integer, got true"),
    bad_flag("no null", "--seed null", "--seed: expected an integer, got null"),
    bad_flag(
        "not a truth value", "--dry-run=perhaps", "--dry-run: expected true or false, got 'perhaps'"
    ),
    bad_flag(
        "a no that is none",
        "--no-seed",
        "automix search: expected a known flag, got --no-seed (did you mean --seed?)",
    ),
    bad_flag(
        "a no with a value", "--no-dry-run=true", "--no-dry-run: expected no value, got 'true'"
    ),
    bad_flag("a huge integer", f"--seed {'9' * 5000}", "--seed: expected an integer, got '9999..."),
    bad_flag(
        "not a number",
        "--agent.learning-rate nan",
        "--agent.learning-rate: expected a number, got 'nan'",
    ),
    bad_flag(
        "unknown operator",
        "--environment.operators none mixupp",
        "--environment.operators: expected 'none',... got 'mixupp' (did you mean 'mixup'?)",
    ),
    bad_flag(
        "an empty list",
        "--environment.operators",
        "--environment.operators: expected at least 1 item, got []",
    ),
    bad_flag(
        "fields that do not go together",
        "--task.data.source folder",
        "--task.data.path: expected a folder of images, got nothing",
    ),
    bad_flag(
        "a section that is not there",
        "--agent none.yaml",
        "none.yaml: expected a readable file, got: no such file or directory",
    ),
    bad_flag("a section without its file", "--agent", "--agent: expected a value, got nothing"),
    bad_flag(
        "a section and a field without its section",
        "--agent.ppo none.yaml",
        "automix search: expected a known flag, got --agent.ppo; --help all lists them",
    ),
    bad_flag(
        "unknown model",
        "--task.model.name resnet21",
        "--task.model.name: expected one of small_cnn,... got 'resnet21'...",
    ),
    bad_flag(
        "a plan that does not come out even",
        "--agent.num-environments 3 --agent.episodes-per-rollout 32",
        "agent.episodes_per_rollout: expected a multiple of agent.num_environments (3), got 32",
    ),
]
