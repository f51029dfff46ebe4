"""How the policy learns. Free of torch and Stable-Baselines3."""

from typing import Annotated, Literal

from pydantic import Field

from automix.configuration.base import Config


class AgentConfig(Config):
    """Proximal policy optimization over whole training runs.

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

    workers: Literal["auto", "subprocess", "in_process", "lockstep"] = "auto"
    """Where environments run: a process each; one after the other in this process; all classifiers
    trained at once on one device, which has other last bits; or what suits this machine: lockstep
    on an accelerator with several environments, processes on several cores, else this process."""

    # It falls, because near the end all returns are alike: advantages are then scaled-up noise, and
    # the policy walks away from what it found. Of 12 searches of the toy whose best operator
    # depends on the state, one fell from 98% of the best return to 75% in its last 64 episodes.
    learning_rate: Annotated[float, Field(gt=0)] = 0.01
    """Step size of Adam for policy and critic at the beginning; it falls linearly to a share of one
    over the number of rollouts, at the update after the last one."""

    n_epochs: Annotated[int, Field(ge=1)] = 5
    """Passes over a rollout at each update."""

    # Returns are noisy, and halves of a rollout disagree. On the two toys of the tests, 20 searches
    # of 320 episodes: all found 98.8% of the best return or more; with 64 decisions per step 14 of
    # them, and one less than 95%.
    minibatch_size: Annotated[int, Field(ge=2)] | None = None
    """Decisions per gradient step; divides the decisions of a rollout. null: all of a rollout."""

    gae_lambda: Annotated[float, Field(ge=0, le=1)] = 0.8
    """Trace decay of the advantage; 1 uses the whole return for each decision, 0 only what an
    additive model of all episodes credits it with."""

    clip_range: Annotated[float, Field(gt=0)] = 0.2
    """How far an update may move the probability of a decision."""

    # With 0.001 the policy of noisy toys settled after a third of the episodes, and the rest taught
    # nothing: 9 of 10 searches reached 95% of the best return. With 0.02, all 10 did.
    ent_coef: Annotated[float, Field(ge=0)] = 0.02
    """Weight of the entropy bonus, which keeps the policy exploring."""

    vf_coef: Annotated[float, Field(ge=0)] = 0.5
    """Weight of the critic's loss."""

    hidden_sizes: tuple[Annotated[int, Field(ge=1)], ...] = (32, 32)
    """Widths of the hidden layers of policy and critic."""

    warm_start: Annotated[float, Field(ge=0, le=1)] | None = 0.5
    """Share of the episodes after which the policy imitates, once, what an additive model of them
    prefers; null never does. Before, the policy explores; after, it improves on what it
    imitates."""

    patience: Annotated[int, Field(ge=1)] | None = None
    """Stop after this many rollouts without a better mean return; null never stops early."""
