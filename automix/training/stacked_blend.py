"""Manifold Mixup in a stacked network: each network blends in the layer that its batch has drawn.

Shape suffixes: N networks, B batch.
"""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from automix.models.stacked import StackedLinear, StackedNetwork
from automix.operators.manifold_mixup import FeatureBlend
from automix.operators.mixup_cutmix import MixupDraws


@contextlib.contextmanager
def stacked_features_blended(
    network: StackedNetwork, blends: Mapping[int, FeatureBlend]
) -> Iterator[None]:
    """Blend features in the forward passes of a block; ``blends`` are by number of the network."""
    with contextlib.ExitStack() as handles:
        for layer in {blend.layer for blend in blends.values()}:
            draws = {index: blend.draws for index, blend in blends.items() if blend.layer == layer}
            hook = _hook(network.num_networks, draws)
            handle = network.body.get_submodule(layer).register_forward_hook(hook)
            handles.callback(handle.remove)
        yield


def _hook(count: int, draws: Mapping[int, MixupDraws]) -> Any:
    def blend_output(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        if isinstance(module, StackedLinear):
            return _blended(output, draws)
        # (B, N C, ...) as (N, B, C, ...) and back, without a copy.
        features = output.view(len(output), count, -1, *output.shape[2:]).transpose(0, 1)
        return _blended(features, draws).transpose(0, 1).flatten(1, 2)

    return blend_output


def _blended(features: Tensor, draws: Mapping[int, MixupDraws]) -> Tensor:
    """Return (N, B, ...) features blended where there are draws; the others keep their bits."""
    count, batch = features.shape[:2]
    own_B = torch.arange(batch, device=features.device)
    nothing = MixupDraws(own_B, torch.ones(batch, device=features.device))
    chosen = [draws.get(index, nothing) for index in range(count)]
    partner_NB = torch.stack([one.partner for one in chosen])
    weight_NB = 1 - torch.stack([one.lam for one in chosen]).to(features.dtype)
    index_N1 = torch.arange(count, device=features.device)[:, None]
    partners = features[index_N1, partner_NB]
    return torch.lerp(features, partners, weight_NB.view(count, batch, *[1] * (features.dim() - 2)))
