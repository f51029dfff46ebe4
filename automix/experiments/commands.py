"""The one table of commands: the command line, its help and sweeps all read it.

Names alone: `automix --help` needs nothing else, and has no time for it. Functions and classes are
named as ``module:name``.
"""

from collections.abc import Mapping
from types import MappingProxyType

from automix.configuration.command import Command

_HANDLERS = "automix.experiments.handlers"
_LIST = Command(
    name="config list",
    description="List the configurations and sweeps that ship.",
    handler=f"{_HANDLERS}:list_configs",
)
_CONFIG = "automix.experiments.config"
# Apart, so that a replay imports neither environments nor agents.
_COMMON = "automix.configuration.task"
_FLAGS = "automix.configuration.flags"
_CELL = "automix.experiments.sweep.experiments"
_PRESET = "automix.experiments.common.folder_preset"
_SCHEDULE = "SCHEDULE.json"
SWEEPS = ("ablation",)
_SWEEP = {
    "SWEEP.yaml": "a base configuration, variants and a grid, or the name of a sweep that ships, "
    "see `automix config list`"
}

# Shown by `--help`; `--help all` has the rest. The images, network and length of a training run.
_TASK_FLAGS = (
    "task.data.path",
    "task.data.image_size",
    "task.data.augment.horizontal_flip",
    "task.model.name",
    "task.trainer.epochs",
)

# Not of its configuration.
_ONLY_OF_A_RUN = frozenset({"output", "dry_run", "resume", "policy"})

