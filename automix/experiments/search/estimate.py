"""Estimates of a search: training runs, time, and the smaller setting where that is long."""

import logging

from automix.data.splits import SearchData
from automix.experiments.common.cost import busy_text, quick_estimate
from automix.experiments.common.run_folder import format_seconds
from automix.experiments.config import FEWEST, SearchConfig
from automix.experiments.search.candidates import zero_search_candidates
from automix.experiments.search.learning import num_greedy
from automix.experiments.search.plan import plan_search

# A search of more is long, where nobody asked for it.
_LONG_MINUTES = 60
_LOG = logging.getLogger(__name__)


def count_runs(config: SearchConfig) -> dict[str, int]:
    """Return the largest number of training runs of each stage of the search."""
    candidates = zero_search_candidates(config)
    plan = plan_search(config, num_candidates=len(candidates), runs=config.runs)
    greedy = {"greedy episodes": num_greedy(config) if plan.episodes else 0}
    return plan.runs | greedy


def say_estimate(config: SearchConfig, data: SearchData) -> None:
    """Say what the budget is worth, within seconds; workers, which say it better, take longer."""
    workers = config.compute.workers
    one = quick_estimate(config.task, data, compute=config.compute)
    if config.minutes is None:
        runs = sum(count_runs(config).values())
        text = f"{runs} training runs, about {format_seconds(runs * one.seconds / workers)}"
    else:
        fit = max(FEWEST, int(60 * config.minutes * workers / one.seconds))
        text = f"about {fit} training runs in {config.minutes:g} minutes"
    _LOG.info(
        "estimate: %s, %d at once: %.3g s each, %d steps%s",
        text,
        workers,
        one.seconds,
        one.steps_per_run,
        busy_text(one.busy),
    )
    if advice := smaller_setting(config, one.seconds):
        _LOG.info("%s", advice)


def smaller_setting(config: SearchConfig, seconds_per_run: float) -> str:
    """Return flags that fit a search into its minutes, or into an hour where it takes more."""
    minutes = config.minutes or _LONG_MINUTES
    fit = int(60 * minutes * config.compute.workers / seconds_per_run)
    epochs = config.task.trainer.epochs
    if fit < FEWEST:
        # A run is the longer, the more epochs it has; with fewer than one there is none.
        fewer = max(1, epochs * fit // FEWEST) if fit else 1
        return (
            f"{FEWEST} training runs are the fewest; what fits into {minutes:g} minutes: "
            f"--task.trainer.epochs {fewer} (for {epochs}), or a smaller task.data.image-size or "
            "task.model"
        )
    if config.minutes is None and fit < sum(count_runs(config).values()):
        return f"what fits into {minutes:g} minutes: --minutes {minutes:g}, about {fit} runs"
    return ""
