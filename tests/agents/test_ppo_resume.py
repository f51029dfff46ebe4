"""Learning continues bit for bit from every rollout boundary."""

import copy
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecEnv

from agents.config import AgentConfig
from agents.ppo import AgentState, Episode, EpisodeRecorder, RolloutCheckpoint, train_ppo
from automix.files import read_checkpoint, write_checkpoint
from automix.operator_info import Operator
from envs.smoke import SMOKE_ENVIRONMENT, SMOKE_TASK
from envs.vector import make_vec_env
from tests.agents.toy import NUM_SEGMENTS, SWITCH, Toy, toy_vec_env
from tests.equality import are_same, assert_same, untouched_generators

# Trainings that diverge end early, so that rollouts end in the middle of episodes.
DIVERGING = Toy(
    worth=SWITCH.worth,
    harm=SWITCH.harm,
    diverges=lambda decision: decision.operator is Operator.SALIENCYMIX,
)
TOYS = pytest.mark.parametrize("toy", [SWITCH, DIVERGING], ids=["whole episodes", "diverging"])
CONFIG = AgentConfig(episodes=32, episodes_per_rollout=8, num_environments=2, minibatch_size=16)
ROLLOUTS = 4


class Run:
    """A run of learning: its model, the states at its boundaries, and its episodes."""

    def __init__(self, env: VecEnv, *, state: AgentState | None = None) -> None:
        self.states: list[AgentState] = []
        self.episodes: list[Episode] = []
        self.model: PPO = train_ppo(
            env,
            CONFIG,
            num_segments=NUM_SEGMENTS,
            seed=5,
            state=state,
            callbacks=[
                RolloutCheckpoint(self.states.append),
                EpisodeRecorder(
                    self.episodes,
                    on_episode=lambda episode: None,
                    episodes_per_rollout=CONFIG.episodes_per_rollout,
                    patience=None,
                ),
            ],
        )

    @property
    def weights(self) -> dict[str, Any]:
        return dict(self.model.policy.state_dict())

    @property
    def returns(self) -> list[float]:
        return [episode.total_reward for episode in self.episodes]


def toy_run(toy: Toy, *, state: AgentState | None = None) -> Run:
    return Run(toy_vec_env(toy, noise=0.05, num_envs=2, seed=3), state=state)


@pytest.fixture(scope="module")
def whole_runs() -> dict[int, Run]:
    return {id(toy): toy_run(toy) for toy in (SWITCH, DIVERGING)}


def through_a_file(state: AgentState, folder: Path) -> AgentState:
    write_checkpoint(folder / "agent.bin", {"agent": state})
    loaded = read_checkpoint(folder / "agent.bin")
    agent: AgentState = loaded["agent"]
    return agent


@TOYS
def test_learning_continues_from_every_boundary(
    toy: Toy, whole_runs: dict[int, Run], tmp_path: Path
) -> None:
    whole = whole_runs[id(toy)]
    assert len(whole.states) == ROLLOUTS
    for number, state in enumerate(whole.states):
        resumed = toy_run(toy, state=through_a_file(state, tmp_path))
        assert_same(whole.weights, resumed.weights, where=f"from rollout {number}")
        assert resumed.returns == whole.returns[len(whole.returns) - len(resumed.returns) :]
        assert len(resumed.states) == ROLLOUTS - number


@pytest.mark.slow
def test_a_state_is_a_copy_and_continuing_does_not_change_it() -> None:
    run = toy_run(SWITCH)
    before = copy.deepcopy(run.states)
    toy_run(SWITCH, state=run.states[1])
    assert_same(before, run.states)
    steps = [float(state["optimizer"]["state"][0]["step"]) for state in run.states[1:]]
    assert steps == [20, 40, 60]


@TOYS
def test_the_states_of_a_continued_run_are_those_of_the_whole_one(
    toy: Toy, whole_runs: dict[int, Run]
) -> None:
    whole = whole_runs[id(toy)]
    first = toy_run(toy, state=whole.states[1])
    second = toy_run(toy, state=first.states[1])
    assert_same(first.states, whole.states[1:])
    assert_same(second.states, whole.states[2:])
    assert_same(whole.weights, second.weights)


