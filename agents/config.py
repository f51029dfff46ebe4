"""Hyperparameters of the agent. Free of torch and Stable-Baselines3."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from automix.configuration.base import Config


class AgentConfig(Config):
    """Proximal policy optimization over whole training runs.

    Rewards are not discounted: strong mixing early lowers the next segment's validation and
    raises the final one, so a myopic agent learns never to mix.
    """

    episodes: Annotated[int, Field(ge=1)] = 320
    """Training runs that the agent learns from, rounded up to whole rollouts."""

    episodes_per_rollout: Annotated[int, Field(ge=2)] = 16
    """Training runs per policy update, over all environments; a multiple of num_environments."""

    num_environments: Annotated[int, Field(ge=1)] = 16
    """Training runs side by side, in as many processes as there are cores; those of one process are
    trained at once, see compute.population. The result depends on it: another number means other
    episodes."""

    workers: Literal["auto", "subprocess", "in_process"] = "auto"
    """Execution of the environments, with the same results. subprocess: in processes of their own;
    in_process: in this process; auto: subprocess on several cores, in_process on an accelerator or
    one core."""

    # It falls, because near the end all returns are alike: advantages are then scaled-up noise, and
    # the policy walks away from what it found. Of 12 searches of the toy whose best operator
    # depends on the state, one fell from 98% of the best return to 75% in its last 64 episodes.
    learning_rate: Annotated[float, Field(gt=0)] = 0.01
    """Initial learning rate of Adam for policy and critic; it decays linearly, to 1 / (number of
    rollouts) of itself at the last update."""

    n_epochs: Annotated[int, Field(ge=1)] = 5
    """Epochs over a rollout per update."""

    # Returns are noisy, and halves of a rollout disagree. On the two toys of the tests, 20 searches
    # of 320 episodes: all found 98.8% of the best return or more; with 64 decisions per step 14 of
    # them, and one less than 95%.
    minibatch_size: Annotated[int, Field(ge=2)] | None = None
    """Decisions per gradient step; divides the decisions of a rollout. Null: the whole rollout."""

    gae_lambda: Annotated[float, Field(ge=0, le=1)] = 0.8
    """Lambda of generalized advantage estimation: 1 uses the whole return for each decision, 0 only
    the credit that an additive model of all episodes assigns to it."""

    clip_range: Annotated[float, Field(gt=0)] = 0.2
    """Clip range of the probability ratio in an update."""

    # With 0.001 the policy of noisy toys settled after a third of the episodes, and the rest taught
    # nothing: 9 of 10 searches reached 95% of the best return. With 0.02, all 10 did.
    ent_coef: Annotated[float, Field(ge=0)] = 0.02
    """Entropy coefficient: weight of the entropy bonus, which keeps the policy exploring."""

    vf_coef: Annotated[float, Field(ge=0)] = 0.5
    """Value-function coefficient: weight of the critic's loss."""

    hidden_sizes: tuple[Annotated[int, Field(ge=1)], ...] = (32, 32)
    """Widths of the hidden layers of policy and critic."""

    start_from: Annotated[str, Field(min_length=1, max_length=1000)] | None = None
    """Policy that PPO continues to train: `default`, which ships, or the folder of a search or of
    `automix pretrain`. Its environment and hidden_sizes are taken over, and nothing is imitated.
    Null: PPO starts from nothing."""

    credit: bool = True
    """Reward each decision with what an additive model of all episodes attributes to it. false: the
    whole return is paid at the end of an episode."""

    race_start: bool = True
    """Train the policy before its first episode, by imitation, on the preferences of an additive
    model of the race."""

    warm_start: Annotated[float, Field(ge=0, le=1)] | None = 0.5
    """Fraction of the episodes after which the policy is trained once, by imitation, on the
    preferences of an additive model of them; null: never. Before, the policy explores; after, it
    improves on what it imitates."""

    patience: Annotated[int, Field(ge=1)] | None = None
    """Stop after this many rollouts without a better mean return; null: never."""


class RLMixAgentConfig(Config):
    """Proximal policy optimization of RL-Mix: a step is one mini-batch of a training run.

    Published are rollouts of 1000 mini-batches in minibatches of 250; the learning rate is unknown.
    """

    episodes: Annotated[int, Field(ge=1)] = 40
    """Training runs that the agent learns from, one after the other."""

    n_steps: Annotated[int, Field(ge=2)] = 80
    """Mini-batches per policy update."""

    minibatch_size: Annotated[int, Field(ge=2)] = 80
    """Mini-batches of images per gradient step of the agent; divides n_steps."""

    n_epochs: Annotated[int, Field(ge=1)] = 10
    """Epochs over a rollout per update."""

    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    """Learning rate of Adam for policy and critic."""

    gamma: Annotated[float, Field(ge=0, le=1)] = 0.99
    """Discount per mini-batch."""

    gae_lambda: Annotated[float, Field(ge=0, le=1)] = 0.95
    """Lambda of generalized advantage estimation."""

    clip_range: Annotated[float, Field(gt=0)] = 0.2
    """Clip range of the probability ratio, the geometric mean over the images of a batch."""

    ent_coef: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the entropy bonus."""

    hidden_sizes: tuple[Annotated[int, Field(ge=1)], ...] = (64,)
    """Widths of the hidden layers of policy and critic."""

    @model_validator(mode="after")
    def _minibatches_divide_a_rollout(self) -> Self:
        if self.n_steps % self.minibatch_size:
            raise ValueError(
                f"expected a minibatch_size that divides n_steps {self.n_steps}, "
                f"got {self.minibatch_size}"
            )
        return self
