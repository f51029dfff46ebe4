"""Which saliency source, and its options. Free of torch, so that `--help` is fast."""

from enum import StrEnum

from pydantic import Field, model_validator

from automix.config import Config


class SaliencyKind(StrEnum):
    """Where a saliency map comes from."""

    INPUT_GRADIENT = "input_gradient"
    LAYER_GRADIENT = "layer_gradient"
    REDUCED_GRADIENT = "reduced_gradient"
    SPECTRAL_RESIDUAL = "spectral_residual"


class Statistics(StrEnum):
    """What the batch-norm layers normalise with during a saliency pass."""

    BATCH = "batch"
    """Layers in train mode use this batch's statistics, layers in eval mode the running ones."""

    RUNNING = "running"
    """All layers use their running statistics, as in eval mode."""


class SaliencyConfig(Config):
    """The saliency source of the operators that need one."""

    source: SaliencyKind = SaliencyKind.INPUT_GRADIENT
    """input_gradient: the reference, about two thirds of a training step; layer_gradient: at a
    named layer, cheaper the later the layer; reduced_gradient: of the shrunken image, cheaper with
    the square of the scale; spectral_residual: from the image alone, almost free."""

    layer: str | None = Field(default=None, min_length=1)
    """Module whose output the gradient is taken at, such as stage2; for layer_gradient only."""

    scale: float | None = Field(default=None, gt=0, lt=1)
    """Side of the shrunken image, as a share; none: 0.5; for reduced_gradient only."""

    statistics: Statistics = Statistics.BATCH
    """What batch norm normalises with during the pass: batch (as in training) or running."""

    refresh_every: int = Field(default=1, ge=1, le=10_000)
    """Steps from one saliency pass to the next. Above 1 every batch of images is held for so many
    steps in a row and mixed anew in each, under every operator, so that its maps stay in use."""

    @model_validator(mode="after")
    def _options_have_an_effect(self) -> "SaliencyConfig":
        if self.source is SaliencyKind.LAYER_GRADIENT and self.layer is None:
            raise ValueError("expected a layer with layer_gradient, got none")
        if self.source is not SaliencyKind.LAYER_GRADIENT and self.layer is not None:
            raise ValueError(f"expected no layer with {self.source}, got {self.layer!r}")
        if self.source is not SaliencyKind.REDUCED_GRADIENT and self.scale is not None:
            raise ValueError(f"expected no scale with {self.source}, got {self.scale}")
        if self.source is SaliencyKind.SPECTRAL_RESIDUAL:
            if self.refresh_every > 1:
                raise ValueError(
                    f"expected refresh_every 1 with {self.source} (keeping maps costs more than "
                    f"computing them), got {self.refresh_every}"
                )
            if self.statistics is not Statistics.BATCH:
                raise ValueError(f"expected no statistics with {self.source} (it has no network)")
        return self
