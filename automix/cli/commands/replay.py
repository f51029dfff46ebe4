"""``automix replay``."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from automix.cli.commands.common import SCHEDULE_WORD, RunFlags, run_output
from automix.cli.main import CONFIG_NAME, continued_by
from automix.configuration.arguments import Arguments, Signature, read_arguments
from automix.errors import ConfigError
from automix.experiments.common.config import ReplayConfig

if TYPE_CHECKING:
    from automix.experiments.replay.run import ReplaySource


class ReplayFlags(RunFlags):
    """Flags of ``automix replay``."""

    policy: Path | None = None
    """Instead of a schedule: the folder of a search, whose policy then decides before every segment
    by what it sees of this training run. The reward split that it looks at is not trained on. What
    it decided is written as schedule.json."""

    resume: Path | None = None
    """Instead of everything else: the folder of an interrupted replay, which is continued bit for
    bit, on as many processes as it was begun with."""


REPLAY = Signature(
    command="automix replay",
    summary=str(ReplayConfig.__doc__),
    config=ReplayConfig,
    flags=ReplayFlags,
    words={SCHEDULE_WORD: "schedule to follow, such as a search writes"},
    takes_file=True,
    instead={"policy": True, "resume": False},
)


def run(argv: Sequence[str]) -> None:
    """``automix replay SCHEDULE.json [CONFIG.yaml] [flags]``."""
    arguments = read_arguments(REPLAY, argv)
    flags = arguments.flags
    if flags.resume is not None and len(arguments.given) > 1:
        others = " ".join(name for name in arguments.given if name != "--resume")
        raise ConfigError(f"--resume: expected nothing else beside it, got {others}")
    from automix.training.distributed import joined_world

    with joined_world() as world:
        if not world.is_main:
            # What every process would say.
            logging.disable(logging.INFO)
        result = _replay(arguments)
        if result is not None and world.is_main:
            print(result)


def _replay(arguments: Arguments[ReplayConfig, ReplayFlags]) -> str | None:
    """Do what was asked for; return what to print."""
    config, source, output = _what_to_do(arguments)
    from automix.experiments.replay import run as experiment

    if arguments.flags.dry_run:
        return experiment.predict_cost(config, source).describe()
    with continued_by(output, "replay", "--resume", str(output), launcher=_launcher()):
        result = experiment.replay(config, source, output)
    return f"{_described(result['test'])}\nresult: {output / 'result.json'}"


def _what_to_do(
    arguments: Arguments[ReplayConfig, ReplayFlags],
) -> tuple[ReplayConfig, "ReplaySource", Path]:
    """Return the configuration, what is followed, and the folder of the run."""
    flags, config = arguments.flags, arguments.config
    from automix.experiments.replay.run import ScheduleSource, source_in

    source: ReplaySource
    if flags.resume is not None:
        source = source_in(flags.resume)
        return ReplayConfig.from_yaml(flags.resume / CONFIG_NAME), source, flags.resume
    if flags.policy is not None:
        from automix.experiments.replay.policy import PolicySource

        source = PolicySource.load(flags.policy)
    else:
        from automix.schedule import Schedule

        source = ScheduleSource(Schedule.load(Path(arguments.words[0])))
    (followed,) = source.identity.values()
    return config, source, run_output(flags, f"replay-{followed}-{config.content_hash()}")


def _launcher() -> str:
    """Return the command that starts as many processes as these."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return "automix"
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    nodes = "" if size == local else f" --nnodes={size // local} ..."
    return f"torchrun{nodes} --nproc-per-node={local} -m automix"


def _described(test: dict[str, Any]) -> str:
    return (
        f"test: accuracy {test['accuracy']:.4f}, calibrated NLL {test['calibrated_nll']:.4f} nats, "
        f"NLL {test['nll']:.4f} nats on {test['num_images']} images"
    )
