"""Every operator gives the output of the published code from the draws it recorded."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from automix.operators.fmix import FMixDraws, apply_fmix, low_frequency_images
from automix.operators.gridmix import GridMixDraws, apply_gridmix
from automix.operators.guidedmixup import (
    GuidedMixupDraws,
    apply_guidedmixup,
    gaussian_blur,
    greedy_partner,
)
from automix.operators.mixup_cutmix import CutMixDraws, MixupDraws, apply_cutmix, apply_mixup
from automix.operators.resizemix import ResizeMixDraws, apply_resizemix
from automix.operators.rmix import RMixDraws, apply_rmix
from automix.operators.saliencymix import SaliencyMixDraws, apply_saliencymix
from automix.operators.sampling import BoxRule, box_lam, centered_box, enlarge_cells, unit_sum
from automix.operators.types import MixedBatch

Arrays = Mapping[str, Tensor]
Load = Callable[[str], Arrays]

NUM_CLASSES = 10


@pytest.fixture
def load(shared_folder: Path) -> Load:
    def load_arrays(name: str) -> Arrays:
        with np.load(shared_folder / "fixtures" / f"{name}.npz", allow_pickle=False) as arrays:
            return {key: torch.from_numpy(arrays[key]) for key in arrays.files}

    return load_arrays


def for_each_image(values: Tensor, batch: int) -> Tensor:
    """Return one value, or one row, for each image of a case that has one for the batch."""
    return values.expand(batch, *values.shape)


def partner_of(case: Arrays, index: int) -> Tensor:
    return case["perm"] if case["perm"].dim() == 1 else case["perm"][index]


def assert_same(mixed: MixedBatch, case: Arrays, index: int, target: str = "target") -> None:
    torch.testing.assert_close(mixed.images, case["x_mixed"][index], atol=1e-5, rtol=0)
    torch.testing.assert_close(mixed.targets, case[target][index], atol=1e-5, rtol=0)


def assert_same_mask(mixed: MixedBatch, mask: Tensor, atol: float = 0) -> None:
    assert mixed.mask is not None
    torch.testing.assert_close(
        mixed.mask[:, 0], mask.expand_as(mixed.mask[:, 0]), atol=atol, rtol=0
    )


@pytest.mark.parametrize(
    "name",
    [
        "mixup_permutation_32x32",
        "mixup_timm_batch_24x40",
        "mixup_timm_elem_32x32",
        "mixup_torchvision_24x40",
    ],
)
def test_mixup(load: Load, name: str) -> None:
    case = load(name)
    for index, lam in enumerate(case["lam"].float()):
        lam_B = lam if lam.dim() else for_each_image(lam, len(case["x"]))
        draws = MixupDraws(partner_of(case, index), lam_B)
        assert_same(apply_mixup(case["x"], case["y"], draws, num_classes=10), case, index)


@pytest.mark.parametrize("rule", ["clovaai", "timm", "torchvision"])
def test_boxes_and_their_area(load: Load, rule: BoxRule) -> None:
    case = load("cutmix_boxes")
    side = (1 - case["lam_drawn"].float()).sqrt()
    for height, width in {(rows, columns) for rows, columns in case["size"].tolist()}:
        rows = (case["size"] == torch.tensor([height, width])).all(1)
        box = centered_box(side[rows], case["cy"][rows], case["cx"][rows], (height, width), rule)
        assert torch.equal(box, case[f"box_{rule}"][rows])
        torch.testing.assert_close(
            box_lam(box, (height, width)), case[f"lam_{rule}"][rows].float(), atol=1e-6, rtol=0
        )


@pytest.mark.parametrize(
    "name",
    [
        "cutmix_clovaai_24x40",
        "cutmix_clovaai_32x32",
        "cutmix_timm_batch_24x40",
        "cutmix_timm_elem_24x40",
        "cutmix_timm_elem_32x32",
        "cutmix_torchvision_24x40",
        "cutmix_torchvision_32x32",
    ],
)
def test_cutmix(load: Load, name: str) -> None:
    case = load(name)
    batch, _, height, width = case["x"].shape
    rule: BoxRule = name.split("_")[1]  # type: ignore[assignment]  # the file is named after it
    for index in range(len(case["box"])):
        lam, row, column, recorded = (
            case[key][index].expand(batch, *case[key].shape[1:])
            if case[key].dim() == (2 if key == "box" else 1)
            else case[key][index]
            for key in ("lam_drawn", "cy", "cx", "box")
        )
        box = centered_box((1 - lam.float()).sqrt(), row, column, (height, width), rule)
        assert torch.equal(box, recorded)
        draws = CutMixDraws(partner_of(case, index), lam.float(), box)
        mixed = apply_cutmix(case["x"], case["y"], draws, num_classes=NUM_CLASSES)
        assert_same(mixed, case, index)
        assert_same_mask(mixed, case["mask"][index])
        if "target_uncorrected" in case:
            drawn = apply_cutmix(
                case["x"], case["y"], draws, num_classes=NUM_CLASSES, label="drawn"
            )
            assert_same(drawn, case, index, "target_uncorrected")


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
def test_resizemix(load: Load, interpolation: str) -> None:
    case = load(f"resizemix_{interpolation}_32x32")
    batch = len(case["x"])
    for index, tau in enumerate(case["tau"].float()):
        row, column = (for_each_image(case[key][index], batch) for key in ("cy", "cx"))
        box = centered_box(for_each_image(tau, batch), row, column, (32, 32), "clovaai")
        assert torch.equal(box, for_each_image(case["box"][index], batch))
        mixed = apply_resizemix(
            case["x"],
            case["y"],
            ResizeMixDraws(case["perm"][index], box),
            num_classes=NUM_CLASSES,
            interpolation="nearest" if interpolation == "nearest" else "bilinear",
        )
        assert_same(mixed, case, index)
        assert_same_mask(mixed, case["mask"][index])


@pytest.mark.parametrize("name", ["fmix_24x40", "fmix_32x32"])
def test_fmix(load: Load, name: str) -> None:
    case = load(name)
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
                num_classes=NUM_CLASSES,
                decay=decay,
                spectrum="published" if spectrum == "published" else "corrected",
            )
            assert_same_mask(mixed, case[f"mask{suffix}"][index])
            if spectrum == "published":
                assert_same(mixed, case, index, "target_area")


def test_gridmix(load: Load) -> None:
    case = load("gridmix_32x32")
    keys = ("lam_drawn", "n_holes", "hole_aspect", "cut_area", "cut_aspect", "ux", "uy")
    for index, partner in enumerate(case["perm"]):
        numbers = (for_each_image(case[key][index].float(), len(partner)) for key in keys)
        draws = GridMixDraws(partner, *numbers)
        mixed = apply_gridmix(
            case["x"], case["y"], draws, num_classes=NUM_CLASSES, clamp_holes=True
        )
        assert_same(mixed, case, index)
        assert_same_mask(mixed, case["mask"][index])


@pytest.mark.parametrize("name", ["saliencymix_24x40", "saliencymix_32x32"])
def test_saliencymix_with_one_box_for_the_batch(load: Load, name: str) -> None:
    case = load(name)
    batch = len(case["x"])
    unused = torch.zeros(batch, dtype=torch.int64)
    for index, partner in enumerate(case["perm"]):
        saliency = torch.rand(case["x"][:, 0].shape, generator=torch.Generator().manual_seed(index))
        saliency[partner[0]] = case["saliency"][index].float()
        lam = for_each_image(case["lam_drawn"][index].float(), batch)
        mixed = apply_saliencymix(
            case["x"],
            case["y"],
            SaliencyMixDraws(partner, lam, unused, unused),
            num_classes=NUM_CLASSES,
            saliency_BHW=saliency,
            box="per_batch",
            rule="clovaai",
        )
        assert_same(mixed, case, index)
        assert_same_mask(mixed, case["mask"][index])


@pytest.mark.parametrize("grid", [4, 8])
def test_rmix(load: Load, grid: int) -> None:
    case = load(f"rmix_grid{grid}_32x32")
    saliency = enlarge_cells(case["saliency"], (32, 32))[:, 0]
    for index, partner in enumerate(case["perm"]):
        weight = for_each_image(case["w"][index, 0], len(partner))
        mixed = apply_rmix(
            case["x"],
            case["y"],
            RMixDraws(partner, case["q"][index], weight),
            num_classes=NUM_CLASSES,
            saliency_BHW=saliency,
            grid=grid,
        )
        assert_same(mixed, case, index)
        assert_same_mask(mixed, case["mask"][index], atol=1e-6)
        torch.testing.assert_close(mixed.lam, case["lam"][index], atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", ["guidedmixup_24x40", "guidedmixup_32x32"])
def test_guidedmixup(load: Load, name: str) -> None:
    case = load(name)
    blurred = unit_sum(gaussian_blur(case["saliency"]))
    tolerance = 1e-5 * float(case["saliency_blurred"].mean())
    torch.testing.assert_close(blurred, case["saliency_blurred"], atol=tolerance, rtol=0)
    random_pairs, greedy_pairs = case["perm"]
    for index, partner in enumerate((random_pairs, None)):
        mixed = apply_guidedmixup(
            case["x"],
            case["y"],
            GuidedMixupDraws(partner),
            num_classes=NUM_CLASSES,
            saliency_BHW=case["saliency"],
        )
        assert_same(mixed, case, index)
        assert_same_mask(mixed, case["mask"][index], atol=1e-5)
    assert torch.equal(mixed.partner, greedy_pairs)


@pytest.mark.parametrize("batch", [2, 3, 8, 16, 33])
def test_greedy_pairing(load: Load, batch: int) -> None:
    case = load("guidedmixup_greedy_pairing")
    assert torch.equal(greedy_partner(case[f"saliency_{batch}"]), case[f"perm_{batch}"])
