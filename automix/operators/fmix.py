"""FMix: a cut along the contour of a random low-frequency image.

Shape suffixes: F = W // 2 + 1 frequencies, M masks (B, or 1 for a common mask), N = H * W pixels.
"""

from typing import Literal, NamedTuple

import torch
from torch import Generator, Tensor

from automix.operators.blend import mask_lam, pair_batch, paste, take
from automix.operators.host import by_blocks
from automix.operators.sampling import Per, check_images, draw_beta, draw_partner, draw_uniform
from automix.operators.types import BatchShape, MixedBatch

Spectrum = Literal["corrected", "published"]

# Halvings of the range of gray values that leave nothing between two float32 numbers.
_NUM_HALVINGS = 24


class FMixDraws(NamedTuple):
    """Parameters of `apply_fmix`."""

    partner: Tensor  # (B,) int64
    lam: Tensor  # (M,) float32, fraction of the image that is kept, before rounding to pixels
    coin: Tensor  # (M,) float32 in [0, 1); above 1/2 that fraction is rounded up, else down
    noise: Tensor  # (M, H, F, 2) standard normal, real and imaginary parts


def draw_fmix(
    shape: BatchShape, *, strength: float, generator: Generator, per: Per = "image"
) -> FMixDraws:
    """Draw partners, areas from Beta(strength, strength), and a spectrum of noise.

    The authors draw one mask ``per`` batch.
    """
    batch, height, width = shape
    count = batch if per == "image" else 1
    spectrum = (count, height, width // 2 + 1, 2)
    return FMixDraws(
        partner=draw_partner(batch, generator),
        lam=draw_beta(count, strength, generator),
        coin=draw_uniform(count, generator),
        noise=torch.randn(spectrum, generator=generator, device=generator.device),
    )


def apply_fmix(
    images_BCHW: Tensor,
    targets: Tensor,
    draws: FMixDraws,
    *,
    num_classes: int | None = None,
    decay: float = 3.0,
    spectrum: Spectrum = "corrected",
) -> MixedBatch:
    """Cut along a contour of a random image whose amplitudes fall as frequency ** -decay.

    Harris et al. 2020, https://arxiv.org/abs/2002.12047. The label is the area of the mask; the
    authors' code uses the drawn fraction, less than one pixel away. The ``published`` spectrum
    repeats their code, which takes the first two frequency rows for the real and imaginary parts,
    so that masks vary hardly at all along x.

    Training accuracy on the mixed images is often below the accuracy on clean ones: that is the
    task being harder, not a fault (their issue 28).

    Examples:
        >>> generator = torch.Generator().manual_seed(0)
        >>> draws = draw_fmix(BatchShape(4, 8, 8), strength=1.0, generator=generator)
        >>> mixed = apply_fmix(torch.ones(4, 3, 8, 8), torch.arange(4), draws, num_classes=4)
        >>> mixed.mask.unique().tolist(), bool((64 * (mixed.lam - draws.lam)).abs().max() < 1)
        ([0.0, 1.0], True)
    """
    check_images(images_BCHW, draws.partner)
    batch, _, height, width = images_BCHW.shape

    def masks(part: slice) -> Tensor:
        noise_MHF2, size = draws.noise[part], (height, width)
        gray_MHW = low_frequency_images(noise_MHF2, size, decay=decay, spectrum=spectrum)
        return _darkest(gray_MHW, draws.lam[part], draws.coin[part])

    mask_M1HW = by_blocks(masks, draws.noise).unsqueeze(1)
    mask_B1HW = mask_M1HW.expand(batch, 1, height, width)
    mixed_BCHW = paste(images_BCHW, take(images_BCHW, draws.partner), mask_B1HW)
    lam_B = mask_lam(mask_M1HW).expand(batch)
    return pair_batch(mixed_BCHW, targets, draws.partner, lam_B, mask_B1HW, num_classes)


def low_frequency_images(
    noise_MHF2: Tensor, size: tuple[int, int], *, decay: float, spectrum: Spectrum
) -> Tensor:
    """Return random images, (M, H, W), of no particular scale: only their order matters."""
    height, width = size
    down_H1 = torch.fft.fftfreq(height, device=noise_MHF2.device).unsqueeze(1)
    across_F = torch.fft.rfftfreq(width, device=noise_MHF2.device)
    # Z(f) = (N(0, 1) + i N(0, 1)) / max(|f|, 1 / max(H, W)) ** decay: the floor keeps the mean of
    # the image, |f| = 0, from being infinite.
    frequency_HF = torch.hypot(down_H1, across_F).clamp(min=1 / max(size))
    amplitude_MHF2 = noise_MHF2 * frequency_HF.pow(-decay).unsqueeze(2).repeat(1, 1, 2)
    if spectrum == "published":
        waves_MHF = torch.complex(amplitude_MHF2[:, 0], amplitude_MHF2[:, 1])
    else:
        waves_MHF = torch.view_as_complex(amplitude_MHF2)
    images_MHW: Tensor = torch.fft.irfft2(waves_MHF, s=size)
    return images_MHW


def _darkest(gray_MHW: Tensor, lam_M: Tensor, coin_M: Tensor) -> Tensor:
    """Return masks, (M, H, W) float32, that leave the brightest ``lam`` of the pixels out."""
    gray_MN = gray_MHW.flatten(1).to(torch.float32)
    kept_M = lam_M * gray_MN.shape[1]
    kept_M = torch.where(coin_M > 0.5, kept_M.ceil(), kept_M.floor())
    threshold_M1 = _threshold(gray_MN, gray_MN.shape[1] - kept_M)
    return _is_less(gray_MN, threshold_M1).view_as(gray_MHW)


def _threshold(gray_MN: Tensor, num_below_M: Tensor) -> Tensor:
    """Return, for each row, a number with so many values of the row below it, (M, 1).

    By bisection: a tenth of the time of sorting the rows on a CPU. (`kthvalue` takes one rank for
    all rows; counting by digits is held up by neighboring pixels in the same bin.)
    """
    num_below_M1 = num_below_M.unsqueeze(1)
    if gray_MN.shape[0] == 1:  # sorting one row takes a fifth of the time of so many small steps
        above_M1 = torch.full_like(num_below_M1, torch.inf)
        ordered_MN = torch.cat((gray_MN.sort(1).values, above_M1), 1)
        return ordered_MN.gather(1, num_below_M1.to(torch.int64))
    low_M1 = gray_MN.amin(1, keepdim=True)
    width_M1 = (gray_MN.amax(1, keepdim=True) - low_M1) * 1.001  # reaches above the largest
    halving_K = torch.arange(1, _NUM_HALVINGS + 1, device=gray_MN.device)
    step_KM1 = width_M1 * torch.exp2(-halving_K).view(-1, 1, 1)
    # Keep: at most `num_below` values are below `low`. Each step is taken if that stays true.
    for step_M1 in step_KM1.unbind():
        trial_M1 = low_M1 + step_M1
        num_less_M1 = _is_less(gray_MN, trial_M1).sum(1, keepdim=True)
        low_M1 = torch.where(num_less_M1 <= num_below_M1, trial_M1, low_M1)
    return low_M1


def _is_less(values_MN: Tensor, bound_M1: Tensor) -> Tensor:
    """Return 1.0 for values below the bound and 0.0 for the others."""
    # Comparing into floats is vectorized on a CPU: a sixth of the time of comparing into booleans.
    return torch.lt(values_MN, bound_M1, out=torch.empty_like(values_MN))
