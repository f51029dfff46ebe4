import math
from pathlib import Path

import numpy as np
import pytest
import torch

from automix.operator_info import Operator
from automix.operators.fmix import FMixDraws, apply_fmix, low_frequency_images
from tests.operators import references as ref
from tests.operators.cases import Scenario
from tests.operators.published import assert_same, assert_same_mask, published_case


def fmix_mask(noise: ref.Array, lam: float, coin: float, height: int, width: int) -> ref.Array:
    spectrum = np.zeros((height, width // 2 + 1), dtype=np.complex128)
    for v in range(height):
        for k in range(width // 2 + 1):
            down = (v if v < (height + 1) // 2 else v - height) / height
            frequency = max(math.hypot(down, k / width), 1 / max(height, width))
            spectrum[v, k] = complex(*noise[v, k]) / frequency**3
    gray = np.fft.irfft2(spectrum, s=(height, width))
    kept = lam * height * width
    count = math.ceil(kept) if coin > 0.5 else math.floor(kept)
    mask = np.ones(height * width)
    mask[np.argsort(-gray.flatten(), kind="stable")[:count]] = 0
    return mask.reshape(height, width)


@ref.every_scenario
@ref.every_seed
def test_agrees_with_loops(scenario: Scenario, seed: int) -> None:
    images, draws, mixed = ref.mixed_by(Operator.FMIX, scenario, seed)
    expected = []
    for index, (first, partner) in enumerate(ref.pairs(images, mixed)):
        lam, coin = float(draws.lam[index]), float(draws.coin[index])
        mask = fmix_mask(ref.array(draws.noise[index]), lam, coin, *scenario.size)
        expected.append(ref.by_mask(first, partner, mask))
    ref.assert_agree(mixed, expected)


@pytest.mark.parametrize("name", ["fmix_24x40", "fmix_32x32"])
def test_agrees_with_published_code(shared_folder: Path, name: str) -> None:
    case = published_case(shared_folder, name)
    height, width = case["x"].shape[2:]
    decay = float(case["decay"])
    noise = case["noise"].float()
    for suffix, spectrum in (("", "published"), ("_corrected", "corrected")):
        gray = low_frequency_images(
            noise,
            (height, width),
            decay=decay,
            spectrum="published" if spectrum == "published" else "corrected",
        )
        gray = gray - gray.amin((1, 2), keepdim=True)
        gray = gray / gray.amax((1, 2), keepdim=True)
        torch.testing.assert_close(gray, case[f"grey{suffix}"].float(), atol=1e-5, rtol=0)
        for index in range(len(noise)):
            one = slice(index, index + 1)
            lam, coin = case["lam_drawn"][one].float(), case["coin"][one].float()
            mixed = apply_fmix(
                case["x"],
                case["y"],
                FMixDraws(case["perm"][index], lam, coin, noise[one]),
                num_classes=10,
                decay=decay,
                spectrum="published" if spectrum == "published" else "corrected",
            )
            assert_same_mask(mixed, case[f"mask{suffix}"][index])
            if spectrum == "published":
                assert_same(mixed, case, index, "target_area")
