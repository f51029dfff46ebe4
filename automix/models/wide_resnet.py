"""Wide residual networks (https://arxiv.org/abs/1605.07146), without dropout."""

from torch import nn

from automix.models.residual import Stage
from automix.models.resnet import preactivated_network

_STEM_CHANNELS = 16


def wide_resnet(depth: int, widening: int, *, channels: int, num_classes: int) -> nn.Sequential:
    """Return WRN-``depth``-``widening``; WRN-28-10 has 36.5 M parameters.

    Args:
        depth: 6 n + 4.
        widening: multiplies the 16, 32 and 64 channels of the three stages.
        channels: of the images.
        num_classes: of the head.
    """
    num_blocks = (depth - 4) // 6
    stages = [
        Stage(num_blocks, (_STEM_CHANNELS << level) * widening, 1 + (level > 0))
        for level in range(3)
    ]
    return preactivated_network(
        stages, channels=channels, num_classes=num_classes, width=_STEM_CHANNELS
    )
