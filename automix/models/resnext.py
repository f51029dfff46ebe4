"""ResNeXt for small images (https://arxiv.org/abs/1611.05431, section 5.3)."""

from torch import Tensor, nn

from automix.models.residual import (
    ConvNormReLU,
    Stage,
    convolution,
    projection,
    residual_network,
)

_STEM_CHANNELS = 64
_EXPANSION = 4


class GroupedBottleneck(nn.Module):
    """1x1, grouped 3x3 and 1x1 convolution, post-activation."""

    def __init__(
        self, inputs: int, outputs: int, stride: int, *, groups: int, group_channels: int
    ) -> None:
        super().__init__()
        # "4x24" names the groups and their channels at the first stage; they double with it.
        inner = groups * group_channels * outputs // (_STEM_CHANNELS * _EXPANSION)
        self.body = nn.Sequential(
            ConvNormReLU(inputs, inner, kernel=1),
            ConvNormReLU(inner, inner, stride=stride, groups=groups),
            convolution(inner, outputs, kernel=1),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut = projection(inputs, outputs, stride)
        self.activation = nn.ReLU(inplace=True)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Return ReLU(body + shortcut)."""
        result: Tensor = self.activation(self.body(images_BCHW) + self.shortcut(images_BCHW))
        return result


def resnext(
    depth: int, groups: int, group_channels: int, *, channels: int, num_classes: int
) -> nn.Sequential:
    """Return ResNeXt-``depth``, ``groups`` x ``group_channels``.

    Args:
        depth: 9 n + 2.
        groups: of the 3x3 convolutions (cardinality).
        group_channels: channels per group at the first stage.
        channels: of the images.
        num_classes: of the head.
    """
    num_blocks = (depth - 2) // 9
    stages = [
        Stage(num_blocks, (_STEM_CHANNELS << level) * _EXPANSION, 1 + (level > 0))
        for level in range(3)
    ]

    def block(inputs: int, outputs: int, stride: int) -> nn.Module:
        return GroupedBottleneck(
            inputs, outputs, stride, groups=groups, group_channels=group_channels
        )

    return residual_network(
        ConvNormReLU(channels, _STEM_CHANNELS),
        stages,
        block,
        inputs=_STEM_CHANNELS,
        num_classes=num_classes,
    )
