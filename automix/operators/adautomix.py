"""Adversarial AutoMixup: a small network draws the mask, and is trained against the classifier.

The operator is a pure function of images, draws and the network; without a network, or before its
first step, it is Mixup. Who trains the network is in `automix.training.mixers.adversarial`.

Shape suffixes: P cells along a side of the network's grid.
"""

from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from automix.operators.blend import blend, mask_lam, pair_batch, take
from automix.operators.mixup_cutmix import draw_mixup
from automix.operators.sampling import Per, check_images
from automix.operators.types import BatchShape, MixedBatch

_CELLS = 8
_WIDTH = 16


class AdAutoMixDraws(NamedTuple):
    """Parameters of `apply_adautomix`."""

    partner: Tensor  # (B,) int64
    lam: Tensor  # (B,) float32, what the own image would keep in Mixup


def draw_adautomix(
    shape: BatchShape, *, strength: float, generator: Generator, per: Per = "image"
) -> AdAutoMixDraws:
    """Draw partners, and weights from Beta(strength, strength)."""
    return AdAutoMixDraws(*draw_mixup(shape, strength=strength, generator=generator, per=per))


class MaskNetwork(nn.Module):
    """Scores the cells of a pair of images; its last layer is 0 at first, which scores nothing."""

    def __init__(self, channels: int, *, generator: Generator) -> None:
        """Initialize from ``generator``, on the CPU, for images of ``channels``."""
        super().__init__()
        # An image, the other one, and lam in a channel of its own. Parameters are drawn below.
        with torch.device("meta"):
            self.body = nn.Sequential(
                nn.Conv2d(2 * channels + 1, _WIDTH, 3, padding=1),
                nn.ReLU(),
                nn.Conv2d(_WIDTH, _WIDTH, 3, padding=1),
                nn.ReLU(),
            )
            self.head = nn.Conv2d(_WIDTH, 1, 1)
        self.to_empty(device="cpu")
        for parameter in self.parameters():
            nn.init.zeros_(parameter)
        for layer in self.body:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)

    def forward(self, own_BCHW: Tensor, partner_BCHW: Tensor, lam_B: Tensor) -> Tensor:
        """Return the weight of the partner per pixel, (B, 1, H, W) float32 in [0, 1]."""
        size = own_BCHW.shape[2:]
        grid = (min(_CELLS, size[0]), min(_CELLS, size[1]))
        first, second = (
            F.adaptive_avg_pool2d(images.float(), grid) for images in (own_BCHW, partner_BCHW)
        )
        weight_B111 = 1 - lam_B.view(-1, 1, 1, 1)
        # Antisymmetric: with the parents exchanged, the mask is the rest.
        score = self._score(first, second, 1 - weight_B111) - self._score(
            second, first, weight_B111
        )
        # With w = 1 - lam and score s, w e^s / (w e^s + 1 - w): the odds of w times e^s. A score of
        # 0 leaves w, and a weight of 0 or 1 stays what it is.
        raised = weight_B111 * score.clamp(-10, 10).exp()
        cells_B1PP = raised / (raised + 1 - weight_B111)
        mask_B1HW = F.interpolate(cells_B1PP, size=size, mode="bilinear", align_corners=False)
        # Weights of the interpolation sum to 1 but for rounding.
        return mask_B1HW.clamp(0, 1)

    def _score(self, first: Tensor, second: Tensor, weight_B111: Tensor) -> Tensor:
        plane = weight_B111.expand(-1, 1, *first.shape[2:])
        return self.head(self.body(torch.cat((first, second, plane), dim=1)))  # type: ignore[no-any-return]


def apply_adautomix(
    images_BCHW: Tensor,
    targets: Tensor,
    draws: AdAutoMixDraws,
    *,
    num_classes: int | None = None,
    network: MaskNetwork | None = None,
) -> MixedBatch:
    """Blend each pixel by the mask of ``network``; ``lam`` is what the mask leaves, on average.

    After Qin et al. 2024, https://arxiv.org/abs/2312.11954, and AutoMix, whose mask is drawn by
    attention between features of an averaged encoder. This network sees 8 x 8 cells of the two
    images and `lam`, and is no reproduction. Without a network it is Mixup.

    Examples:
        >>> draws = AdAutoMixDraws(partner=torch.tensor([1, 0]), lam=torch.tensor([0.75, 0.5]))
        >>> network = MaskNetwork(3, generator=torch.Generator().manual_seed(0))
        >>> images, targets = torch.ones(2, 3, 8, 8), torch.tensor([0, 1])
        >>> mixed = apply_adautomix(images, targets, draws, num_classes=2, network=network)
        >>> mixed.lam.tolist(), mixed.mask.shape
        ([0.75, 0.5], torch.Size([2, 1, 8, 8]))
    """
    check_images(images_BCHW, draws.partner)
    partner_BCHW = take(images_BCHW, draws.partner)
    if network is None:
        mask_B1HW, lam_B = 1 - draws.lam.view(-1, 1, 1, 1), draws.lam
    else:
        mask_B1HW = network(images_BCHW, partner_BCHW, draws.lam)
        lam_B = mask_lam(mask_B1HW)
    mixed_BCHW = blend(images_BCHW, partner_BCHW, mask_B1HW)
    return pair_batch(mixed_BCHW, targets, draws.partner, lam_B, mask_B1HW, num_classes)
