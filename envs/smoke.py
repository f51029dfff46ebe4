"""A profile whose episodes take a tenth of a second: for checkers, tests and first steps."""

from collections.abc import Collection

from automix.configuration.base import Config
from automix.configuration.data import DataConfig
from automix.configuration.task import ModelConfig, TaskConfig
from automix.configuration.trainer import TrainerConfig
from automix.operator_info import Operator
from envs.config import EnvironmentConfig
from envs.mixing_env import MixingEnv
from envs.rlmix.config import RLMixConfig
from envs.rlmix.env import RLMixEnv

# 30 images of 8 x 8 pixels: 12 steps in 4 epochs, a tenth of a second.
SMOKE_TASK = TaskConfig(
    data=DataConfig(labels_per_class=3, test_size=2, reward_size=3, selection_size=3),
    model=ModelConfig(width=2),
    trainer=TrainerConfig(epochs=4, batch_size=10),
)
SMOKE_ENVIRONMENT = EnvironmentConfig(
    num_segments=3,
    operators=(Operator.NONE, Operator.MIXUP, Operator.CUTMIX),
    num_strengths=2,
    probabilities=(0.5, 1.0),
    probe_images=20,
)


def make_smoke_environment(
    *, seed: int | None = None, render_mode: str | None = None, **fields: object
) -> MixingEnv:
    """Return an environment of the smoke profile, with ``fields`` of its configuration replaced.

    Raises:
        TypeError: there is no such field.
    """
    _check_names(fields, EnvironmentConfig, function="make_smoke_environment")
    config = EnvironmentConfig.from_mapping(
        SMOKE_ENVIRONMENT.model_dump(mode="json") | fields, source="smoke environment"
    )
    return MixingEnv(SMOKE_TASK, config, seed=seed, render_mode=render_mode)


def make_smoke_rlmix(
    *, seed: int | None = None, render_mode: str | None = None, **fields: object
) -> RLMixEnv:
    """Return RL-Mix on the smoke profile, with ``fields`` of `RLMixConfig`.

    Raises:
        TypeError: there is no such field.
    """
    _check_names(fields, RLMixConfig, function="make_smoke_rlmix")
    config = RLMixConfig.from_mapping(fields, source="smoke environment")
    return RLMixEnv(SMOKE_TASK, config, seed=seed, render_mode=render_mode)


def _check_names(fields: Collection[str], config: type[Config], *, function: str) -> None:
    # As a function with these keywords would say it: libraries try keywords, and catch this error.
    for name in fields:
        if name not in config.model_fields:
            raise TypeError(f"{function}() got an unexpected keyword argument {name!r}")
