"""Manifold Mixup: the blend takes place in a hidden layer of the network, drawn for each batch.

Verma et al. 2019, https://arxiv.org/abs/1806.05236. The authors draw the layer from the input, the
first block and the second. The operator of the table is the one at the input; whoever runs the
network blends in the other layers, with the same partners and the same ``lam``.

Shape suffixes: N networks, B batch, C channels, K classes.
"""

import contextlib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from automix.operators.blend import mix_rows, soft_targets
from automix.operators.mixup_cutmix import MixupDraws, apply_mixup
from automix.operators.types import MixedBatch
from automix.random_streams import restored_generators

INPUT = "input"
"""Name of the layer before the first: the images themselves."""

_NUM_BLOCKS = 2
# As our networks, torchvision and timm name what they repeat: stage1, layer1, blocks.0, features.0,
# encoder_layer_0, denseblock1.
_BLOCK = re.compile(
    r"(.*\.)?((stage|layer|block|denseblock|encoder_layer_)\d+|(stages|layers|blocks|features)\.\d+)"
)


class FeatureBlend(NamedTuple):
    """Layer whose output is blended, with which partners and weights."""

    layer: str
    draws: MixupDraws


def apply_manifold_mixup(
    images_BCHW: Tensor, targets: Tensor, draws: MixupDraws, *, num_classes: int | None = None
) -> MixedBatch:
    """Blend at the input, the first of the layers: what `apply_mixup` does, also to the labels.

    For another layer, pass the images as they were through the network within `manifold_mixup`, and
    train on these targets.

    Examples:
        >>> draws = MixupDraws(partner=torch.tensor([1, 0]), lam=torch.tensor([0.75, 0.5]))
        >>> images, classes = torch.ones(2, 3, 8, 8), torch.tensor([0, 1])
        >>> apply_manifold_mixup(images, classes, draws, num_classes=2).targets.tolist()
        [[0.75, 0.25], [0.5, 0.5]]
    """
    return apply_mixup(images_BCHW, targets, draws, num_classes=num_classes)


def mixing_layers(model: nn.Module, names: Sequence[str] | None = None) -> tuple[str, ...]:
    """Return the layers of which each batch draws one: ``names``, or the published ones.

    Raises:
        ValueError: the network has no layer of a name, or none are given and it has no parts with
            weights before its head.

    Examples:
        >>> from automix.models.networks import small_cnn
        >>> mixing_layers(small_cnn(channels=1, num_classes=10))
        ('input', 'stage1', 'stage2')
    """
    modules = [name for name, _ in model.named_modules() if name]
    outer = ", ".join(name for name, _ in model.named_children())
    if names is not None:
        for name in names:
            if name != INPUT and name not in modules:
                raise ValueError(f"expected {INPUT} or layers as {outer}; got {name!r}")
        return tuple(names)
    blocks = [name for name in modules if _BLOCK.fullmatch(name)]
    # The outermost ones: layer1, not its layer1.0.
    depth = min((name.count(".") for name in blocks), default=0)
    blocks = [name for name in blocks if name.count(".") == depth]
    # A network with other names: its parts that have weights, without the last, which is the head.
    with_weights = {name.partition(".")[0]: None for name, _ in model.named_parameters()}
    blocks = blocks or list(with_weights)[:-1]
    if not blocks:
        raise ValueError(f"expected names of layers, as {INPUT}, {outer}; got none")
    return (INPUT, *blocks[:_NUM_BLOCKS])


@torch.no_grad()
def check_layers(model: nn.Module, layers: Sequence[str], images_BCHW: Tensor) -> None:
    """Pass images through the network with each of its layers blended.

    Raises:
        TypeError: the output of a layer is not one tensor.
        ValueError: its first dimension is not that of the images.
    """
    partner_B = torch.arange(len(images_BCHW), device=images_BCHW.device)
    draws = MixupDraws(partner_B, torch.ones(len(images_BCHW), device=images_BCHW.device))
    with restored_generators(images_BCHW.device):
        for layer in layers:
            if layer != INPUT:
                with manifold_mixup(model, layer, draws):
                    model(images_BCHW)


def features_blended(
    model: nn.Module, blend: FeatureBlend | None
) -> contextlib.AbstractContextManager[None]:
    """Run a forward pass with the features blended; with None as it is."""
    return contextlib.nullcontext() if blend is None else manifold_mixup(model, *blend)


@contextmanager
def manifold_mixup(model: nn.Module, layer: str, draws: MixupDraws) -> Iterator[None]:
    """Blend the output of a named layer in every forward pass inside the context.

    The hook is removed when the context ends, also when it ends with an exception. Backward and
    second forward passes, of a saliency map say, belong outside of it or see mixed features too.

    Args:
        model: any network; not a compiled one, whose graph may not call the hook.
        layer: name as in ``model.named_modules()``; its output is one tensor, batch first.
        draws: what `draw_mixup` returns for the batch.

    Raises:
        ValueError: the model has no layer of that name, or the layer sees a batch of another
            size than the draws.
        TypeError: the layer's output is not one tensor.

    Examples:
        >>> from automix.operators.mixup_cutmix import draw_mixup
        >>> from automix.operators.types import BatchShape
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(12, 4), nn.Linear(4, 5))
        >>> generator = torch.Generator().manual_seed(0)
        >>> draws = draw_mixup(BatchShape(6, 2, 2), strength=2.0, generator=generator)
        >>> with manifold_mixup(model, "1", draws):
        ...     logits = model(torch.ones(6, 3, 2, 2))
        >>> targets = manifold_targets(torch.arange(6) % 5, draws, num_classes=5)
        >>> loss = nn.functional.cross_entropy(logits, targets)
        >>> logits.shape, targets.shape, loss.shape
        (torch.Size([6, 5]), torch.Size([6, 5]), torch.Size([]))
    """
    modules = dict(model.named_modules())
    if layer not in modules:
        names = ", ".join(sorted(name for name in modules if name))
        raise ValueError(f"layer: expected one of {names}; got {layer!r}")

    def blend_output(module: nn.Module, inputs: Any, output: Any) -> Tensor:
        return _blend_features(output, draws)

    handle = modules[layer].register_forward_hook(blend_output)
    try:
        yield
    finally:
        handle.remove()


def _blend_features(features: object, draws: MixupDraws) -> Tensor:
    if not isinstance(features, Tensor):
        raise TypeError(f"layer: expected one tensor as output, got {type(features).__name__}")
    batch = draws.partner.shape[0]
    if features.shape[0] != batch:
        raise ValueError(f"layer: expected a batch of {batch}, got {features.shape[0]}")
    weight = (1 - draws.lam).to(features.dtype).view(-1, *[1] * (features.dim() - 1))
    return torch.lerp(features, features.index_select(0, draws.partner), weight)


def manifold_targets(
    targets: Tensor, draws: MixupDraws, *, num_classes: int | None = None
) -> Tensor:
    """Return the soft targets that go with the features blended by ``draws``: (B, K) float32."""
    rows_BK = soft_targets(targets, draws.partner.shape[0], num_classes)
    return mix_rows(rows_BK, rows_BK.index_select(0, draws.partner), draws.lam)
