"""Maps against those of the published code, from its recorded weights and inputs."""

from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from automix.models.networks import GlobalAveragePool
from automix.operator_info import Statistics
from automix.saliency.gradient import input_gradient
from automix.saliency.sources import spectral_residual

Arrays = dict[str, Tensor]


def read(folder: Path, name: str) -> Arrays:
    with np.load(folder / "fixtures" / f"{name}.npz", allow_pickle=False) as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays}


def network(arrays: Arrays) -> nn.Sequential:
    """Build the fixtures' network: two convolutions, norms in one of the files, a linear head."""
    parts: OrderedDict[str, nn.Module] = OrderedDict(c1=nn.Conv2d(3, 6, 3, padding=1))
    if "w_b1_weight" in arrays:
        parts["b1"] = nn.BatchNorm2d(6)
    parts["r1"] = nn.ReLU()
    parts["c2"] = nn.Conv2d(6, 10, 3, stride=2, padding=1)
    if "w_b2_weight" in arrays:
        parts["b2"] = nn.BatchNorm2d(10)
    parts["r2"] = nn.ReLU()
    parts["pool"] = GlobalAveragePool()
    parts["fc"] = nn.Linear(10, 10)
    model = nn.Sequential(parts)
    state = {
        ".".join(key.removeprefix("w_").split("_", 1)): value
        for key, value in arrays.items()
        if key.startswith("w_")
    }
    left = model.load_state_dict(state, strict=False)
    assert not left.unexpected_keys
    assert all(key.endswith("num_batches_tracked") for key in left.missing_keys)
    return model


def pooled(maps_BHW: Tensor, side: int) -> Tensor:
    cells = F.avg_pool2d(maps_BHW[:, None], side).squeeze(1)
    return cells / cells.sum(dim=(1, 2), keepdim=True)


@pytest.mark.parametrize(
    "name",
    ["gradient_saliency_32x32", "gradient_saliency_24x40", "gradient_saliency_bn_32x32"],
)
def test_input_gradient(shared_folder: Path, name: str) -> None:
    arrays = read(shared_folder, name)
    maps = input_gradient(network(arrays), arrays["x"], arrays["y"])
    for side in (4, 8):
        expected = arrays[f"pooled_normalised_{side}"]
        torch.testing.assert_close(pooled(maps, side), expected, atol=1e-5, rtol=0)
    expected = arrays["saliency"] / arrays["saliency"].sum(dim=(1, 2), keepdim=True)
    tolerance = 1e-4 * expected.mean().item()
    torch.testing.assert_close(maps, expected, atol=tolerance, rtol=0)


def test_input_gradient_with_running_statistics(shared_folder: Path) -> None:
    arrays = read(shared_folder, "gradient_saliency_bn_32x32")
    maps = input_gradient(network(arrays), arrays["x"], arrays["y"], statistics=Statistics.RUNNING)
    expected = arrays["pooled_normalised_8_eval"]
    torch.testing.assert_close(pooled(maps, 8), expected, atol=1e-5, rtol=0)
    # The two kinds of statistics do give different maps here.
    assert (pooled(maps, 8) - arrays["pooled_normalised_8"]).abs().max() > 1e-3


@pytest.mark.parametrize("name", ["spectral_residual_32x32", "spectral_residual_24x40"])
def test_spectral_residual(shared_folder: Path, name: str) -> None:
    arrays = read(shared_folder, name)
    expected = arrays["saliency"] / arrays["saliency"].sum(dim=(1, 2), keepdim=True)
    tolerance = 1e-4 * expected.mean().item()
    maps = spectral_residual(arrays["x"])
    torch.testing.assert_close(maps, expected, atol=tolerance, rtol=0)
