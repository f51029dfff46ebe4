"""The configuration of experiments that are cells of a sweep only."""

from typing import Annotated, Literal

from pydantic import Field

from automix.config import Config
from automix.experiments.config import ReplayConfig, SearchConfig
from automix.training.task import TaskConfig

LEARNED = "learned"
BEST_CONSTANT = "best_constant"


class ReplayOfConfig(ReplayConfig):
    """Train one classifier with a schedule that the configuration names, and evaluate it."""

    schedule: str = "none"
    """A schedule file, or the description of one schedule as in `automix compare`."""


class OutcomeConfig(Config):
    """How what a search found is compared, on trainings it has not seen."""

    schedules: Annotated[tuple[str, ...], Field(min_length=1)] = (
        LEARNED,
        BEST_CONSTANT,
        "none",
        f"shuffled:{LEARNED}",
    )
    """What is compared, as in `automix compare`. `learned` is what the search wrote,
    `best_constant` the constant operator that its selection preferred; both can stand where a file
    can (`shuffled:learned`)."""

    num_seeds: Annotated[int, Field(ge=2)] = 10
    """Trainings per schedule. Their seeds come from the seed of the search: searches with equal
    seeds are compared on equal trainings."""

    split: Literal["selection", "test", "both"] = "both"
    """Where classifiers are compared."""

    task: TaskConfig | None = None
    """What is trained to compare; null: what the search trained. Set it where the search works on
    something smaller."""


class SearchAndCompareConfig(SearchConfig):
    """Learn a schedule, then train with it and with others on fresh paired seeds."""

    outcome: OutcomeConfig = Field(default_factory=OutcomeConfig)
    """How the schedule is compared."""