# In the order of the help.
_ENTRIES = (
    Command(
        name="search",
        summary="find a mixing schedule within a budget, and say whether it pays",
        handler=f"{_HANDLERS}:run_experiment",
        config=f"{_CONFIG}:SearchConfig",
        flags=f"{_FLAGS}:FolderFlags",
        first_flags=(
            "preset",
            "minutes",
            "runs",
            "output",
            "dry_run",
            "seed",
            *_TASK_FLAGS,
            "searcher",
        ),
        takes_file=True,
        configs=("search",),
        preset=f"{_PRESET}:search_of_folder",
        run="automix.experiments.search.run:search",
        predict_cost="automix.experiments.search.run:predict_cost",
        summarize="automix.experiments.search.verdict:summarize_search",
        artifact="schedule.json",
        identify="automix.configuration.base:Config.content_hash",
        measures={
            "calibrated NLL of the selected schedule, selection split": {
                "key": "verdict.calibrated_nll"
            },
        },
    ),
    Command(
        name="replay",
        summary="train one classifier with a schedule file",
        handler=f"{_HANDLERS}:run_replay",
        config=f"{_COMMON}:ReplayConfig",
        flags=f"{_FLAGS}:ReplayFlags",
        positionals={_SCHEDULE: "schedule to follow, such as a search writes"},
        first_flags=(
            "preset",
            "output",
            "dry_run",
            "resume",
            "policy",
            "seed",
            "weights",
            *_TASK_FLAGS,
        ),
        takes_file=True,
        configs=("replay",),
        preset=f"{_PRESET}:replay_of_folder",
        instead={"policy": True, "resume": False},
        cell_config=f"{_CONFIG}:ReplayOfConfig",
        run=f"{_CELL}:replay_named_schedule",
        predict_cost=f"{_CELL}:predict_replay_cost",
        identify=f"{_CELL}:identify_replay",
        measures={
            "test calibrated NLL": {"key": "test.calibrated_nll"},
            "test accuracy": {"key": "test.accuracy", "better": "higher"},
        },
    ),
    Command(
        name="compare",
        summary="compare schedules on paired seeds, with confidence intervals",
        handler=f"{_HANDLERS}:run_experiment",
        config=f"{_CONFIG}:CompareConfig",
        flags=f"{_FLAGS}:FolderFlags",
        first_flags=(
            "schedules",
            "num_seeds",
            "split",
            "preset",
            "output",
            "dry_run",
            *_TASK_FLAGS,
        ),
        takes_file=True,
        configs=("compare", "tasks"),
        preset=f"{_PRESET}:task_of_folder",
        run="automix.experiments.compare.run:compare",
        predict_cost="automix.experiments.compare.run:predict_cost",
        summarize="automix.experiments.compare.run:format_table",
        identify=f"{_CELL}:identify_compare",
    ),
    Command(
        name="rlmix",
        summary="learn RL-Mix's agent and compare it with rivals",
        handler=f"{_HANDLERS}:run_experiment",
        config=f"{_CONFIG}:RLMixRunConfig",
        flags=f"{_FLAGS}:RunFlags",
        first_flags=(
            "agent.episodes",
            "rlmix.reward",
            "schedules",
            "num_seeds",
            "seed",
            "output",
            "dry_run",
            *_TASK_FLAGS,
        ),
        takes_file=True,
        configs=("rlmix",),
        run="automix.experiments.rlmix.run:run_rlmix",
        predict_cost="automix.experiments.rlmix.run:predict_cost",
        summarize="automix.experiments.rlmix.run:format_result",
    ),
    # Only in sweeps: whether a search pays is a question for several of them.
    Command(
        name="search_and_compare",
        config=f"{_CONFIG}:SearchAndCompareConfig",
        run="automix.experiments.sweep.experiments:search_and_compare",
        predict_cost="automix.experiments.sweep.experiments:predict_search_and_compare_cost",
        identify=f"{_CELL}:identify_search_and_compare",
        measures={
            "test calibrated NLL of the learned schedule": {
                "key": ("means", "test", "learned", "calibrated_nll")
            },
            "gain over the best constant, test calibrated NLL": {
                "key": "gain.test.calibrated_nll",
                "better": "higher",
            },
            "test accuracy of the learned schedule": {
                "key": ("means", "test", "learned", "accuracy"),
                "better": "higher",
            },
        },
    ),
    Command(
        name="pretrain",
        summary="learn one policy over many tasks, for tasks that it has not seen",
        handler=f"{_HANDLERS}:run_experiment",
        config=f"{_CONFIG}:PretrainConfig",
        flags=f"{_FLAGS}:RunFlags",
        first_flags=(
            "output",
            "dry_run",
            "seed",
            "family.sources",
            "family.num_tasks",
            "family.num_classes",
            "family.labels_per_class",
            "random_runs",
            "agent.episodes",
            "validation_tasks",
        ),
        takes_file=True,
        configs=("pretrain",),
        run="automix.experiments.pretrain.run:pretrain",
        predict_cost="automix.experiments.pretrain.run:predict_cost",
        summarize="automix.experiments.pretrain.validation:summarize",
    ),
    Command(
        name="ablate",
        summary="run or resume a sweep of experiments",
        description="Run every cell of a sweep that has no result yet, and print its table. Parts "
        "of a sweep have commands of their own: automix ablate list, run-cell and table.",
        handler=f"{_HANDLERS}:run_sweep",
        flags="automix.configuration.sweep_flags:SweepFlags",
        positionals=_SWEEP,
        configs=SWEEPS,
    ),
    Command(
        name="ablate run-cell",
        description="Run one cell of a sweep in this process: for schedulers.",
        handler=f"{_HANDLERS}:run_cell",
        flags=f"{_FLAGS}:SweepFolderFlags",
        positionals={
            "CELL": "beginning of its identifier or of the hash in it, or @3 for the third cell",
            **_SWEEP,
        },
    ),
    Command(
        name="ablate list",
        description="Print identifier, state and settings of each cell of a sweep.",
        handler=f"{_HANDLERS}:list_sweep_cells",
        flags=f"{_FLAGS}:SweepFolderFlags",
        positionals=_SWEEP,
    ),
    Command(
        name="ablate table",
        description="Write and print the table of the finished cells of a sweep.",
        handler=f"{_HANDLERS}:write_sweep_table",
        flags=f"{_FLAGS}:SweepFolderFlags",
        positionals=_SWEEP,
    ),
    Command(
        name="evaluate",
        summary="evaluate a trained classifier: calibration, robustness",
        handler=f"{_HANDLERS}:run_evaluate",
        config="automix.experiments.evaluate.config:EvaluateConfig",
        flags="automix.experiments.evaluate.config:EvaluateFlags",
        first_flags=(
            "output",
            "dry_run",
            "tasks",
            "images",
            "data_path",
            "groups",
            "boxes",
            "corruptions.published",
            "attribution.runs",
            "seed",
        ),
        positionals={"RUN": "folder of a finished replay"},
        takes_file=True,
    ),
    Command(
        name="card",
        summary="write a model card for a classifier or a policy",
        handler=f"{_HANDLERS}:run_card",
        config=f"{_CONFIG}:CardConfig",
        flags=f"{_FLAGS}:CardFlags",
        positionals={"RUN": "folder of a finished replay or search"},
    ),
    Command(
        name="transfer",
        summary="compare rankings of operators on a proxy task and on the target",
        handler=f"{_HANDLERS}:run_experiment",
        config=f"{_CONFIG}:TransferConfig",
        flags=f"{_FLAGS}:RunFlags",
        first_flags=(
            "num_seeds",
            "environment.operators",
            "output",
            "dry_run",
            "proxy.data.path",
            "proxy.model.name",
            "proxy.trainer.epochs",
            "target.data.path",
            "target.model.name",
            "target.trainer.epochs",
        ),
        takes_file=True,
        configs=("transfer",),
        run="automix.experiments.search.transfer:transfer",
        predict_cost="automix.experiments.search.transfer:predict_cost",
        summarize="automix.experiments.search.transfer:format_findings",
    ),
    Command(
        name="report",
        summary="write an HTML report about the runs in a folder",
        description="Write FOLDER/report.html, one self-contained page about the runs in a folder.",
        handler=f"{_HANDLERS}:run_report",
        flags=f"{_FLAGS}:ReportFlags",
        positionals={"FOLDER": "folder of a run, or of several"},
    ),
    Command(
        name="show",
        summary="write contact sheets of each operator on your own images",
        handler=f"{_HANDLERS}:run_show",
        config=f"{_CONFIG}:ShowConfig",
        positionals={"FOLDER": "folder of images, searched at any depth"},
    ),
    Command(name="schedule", summary="show, plot, recommend or make a schedule file"),
    Command(
        name="schedule show",
        description="Print a schedule file, and draw it on request.",
        handler=f"{_HANDLERS}:show_schedule",
        flags=f"{_FLAGS}:PlotFlags",
        positionals={_SCHEDULE: "schedule to show"},
    ),
    Command(
        name="schedule recommend",
        description="Write the schedule to use where nothing was searched, and list those that "
        "ship.",
        handler=f"{_HANDLERS}:recommend_schedule",
        positionals={_SCHEDULE: "file to write"},
    ),
    Command(
        name="schedule make",
        description="Write a schedule file from a description.",
        handler=f"{_HANDLERS}:make_schedule",
        positionals={
            "DESCRIPTION": "none, portfolio:NAME, constant:OPERATOR[:STRENGTH[:PROBABILITY]], "
            "mixture:cutmix:1:0.5+mixup:1:0.3, mix_then_off:cutmix:2+mixup:2@0.875, "
            "in_turn:cutmix:2+mixup:2@0.875, strong_to_weak:cutmix@0.875, ramp:OPERATOR (often to "
            "never), random, shuffled:SCHEDULE.json, shuffled_before_end:SCHEDULE.json, or "
            "marginal_matched:SCHEDULE.json",
            _SCHEDULE: "file to write",
        },
    ),
    Command(name="config", summary="print the complete configuration of a command, list files"),
)

COMMANDS: Mapping[str, Command] = MappingProxyType(
    {command.name: command for command in _ENTRIES}
    | {
        f"config {command.name}": Command(
            name=f"config {command.name}",
            description="Print the complete configuration, defaults included, as YAML.",
            handler=f"{_HANDLERS}:print_config",
            config=command.config,
            takes_file=True,
            configs=command.configs,
            preset=command.preset,
            flags=f"{_FLAGS}:PresetFlags" if command.preset else command.flags,
            first_flags=tuple(name for name in command.first_flags if name not in _ONLY_OF_A_RUN),
        )
        for command in _ENTRIES
        if command.takes_file
    }
    | {_LIST.name: _LIST}
)
"""Commands by name, in the order of the help."""
