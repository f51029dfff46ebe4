"""What the residual networks have in common.

Every network here is a `torch.nn.Sequential` with the parts ``stem``, ``stage1`` ... ``final``,
``pool``, ``head``. These names are what the named-layer saliency and Manifold Mixup refer to. The
global average pool makes them take any image size; the stem is CIFAR's: 3x3, stride 1.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import Tensor, nn

Block = Callable[[int, int, int], nn.Module]
"""Makes a block from (input channels, output channels, stride)."""


class Stage(NamedTuple):
    """A row of blocks at one resolution.

    Attributes:
        num_blocks: how many; the first one has the stride.
        channels: of the output.
        stride: of the first block.
    """

    num_blocks: int
    channels: int
    stride: int


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


def projection(inputs: int, outputs: int, stride: int) -> nn.Module:
    """Return the shortcut of a post-activation block: nothing, or a 1x1 convolution and norm."""
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    return nn.Sequential(
        convolution(inputs, outputs, kernel=1, stride=stride), nn.BatchNorm2d(outputs)
    )


def residual_network(
    stem: nn.Module,
    stages: Sequence[Stage],
    block: Block,
    *,
    inputs: int,
    num_classes: int,
    final: nn.Module | None = None,
) -> nn.Sequential:
    """Assemble stem, stages, global average pool and linear head.

    Args:
        stem: gives ``inputs`` channels.
        stages: from fine to coarse.
        block: makes one block.
        inputs: channels after the stem.
        num_classes: of the head.
        final: comes before the pool, if given.
    """
    parts: OrderedDict[str, nn.Module] = OrderedDict(stem=stem)
    for number, stage in enumerate(stages, start=1):
        blocks = []
        for index in range(stage.num_blocks):
            blocks.append(block(inputs, stage.channels, stage.stride if index == 0 else 1))
            inputs = stage.channels
        parts[f"stage{number}"] = nn.Sequential(*blocks)
    if final is not None:
        parts["final"] = final
    return with_head(parts, inputs, num_classes)


def with_head(
    parts: "OrderedDict[str, nn.Module]", channels: int, num_classes: int
) -> nn.Sequential:
    """Append a global average pool and a linear classifier to named parts."""
    parts["pool"] = GlobalAveragePool()
    parts["head"] = nn.Linear(channels, num_classes)
    return nn.Sequential(parts)


class GlobalAveragePool(nn.Module):
    """(B, C, H, W) to (B, C); any H and W."""

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Return the mean over rows and columns."""
        return images_BCHW.mean(dim=(2, 3))
