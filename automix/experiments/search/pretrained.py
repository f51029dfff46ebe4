"""Use of other tasks: candidates of a prior and of a policy, and where PPO starts."""

import logging
from pathlib import Path

from torch import Tensor

from agents.config import AgentConfig
from agents.learned import roll_out
from agents.outcomes import OutcomeTable
from agents.prior import Prior
from automix.data.splits import SearchData
from automix.errors import ConfigError
from automix.experiments.common.kept_files import keep_json
from automix.experiments.config import SearchConfig
from automix.experiments.replay.policy import PolicySource, policy_folder
from automix.experiments.search.halving import Candidate
from automix.random_streams import Stream, derived_seed
from automix.readers import parsing, read_json
from automix.schedule import Schedule
from envs.config import EnvironmentConfig
from envs.mixing_env import MixingEnv
from envs.observations import TaskFacts

PRIOR = "pretrained prior"
POLICY = "pretrained policy"
FILE_NAME = "pretrained.json"
_REWARD = ("potential", "potential_weights")
_LOG = logging.getLogger(__name__)


def pretrained_candidates(config: SearchConfig, data: SearchData, folder: Path) -> list[Candidate]:
    """Return the schedule that outcomes in other tasks say is the best here, and the policy's.

    The second costs a training run, in which the policy decides. Both are kept in the folder of the
    search, so that a search that resumes does not do it again.

    Raises:
        CheckpointError: a file of the policy or of the outcomes is missing or damaged.
        AutoMixError: the policy does not fit the task.
    """
    if config.pretrained is None:
        return []
    path = folder / FILE_NAME
    if path.exists():
        with parsing(str(path), "the schedules that were learned in other tasks"):
            kept = {name: Schedule.from_plain(values) for name, values in read_json(path).items()}
    else:
        kept = _schedules(config, data)
        keep_json(folder, FILE_NAME, {name: schedule.to_plain() for name, schedule in kept.items()})
    return [
        Candidate(name=name, schedule=schedule, origin="zero-search")
        for name, schedule in kept.items()
    ]


def _schedules(config: SearchConfig, data: SearchData) -> dict[str, Schedule]:
    assert config.pretrained is not None
    folder = policy_folder(Path(config.pretrained))
    table = OutcomeTable.load(folder)
    prior = Prior.of(table, TaskFacts.of(config.task, data))
    source = PolicySource.load(folder)
    env = MixingEnv(config.task, source.environment, data=data, seed=config.seed)
    source.check_spaces(env.observation_space, env.action_space)
    _LOG.info("pretrained: a training run in which the policy of %s decides", folder)
    seed = derived_seed(config.seed, Stream.GREEDY)
    schedule, _ = roll_out(source.policy, env, training_seed=seed)
    return {PRIOR: prior.best_schedule(), POLICY: schedule}


def started_from(config: SearchConfig) -> SearchConfig:
    """Return the configuration with environment and networks of the policy that PPO starts from.

    The reward stays the one of the configuration.

    Raises:
        CheckpointError: there is no such policy, or it is damaged.
        ConfigError: the configuration asks for another environment, or for other networks.
    """
    if config.agent.start_from is None:
        return config
    folder = policy_folder(Path(config.agent.start_from))
    source = PolicySource.load(folder)
    reward = {name: getattr(config.environment, name) for name in _REWARD}
    environment = source.environment.model_copy(update=reward)
    hidden_sizes = source.policy.hidden_sizes
    replaced = (
        ("environment", config.environment, EnvironmentConfig(**reward), environment),
        ("agent.hidden_sizes", config.agent.hidden_sizes, AgentConfig().hidden_sizes, hidden_sizes),
    )
    for name, value, default, needed in replaced:
        if value not in (default, needed):
            raise ConfigError(
                f"{name}: expected that of the policy in {folder}, which agent.start_from names, "
                "or nothing, got another"
            )
    agent = config.agent.model_copy(update={"hidden_sizes": hidden_sizes})
    return config.model_copy(update={"environment": environment, "agent": agent})


def first_weights(config: SearchConfig) -> dict[str, Tensor] | None:
    """Return the weights of the policy that PPO starts from; None: it starts from nothing."""
    if config.agent.start_from is None:
        return None
    source = PolicySource.load(policy_folder(Path(config.agent.start_from)))
    return source.policy.network.state_dict()
