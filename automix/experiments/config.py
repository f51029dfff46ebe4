"""The configuration of each command, composed of the layers' own configurations."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from agents.config import AgentConfig
from automix.configuration.base import Config
from automix.configuration.task import TaskConfig
from automix.experiments.common.config import ComputeConfig, ReplayConfig
from automix.operator_info import Operator
from envs.config import EnvironmentConfig

SearcherName = Literal["ppo", "random_search", "additive", "pbt", "tpe"]
_ONLY_THE_END = ("random_search", "additive", "tpe")


class SelectionConfig(Config):
    """How the schedule that is written is chosen, by retraining with fresh seeds.

    Successive halving: every candidate is trained with the seeds of a round and compared, on a
    split that neither training nor reward saw; the better half goes on to the next round.
    """

    learned_candidates: Annotated[int, Field(ge=1)] = 12
    """How many schedules of the search take part: what the searcher proposes (with PPO: greedy
    episodes of its policy, the best of an additive fit to all episodes), then the search's own best
    episodes. Every operator at every strength, held constant, takes part as well."""

    first_seeds: Annotated[int, Field(ge=1)] = 4
    """Trainings per candidate in the first round; each later round doubles them."""

    rounds: Annotated[int, Field(ge=1)] = 4
    """Rounds; after each but the last, the worse half leaves."""


class SearchConfig(Config):
    """Learn a schedule: many short training runs, then selection against the constants."""

    seed: Annotated[int, Field(ge=0)] = 0
    """Names everything that is drawn in the search."""

    task: TaskConfig = Field(default_factory=TaskConfig)
    """What is trained, on which images, and how."""

    environment: EnvironmentConfig = Field(default_factory=EnvironmentConfig)
    """What the agent decides and what it is rewarded for."""

    searcher: SearcherName = "ppo"
    """Who proposes schedules: PPO; `random_search`, the best of random schedules; `additive`, the
    best schedule of an additive fit to random ones; `pbt`, population-based training with
    populations of agent.episodes_per_rollout; `tpe`, Optuna's estimator (extra `optuna`). All take
    agent.episodes training runs, agent.episodes_per_rollout between two looks at what came of them;
    what else is said of the agent holds for PPO. Selection is the same."""

    agent: AgentConfig = Field(default_factory=AgentConfig)
    """How the agent learns."""

    selection: SelectionConfig = Field(default_factory=SelectionConfig)
    """How the written schedule is chosen."""

    compute: ComputeConfig = Field(default_factory=ComputeConfig)
    """Where training runs run."""

    @model_validator(mode="after")
    def _potential_of_a_classifier(self) -> Self:
        if self.environment.segment_reward and self.searcher in _ONLY_THE_END:
            raise ValueError(
                f"expected another potential than {self.environment.potential} with searcher "
                f"{self.searcher}, which sees only how training runs end"
            )
        return self


class CompareConfig(Config):
    """Train several schedules with paired seeds and compare them."""

    schedules: Annotated[tuple[str, ...], Field(min_length=1)] = ("none", "constants", "random")
    """What is compared: paths of schedule files, or `none`, `constant:OPERATOR[:STRENGTH[:SHARE]]`,
    `constants` (every operator and strength), `random` (a new one per seed), `shuffled:FILE` (the
    segments of a file in random order), `marginal_matched:FILE` (each segment drawn independently,
    with the shares of a file's decisions), `ramp:OPERATOR` (strong to weak),
    `mix_then_off:OPERATOR`. Differences are taken to the first."""

    num_seeds: Annotated[int, Field(ge=2)] = 20
    """Trainings per schedule; training number i has the same seed for every schedule."""

    seed: Annotated[int, Field(ge=0)] = 1_000
    """Names the training seeds."""

    split: Literal["selection", "test", "both"] = "test"
    """Where classifiers are compared; both splits cost one set of training runs."""

    task: TaskConfig = Field(default_factory=TaskConfig)
    """What is trained, on which images, and how."""

    environment: EnvironmentConfig = Field(default_factory=EnvironmentConfig)
    """The decisions that `random` and `constants` choose from."""

    compute: ComputeConfig = Field(default_factory=ComputeConfig)
    """Where training runs run."""


class ShowConfig(Config):
    """Mix a user's own images with each operator and write contact sheets."""

    operators: tuple[Operator, ...] = ()
    """Operators to show; all if empty."""

    pairs: Annotated[int, Field(ge=1, le=64)] = 6
    """Pairs of images per sheet."""

    size: Annotated[int, Field(ge=8, le=512)] | None = None
    """Height and width images are scaled to and mixed at, in pixels; none: as they are, that is the
    shortest side among them, from 8 up to 128."""

    seed: Annotated[int, Field(ge=0)] = 0
    """Names the choice of images and all draws."""

    output: Path = Path("sheets")
    """Folder for the sheets."""


LEARNED = "learned"
BEST_CONSTANT = "best_constant"


class ReplayOfConfig(ReplayConfig):
    """Train one classifier with a schedule that the configuration names, and evaluate it."""

    schedule: str = "none"
    """A schedule file, or the description of one schedule as in `automix compare`."""


class OutcomeConfig(Config):
    """How what a search found is compared, on training runs it has not seen."""

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
    seeds are compared on equal training runs."""

    split: Literal["selection", "test", "both"] = "both"
    """Where classifiers are compared."""

    task: TaskConfig | None = None
    """What is trained to compare; null: what the search trained. Set it where the search works on
    something smaller."""


class SearchAndCompareConfig(SearchConfig):
    """Learn a schedule, then train with it and with others on fresh paired seeds."""

    outcome: OutcomeConfig = Field(default_factory=OutcomeConfig)
    """How the schedule is compared."""


Line = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\r\n]+$")]


class CardConfig(Config):
    """Write a model card for the classifier of a replay or the policy of a search."""

    name: Line | None = None
    """Name of the model. Null: that of the folder of the run."""

    license: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9.-]*$")] = "unknown"
    """Identifier of its license as the Hub lists them, such as mit, apache-2.0 or cc-by-4.0; other
    needs license_name and license_link. It is yours to choose: unknown is a placeholder, and the
    card says so."""

    license_name: Line | None = None
    """Name of a license that the Hub has no identifier for."""

    license_link: Line | None = None
    """Where that license is: an address, or LICENSE for a file beside the card."""

    @model_validator(mode="after")
    def _other_licenses_are_named(self) -> "CardConfig":
        given = (self.license_name, self.license_link)
        if self.license == "other" and None in given:
            raise ValueError(
                "expected license_name and license_link with the license 'other', got "
                + ("none of both" if given == (None, None) else "one of both")
            )
        if self.license != "other" and given != (None, None):
            raise ValueError(
                "expected no license_name and license_link but with the license 'other', "
                f"got the license {self.license!r}"
            )
        return self


class ProbeConfig(SearchConfig):
    """Find out whether a search can pay: a few constants and random schedules, a few seeds.

    Takes the configuration of the search that it is about.
    """

    num_seeds: Annotated[int, Field(ge=2)] = 6
    """Trainings per constant operator; training number i has the same seed for each."""

    every_strength: bool = False
    """Train every operator at each of its strengths instead of the middle one."""

    random_schedules: Annotated[int, Field(ge=2)] = 24
    """Trainings with random schedules, a new one each: where a search begins."""


class TransferConfig(Config):
    """Compare the ranking of constant operators on a cheap task and on the one that counts."""

    seed: Annotated[int, Field(ge=0)] = 0
    """Names the training seeds."""

    proxy: TaskConfig = Field(default_factory=TaskConfig)
    """What a search would train."""

    target: TaskConfig = Field(default_factory=TaskConfig)
    """What its schedule is for."""

    environment: EnvironmentConfig = Field(default_factory=EnvironmentConfig)
    """The operators; each is held constant at each of its strengths."""

    num_seeds: Annotated[int, Field(ge=2)] = 4
    """Trainings per constant and task."""

    compute: ComputeConfig = Field(default_factory=ComputeConfig)
    """Where training runs run."""


class CardFlags(Config):
    """Flags of `automix card`."""

    output: Path | None = None
    """File of the card. Default: README.md in the folder of the run, where the Hub looks for it."""

    overwrite: bool = False
    """Replace an existing file that differs."""


class PlotFlags(Config):
    """Flags of `automix schedule show`."""

    plot: Path | None = None
    """PNG file to draw the schedule to. Default: no drawing."""


class SweepFolderFlags(Config):
    """Flags of the commands about parts of a sweep."""

    output: Path | None = None
    """Folder of the sweep; by default one in runs/ that is named after its file. Finished cells in
    it are left alone, interrupted ones resumed."""


class SweepFlags(SweepFolderFlags):
    """Flags of `automix ablate`."""

    workers: Annotated[int, Field(ge=1, le=1024)] = 2
    """Cells that run at the same time. The processes of each are set by its own compute section."""

    devices: tuple[str, ...] = ()
    """Values of CUDA_VISIBLE_DEVICES: each process gets one, and no more processes run than there
    are values. If empty, processes see all devices."""

    dry_run: bool = False
    """Print the cells, their states and their predicted cost, and stop."""
