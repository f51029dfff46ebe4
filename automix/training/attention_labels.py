"""Labels of a training step that attention weighs: TransMix.

Shape suffixes: B batch, H rows, W columns, N tokens.
"""

from typing import NamedTuple

from torch import Tensor

from automix.operators.blend import mix_rows
from automix.operators.transmix import attention_lam
from automix.saliency.tokens import class_attention
from automix.training.targets import LabelPairs, Targets


class PastedLabels(NamedTuple):
    """Labels by area, and what it takes to weigh them by attention."""

    pairs: LabelPairs  # classes, or rows of several labels, (B, K)
    mask: Tensor  # (B, 1, H, W) float32, weight of the partner per pixel
    weight: float  # of the attention, in (0, 1]


def targets_by_attention(pasted: PastedLabels, attention_BNN: Tensor) -> Targets:
    """Return the targets with the label weights of `attention_lam`.

    ``attention_BNN`` is that of the last layer to the mixed images, averaged over the heads.

    Raises:
        ValueError: its tokens are no grid of patches.
    """
    maps_BRQ = class_attention(attention_BNN, *pasted.mask.shape[2:])
    pairs = pasted.pairs
    lam_B = attention_lam(pairs.lam, pasted.mask, maps_BRQ, weight=pasted.weight)
    if pairs.own_classes.ndim == 2:
        return mix_rows(pairs.own_classes, pairs.partner_classes, lam_B)
    return pairs._replace(lam=lam_B)
