"""The one signature of all saliency sources.

Shape suffixes: B batch, C channels, H rows, W columns, K classes, N images of a data set.
"""

from typing import Protocol

from torch import Tensor, nn


class SaliencySource(Protocol):
    """Anything that tells how much each pixel matters for the class of its image."""

    def __call__(self, model: nn.Module, images_BCHW: Tensor, targets: Tensor) -> Tensor:
        """Return (B, H, W) float32 maps, not negative, summing to 1 per image.

        Where nothing is salient (or something is not finite) the map is uniform.

        Args:
            model: a classifier, (B, C, H, W) to logits (B, K); its parameters, gradients, buffers
                and flags are the same afterwards, and so are the global random generators.
            images_BCHW: floating point, as the model takes them.
            targets: (B,) class indices or (B, K) soft targets.
        """
        ...
