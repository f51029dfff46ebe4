"""The networks of the literature: small CNN, ResNets, ResNeXt, wide ResNets.

Every function takes the channels of the images and the number of classes, and returns a network
from (B, channels, H, W) to (B, num_classes) logits, for any H and W: each ends in a global average
pool. The networks come first, then what they are built of.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor, nn

_PREACT_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
_BOTTLENECK_FROM = 50
_EXPANSION = 4
_RESNEXT_STEM = 64
_WIDE_RESNET_STEM = 16

Block = Callable[[int, int, int], nn.Module]
"""Makes a block from (input channels, output channels, stride)."""


def small_cnn(*, channels: int, num_classes: int, width: int = 16) -> nn.Sequential:
    """Return three 3x3 convolutions of ``width``, 2 and 4 times ``width`` channels.

    Forward and backward of (50, 1, 8, 8) take 1.5 ms on one core of an AMD EPYC in channels-last
    format and 2.2 ms otherwise; trained on 20 digits per class it classifies about 95% of the rest.
    """
    # Pooling instead of strides: 95.5% against 94.7% on digits with 20 labels per class (mean of
    # 3 seeds, 160 steps) at the same cost.
    parts: OrderedDict[str, nn.Module] = OrderedDict(
        stage1=nn.Sequential(ConvNormReLU(channels, width), nn.MaxPool2d(2, ceil_mode=True)),
        stage2=nn.Sequential(ConvNormReLU(width, 2 * width), nn.MaxPool2d(2, ceil_mode=True)),
        stage3=ConvNormReLU(2 * width, 4 * width),
    )
    return with_head(parts, 4 * width, num_classes)


def resnet(depth: int, *, channels: int, num_classes: int, width: int = 16) -> nn.Sequential:
    """Return a thin three-stage ResNet (https://arxiv.org/abs/1512.03385, section 4.2).

    Shortcuts that change the shape are 1x1 convolutions (option B; the paper pads with zeros).
    ``depth`` is 6 n + 2, ``width`` the channels of the first stage; ResNet-20 at width 16 has
    0.27 M parameters.
    """
    # Two convolutions per block and three stages, plus stem and head: depth = 6 n + 2.
    num_blocks = [(depth - 2) // 6] * 3
    stem = ConvNormReLU(channels, width)
    return residual_network(
        stem, num_blocks, basic_block, inputs=width, width=width, num_classes=num_classes
    )


def preact_resnet(depth: int, *, channels: int, num_classes: int, width: int = 64) -> nn.Sequential:
    """Return a four-stage pre-activation ResNet (https://arxiv.org/abs/1603.05027).

    As in the paper, a last norm and ReLU come before the pool. The code of Manifold Mixup,
    PuzzleMix, Co-Mixup and R-Mix leaves these two out. ``depth`` is 18, 34, 50 or 101, from 50 on
    with bottlenecks; ``width`` the channels of the first stage, before a bottleneck's expansion.
    """
    bottleneck = depth >= _BOTTLENECK_FROM
    return preactivated_network(
        _PREACT_BLOCKS[depth],
        channels=channels,
        inputs=width,
        width=width * (_EXPANSION if bottleneck else 1),
        num_classes=num_classes,
        bottleneck=bottleneck,
    )


def wide_resnet(depth: int, widening: int, *, channels: int, num_classes: int) -> nn.Sequential:
    """Return WRN-``depth``-``widening`` (https://arxiv.org/abs/1605.07146).

    ``depth`` is 6 n + 4; ``widening`` multiplies the 16, 32 and 64 channels of the three stages.
    WRN-28-10 has 36.5 M parameters.
    """
    # Two convolutions per block and three stages, the stem, and the projections of the three
    # stages: depth = 6 n + 4.
    return preactivated_network(
        [(depth - 4) // 6] * 3,
        channels=channels,
        inputs=_WIDE_RESNET_STEM,
        width=_WIDE_RESNET_STEM * widening,
        num_classes=num_classes,
    )


def resnext(
    depth: int, groups: int, group_channels: int, *, channels: int, num_classes: int
) -> nn.Sequential:
    """Return ResNeXt-``depth``, ``groups`` x ``group_channels`` (https://arxiv.org/abs/1611.05431).

    ``depth`` is 9 n + 2, ``groups`` the cardinality of the 3x3 convolutions, ``group_channels``
    the channels per group at the first stage.
    """
    # Three convolutions per block and three stages, plus stem and head: depth = 9 n + 2.
    return residual_network(
        ConvNormReLU(channels, _RESNEXT_STEM),
        [(depth - 2) // 9] * 3,
        partial(grouped_bottleneck, groups=groups, group_channels=group_channels),
        inputs=_RESNEXT_STEM,
        width=_RESNEXT_STEM * _EXPANSION,
        num_classes=num_classes,
    )


def preactivated_network(
    num_blocks: Sequence[int],
    *,
    channels: int,
    inputs: int,
    width: int,
    num_classes: int,
    bottleneck: bool = False,
) -> nn.Sequential:
    """Assemble pre-activation blocks between a bare convolution and a last norm and ReLU.

    The convolution has ``inputs`` output channels, the first stage ``width``.
    """
    # The sum that leaves the last block is not activated: https://arxiv.org/abs/1603.05027 puts a
    # norm and a ReLU after it.
    outputs = width << (len(num_blocks) - 1)
    return residual_network(
        convolution(channels, inputs),
        num_blocks,
        partial(PreActivationBlock, bottleneck=bottleneck),
        inputs=inputs,
        width=width,
        num_classes=num_classes,
        final=nn.Sequential(nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)),
    )


def residual_network(
    stem: nn.Module,
    num_blocks: Sequence[int],
    block: Block,
    *,
    inputs: int,
    width: int,
    num_classes: int,
    final: nn.Module | None = None,
) -> nn.Sequential:
    """Assemble stem (of ``inputs`` channels), stages, pool and linear head.

    The first stage has ``width`` channels at the resolution of the stem; every further one has
    twice the channels at half the resolution.
    """
    parts: OrderedDict[str, nn.Module] = OrderedDict(stem=stem)
    for level, count in enumerate(num_blocks):
        blocks = []
        for index in range(count):
            # Only the first block of a stage shrinks the image and widens the features.
            stride = 2 if level > 0 and index == 0 else 1
            blocks.append(block(inputs, width << level, stride))
            inputs = width << level
        parts[f"stage{level + 1}"] = nn.Sequential(*blocks)
    if final is not None:
        parts["final"] = final
    return with_head(parts, inputs, num_classes)


def with_head(
    parts: "OrderedDict[str, nn.Module]", channels: int, num_classes: int
) -> nn.Sequential:
    """Append a global average pool and a linear classifier to named parts."""
    parts["pool"] = GlobalAveragePool()
    # Last in the order of parameters: that is how `copy_weights_` recognizes the head.
    parts["head"] = nn.Linear(channels, num_classes)
    return nn.Sequential(parts)


def basic_block(inputs: int, outputs: int, stride: int) -> nn.Module:
    """Return two 3x3 convolutions, post-activation (https://arxiv.org/abs/1512.03385)."""
    body = nn.Sequential(
        ConvNormReLU(inputs, outputs, stride=stride),
        convolution(outputs, outputs),
        nn.BatchNorm2d(outputs),
    )
    return PostActivationBlock(body, inputs, outputs, stride)


def grouped_bottleneck(
    inputs: int, outputs: int, stride: int, *, groups: int, group_channels: int
) -> nn.Module:
    """Return 1x1, grouped 3x3 and 1x1 convolution, post-activation."""
    # "4x24" names the groups and their channels at the first stage; they double with it.
    inner = groups * group_channels * outputs // (_RESNEXT_STEM * _EXPANSION)
    body = nn.Sequential(
        ConvNormReLU(inputs, inner, kernel=1),
        ConvNormReLU(inner, inner, stride=stride, groups=groups),
        convolution(inner, outputs, kernel=1),
        nn.BatchNorm2d(outputs),
    )
    return PostActivationBlock(body, inputs, outputs, stride)


class PostActivationBlock(nn.Module):
    """ReLU(body + shortcut); a shortcut that changes the shape is a 1x1 convolution and norm."""

    def __init__(self, body: nn.Module, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = body
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                convolution(inputs, outputs, kernel=1, stride=stride), nn.BatchNorm2d(outputs)
            )
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


class ConvNormReLU(nn.Sequential):
    """Convolution without bias, batch norm, ReLU; 'same' padding for odd kernels."""

    def __init__(
        self, inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__(
            convolution(inputs, outputs, kernel=kernel, stride=stride, groups=groups),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        )


def convolution(
    inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1, groups: int = 1
) -> nn.Conv2d:
    """Return a convolution without bias and with 'same' padding for odd kernels."""
    return nn.Conv2d(
        inputs, outputs, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False
    )


class GlobalAveragePool(nn.Module):
    """(B, C, H, W) to (B, C); any H and W."""

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Return the mean over rows and columns."""
        return images_BCHW.mean(dim=(2, 3))


_WITHOUT_DRAWS = {
    nn.AvgPool2d,
    nn.BatchNorm2d,
    nn.Conv2d,
    nn.Identity,
    nn.Linear,
    nn.MaxPool2d,
    nn.ReLU,
    nn.Sequential,
    ConvNormReLU,
    GlobalAveragePool,
    PostActivationBlock,
    PreActivationBlock,
}


def draws_nothing(model: nn.Module) -> bool:
    """Return whether a pass is known to draw no random numbers, as dropout would."""
    # A subclass, or a module of a library, may call a function that does.
    return all(type(module) in _WITHOUT_DRAWS for module in model.modules())
