"""Handlers of the commands: from their arguments to an experiment, and the lines to print.

An experiment takes seconds to import, so it is imported when it runs, after what can be refused
without it. Hence the imports inside the handlers.
"""

import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING

from automix.configuration.command import Command
from automix.errors import AutoMixError, ConfigError
from automix.escapes import one_line
from automix.experiments.commands import COMMANDS, SWEEPS
from automix.experiments.common.interruption import resumable
from automix.shipped_configs import (
    KINDS_OF_SECTIONS,
    config_file,
    first_sentence,
    shipped_configs,
)

if TYPE_CHECKING:
    from automix.configuration.arguments import Arguments
    from automix.configuration.task import ReplayConfig
    from automix.experiments.replay.deciders import ReplaySource
    from automix.experiments.sweep.run import Sweep

_LOG = logging.getLogger(__name__)
_FACTORY_FLAG = "--task.model.factory"
# A factory is code, which the files of a run cannot ask for.
_RESUME_FLAGS = ("--resume", _FACTORY_FLAG)


def _checked(output: Path) -> Path:
    """Refuse a file as output here, because the experiment takes seconds to import."""
    if output.exists() and not output.is_dir():
        raise ConfigError(f"--output: expected a folder, got the file {output}")
    return output


def run_experiment(command: Command, arguments: "Arguments") -> Iterator[str]:
    """Run an experiment that needs a configuration and nothing else."""
    config = arguments.config
    name = f"{command.name}-{config.content_hash()}"
    output = _checked(arguments.flags.output or Path("runs") / name)
    # At once: the experiment takes seconds to import.
    where = "a dry run" if arguments.flags.dry_run else f"results in {output}"
    of_images = "" if arguments.folder is None else f"images of {arguments.folder}, "
    _LOG.info("%s: %s%s", command.name, of_images, where)
    if arguments.folder is not None and config.task.data.augment.horizontal_flip:
        _LOG.info(
            "images are flipped left to right at random; for digits and text, add "
            "--task.data.augment.no-horizontal-flip"
        )
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


def run_replay(command: Command, arguments: "Arguments") -> Iterator[str]:
    flags = arguments.flags
    others = " ".join(name for name in arguments.flag_names if name not in _RESUME_FLAGS)
    if flags.resume is not None and others:
        raise ConfigError(f"--resume: expected nothing else beside it, got {others}")
    from automix.training.distributed import joined_world

    # Joined first: of the processes that train together, rank 0 alone logs and prints.
    with joined_world() as world:
        if not world.is_main:
            # Every process would say the same.
            logging.disable(logging.INFO)
        config, source, output = _replay_of(arguments)
        from automix.experiments.replay.final_test import summarize
        from automix.experiments.replay.run import predict_cost, replay

        if flags.dry_run:
            text = predict_cost(config, source).describe()
        else:
            named = config.task.model.factory
            resuming = ("--resume", str(output), *((_FACTORY_FLAG, named) if named else ()))
            with resumable(output, command.name, *resuming, launcher=_launcher()):
                result = replay(config, source, output)
            text = f"{summarize(result)}\nresult: {one_line(output / command.artifact)}"
        if world.is_main:
            yield text


def _replay_of(arguments: "Arguments") -> tuple["ReplayConfig", "ReplaySource", Path]:
    """Return the configuration, the schedule or policy to follow, and the folder of the run."""
    from automix.configuration.task import ReplayConfig
    from automix.experiments.common.saved_classifier import check_factory
    from automix.experiments.replay.deciders import ScheduleSource, follows_policy
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
        path = resumed / "config.yaml"
        resumed_config, named = ReplayConfig.from_yaml(path), config.task.model.factory
        check_factory(resumed_config.task.model, named, source=str(path), flag=_FACTORY_FLAG)
        return resumed_config, source, resumed
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


def run_evaluate(command: Command, arguments: "Arguments") -> Iterator[str]:
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


def run_card(_: Command, arguments: "Arguments") -> Iterator[str]:
    folder, flags = Path(arguments.positionals[0]), arguments.flags
    from automix.experiments.report.card import CARD_NAME, write_card

    output = flags.output or folder / CARD_NAME
    card = write_card(folder, arguments.config, output=output, overwrite=flags.overwrite)
    yield f"card: {one_line(card)}"


def run_report(_: Command, arguments: "Arguments") -> Iterator[str]:
    folder = Path(arguments.positionals[0])
    if arguments.flags.watch:
        from automix.experiments.report.watch import watch

        yield from (f"report: {one_line(page)}" for page in watch(folder))
        return
    _LOG.info("report: reading %s", arguments.positionals[0])
    from automix.experiments.report.run import write_report

    yield f"report: {one_line(write_report(folder))}"


