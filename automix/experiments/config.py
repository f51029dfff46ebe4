"""The configuration of each command, composed of the layers' own configurations."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, field_validator, model_validator

from agents.config import AgentConfig, RLMixAgentConfig
from automix.configuration.base import Config
from automix.configuration.task import ComputeConfig, ReplayConfig, TaskConfig
from automix.operator_info import Operator
from envs.config import EnvironmentConfig, ObservationGroup
from envs.family_config import FamilyConfig
from envs.rlmix.config import RLMixConfig

SearcherName = Literal["ppo", "random_search", "additive", "pbt", "tpe", "race"]
FEWEST = 12
"""Training runs without which a race and a final say nothing."""

_ONLY_THE_END = ("random_search", "additive", "tpe")


class SelectionConfig(Config):
    """Selection of the schedule that is written, by retraining candidates with fresh seeds.

    Successive halving: every candidate is trained with the seeds of a round and compared on the
    reward split; the better half advances to the next round. A final compares the winner with the
    best schedule that ships, the best constant and no mixing, on a split and on seeds that chose
    nothing.
    """

    learned_candidates: Annotated[int, Field(ge=1)] = 12
    """Number of candidates from the search: proposals of the searcher (with PPO: greedy episodes of
    its policy, and the best schedule of an additive fit to all episodes), then the best episodes of
    the search. Every operator held constant, at each of its strengths, is a candidate as well."""

    first_seeds: Annotated[int, Field(ge=1)] = 4
    """Training runs per candidate in the first round; doubled in each later round."""

    rounds: Annotated[int, Field(ge=1)] = 4
    """Rounds of successive halving; the worse half is dropped after each but the last."""

    final_seeds: Annotated[int, Field(ge=2)] = 12
    """Training runs of each finalist in the final."""


class SearchConfig(Config):
    """Find a schedule on many short training runs: race, learning, selection, final.

    The race trains what needs no search: no mixing, the schedules that ship, operators held
    constant. The searcher learns from whole training runs, and what it learned is selected against
    the best of the race. `runs` or `minutes` set the budget of all stages together.
    """

    seed: Annotated[int, Field(ge=0)] = 0
    """Random seed of the search."""

    runs: Annotated[int, Field(ge=1)] | None = None
    """Budget in training runs, divided among the stages; below 200 there is a race and a final, and
    nothing is learned. Null: agent.episodes, selection and so on say what each stage gets."""

    minutes: Annotated[float, Field(gt=0, le=100_000)] | None = None
    """Budget in minutes, instead of `runs`: as many training runs as take so long here, by
    those that the race begins with. Default: 10 for a folder as argument, else null."""

    portfolio: bool = True
    """Race the schedules that ship, whatever operators they use. false: only the operators of the
    environment are tried."""

    pretrained: Annotated[str, Field(min_length=1, max_length=1000)] | None = None
    """What was learned in other tasks: `default`, which ships, or a folder of `automix pretrain`.
    The race then tries the schedule that their outcomes recommend for a task like this one, and the
    one that the policy decides on in one more training run. Null: neither."""

    task: TaskConfig = Field(default_factory=TaskConfig)
    """Dataset, model and training recipe."""

    environment: EnvironmentConfig = Field(default_factory=EnvironmentConfig)
    """Actions, observations and reward of the agent."""

    searcher: SearcherName = "ppo"
    """Algorithm that proposes schedules: `ppo`; `random_search`, the best of random schedules;
    `additive`, the best schedule under an additive model fitted to random ones; `pbt`,
    population-based training with populations of agent.episodes_per_rollout; `tpe`, Optuna's TPE
    sampler (extra `optuna`); `race`, nothing beyond the race, which gets the runs of learning and
    selection. The others all spend agent.episodes training runs, in rounds of
    agent.episodes_per_rollout; the other agent fields apply to PPO only. Selection is the same for
    all."""

    agent: AgentConfig = Field(default_factory=AgentConfig)
    """Hyperparameters of the agent."""

    selection: SelectionConfig = Field(default_factory=SelectionConfig)
    """Selection of the schedule that is written."""

    compute: ComputeConfig = Field(default_factory=ComputeConfig)
    """Processes and threads of training runs."""

    # Here and not in the plan: a command refuses it before it imports anything.
    @field_validator("runs")
    @classmethod
    def _enough_runs(cls, runs: int | None) -> int | None:
        if runs is not None and runs < FEWEST:
            raise ValueError(f"expected at least {FEWEST} training runs, got {runs}")
        return runs

    @model_validator(mode="after")
    def _one_budget(self) -> Self:
        if self.runs is not None and self.minutes is not None:
            raise ValueError(
                f"expected runs or minutes, got both: {self.runs} runs, {self.minutes:g} minutes"
            )
        return self

    @model_validator(mode="after")
    def _start_of_ppo(self) -> Self:
        if self.agent.start_from is not None and self.searcher != "ppo":
            raise ValueError(
                f"expected searcher ppo with agent.start_from, got {self.searcher}, which trains "
                "no policy"
            )
        return self

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
    """Schedules to compare: paths of schedule files, or `none`, `portfolio` (those that ship; one:
    `portfolio:NAME`), `finalists:FOLDER` (of a finished search, what it selected first),
    `policy:FOLDER` (that a search learned: it decides in each run by what it sees there),
    `rlmix:FOLDER` (the agent that `automix rlmix` learned), `rlmix:random@FOLDER` (its environment
    with random percentiles), `gate:OPERATOR[:STRENGTH]` (each image is mixed or not, as a gate
    learns in each run from the validation gradient), `a2c:OPERATOR[:STRENGTH]` (how far it is
    mixed, as an agent learns),
    `constant:OPERATOR[:STRENGTH[:PROBABILITY]]`, `constants` (every operator at every strength),
    `random` (a new schedule per seed), `shuffled:FILE` (the segments of a file in random order),
    `shuffled_before_end:FILE` (but for its last stretch without mixing, or its last eighth),
    `marginal_matched:FILE` (each segment drawn independently, with the frequencies of the decisions
    in a file), `ramp:OPERATOR` (often to never), `mixture:DECISIONS`,
    `mix_then_off:DECISIONS[@OFF_FROM]`, `in_turn:DECISIONS[@OFF_FROM]`,
    `strong_to_weak:OPERATOR[@OFF_FROM]`. DECISIONS are as for `constant`, joined by `+`: of a
    mixture each batch draws one, equally likely where no probabilities are given. Nothing is mixed
    from OFF_FROM on. Differences are relative to the first one."""

    num_seeds: Annotated[int, Field(ge=2)] = 20
    """Training runs per schedule. Seeds are paired: run number i has the same seed for every
    schedule."""

    seed: Annotated[int, Field(ge=0)] = 1_000
    """Random seed from which the seeds of the training runs are derived."""

    split: Literal["selection", "test", "both"] = "test"
    """Split on which classifiers are compared; both splits cost one set of training runs."""

    task: TaskConfig = Field(default_factory=TaskConfig)
    """Dataset, model and training recipe."""

    environment: EnvironmentConfig = Field(default_factory=EnvironmentConfig)
    """Decisions that `random` and `constants` choose from."""

    compute: ComputeConfig = Field(default_factory=ComputeConfig)
    """Processes and threads of training runs."""


class RLMixRunConfig(Config):
    """Learn RL-Mix's agent on whole training runs, then compare it with rivals on fresh ones.

    The agent chooses a percentile of saliency for each image of each mini-batch. Rivals are
    schedules, and the same environment with random percentiles.
    """

    seed: Annotated[int, Field(ge=0)] = 0
    """Random seed of learning; the seeds of the comparison are derived from it."""

    task: TaskConfig = Field(default_factory=TaskConfig)
    """Dataset, model and training recipe."""

    rlmix: RLMixConfig = Field(default_factory=RLMixConfig)
    """Reward and observation of the agent."""

    agent: RLMixAgentConfig = Field(default_factory=RLMixAgentConfig)
    """Hyperparameters of the agent."""

    schedules: Annotated[tuple[str, ...], Field(min_length=1)] = ("none", "constant:rmix")
    """Rivals, as in `automix compare`; differences are relative to the first one."""

    num_seeds: Annotated[int, Field(ge=2)] = 20
    """Training runs of each row of the comparison, on paired seeds."""

    split: Literal["selection", "test", "both"] = "test"
    """Split on which classifiers are compared."""

    compute: ComputeConfig = Field(default_factory=ComputeConfig)
    """Processes and threads of the rivals' training runs; the agent learns in one process."""


