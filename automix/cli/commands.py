"""What each subcommand takes, and what it does with it."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from automix.cli.arguments import NoFlags, Signature, read_arguments
from automix.cli.interruption import CONFIG_NAME, continued_by
from automix.config import Config
from automix.errors import ConfigError
from automix.experiments.config import CompareConfig, ReplayConfig, SearchConfig, ShowConfig
from automix.messages import did_you_mean

_SCHEDULE_WORD = "SCHEDULE.json"


class RunFlags(Config):
    """Flags of commands that write a run folder."""

    output: Path | None = None
    """Folder of the run; by default one in runs/ that is named after the configuration. An
    interrupted run in it is continued, a finished one is left alone."""

    dry_run: bool = False
    """Print what would be trained and about how long it would take, and stop."""


class PlotFlags(Config):
    """Flags of ``automix schedule show``."""

    plot: Path | None = None
    """PNG file to draw the schedule to. Default: no drawing."""


SEARCH = Signature(
    command="automix search",
    summary=str(SearchConfig.__doc__),
    config=SearchConfig,
    flags=RunFlags,
    words={},
    takes_file=True,
)
REPLAY = Signature(
    command="automix replay",
    summary=str(ReplayConfig.__doc__),
    config=ReplayConfig,
    flags=RunFlags,
    words={_SCHEDULE_WORD: "schedule to follow, such as a search writes"},
    takes_file=True,
)
COMPARE = Signature(
    command="automix compare",
    summary=str(CompareConfig.__doc__),
    config=CompareConfig,
    flags=RunFlags,
    words={},
    takes_file=True,
)
REPORT = Signature(
    command="automix report",
    summary="Write FOLDER/report.html, one self-contained page about the runs in a folder.",
    config=NoFlags,
    flags=NoFlags,
    words={"FOLDER": "folder of a run, or of several"},
)
SHOW = Signature(
    command="automix show",
    summary=str(ShowConfig.__doc__),
    config=ShowConfig,
    flags=NoFlags,
    words={"FOLDER": "folder of images, searched at any depth"},
)
SCHEDULE_SHOW = Signature(
    command="automix schedule show",
    summary="Print a schedule file, and draw it on request.",
    config=NoFlags,
    flags=PlotFlags,
    words={_SCHEDULE_WORD: "schedule to show"},
)
SCHEDULE_MAKE = Signature(
    command="automix schedule make",
    summary="Write a schedule file from a description.",
    config=NoFlags,
    flags=NoFlags,
    words={
        "DESCRIPTION": "none, constant:OPERATOR[:STRENGTH[:SHARE]], ramp:OPERATOR (strong to weak),"
        " mix_then_off:OPERATOR, random, or shuffled:SCHEDULE.json",
        _SCHEDULE_WORD: "file to write",
    },
)
CONFIGS: Mapping[str, Signature[Any, NoFlags]] = MappingProxyType(
    {
        signature.command.rpartition(" ")[2]: Signature(
            command=signature.command.replace("automix", "automix config"),
            summary="Print the complete configuration, defaults included, as YAML.",
            config=signature.config,
            flags=NoFlags,
            words={},
            takes_file=True,
        )
        for signature in (SEARCH, REPLAY, COMPARE)
    }
)


def run_search(argv: Sequence[str]) -> None:
    """``automix search [CONFIG.yaml] [flags]``."""
    arguments = read_arguments(SEARCH, argv)
    config = arguments.config
    output = _output(arguments.flags, f"search-{config.content_hash()}")
    from automix.experiments import search as experiment

    if arguments.flags.dry_run:
        print(experiment.predict_cost(config).describe())
        return
    with continued_by(output, "search", str(output / CONFIG_NAME)):
        result = experiment.search(config, output)
    print(f"selected: {result['selected']}")
    print(f"schedule: {output / experiment.SCHEDULE_NAME}")


def run_replay(argv: Sequence[str]) -> None:
    """``automix replay SCHEDULE.json [CONFIG.yaml] [flags]``."""
    arguments = read_arguments(REPLAY, argv)
    config = arguments.config
    from automix.schedule import Schedule

    schedule = Schedule.load(Path(arguments.words[0]))
    name = f"replay-{schedule.decision_hash()}-{config.content_hash()}"
    output = _output(arguments.flags, name)
    from automix.experiments import replay as experiment

    if arguments.flags.dry_run:
        print(experiment.predict_cost(config, schedule).describe())
        return
    with continued_by(output, "replay", arguments.words[0], str(output / CONFIG_NAME)):
        result = experiment.replay(config, schedule, output)
    test = result["test"]
    print(
        f"test: accuracy {test['accuracy']:.4f}, calibrated NLL {test['calibrated_nll']:.4f} nats, "
        f"NLL {test['nll']:.4f} nats on {test['num_images']} images"
    )
    print(f"result: {output / 'result.json'}")


def run_compare(argv: Sequence[str]) -> None:
    """``automix compare [CONFIG.yaml] [flags]``."""
    arguments = read_arguments(COMPARE, argv)
    config = arguments.config
    output = _output(arguments.flags, f"compare-{config.content_hash()}")
    from automix.experiments import compare as experiment

    if arguments.flags.dry_run:
        print(experiment.predict_cost(config).describe())
        return
    with continued_by(output, "compare", str(output / CONFIG_NAME)):
        result = experiment.compare(config, output)
    print(experiment.format_table(result))
    print(f"result: {output / 'result.json'}")


def run_report(argv: Sequence[str]) -> None:
    """``automix report FOLDER``."""
    arguments = read_arguments(REPORT, argv)
    from automix.experiments import report as experiment

    print(f"report: {experiment.write_report(Path(arguments.words[0]))}")


def run_show(argv: Sequence[str]) -> None:
    """``automix show FOLDER [flags]``."""
    arguments = read_arguments(SHOW, argv)
    from automix.experiments import show as experiment

    for path in experiment.show(Path(arguments.words[0]), arguments.config):
        print(path)


def run_schedule(argv: Sequence[str]) -> None:
    """``automix schedule show FILE`` and ``automix schedule make DESCRIPTION FILE``."""
    commands = {"show": _show_schedule, "make": _make_schedule}
    _dispatch(argv, commands, (SCHEDULE_SHOW, SCHEDULE_MAKE))


def run_config(argv: Sequence[str]) -> None:
    """``automix config COMMAND [CONFIG.yaml] [flags]``."""
    commands = {name: _printer(signature) for name, signature in CONFIGS.items()}
    _dispatch(argv, commands, tuple(CONFIGS.values()))


def _show_schedule(argv: Sequence[str]) -> None:
    arguments = read_arguments(SCHEDULE_SHOW, argv)
    from automix.experiments import schedules as experiment

    file, picture = Path(arguments.words[0]), arguments.flags.plot
    text = experiment.describe(file)
    if picture is not None:
        text += f"\nplot: {experiment.plot(file, picture)}"
    print(text)


def _make_schedule(argv: Sequence[str]) -> None:
    description, file = read_arguments(SCHEDULE_MAKE, argv).words
    from automix.experiments import schedules as experiment

    print(f"schedule: {experiment.make(description, Path(file))}")


def _printer(signature: Signature[Any, NoFlags]) -> Callable[[Sequence[str]], None]:
    def print_config(argv: Sequence[str]) -> None:
        print(read_arguments(signature, argv).config.to_yaml(), end="")

    return print_config


def _dispatch(
    argv: Sequence[str],
    commands: Mapping[str, Callable[[Sequence[str]], None]],
    signatures: Sequence[Signature[Any, Any]],
) -> None:
    """Run the command that the first word names.

    Raises:
        ConfigError: there is none of that name.
    """
    if not argv or argv[0] in ("-h", "--help"):
        usages = [f"{signature.usage} [OPTIONS]" for signature in signatures]
        print("usage: " + "\n       ".join(usages))
        print("\nEach explains its words and fields with --help.")
        return
    if argv[0] not in commands:
        group = signatures[0].command.rpartition(" ")[0]
        raise ConfigError(
            f"{group}: expected one of {', '.join(commands)}, got {argv[0]!r}"
            f"{did_you_mean(argv[0], commands)}"
        )
    commands[argv[0]](argv[1:])


def _output(flags: RunFlags, name: str) -> Path:
    """Return the folder of the run; refused here, because the experiment takes seconds to load.

    Raises:
        ConfigError: there is a file of that name.
    """
    output = flags.output or Path("runs") / name
    if output.exists() and not output.is_dir():
        raise ConfigError(f"--output: expected a folder, got the file {output}")
    return output
