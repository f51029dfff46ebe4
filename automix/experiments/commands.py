"""The one table of commands: the command line, its help and sweeps all read it.

Free of torch and pydantic. `automix --help` needs the names only, help of a command its
configuration too; an experiment, which takes seconds to import, is imported when it runs. Hence the
imports inside the handlers, and functions named as ``module:name``.
"""

import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from pkgutil import resolve_name
from types import MappingProxyType
from typing import TYPE_CHECKING

from automix.configuration.command import Command
from automix.errors import AutoMixError, ConfigError
from automix.escapes import one_line
from automix.experiments.common.interruption import resumable
from automix.shipped_configs import config_file, first_sentence, shipped_configs

if TYPE_CHECKING:
    from automix.configuration.arguments import Arguments
    from automix.configuration.task import ReplayConfig
    from automix.experiments.replay.run import ReplaySource
    from automix.experiments.sweep.run import Sweep


_LOG = logging.getLogger(__name__)


def _checked(output: Path) -> Path:
    """Refuse a file as output here, because the experiment takes seconds to import."""
    if output.exists() and not output.is_dir():
        raise ConfigError(f"--output: expected a folder, got the file {output}")
    return output


def _run_experiment(command: Command, arguments: "Arguments") -> Iterator[str]:
    """Run an experiment that needs a configuration and nothing else."""
    config = arguments.config
    name = f"{command.name}-{config.content_hash()}"
    output = _checked(arguments.flags.output or Path("runs") / name)
    if arguments.folder is not None:
        # At once: the experiment takes seconds to import.
        where = "a dry run" if arguments.flags.dry_run else f"results in {output}"
        _LOG.info("%s: images of %s, %s", command.name, arguments.folder, where)
    run, predict_cost = resolve_name(command.run), resolve_name(command.predict_cost)
    if arguments.flags.dry_run:
        cost = predict_cost(config)
        costs = cost if isinstance(cost, Mapping) else {"": cost}
        for task, estimate in costs.items():
            yield f"{task}: {estimate.describe()}" if task else estimate.describe()
        return
    with resumable(output, command.name, str(output / "config.yaml")):
        result = run(config, output)
    yield resolve_name(command.summarize)(result)
    # The last line names the file that the next command takes.
    artifact = output / command.artifact
    yield f"{artifact.stem}: {one_line(artifact)}"


def _replay(command: Command, arguments: "Arguments") -> Iterator[str]:
    flags = arguments.flags
    if flags.resume is not None and len(arguments.flag_names) > 1:
        others = " ".join(name for name in arguments.flag_names if name != "--resume")
        raise ConfigError(f"--resume: expected nothing else beside it, got {others}")
    from automix.training.distributed import joined_world

    # Joined first: of the processes that train together, rank 0 alone logs and prints.
    with joined_world() as world:
        if not world.is_main:
            # Every process would say the same.
            logging.disable(logging.INFO)
        config, source, output = _replay_of(arguments)
        from automix.experiments.replay.run import predict_cost, replay

        if flags.dry_run:
            text = predict_cost(config, source).describe()
        else:
            with resumable(output, command.name, "--resume", str(output), launcher=_launcher()):
                test = replay(config, source, output)["test"]
            text = (
                f"test: accuracy {test['accuracy']:.4f}, "
                f"calibrated NLL {test['calibrated_nll']:.4f} nats, "
                f"NLL {test['nll']:.4f} nats on {test['num_images']} images\n"
                f"result: {one_line(output / command.artifact)}"
            )
        if world.is_main:
            yield text


def _replay_of(arguments: "Arguments") -> tuple["ReplayConfig", "ReplaySource", Path]:
    """Return the configuration, the schedule or policy to follow, and the folder of the run."""
    from automix.configuration.task import ReplayConfig
    from automix.experiments.replay.run import ScheduleSource, follows_policy
    from automix.schedule import Schedule

    flags, config, resumed = arguments.flags, arguments.config, arguments.flags.resume
    policy = resumed if resumed is not None and follows_policy(resumed) else flags.policy
    source: ReplaySource
    if policy is not None:
        # Only here: it imports Gymnasium and Stable-Baselines3, which takes seconds.
        from automix.experiments.replay.policy import PolicySource

        source = PolicySource.load(policy)
    elif resumed is not None:
        source = ScheduleSource.of_run(resumed)
    else:
        source = ScheduleSource(Schedule.load(Path(arguments.positionals[0])))
    if resumed is not None:
        return ReplayConfig.from_yaml(resumed / "config.yaml"), source, resumed
    # Two schedules under one configuration are two runs.
    (followed,) = source.identity.values()
    name = f"replay-{followed}-{config.content_hash()}"
    return config, source, _checked(flags.output or Path("runs") / name)


