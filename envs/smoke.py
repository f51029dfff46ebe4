"""A profile whose episodes take a tenth of a second: for checkers, tests and first steps."""

from automix.configuration.data import DataConfig
from automix.configuration.task import ModelConfig, TaskConfig, TrainerConfig
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
    """Return an environment of the smoke profile, with ``fields`` of its configuration replaced."""
    config = EnvironmentConfig.from_mapping(
        SMOKE_ENVIRONMENT.model_dump(mode="json") | fields, source="smoke environment"
    )
    return MixingEnv(SMOKE_TASK, config, seed=seed, render_mode=render_mode)


def make_smoke_rlmix(*, seed: int | None = None, **fields: object) -> RLMixEnv:
    """Return RL-Mix on the smoke profile, with ``fields`` of `RLMixConfig`."""
    config = RLMixConfig.from_mapping(fields, source="smoke environment")
    return RLMixEnv(SMOKE_TASK, config, seed=seed)