def run_show(_: Command, arguments: "Arguments") -> Iterator[str]:
    from automix.experiments.show import show

    yield from map(one_line, show(Path(arguments.positionals[0]), arguments.config))


def show_schedule(_: Command, arguments: "Arguments") -> Iterator[str]:
    from automix.experiments.schedule_files import describe

    file, picture = Path(arguments.positionals[0]), arguments.flags.plot
    text = describe(file)
    if picture is not None:
        from automix.reporting.figures.schedule import write_schedule_picture

        # Nothing is printed when the drawing fails.
        text += f"\nplot: {one_line(write_schedule_picture(file, picture))}"
    yield text


def recommend_schedule(_: Command, arguments: "Arguments") -> Iterator[str]:
    from automix.experiments.schedule_files import recommend

    yield from recommend(Path(arguments.positionals[0]))


def make_schedule(_: Command, arguments: "Arguments") -> Iterator[str]:
    from automix.experiments.compare.schedule_specs import make

    description, file = arguments.positionals
    yield f"schedule: {one_line(make(description, Path(file)))}"


def print_config(_: Command, arguments: "Arguments") -> Iterator[str]:
    yield arguments.config.to_yaml().removesuffix("\n")


def list_configs(_: Command, arguments: "Arguments") -> Iterator[str]:
    yield "Files that ship; a file on the disk of the same name comes first."
    listed = [one for one in COMMANDS.values() if one.summary and one.configs]
    named = {f"automix {one.name}": one.configs for one in listed}
    sections = {f"automix search --{name}": kinds for name, kinds in KINDS_OF_SECTIONS.items()}
    for usage, kinds in (named | sections).items():
        yield f"\n{usage}"
        files = shipped_configs(kinds)
        width = max(map(len, files))
        yield from (f"  {name:<{width}}  {first_sentence(file)}" for name, file in files.items())


def run_sweep(command: Command, arguments: "Arguments") -> Iterator[str]:
    flags = arguments.flags
    sweep = _load_sweep(arguments.positionals[0], flags.output)
    from automix.experiments.sweep import run as experiment

    if flags.dry_run:
        num_workers = min(flags.workers, len(flags.devices) or flags.workers)
        yield from experiment.predict(sweep, num_workers=num_workers)
        return
    again = [str(sweep.path), f"--workers={flags.workers}"]
    again += ["--devices", *flags.devices] if flags.devices else []
    again += [
        f"--compute.{name.replace('_', '-')}={value}"
        for name, value in flags.compute.model_dump(exclude_unset=True).items()
    ]
    with resumable(sweep.folder, command.name, *again, mark=experiment.SWEEP_NAME):
        compute = flags.compute.model_copy(update={"workers": flags.workers})
        outcome = experiment.run_all(sweep, compute=compute, devices=flags.devices)
    # A failed cell does not stop the others: the table of the rest comes before the error.
    for identifier, reason in outcome.failed.items():
        yield f"failed: {identifier}: {one_line(reason)}"
    yield from _sweep_table(sweep)
    if outcome.failed:
        raise AutoMixError(
            f"{sweep.folder}: expected every cell to finish, got {len(outcome.failed)} of "
            f"{len(sweep.cells)} that failed: {', '.join(outcome.failed)}"
        )


def run_cell(command: Command, arguments: "Arguments") -> Iterator[str]:
    beginning, file = arguments.positionals
    sweep = _load_sweep(file, arguments.flags.output)
    from automix.experiments.sweep.run import run_one

    with resumable(sweep.folder, *command.name.split(), beginning, file, mark=None):
        cell = run_one(sweep, beginning)
    yield f"finished: {cell.identifier}"


def list_sweep_cells(_: Command, arguments: "Arguments") -> Iterator[str]:
    sweep = _load_sweep(arguments.positionals[0], arguments.flags.output)
    from automix.experiments.sweep.run import list_cells

    yield list_cells(sweep)


def write_sweep_table(_: Command, arguments: "Arguments") -> Iterator[str]:
    yield from _sweep_table(_load_sweep(arguments.positionals[0], arguments.flags.output))


def _sweep_table(sweep: "Sweep") -> Iterator[str]:
    from automix.experiments.sweep.run import save_table

    yield save_table(sweep)
    yield f"table: {one_line(sweep.folder / 'table.json')}"


def _load_sweep(file: str, output: Path | None) -> "Sweep":
    path = config_file(file, SWEEPS)
    folder = _checked(output or Path("runs") / f"ablate-{path.stem}")
    from automix.experiments.sweep.run import load_sweep

    return load_sweep(path, folder, COMMANDS)
