"""Candidates from what was learned in other tasks: of a prior, and of a policy."""

import logging
from pathlib import Path

from agents.learned import roll_out
from agents.outcomes import OutcomeTable
from agents.prior import Prior
from automix.data.splits import SearchData
from automix.experiments.common.kept_files import keep_json
from automix.experiments.config import SearchConfig
from automix.experiments.replay.policy import PolicySource, policy_folder
from automix.experiments.search.halving import Candidate
from automix.random_streams import Stream, derived_seed
from automix.readers import parsing, read_json
from automix.schedule import Schedule
from envs.mixing_env import MixingEnv
from envs.observations import TaskFacts

PRIOR = "pretrained prior"
POLICY = "pretrained policy"
FILE_NAME = "pretrained.json"
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
