"""What each subcommand does with its words."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from automix.cli.arguments import parse_arguments
from automix.config import Config
from automix.errors import ConfigError
from automix.experiments.config import CompareConfig, ReplayConfig, SearchConfig, ShowConfig
from automix.plain_yaml import read_yaml

ConfigType = TypeVar("ConfigType", bound=Config)


class _RunFlags(Config):
    """Flags of commands that write a run folder."""

    output: Path | None = None
    """Folder of the run. An interrupted run in it is continued, a finished one is left alone."""

    dry_run: bool = False
    """Print what would be trained and how long it would take, and stop."""


class _SearchArguments(_RunFlags, SearchConfig):
    __doc__ = SearchConfig.__doc__


class _ReplayArguments(_RunFlags, ReplayConfig):
    __doc__ = ReplayConfig.__doc__


class _CompareArguments(_RunFlags, CompareConfig):
    __doc__ = CompareConfig.__doc__


def run_search(words: Sequence[str]) -> None:
    """``automix search [CONFIG.yaml] [flags]``."""
    arguments = _arguments(_SearchArguments, words, prog="automix search [CONFIG.yaml]")
    config = _without_run_flags(SearchConfig, arguments)
    from automix.experiments import search as experiment

    if arguments.dry_run:
        print(experiment.predict_cost(config).describe())
        return
    output = arguments.output or Path("runs") / f"search-{config.content_hash()}"
    result = experiment.search(config, output)
    print(f"selected: {result['selected']}")
    print(f"schedule: {output / experiment.SCHEDULE_NAME}")


def run_replay(words: Sequence[str]) -> None:
    """``automix replay SCHEDULE.json [CONFIG.yaml] [flags]``."""
    prog = "automix replay SCHEDULE.json [CONFIG.yaml]"
    files, flags = _leading_files(words, most=2)
    arguments = _parse(_ReplayArguments, files[1:], flags, prog=prog)
    if not files:
        raise ConfigError(f"{prog}: expected a schedule file, got none")
    config = _without_run_flags(ReplayConfig, arguments)
    from automix.experiments import replay as experiment
    from automix.schedule import Schedule

    schedule = Schedule.load(Path(files[0]))
    if arguments.dry_run:
        print(experiment.predict_cost(config, schedule).describe())
        return
    name = f"replay-{schedule.decision_hash()}-{config.content_hash()}"
    output = arguments.output or Path("runs") / name
    result = experiment.replay(config, schedule, output)
    test = result["test"]
    print(
        f"test: accuracy {test['accuracy']:.4f}, calibrated NLL {test['calibrated_nll']:.4f} nats, "
        f"NLL {test['nll']:.4f} nats on {test['num_images']} images"
    )
    print(f"result: {output / 'result.json'}")


def run_compare(words: Sequence[str]) -> None:
    """``automix compare [CONFIG.yaml] [flags]``."""
    arguments = _arguments(_CompareArguments, words, prog="automix compare [CONFIG.yaml]")
    config = _without_run_flags(CompareConfig, arguments)
    from automix.experiments import compare as experiment

    if arguments.dry_run:
        print(experiment.predict_cost(config).describe())
        return
    output = arguments.output or Path("runs") / f"compare-{config.content_hash()}"
    result = experiment.compare(config, output)
    print(experiment.format_table(result))
    print(f"result: {output / 'result.json'}")


def run_report(words: Sequence[str]) -> None:
    """``automix report FOLDER``."""
    if list(words[:1]) in (["-h"], ["--help"], []):
        print("usage: automix report FOLDER\n\nWrites FOLDER/report.html about the runs in FOLDER.")
        return
    if len(words) > 1:
        raise ConfigError(f"automix report: expected one folder, got {len(words)} words")
    from automix.experiments import report as experiment

    print(f"report: {experiment.write_report(Path(words[0]))}")


def run_show(words: Sequence[str]) -> None:
    """``automix show FOLDER [flags]``."""
    prog = "automix show FOLDER"
    files, flags = _leading_files(words, most=1)
    config = _parse(ShowConfig, [], flags, prog=prog)
    if not files:
        raise ConfigError(f"{prog}: expected a folder of images, got none")
    from automix.experiments import show as experiment

    for path in experiment.show(Path(files[0]), config):
        print(path)


def run_schedule(words: Sequence[str]) -> None:
    """``automix schedule show FILE [PLOT.png]`` and ``automix schedule make TEXT FILE``."""
    usage = "usage: automix schedule show FILE [--plot PLOT.png]\n"
    usage += "       automix schedule make DESCRIPTION FILE"
    if not words or words[0] in ("-h", "--help"):
        print(usage)
        print("\nDescriptions: none, constant:OPERATOR[:STRENGTH[:SHARE]], ramp:OPERATOR,")
        print("mix_then_off:OPERATOR, random, shuffled:FILE")
        return
    from automix.experiments import schedules as experiment

    match list(words):
        case ["show", file]:
            print(experiment.describe(Path(file)))
        case ["show", file, "--plot", plot]:
            print(experiment.describe(Path(file)))
            print(f"plot: {experiment.plot(Path(file), Path(plot))}")
        case ["make", text, file]:
            print(f"schedule: {experiment.make(text, Path(file))}")
        case _:
            raise ConfigError(f"automix schedule: expected {usage!r}, got {' '.join(words)!r}")


_CONFIGS: dict[str, type[Config]] = {
    "search": SearchConfig,
    "replay": ReplayConfig,
    "compare": CompareConfig,
}


def run_config(words: Sequence[str]) -> None:
    """``automix config COMMAND [CONFIG.yaml] [flags]``."""
    names = ", ".join(_CONFIGS)
    if not words or words[0] in ("-h", "--help"):
        print(f"usage: automix config COMMAND [CONFIG.yaml] [flags]\n\nCOMMAND: {names}.")
        print("Prints the complete configuration, defaults included, as YAML.")
        return
    if words[0] not in _CONFIGS:
        raise ConfigError(f"automix config: expected one of {names}, got {words[0]!r}")
    prog = f"automix config {words[0]} [CONFIG.yaml]"
    print(_arguments(_CONFIGS[words[0]], words[1:], prog=prog).to_yaml(), end="")


def _arguments(model: type[ConfigType], words: Sequence[str], *, prog: str) -> ConfigType:
    files, flags = _leading_files(words, most=1)
    return _parse(model, files, flags, prog=prog)


def _parse(
    model: type[ConfigType], files: Sequence[str], flags: Sequence[str], *, prog: str
) -> ConfigType:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    defaults: Any = {}
    if files:
        path = Path(files[0])
        defaults = read_yaml(path)
        defaults = {} if defaults is None else defaults
        model.from_mapping(defaults, source=str(path))
    return parse_arguments(model, flags, prog=prog, defaults=defaults)


def _leading_files(words: Sequence[str], *, most: int) -> tuple[list[str], list[str]]:
    """Return the words before the first flag, and the rest."""
    count = 0
    while count < len(words) and not words[count].startswith("-"):
        count += 1
    if count > most:
        raise ConfigError(f"expected at most {most} files before the flags, got {count}")
    return list(words[:count]), list(words[count:])


def _without_run_flags(model: type[ConfigType], arguments: Config) -> ConfigType:
    return model.model_validate(arguments.model_dump(exclude=set(_RunFlags.model_fields)))
