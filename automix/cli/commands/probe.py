"""``automix probe``."""

from collections.abc import Sequence

from automix.cli.commands.common import RunFlags, run_output
from automix.cli.main import CONFIG_NAME, continued_by
from automix.configuration.arguments import Signature, read_arguments
from automix.experiments.config import ProbeConfig

PROBE = Signature(
    command="automix probe",
    summary=str(ProbeConfig.__doc__),
    config=ProbeConfig,
    flags=RunFlags,
    words={},
    takes_file=True,
)


def run(argv: Sequence[str]) -> None:
    """``automix probe [CONFIG.yaml] [flags]``."""
    arguments = read_arguments(PROBE, argv)
    config = arguments.config
    output = run_output(arguments.flags, f"probe-{config.content_hash()}")
    from automix.experiments.search import probe as experiment
    from automix.experiments.search.probe import format_findings

    if arguments.flags.dry_run:
        print(experiment.predict_cost(config).describe())
        return
    with continued_by(output, "probe", str(output / CONFIG_NAME)):
        result = experiment.probe(config, output)
    print(format_findings(result))
    print(f"result: {output / 'result.json'}")
