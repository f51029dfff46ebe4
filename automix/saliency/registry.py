"""Saliency sources from their configuration."""

from automix.saliency.config import SaliencyConfig, SaliencyKind
from automix.saliency.gradient import InputGradient, LayerGradient, ReducedGradient
from automix.saliency.spectral import SpectralResidual
from automix.saliency.types import SaliencySource


def build_source(config: SaliencyConfig) -> SaliencySource:
    """Return the source that ``config`` names; it computes maps in every call.

    `automix.saliency.cache.CachedSource` keeps them for ``refresh_every`` steps.
    """
    match config.source:
        case SaliencyKind.INPUT_GRADIENT:
            return InputGradient(statistics=config.statistics)
        case SaliencyKind.LAYER_GRADIENT:
            assert config.layer is not None
            return LayerGradient(layer=config.layer, statistics=config.statistics)
        case SaliencyKind.REDUCED_GRADIENT:
            return ReducedGradient(scale=config.scale or 0.5, statistics=config.statistics)
        case SaliencyKind.SPECTRAL_RESIDUAL:
            return SpectralResidual()
