"""ResNets for small images: post-activation (thin) and pre-activation (wide)."""

from torch import Tensor, nn

from automix.models.residual import (
    ConvNormReLU,
    Stage,
    convolution,
    projection,
    residual_network,
)

_PREACT_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
_BOTTLENECK_FROM = 50
_EXPANSION = 4


class BasicBlock(nn.Module):
    """Two 3x3 convolutions, post-activation (https://arxiv.org/abs/1512.03385)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            ConvNormReLU(inputs, outputs, stride=stride),
            convolution(outputs, outputs),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut = projection(inputs, outputs, stride)
        self.activation = nn.ReLU(inplace=True)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Return ReLU(body + shortcut)."""
        result: Tensor = self.activation(self.body(images_BCHW) + self.shortcut(images_BCHW))
        return result


class PreActivationBlock(nn.Module):
    """Norm and ReLU before each convolution (https://arxiv.org/abs/1603.05027).

    Where the shape changes, the shortcut is a 1x1 convolution of the activated input.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, *, bottleneck: bool) -> None:
        super().__init__()
        self.activation = nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU(inplace=True))
        if bottleneck:
            inner = outputs // _EXPANSION
            self.body = nn.Sequential(
                ConvNormReLU(inputs, inner, kernel=1),
                ConvNormReLU(inner, inner, stride=stride),
                convolution(inner, outputs, kernel=1),
            )
        else:
            self.body = nn.Sequential(
                ConvNormReLU(inputs, outputs, stride=stride), convolution(outputs, outputs)
            )
        changes = stride != 1 or inputs != outputs
        self.shortcut = convolution(inputs, outputs, kernel=1, stride=stride) if changes else None

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Return body + shortcut, not activated."""
        activated = self.activation(images_BCHW)
        shortcut = images_BCHW if self.shortcut is None else self.shortcut(activated)
        result: Tensor = self.body(activated) + shortcut
        return result


def resnet(depth: int, *, channels: int, num_classes: int, width: int = 16) -> nn.Sequential:
    """Return a thin three-stage ResNet (https://arxiv.org/abs/1512.03385, section 4.2).

    Shortcuts that change the shape are 1x1 convolutions (option B; the paper pads with zeros).

    Args:
        depth: 6 n + 2; ResNet-20 at width 16 has 0.27 M parameters.
        channels: of the images.
        num_classes: of the head.
        width: channels of the first stage.
    """
    num_blocks = (depth - 2) // 6
    stages = [Stage(num_blocks, width << level, 1 + (level > 0)) for level in range(3)]
    return residual_network(
        ConvNormReLU(channels, width), stages, BasicBlock, inputs=width, num_classes=num_classes
    )


def preact_resnet(depth: int, *, channels: int, num_classes: int, width: int = 64) -> nn.Sequential:
    """Return a four-stage pre-activation ResNet (https://arxiv.org/abs/1603.05027).

    As in the paper, a last norm and ReLU come before the pool. The code of Manifold Mixup,
    PuzzleMix, Co-Mixup and R-Mix leaves these two out.

    Args:
        depth: 18, 34, 50 or 101; from 50 on with bottlenecks.
        channels: of the images.
        num_classes: of the head.
        width: channels of the first stage (before a bottleneck's expansion).
    """
    bottleneck = depth >= _BOTTLENECK_FROM
    expansion = _EXPANSION if bottleneck else 1
    stages = [
        Stage(num_blocks, (width << level) * expansion, 1 + (level > 0))
        for level, num_blocks in enumerate(_PREACT_BLOCKS[depth])
    ]
    return preactivated_network(
        stages, channels=channels, num_classes=num_classes, width=width, bottleneck=bottleneck
    )


def preactivated_network(
    stages: list[Stage], *, channels: int, num_classes: int, width: int, bottleneck: bool = False
) -> nn.Sequential:
    """Assemble pre-activation blocks between a bare convolution and a last norm and ReLU.

    Args:
        stages: from fine to coarse.
        channels: of the images.
        num_classes: of the head.
        width: channels of the stem.
        bottleneck: blocks of 1x1, 3x3, 1x1 instead of two 3x3.
    """

    def block(inputs: int, outputs: int, stride: int) -> nn.Module:
        return PreActivationBlock(inputs, outputs, stride, bottleneck=bottleneck)

    last = nn.Sequential(nn.BatchNorm2d(stages[-1].channels), nn.ReLU(inplace=True))
    return residual_network(
        convolution(channels, width),
        stages,
        block,
        inputs=width,
        num_classes=num_classes,
        final=last,
    )