def _launcher() -> str:
    """Return the command that starts as many processes as torchrun started here."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return "automix"
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    nodes = "" if size == local else f" --nnodes={size // local} ..."
    return f"torchrun{nodes} --nproc-per-node={local} -m automix"


def _evaluate(command: Command, arguments: "Arguments") -> Iterator[str]:
    config, folder = arguments.config, Path(arguments.positionals[0])
    output = _checked(arguments.flags.output or folder / f"evaluation-{config.content_hash()}")
    from automix.experiments.evaluate import run as experiment

    if arguments.flags.dry_run:
        yield experiment.predict_cost(config, folder)
        return
    with resumable(output, command.name, str(folder), str(output / "config.yaml")):
        result = experiment.evaluate(config, folder, output)
    yield experiment.summarize_evaluation(result)
    yield f"result: {one_line(output / command.artifact)}"


def _write_card(_: Command, arguments: "Arguments") -> Iterator[str]:
    folder, flags = Path(arguments.positionals[0]), arguments.flags
    from automix.experiments.report.card import CARD_NAME, write_card

    output = flags.output or folder / CARD_NAME
    card = write_card(folder, arguments.config, output=output, overwrite=flags.overwrite)
    yield f"card: {one_line(card)}"


def _write_report(_: Command, arguments: "Arguments") -> Iterator[str]:
    from automix.experiments.report.run import write_report

    yield f"report: {one_line(write_report(Path(arguments.positionals[0])))}"


def _show(_: Command, arguments: "Arguments") -> Iterator[str]:
    from automix.experiments.show import show

    yield from map(one_line, show(Path(arguments.positionals[0]), arguments.config))


def _show_schedule(_: Command, arguments: "Arguments") -> Iterator[str]:
    from automix.experiments.schedule_files import describe

    file, picture = Path(arguments.positionals[0]), arguments.flags.plot
    text = describe(file)
    if picture is not None:
        from automix.reporting.figures.schedule import write_schedule_picture

        # Nothing is printed when the drawing fails.
        text += f"\nplot: {one_line(write_schedule_picture(file, picture))}"
    yield text


def _recommend_schedule(_: Command, arguments: "Arguments") -> Iterator[str]:
    from automix.experiments.schedule_files import recommend

    yield from recommend(Path(arguments.positionals[0]))


def _make_schedule(_: Command, arguments: "Arguments") -> Iterator[str]:
    from automix.experiments.compare.schedule_specs import make

    description, file = arguments.positionals
    yield f"schedule: {one_line(make(description, Path(file)))}"


def _print_config(_: Command, arguments: "Arguments") -> Iterator[str]:
    yield arguments.config.to_yaml().removesuffix("\n")


def _list_configs(_: Command, arguments: "Arguments") -> Iterator[str]:
    yield "Files that ship; a file on the disk of the same name comes first."
    named = {f"automix {command.name}": command.configs for command in _ENTRIES if command.configs}
    for usage, kinds in (named | {"automix search --agent": ("agent",)}).items():
        yield f"\n{usage}"
        files = shipped_configs(kinds)
        width = max(map(len, files))
        yield from (f"  {name:<{width}}  {first_sentence(file)}" for name, file in files.items())


def _run_sweep(command: Command, arguments: "Arguments") -> Iterator[str]:
    flags = arguments.flags
    sweep = _load_sweep(arguments.positionals[0], flags.output)
    from automix.experiments.sweep import run as experiment

    if flags.dry_run:
        num_workers = min(flags.workers, len(flags.devices) or flags.workers)
        yield from experiment.predict(sweep, num_workers=num_workers)
        return
    again = [str(sweep.path), f"--workers={flags.workers}"]
    again += ["--devices", *flags.devices] if flags.devices else []
    with resumable(sweep.folder, command.name, *again, mark=experiment.SWEEP_NAME):
        outcome = experiment.run_all(sweep, num_workers=flags.workers, devices=flags.devices)
    # A failed cell does not stop the others: the table of the rest comes before the error.
    for identifier, reason in outcome.failed.items():
        yield f"failed: {identifier}: {one_line(reason)}"
    yield from _sweep_table(sweep)
    if outcome.failed:
        raise AutoMixError(
            f"{sweep.folder}: expected every cell to finish, got {len(outcome.failed)} of "
            f"{len(sweep.cells)} that failed: {', '.join(outcome.failed)}"
        )


def _run_cell(command: Command, arguments: "Arguments") -> Iterator[str]:
    beginning, file = arguments.positionals
    sweep = _load_sweep(file, arguments.flags.output)
    from automix.experiments.sweep.run import run_one

    with resumable(sweep.folder, *command.name.split(), beginning, file, mark=None):
        cell = run_one(sweep, beginning)
    yield f"finished: {cell.identifier}"


def _list_cells(_: Command, arguments: "Arguments") -> Iterator[str]:
    sweep = _load_sweep(arguments.positionals[0], arguments.flags.output)
    from automix.experiments.sweep.run import list_cells

    yield list_cells(sweep)


def _write_table(_: Command, arguments: "Arguments") -> Iterator[str]:
    yield from _sweep_table(_load_sweep(arguments.positionals[0], arguments.flags.output))


def _sweep_table(sweep: "Sweep") -> Iterator[str]:
    from automix.experiments.sweep.run import save_table

    yield save_table(sweep)
    yield f"table: {one_line(sweep.folder / 'table.json')}"


def _load_sweep(file: str, output: Path | None) -> "Sweep":
    path = config_file(file, _SWEEPS)
    folder = _checked(output or Path("runs") / f"ablate-{path.stem}")
    from automix.experiments.sweep.run import load_sweep

    return load_sweep(path, folder, COMMANDS)


_LIST = Command(
    name="config list",
    description="List the configurations and sweeps that ship.",
    handler=_list_configs,
)
_CONFIG = "automix.experiments.config"
# Apart, so that a replay imports neither environments nor agents.
_COMMON = "automix.configuration.task"
_CELL = "automix.experiments.sweep.experiments"
_PRESET = "automix.experiments.common.folder_preset"
_SCHEDULE = "SCHEDULE.json"
_SWEEPS = ("ablation",)
_SWEEP = {
    "SWEEP.yaml": "a base configuration, variants and a grid, or the name of a sweep that ships, "
    "see `automix config list`"
}

# In the order of the help.
_ENTRIES = (
    Command(
        name="search",
        summary="find a mixing schedule within a budget, and say whether it pays",
        handler=_run_experiment,
        config=f"{_CONFIG}:SearchConfig",
        flags=f"{_COMMON}:RunFlags",
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
        handler=_replay,
        config=f"{_COMMON}:ReplayConfig",
        flags=f"{_COMMON}:ReplayFlags",
        positionals={_SCHEDULE: "schedule to follow, such as a search writes"},
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
        handler=_run_experiment,
        config=f"{_CONFIG}:CompareConfig",
        flags=f"{_COMMON}:RunFlags",
        takes_file=True,
        configs=("compare", "tasks"),
        preset=f"{_PRESET}:task_of_folder",
        run="automix.experiments.compare.run:compare",
        predict_cost="automix.experiments.compare.run:predict_cost",
        summarize="automix.experiments.compare.run:format_table",
        identify=f"{_CELL}:identify_compare",
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
        name="ablate",
        summary="run or resume a sweep of experiments",
        description="Run every cell of a sweep that has no result yet, and print its table. Parts "
        "of a sweep have commands of their own: automix ablate list, run-cell and table.",
        handler=_run_sweep,
        flags=f"{_CONFIG}:SweepFlags",
        positionals=_SWEEP,
        configs=_SWEEPS,
    ),
    Command(
        name="ablate run-cell",
        description="Run one cell of a sweep in this process: for schedulers.",
        handler=_run_cell,
        flags=f"{_CONFIG}:SweepFolderFlags",
        positionals={
            "CELL": "beginning of its identifier or of the hash in it, or @3 for the third cell",
            **_SWEEP,
        },
    ),
    Command(
        name="ablate list",
        description="Print identifier, state and settings of each cell of a sweep.",
        handler=_list_cells,
        flags=f"{_CONFIG}:SweepFolderFlags",
        positionals=_SWEEP,
    ),
    Command(
        name="ablate table",
        description="Write and print the table of the finished cells of a sweep.",
        handler=_write_table,
        flags=f"{_CONFIG}:SweepFolderFlags",
        positionals=_SWEEP,
    ),
    Command(
        name="evaluate",
        summary="evaluate a trained classifier: calibration, robustness",
        handler=_evaluate,
        config="automix.experiments.evaluate.config:EvaluateConfig",
        flags="automix.experiments.evaluate.config:EvaluateFlags",
        positionals={"RUN": "folder of a finished replay"},
        takes_file=True,
    ),
    Command(
        name="card",
        summary="write a model card for a classifier or a policy",
        handler=_write_card,
        config=f"{_CONFIG}:CardConfig",
        flags=f"{_CONFIG}:CardFlags",
        positionals={"RUN": "folder of a finished replay or search"},
    ),
    Command(
        name="transfer",
        summary="compare rankings of operators on a proxy task and on the target",
        handler=_run_experiment,
        config=f"{_CONFIG}:TransferConfig",
        flags=f"{_COMMON}:RunFlags",
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
        handler=_write_report,
        positionals={"FOLDER": "folder of a run, or of several"},
    ),
    Command(
        name="show",
        summary="write contact sheets of each operator on your own images",
        handler=_show,
        config=f"{_CONFIG}:ShowConfig",
        positionals={"FOLDER": "folder of images, searched at any depth"},
    ),
    Command(name="schedule", summary="show, plot, recommend or make a schedule file"),
    Command(
        name="schedule show",
        description="Print a schedule file, and draw it on request.",
        handler=_show_schedule,
        flags=f"{_CONFIG}:PlotFlags",
        positionals={_SCHEDULE: "schedule to show"},
    ),
    Command(
        name="schedule recommend",
        description="Write the schedule to use where nothing was searched, and list those that "
        "ship.",
        handler=_recommend_schedule,
        positionals={_SCHEDULE: "file to write"},
    ),
    Command(
        name="schedule make",
        description="Write a schedule file from a description.",
        handler=_make_schedule,
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
            handler=_print_config,
            config=command.config,
            takes_file=True,
            configs=command.configs,
            preset=command.preset,
        )
        for command in _ENTRIES
        if command.takes_file
    }
    | {_LIST.name: _LIST}
)
"""Commands by name, in the order of the help."""
