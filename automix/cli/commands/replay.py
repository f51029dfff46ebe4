"""``automix replay``."""

from collections.abc import Sequence
from pathlib import Path

from automix.cli.arguments import Signature, read_arguments
from automix.cli.commands.common import SCHEDULE_WORD, RunFlags, run_output
from automix.cli.interruption import CONFIG_NAME, continued_by
from automix.experiments.config import ReplayConfig

REPLAY = Signature(
    command="automix replay",
    summary=str(ReplayConfig.__doc__),
    config=ReplayConfig,
    flags=RunFlags,
    words={SCHEDULE_WORD: "schedule to follow, such as a search writes"},
    takes_file=True,
)


def run(argv: Sequence[str]) -> None:
    """``automix replay SCHEDULE.json [CONFIG.yaml] [flags]``."""
    arguments = read_arguments(REPLAY, argv)
    config = arguments.config
    from automix.schedule import Schedule

    schedule = Schedule.load(Path(arguments.words[0]))
    name = f"replay-{schedule.decision_hash()}-{config.content_hash()}"
    output = run_output(arguments.flags, name)
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
