"""``automix compare``."""

from collections.abc import Sequence

from automix.cli.commands.common import RunFlags, run_output
from automix.cli.main import CONFIG_NAME, continued_by
from automix.configuration.arguments import Signature, read_arguments
from automix.experiments.config import CompareConfig

COMPARE = Signature(
    command="automix compare",
    summary=str(CompareConfig.__doc__),
    config=CompareConfig,
    flags=RunFlags,
    words={},
    takes_file=True,
)


def run(argv: Sequence[str]) -> None:
    """``automix compare [CONFIG.yaml] [flags]``."""
    arguments = read_arguments(COMPARE, argv)
    config = arguments.config
    output = run_output(arguments.flags, f"compare-{config.content_hash()}")
    from automix.experiments.compare import run as experiment

    if arguments.flags.dry_run:
        print(experiment.predict_cost(config).describe())
        return
    with continued_by(output, "compare", str(output / CONFIG_NAME)):
        result = experiment.compare(config, output)
    print(experiment.format_table(result))
    print(f"result: {output / 'result.json'}")