def _mixtures_of_several_tasks() -> EnvironmentConfig:
    return EnvironmentConfig(
        actions="mixtures",
        operators=(
            Operator.NONE,
            Operator.MIXUP,
            Operator.CUTMIX,
            Operator.RESIZEMIX,
            Operator.SALIENCY_GRAFTING,
        ),
        probabilities=(1.0,),
        observation=tuple(ObservationGroup),
        probe_images=200,
    )


def _agent_of_several_tasks() -> AgentConfig:
    return AgentConfig(
        episodes=4096,
        episodes_per_rollout=64,
        num_environments=64,
        learning_rate=0.003,
        minibatch_size=128,
        hidden_sizes=(64, 64),
        warm_start=None,
    )


class PretrainConfig(Config):
    """Learn one policy over a family of tasks, for tasks that it has not seen.

    Random schedules are trained in every task first: they say what is much in a task, and an
    additive model of them is what the policy starts from. PPO continues from there. At the end the
    policy decides in tasks of the family that nothing was learned from.
    """

    seed: Annotated[int, Field(ge=0)] = 0
    """Random seed of tasks, training runs and policy."""

    family: FamilyConfig = Field(default_factory=FamilyConfig)
    """Ranges that the tasks are drawn from."""

    group_size: Annotated[int, Field(ge=1, le=256)] = 8
    """Training runs of one task that are trained at once; divides agent.num_environments, and the
    quotient is the number of tasks side by side."""

    random_runs: Annotated[int, Field(ge=2)] = 16
    """Training runs with random schedules in every task, a multiple of group_size. Returns are
    counted in their standard deviations."""

    environment: EnvironmentConfig = Field(default_factory=_mixtures_of_several_tasks)
    """Actions, observations and reward of the agent."""

    agent: AgentConfig = Field(default_factory=_agent_of_several_tasks)
    """Hyperparameters of the agent."""

    validation_tasks: Annotated[int, Field(ge=0)] = 16
    """Further tasks, in which the policy is compared at the end with no mixing, the recommended
    schedule and random ones, a group of training runs each."""

    compute: ComputeConfig = Field(default_factory=ComputeConfig)
    """Processes and threads; group_size, not population, says how many runs are trained at once."""

    @model_validator(mode="after")
    def _groups_fit(self) -> Self:
        size, num_envs = self.group_size, self.agent.num_environments
        if num_envs % size or self.agent.episodes_per_rollout != num_envs:
            raise ValueError(
                "expected agent.num_environments and agent.episodes_per_rollout to be one multiple "
                f"of group_size {size}, got {num_envs} and {self.agent.episodes_per_rollout}"
            )
        if self.compute.population is not None:
            raise ValueError(
                f"expected no compute.population beside group_size, got {self.compute.population}"
            )
        if self.random_runs % size:
            raise ValueError(
                f"expected random_runs to be a multiple of group_size {size}, "
                f"got {self.random_runs}"
            )
        if self.environment.snapshot_fraction:
            raise ValueError(
                "expected environment.snapshot_fraction 0, because the runs of a task end "
                f"together, got {self.environment.snapshot_fraction:g}"
            )
        return self


