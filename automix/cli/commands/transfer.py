"""``automix transfer``."""

from collections.abc import Sequence

from automix.cli.commands.common import RunFlags, run_output
from automix.cli.main import CONFIG_NAME, continued_by
from automix.configuration.arguments import Signature, read_arguments
from automix.experiments.config import TransferConfig

TRANSFER = Signature(
    command="automix transfer",
    summary=str(TransferConfig.__doc__),
    config=TransferConfig,
    flags=RunFlags,
    words={},
    takes_file=True,
)


def run(argv: Sequence[str]) -> None:
    """``automix transfer [CONFIG.yaml] [flags]``."""
    arguments = read_arguments(TRANSFER, argv)
    config = arguments.config
    output = run_output(arguments.flags, f"transfer-{config.content_hash()}")
    from automix.experiments.compare import transfer as experiment

    if arguments.flags.dry_run:
        for name, cost in zip(("proxy", "target"), experiment.predict_cost(config), strict=True):
            print(f"{name}: {cost.describe()}")
        return
    with continued_by(output, "transfer", str(output / CONFIG_NAME)):
        result = experiment.transfer(config, output)
    print(experiment.format_findings(result))
    print(f"result: {output / 'result.json'}")
