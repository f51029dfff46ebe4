"""Credit: what decisions are paid sums to the return, and goes to those that earned it."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback

from agents.additive import fit_additive
from agents.config import AgentConfig
from agents.credit import EpisodesModel, RedistributedReturns, fit_episodes
from agents.ppo import Episode, EpisodeRecorder, train_ppo
from automix.operator_info import Operator
from automix.schedule import Decision, even_schedule
from envs.actions import ActionCodec
from envs.config import EnvironmentConfig
from tests.agents.toy import ENVIRONMENT, NUM_SEGMENTS, SWITCH, Toy, toy_vec_env

CODEC = ActionCodec(ENVIRONMENT)
THREE = EnvironmentConfig(
    num_segments=2,
    operators=(Operator.NONE, Operator.MIXUP, Operator.CUTMIX),
    num_strengths=1,
    probabilities=(1.0,),
)
ONE_ROLLOUT = AgentConfig(episodes=64, episodes_per_rollout=64, num_environments=16)


class Rewards(BaseCallback):
    """Copies the rewards of the rollout."""

    def __init__(self) -> None:
        super().__init__()
        self.rewards: NDArray[np.float32] = np.zeros(0, dtype=np.float32)
        self.returns: NDArray[np.float32] = np.zeros(0, dtype=np.float32)

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        buffer = self.locals["rollout_buffer"]
        self.rewards, self.returns = buffer.rewards.copy(), buffer.returns.copy()


def roll(toy: Toy, *, redistributes: bool, **fields: Any) -> tuple[Rewards, list[Episode]]:
    episodes: list[Episode] = []
    seen = Rewards()
    config = ONE_ROLLOUT.model_copy(update=fields)
    recorder = EpisodeRecorder(
        episodes,
        on_episode=lambda _: None,
        episodes_per_rollout=config.episodes_per_rollout,
        patience=None,
    )
    credit = RedistributedReturns(episodes, ENVIRONMENT)
    train_ppo(
        toy_vec_env(toy, noise=0.05, num_envs=config.num_environments),
        config,
        num_segments=NUM_SEGMENTS,
        seed=0,
        callbacks=[recorder, *([credit] if redistributes else []), seen],
    )
    return seen, episodes


def per_episode(rewards: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return (episodes, segments) rewards; in 16 environments, 4 episodes each."""
    return rewards.T.reshape(-1, NUM_SEGMENTS)


def test_the_sum_over_an_episode_stays() -> None:
    paid, _ = roll(SWITCH, redistributes=True)
    held, _ = roll(SWITCH, redistributes=False)
    np.testing.assert_allclose(
        per_episode(paid.rewards).sum(axis=1), per_episode(held.rewards).sum(axis=1), atol=1e-5
    )
    assert np.count_nonzero(per_episode(held.rewards)[:, :-1]) == 0
    assert np.count_nonzero(per_episode(paid.rewards)[:, :-1]) > 400


def test_decisions_are_paid_what_they_are_worth() -> None:
    paid, episodes = roll(SWITCH, redistributes=True, episodes=256, episodes_per_rollout=256)
    worth = [
        [SWITCH.worth(episode.schedule.at(s / NUM_SEGMENTS), s / NUM_SEGMENTS) for s in range(7)]
        for episode in _in_order_of_environments(episodes, 16)
    ]
    # Contributions count from the mean of their segment.
    centered = [
        values - values.mean(axis=0)
        for values in (per_episode(paid.rewards)[:, :7], np.array(worth))
    ]
    assert np.corrcoef(centered[0].ravel(), centered[1].ravel())[0, 1] > 0.8


def _in_order_of_environments(episodes: Sequence[Episode], num_envs: int) -> list[Episode]:
    # They end round by round, one of each environment.
    return [episode for env in range(num_envs) for episode in episodes[env::num_envs]]