class ShowConfig(Config):
    """Mix your own images with each operator and write contact sheets."""

    operators: tuple[Operator, ...] = ()
    """Operators to show; all if empty."""

    pairs: Annotated[int, Field(ge=1, le=64)] = 6
    """Pairs of images per sheet."""

    size: Annotated[int, Field(ge=8, le=512)] | None = None
    """Height and width in pixels to which images are scaled before they are mixed. None: the
    shortest side among the images, clipped to 8 to 128."""

    seed: Annotated[int, Field(ge=0)] = 0
    """Random seed of the choice of images and of the mixing."""

    output: Path = Path("sheets")
    """Folder for the sheets."""


LEARNED = "learned"
BEST_CONSTANT = "best_constant"


class ReplayOfConfig(ReplayConfig):
    """Train one classifier with a schedule that the configuration names, and evaluate it."""

    schedule: str = "none"
    """A schedule file, or the description of one schedule as in `automix compare`."""


class OutcomeConfig(Config):
    """Comparison of the schedule that a search found, on fresh training runs."""

    schedules: Annotated[tuple[str, ...], Field(min_length=1)] = (
        LEARNED,
        BEST_CONSTANT,
        "none",
        f"shuffled:{LEARNED}",
    )
    """Schedules to compare, as in `automix compare`. `learned` is the schedule that the search
    wrote, `best_constant` the constant operator that its selection ranked first; both can replace a
    file (`shuffled:learned`)."""

    num_seeds: Annotated[int, Field(ge=2)] = 10
    """Training runs per schedule. Their seeds are derived from the seed of the search: searches
    with equal seeds are compared on equal training runs."""

    split: Literal["selection", "test", "both"] = "both"
    """Splits on which classifiers are compared."""

    task: TaskConfig | None = None
    """Task on which the schedules are compared. Null: the task of the search. Set it when the
    search uses a smaller proxy."""


