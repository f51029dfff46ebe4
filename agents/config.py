"""How the policy learns. Free of torch and Stable-Baselines3."""

from typing import Annotated, Literal

from pydantic import Field

from automix.config import Config


class AgentConfig(Config):
    """Proximal policy optimisation over whole trainings.

    Rewards are not discounted: strong mixing early lowers the next segment's validation and
    raises the final one, so a myopic agent learns never to mix.
    """

    episodes: Annotated[int, Field(ge=1)] = 320
    """Trainings the agent learns from, rounded up to whole rollouts."""

    episodes_per_rollout: Annotated[int, Field(ge=2)] = 16
    """Trainings between two policy updates, over all environments; a multiple of
    num_environments."""

    num_environments: Annotated[int, Field(ge=1)] = 2
    """Trainings that run at the same time. Part of the result: another number, other episodes."""

    workers: Literal["subprocess", "in_process"] = "subprocess"
    """Where environments run: a process each, or one after the other in this process."""

    learning_rate: Annotated[float, Field(gt=0)] = 0.01
    """Step size of Adam for policy and critic."""

    epochs_per_update: Annotated[int, Field(ge=1)] = 5
    """Passes over a rollout at each update."""

    # Returns are noisy, and halves of a rollout disagree. On the two toys of the tests, 20 searches
    # of 320 episodes: all found 98.8% of the best return or more; with 64 decisions per step 14 of
    # them, and one less than 95%.
    minibatch_size: Annotated[int, Field(ge=2)] | None = None
    """Decisions per gradient step; divides the decisions of a rollout. null: all of a rollout."""

    gae_lambda: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Trace decay of the advantage; 1 uses the whole return."""

    clip_range: Annotated[float, Field(gt=0)] = 0.2
    """How far an update may move the probability of a decision."""

    entropy_coefficient: Annotated[float, Field(ge=0)] = 0.003
    """Weight of the entropy bonus, which keeps the policy exploring."""

    value_coefficient: Annotated[float, Field(ge=0)] = 0.5
    """Weight of the critic's loss."""

    hidden_sizes: tuple[Annotated[int, Field(ge=1)], ...] = (32, 32)
    """Widths of the hidden layers of policy and critic."""

    patience: Annotated[int, Field(ge=1)] | None = None
    """Stop after this many rollouts without a better mean return; null never stops early."""
