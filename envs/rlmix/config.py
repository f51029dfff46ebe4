"""Configuration of the RL-Mix environment. Free of torch and Gymnasium."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from automix.configuration.base import Config

RewardName = Literal["validation_gain", "gradient_similarity", "image_similarity"]


class RLMixConfig(Config):
    """The decision process of RL-Mix: one percentile per image of every mini-batch."""

    reward: RewardName = "validation_gain"
    """validation_gain: gain of the calibrated NLL on the reward split since it was last evaluated.
    gradient_similarity, as published: one cosine of the gradient maps of the clean and the mixed
    batch. image_similarity: the mean of one cosine per image, so that none decides alone."""

    validate_every: Annotated[int, Field(ge=1)] = 20
    """Steps between two evaluations, with validation_gain only; other steps are paid 0."""

    layer: str | None = Field(default="stage2", min_length=1)
    """Module whose output the gradient maps are taken at: the later, the cheaper, but not right
    before the global pooling, where they are flat. null: at the image, as published."""

    cells: Annotated[int, Field(ge=2, le=32)] = 8
    """Cells along a side of the maps that are observed."""

    strength: Annotated[float, Field(ge=0.01, le=10)] = 1.0
    """Alpha of Beta(alpha, alpha), which draws the weight of the own image, one for each batch,
    where both or none of two cells are salient."""

    grids: Annotated[tuple[int, ...], Field(min_length=1)] = (2, 4)
    """Cells along a side of the grid that batches are mixed on; one is drawn for each batch."""

    observe_draws: bool = False
    """Also observe what is drawn before the action and was hidden from the published agent: the
    map of the partner, the weight and the grid."""

    @model_validator(mode="after")
    def _options_have_an_effect(self) -> Self:
        default = type(self).model_fields["validate_every"].default
        if self.reward != "validation_gain" and self.validate_every != default:
            raise ValueError(
                f"expected validate_every {default} without reward validation_gain, "
                f"got {self.validate_every}"
            )
        if any(grid < 1 for grid in self.grids) or list(self.grids) != sorted(set(self.grids)):
            raise ValueError(f"expected rising grids of at least 1, got {list(self.grids)}")
        return self
