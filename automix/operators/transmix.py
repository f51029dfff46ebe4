"""TransMix: labels of a batch with pasted pixels, weighed by the attention of a transformer.

Shape suffixes: R rows and Q columns of the grid of patches.
"""

from torch import Tensor
from torch.nn import functional as F


def attention_lam(
    lam_B: Tensor, mask_B1HW: Tensor, attention_BRQ: Tensor, *, weight: float
) -> Tensor:
    """Return ``(1 - weight) * lam + weight * attention``, the label weight of the own image.

    Chen et al. 2022, https://arxiv.org/abs/2111.09833: a pasted part counts by how much the class
    token of the last layer attends to its patches. With the mask m of the partner, resized to the
    patches without interpolation, and the attention a, the own image has
    ``sum (1 - m) a / sum a``. The paper takes that alone, a weight of 1; its code 0.5.

    Where there is no attention to any patch, ``lam`` stays.

    Args:
        lam_B: label weight of the own image by area.
        mask_B1HW: weight of the partner per pixel.
        attention_BRQ: not negative, any scale.
        weight: of the attention, in [0, 1].

    Examples:
        >>> import torch
        >>> mask = torch.zeros(1, 1, 4, 4)
        >>> mask[..., :2, :2] = 1  # the first of four patches is the partner's
        >>> attention = torch.tensor([[[0.5, 0.1], [0.2, 0.2]]])
        >>> attention_lam(torch.tensor([0.75]), mask, attention, weight=1.0).tolist()
        [0.5]
    """
    cells_BRQ = F.interpolate(mask_B1HW, size=attention_BRQ.shape[1:], mode="nearest").squeeze(1)
    total_B = attention_BRQ.sum((1, 2))
    own_B = ((1 - cells_BRQ) * attention_BRQ).sum((1, 2)) / total_B
    return lam_B.lerp(own_B.where(total_B > 0, lam_B), weight)