class SearchAndCompareConfig(SearchConfig):
    """Learn a schedule, then train with it and with others on fresh paired seeds."""

    outcome: OutcomeConfig = Field(default_factory=OutcomeConfig)
    """Comparison of the learned schedule with others."""


Line = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\r\n]+$")]


class CardConfig(Config):
    """Write a model card for the classifier of a replay or the policy of a search."""

    name: Line | None = None
    """Name of the model. Null: the name of the folder of the run."""

    license: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9.-]*$")] = "unknown"
    """License identifier as on the Hub, such as mit, apache-2.0 or cc-by-4.0; other requires
    license_name and license_link. The choice is yours: unknown is a placeholder, and the card says
    so."""

    license_name: Line | None = None
    """Name of a license that the Hub has no identifier for."""

    license_link: Line | None = None
    """Link to that license: a URL, or LICENSE for a file beside the card."""

    @model_validator(mode="after")
    def _other_licenses_are_named(self) -> "CardConfig":
        details = (self.license_name, self.license_link)
        if self.license == "other" and None in details:
            raise ValueError(
                "expected license_name and license_link with the license 'other', got "
                + ("none of both" if details == (None, None) else "one of both")
            )
        if self.license != "other" and details != (None, None):
            raise ValueError(
                "expected no license_name and license_link but with the license 'other', "
                f"got the license {self.license!r}"
            )
        return self


class TransferConfig(Config):
    """Compare the ranking of constant operators on a cheap proxy task and on the target task."""

    seed: Annotated[int, Field(ge=0)] = 0
    """Random seed from which the seeds of the training runs are derived."""

    proxy: TaskConfig = Field(default_factory=TaskConfig)
    """Cheap task, on which a search would train."""

    target: TaskConfig = Field(default_factory=TaskConfig)
    """Task for which its schedule is meant."""

    environment: EnvironmentConfig = Field(default_factory=EnvironmentConfig)
    """Operators to rank; each is held constant at each of its strengths."""

    num_seeds: Annotated[int, Field(ge=2)] = 4
    """Training runs per constant operator and task."""

    compute: ComputeConfig = Field(default_factory=ComputeConfig)
    """Processes and threads of training runs."""
