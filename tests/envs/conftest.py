"""Environments of the smoke profile."""

from collections.abc import Callable

import numpy as np
import pytest

from automix.configuration.trainer import TrainerConfig
from automix.data.splits import SearchData
from automix.training.trainer import load_search_data
from envs.actions import Action
from envs.config import EnvironmentConfig
from envs.mixing_env import MixingEnv
from envs.smoke import SMOKE_ENVIRONMENT, SMOKE_TASK

MakeEnv = Callable[..., MixingEnv]

# One action per segment of the smoke profile: none, Mixup on half of the batches, CutMix on all.
ACTIONS: tuple[Action, ...] = (
    np.array([0, 0, 0]),
    np.array([1, 1, 0]),
    np.array([2, 0, 1]),
)


@pytest.fixture(scope="session")
def smoke_data() -> SearchData:
    return load_search_data(SMOKE_TASK.data)


@pytest.fixture
def make_env(smoke_data: SearchData) -> MakeEnv:
    """Return an environment with fields of its `EnvironmentConfig` or `TrainerConfig` replaced."""

    def make(
        *,
        seed: int | None = 0,
        data: SearchData = smoke_data,
        trainer: dict[str, object] | None = None,
        render_mode: str | None = None,
        **fields: object,
    ) -> MixingEnv:
        config = EnvironmentConfig.model_validate(SMOKE_ENVIRONMENT.model_dump() | fields)
        training = TrainerConfig.model_validate(SMOKE_TASK.trainer.model_dump() | (trainer or {}))
        task = SMOKE_TASK.model_copy(update={"trainer": training})
        return MixingEnv(task, config, data=data, seed=seed, render_mode=render_mode)

    return make