def test_a_trace_of_1_returns_what_follows_whoever_is_paid() -> None:
    """With lambda 1 and the whole return at the end, the first decision's return is the sum."""
    paid, _ = roll(SWITCH, redistributes=True, gae_lambda=1.0)
    sums = per_episode(paid.rewards).sum(axis=1)
    np.testing.assert_allclose(per_episode(paid.returns)[:, 0], sums, atol=1e-4)


def episodes_with_seed_noise(
    seed: int, *, num_episodes: int
) -> tuple[list[Episode], NDArray[np.float64]]:
    """Return episodes whose seed noise, four times the worth of decisions, shows before the last.

    The value is the worth of the last decision (none 0, Mixup 0.01, CutMix 0.02) plus the noise.
    """
    generator = np.random.default_rng(seed)
    choices = [Decision(operator=name) for name in ("none", "mixup", "cutmix")]
    episodes, worth = [], np.array([0.0, 0.01, 0.02])
    for number in range(num_episodes):
        taken = generator.integers(3, size=2)
        noise = generator.normal(scale=0.04)
        episodes.append(
            Episode(
                number=number,
                schedule=even_schedule([choices[index] for index in taken]),
                total_reward=0.0,
                potential=float(worth[taken[1]] + noise),
                training_seed=number,
                seconds=0.0,
                observations=((0.5, 1.0), (0.5, noise)),
            )
        )
    return episodes, worth


def test_what_is_observed_takes_seed_noise_out_of_the_estimates() -> None:
    choices = [Decision(operator=name) for name in ("none", "mixup", "cutmix")]
    errors = {"seen": [], "unseen": []}  # type: ignore[var-annotated]
    for seed in range(5):
        episodes, worth = episodes_with_seed_noise(seed, num_episodes=60)
        seen = fit_episodes(episodes, choices, num_segments=2)
        unseen = fit_additive(
            [episode.schedule for episode in episodes],
            [episode.potential for episode in episodes],
            choices,
            num_segments=2,
        )
        for name, fit in (("seen", seen), ("unseen", unseen)):
            effects = fit.effects[1] - fit.effects[1].mean()
            errors[name].append(np.abs(effects - (worth - worth.mean())).max())
    assert np.mean(errors["seen"]) < 0.002
    assert np.mean(errors["seen"]) < 0.3 * np.mean(errors["unseen"])


def test_episodes_without_observations_are_fitted_as_before() -> None:
    episodes, _ = episodes_with_seed_noise(0, num_episodes=20)
    blind = [Episode(**{**_fields(episode), "observations": ()}) for episode in episodes]
    choices = [Decision(operator=name) for name in ("none", "mixup", "cutmix")]
    fit = fit_episodes(blind, choices, num_segments=2)
    plain = fit_additive(
        [episode.schedule for episode in episodes],
        [episode.potential for episode in episodes],
        choices,
        num_segments=2,
    )
    np.testing.assert_array_equal(fit.effects, plain.effects)
    with pytest.raises(ValueError, match="expected at least 8 schedules"):
        fit_episodes(blind[:7], choices, num_segments=2)


def _fields(episode: Episode) -> dict[str, Any]:
    return {name: getattr(episode, name) for name in Episode.__slots__}


def reacting(*, depends: bool, seed: int = 0) -> list[Episode]:
    """Return episodes in which Mixup is worth 0.02 where the state is high, CutMix where it is low.

    Without ``depends``, Mixup is worth it everywhere. The state itself is worth five times as much.
    """
    generator = np.random.default_rng(seed)
    choices = [Decision(operator=name) for name in ("none", "mixup", "cutmix")]
    episodes = []
    for number in range(120):
        taken = generator.integers(3, size=2)
        state = generator.choice([-1.0, 1.0])
        best = 1 if state > 0 or not depends else 2
        value = 0.02 * np.count_nonzero(taken == best) + 0.1 * state
        episodes.append(
            Episode(
                number=number,
                schedule=even_schedule([choices[index] for index in taken]),
                total_reward=0.0,
                potential=float(value + generator.normal(scale=0.01)),
                training_seed=number,
                seconds=0.0,
                observations=((0.0, state, 0.5), (1.0, state, generator.normal())),
            )
        )
    return episodes


