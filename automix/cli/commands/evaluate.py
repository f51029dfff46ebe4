"""``automix evaluate``."""

from collections.abc import Sequence
from pathlib import Path

from automix.cli.main import CONFIG_NAME, continued_by
from automix.configuration.arguments import Signature, read_arguments
from automix.configuration.base import Config
from automix.errors import ConfigError
from automix.experiments.evaluate.config import EvaluateConfig

RUN_WORD = "RUN"


class EvaluateFlags(Config):
    """Flags of ``automix evaluate``."""

    output: Path | None = None
    """Folder of the evaluation; by default one in RUN that is named after the configuration. What
    is finished in it is not done again."""

    dry_run: bool = False
    """Print what would be measured and about how long it would take, and stop."""


EVALUATE = Signature(
    command="automix evaluate",
    summary=str(EvaluateConfig.__doc__),
    config=EvaluateConfig,
    flags=EvaluateFlags,
    words={RUN_WORD: "folder of a finished replay"},
    takes_file=True,
)


def run(argv: Sequence[str]) -> None:
    """``automix evaluate RUN [CONFIG.yaml] [flags]``."""
    arguments = read_arguments(EVALUATE, argv)
    config, folder = arguments.config, Path(arguments.words[0])
    output = arguments.flags.output or folder / f"evaluation-{config.content_hash()}"
    if output.exists() and not output.is_dir():
        raise ConfigError(f"--output: expected a folder, got the file {output}")
    from automix.experiments.evaluate import run as experiment

    if arguments.flags.dry_run:
        print(experiment.predict_cost(config, folder))
        return
    with continued_by(output, "evaluate", str(folder), str(output / CONFIG_NAME)):
        result = experiment.evaluate(config, folder, output)
    print(experiment.summary(result))
    print(f"result: {output / 'result.json'}")
