"""``automix search``."""

from collections.abc import Sequence

from automix.cli.commands.common import RunFlags, run_output
from automix.cli.main import CONFIG_NAME, continued_by
from automix.configuration.arguments import Signature, read_arguments
from automix.experiments.config import SearchConfig

SEARCH = Signature(
    command="automix search",
    summary=str(SearchConfig.__doc__),
    config=SearchConfig,
    flags=RunFlags,
    words={},
    takes_file=True,
)


def run(argv: Sequence[str]) -> None:
    """``automix search [CONFIG.yaml] [flags]``."""
    arguments = read_arguments(SEARCH, argv)
    config = arguments.config
    output = run_output(arguments.flags, f"search-{config.content_hash()}")
    from automix.experiments.common.progress import format_seconds
    from automix.experiments.search import run as experiment

    if arguments.flags.dry_run:
        print(experiment.predict_cost(config).describe())
        return
    with continued_by(output, "search", str(output / CONFIG_NAME)):
        result = experiment.search(config, output)
    cost = result["cost"]
    stages = ", ".join(f"{count} {name}" for name, count in cost["trainings_by_stage"].items())
    seconds = format_seconds(cost["search_seconds"] + cost["selection_seconds"])
    print(f"cost: {cost['trainings']} training runs ({stages}), {seconds}")
    print(f"selected: {result['selected']}")
    print(f"schedule: {output / experiment.SCHEDULE_NAME}")
