"""Manifold Mixup: the blend takes place in a hidden layer of the network.

Not in the table of operators, because it changes a forward pass and not a batch.

Verma et al. 2019, https://arxiv.org/abs/1806.05236. The authors draw the layer for each batch from
the input (which is `apply_mixup`), the first block and the second.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from automix.operators.blend import mix_rows, soft_targets
from automix.operators.mixup_cutmix import MixupDraws


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