@pytest.mark.parametrize("depends", [True, False])
def test_effects_depend_on_the_state_where_episodes_say_so(depends: bool) -> None:
    choices = [Decision(operator=name) for name in ("none", "mixup", "cutmix")]
    fit = fit_episodes(reacting(depends=depends), choices, num_segments=2)
    states = np.array([[0.0, 1.0, 0.5], [0.0, -1.0, 0.5]] * 2)
    effects = fit.effects_in(np.array([0, 0, 1, 1]), states)
    assert effects.argmax(axis=1).tolist() == ([1, 2, 1, 2] if depends else [1, 1, 1, 1])
    unknown = fit.effects_in(np.array([0, 1]), np.full((2, 3), np.nan))
    np.testing.assert_array_equal(unknown, fit.effects)
    if not depends:
        spread = np.abs(effects - fit.effects[[0, 0, 1, 1]]).max()
        assert spread < 0.1 * np.ptp(fit.effects)


def test_an_episode_from_a_snapshot_knows_only_its_own_segments() -> None:
    episodes, _ = episodes_with_seed_noise(0, num_episodes=20)
    late = dataclasses.replace(episodes[3], observations=episodes[3].observations[1:])
    assert (episodes[3].observed_segments, late.observed_segments) == (range(2), range(1, 2))
    choices = [Decision(operator=name) for name in ("none", "mixup", "cutmix")]
    fit = fit_episodes([*episodes[:3], late, *episodes[4:]], choices, num_segments=2)
    whole = fit_episodes(episodes, choices, num_segments=2)
    # What is missing is the constant observation before the first segment: nothing is lost.
    np.testing.assert_allclose(fit.effects, whole.effects)


def test_episodes_that_are_appended_are_fitted_like_all_at_once() -> None:
    episodes, _ = episodes_with_seed_noise(0, num_episodes=40)
    # What nobody observed comes first.
    episodes[:10] = [dataclasses.replace(episode, observations=()) for episode in episodes[:10]]
    choices = [Decision(operator=name) for name in ("none", "mixup", "cutmix")]
    growing: list[Episode] = []
    model = EpisodesModel(growing, choices, num_segments=2)
    for first in range(0, 40, 10):
        growing += episodes[first : first + 10]
        fit = model.fit()
        whole = fit_episodes(growing, choices, num_segments=2)
        np.testing.assert_array_equal(fit.effects, whole.effects)
        assert len(fit.reactions) == len(whole.reactions) == (2 if first else 0)
    # Nothing new.
    np.testing.assert_array_equal(model.fit().effects, fit.effects)


def test_credit_sums_to_zero_over_an_episode_and_leaves_unfinished_ones_alone() -> None:
    episodes, _ = episodes_with_seed_noise(0, num_episodes=20)
    codec = ActionCodec(THREE)
    credit = RedistributedReturns(episodes, THREE)
    fit = fit_episodes(episodes, codec.decisions(), num_segments=2)
    buffer = RolloutBuffer(3, spaces.Box(-1, 1, (2,)), codec.space, device="cpu", n_envs=1)
    buffer.episode_starts[:, 0] = [1, 0, 1]
    buffer.actions[:, 0] = [codec.encode(episodes[0].schedule.at(0.0))] * 3
    schedule = even_schedule([episodes[0].schedule.at(0.0)] * 2)
    for step, info in enumerate([{}, {"schedule": schedule}, {}]):
        credit.locals = {"infos": [info], "n_steps": step}
        credit._on_step()
    shift = credit._shift(fit, buffer)[:, 0]
    assert shift.sum() == pytest.approx(0, abs=1e-12)
    assert shift[0] != 0
    # The third step begins an episode that is not over.
    assert shift[2] == 0