def test_rollouts_of_diverging_runs_end_within_episodes(whole_runs: dict[int, Run]) -> None:
    """Otherwise the tests of diverging training runs would say nothing."""
    states = whole_runs[id(DIVERGING)].states
    assert any(env["trainer"] is not None for state in states for env in state["environments"])
    assert any(length for state in states for _, length in state["unfinished"])
    assert len(whole_runs[id(DIVERGING)].episodes) > CONFIG.episodes


def _other_torch_generator(state: AgentState) -> None:
    state["torch_generator"] = torch.Generator().manual_seed(1).get_state()


def _other_numpy_generator(state: AgentState) -> None:
    state["numpy_generator"][1] = torch.arange(624)


def _other_returns(state: AgentState) -> None:
    state["returns"] = {"count": 0, "mean": 0.0, "squares": 0.0}


def _fresh_optimizer(state: AgentState) -> None:
    state["optimizer"]["state"] = {}


def _other_episodes(state: AgentState) -> None:
    for env in state["environments"]:
        env["training_seed"] += 1


@pytest.mark.parametrize(
    "spoil",
    [
        _other_torch_generator,
        _other_numpy_generator,
        _other_returns,
        _fresh_optimizer,
        _other_episodes,
    ],
)
def test_every_part_of_the_state_matters(whole_runs: dict[int, Run], spoil: Any) -> None:
    whole = whole_runs[id(SWITCH)]
    state = copy.deepcopy(whole.states[2])
    spoil(state)
    assert not are_same(whole.weights, toy_run(SWITCH, state=state).weights)


def test_another_seed_learns_another_policy(whole_runs: dict[int, Run]) -> None:
    env = toy_vec_env(SWITCH, noise=0.05, num_envs=2, seed=3)
    other = train_ppo(env, CONFIG, num_segments=NUM_SEGMENTS, seed=6)
    assert not are_same(whole_runs[id(SWITCH)].weights, dict(other.policy.state_dict()))


def test_a_finished_state_has_nothing_left_to_learn(whole_runs: dict[int, Run]) -> None:
    state = copy.deepcopy(whole_runs[id(SWITCH)].states[-1])
    state["num_timesteps"] = CONFIG.episodes * NUM_SEGMENTS
    resumed = toy_run(SWITCH, state=state)
    assert not resumed.episodes
    assert_same(resumed.weights, dict(state["policy"]))


def test_learning_on_real_runs_resumes_bit_for_bit(tmp_path: Path) -> None:
    config = AgentConfig(episodes=6, episodes_per_rollout=2, num_environments=2, minibatch_size=3)
    segments = SMOKE_ENVIRONMENT.num_segments

    def learn(state: AgentState | None, states: list[AgentState]) -> dict[str, Any]:
        env = make_vec_env(SMOKE_TASK, SMOKE_ENVIRONMENT, num_envs=2, kind="in_process", seed=1)
        model = train_ppo(
            env,
            config,
            num_segments=segments,
            seed=2,
            state=state,
            callbacks=[RolloutCheckpoint(states.append)],
        )
        return dict(model.policy.state_dict())

    states: list[AgentState] = []
    whole = learn(None, states)
    assert len(states) == 3
    for state in states:
        assert_same(whole, learn(through_a_file(state, tmp_path), []))


def test_global_generators_are_left_alone() -> None:
    with untouched_generators():
        toy_run(SWITCH)
    env = toy_vec_env(SWITCH, noise=0.05, num_envs=2)

    def fail(state: AgentState) -> None:
        raise KeyboardInterrupt

    with untouched_generators(), pytest.raises(KeyboardInterrupt):
        train_ppo(
            env, CONFIG, num_segments=NUM_SEGMENTS, seed=0, callbacks=[RolloutCheckpoint(fail)]
        )


@pytest.mark.slow
def test_learning_leaves_nothing_in_the_temporary_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    Run(toy_vec_env(SWITCH, noise=0.0, num_envs=2))
    assert not any(tmp_path.iterdir())
