"""Which image is mixed with which: the greedy pairing of GuidedMixup.

Shape suffixes: B batch, H rows, W columns, N numbers in a map (H * W).
"""

import torch
from torch import Tensor

_TAKEN = -1.0
"""Below every distance, so that it is never the farthest."""


def greedy_partner(maps_BHW: Tensor) -> Tensor:
    """Return partners whose maps are far apart.

    Kang and Kim, https://arxiv.org/abs/2306.16612: the two maps with the largest L2 distance
    begin a cycle, the farthest image not used yet follows each, and the last gets the first.
    (The published program asks for this pairing under a wrong name and gets a random one.)

    The distances take B x B numbers, not B x B maps. The chain is sequential by definition:
    B - 2 steps that depend on one another, three small kernels each and nothing read by the host.

    Args:
        maps_BHW: (B, H, W) float32, finite.

    Returns:
        (B,) int64, a permutation in one cycle; one image keeps itself.
    """
    partner_B: Tensor = torch.ops.automix.greedy_cycle(maps_BHW.detach().flatten(1))
    return partner_B


def greedy_cycle(maps_BN: Tensor) -> Tensor:
    """Return what `greedy_partner` does, of flattened maps."""
    batch = maps_BN.shape[0]
    if batch < 3:
        return torch.arange(batch - 1, -1, -1, device=maps_BN.device)
    distance_BB = torch.cdist(maps_BN, maps_BN)
    # Both halves hold the same pairs, but not to the last bit.
    is_upper_BB = torch.ones_like(distance_BB, dtype=torch.bool).triu(1)
    farthest = distance_BB.where(is_upper_BB, _TAKEN).argmax()
    cycle_B = torch.empty(batch, dtype=torch.int64, device=maps_BN.device)
    cycle_B[0], cycle_B[1] = farthest // batch, farthest % batch
    distance_BB.index_fill_(1, cycle_B[:2], _TAKEN)
    for position in range(1, batch - 1):
        row_1B = distance_BB.index_select(0, cycle_B[position : position + 1])
        following = cycle_B[position + 1 : position + 2]
        torch.argmax(row_1B, 1, out=following)
        distance_BB.index_fill_(1, following, _TAKEN)
    return torch.empty_like(cycle_B).scatter_(0, cycle_B, cycle_B.roll(-1))


def _unknown_cycle(maps_BN: Tensor) -> Tensor:
    """Return the form of the result, for tracing."""
    return maps_BN.new_empty(maps_BN.shape[0], dtype=torch.int64)


# One operation to the compiler, which would unroll the chain and recompile for each batch size.
# Not `torch.library.custom_op`, whose first call imports 900 modules and takes seconds.
_LIBRARY = torch.library.Library("automix", "DEF")  # type: ignore[no-untyped-call]
_LIBRARY.define("greedy_cycle(Tensor maps) -> Tensor")  # type: ignore[no-untyped-call]
_LIBRARY.impl(  # type: ignore[no-untyped-call]
    "greedy_cycle", greedy_cycle, "CompositeExplicitAutograd"
)
torch.library.register_fake("automix::greedy_cycle", _unknown_cycle, lib=_LIBRARY)
