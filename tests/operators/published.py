"""Reading the recorded outputs of published code."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from automix.operators.types import MixedBatch


def published_case(shared_folder: Path, name: str) -> Mapping[str, Tensor]:
    """Return the arrays of one recorded case; of several, the first index counts the cases."""
    with np.load(shared_folder / "fixtures" / f"{name}.npz", allow_pickle=False) as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays.files}


def for_each_image(values: Tensor, batch: int) -> Tensor:
    """Return one value, or one row, for each image of a case that has one for the batch."""
    return values.expand(batch, *values.shape)


def partner_of(case: Mapping[str, Tensor], index: int) -> Tensor:
    return case["perm"] if case["perm"].dim() == 1 else case["perm"][index]


def assert_same(
    mixed: MixedBatch, case: Mapping[str, Tensor], index: int, target: str = "target"
) -> None:
    torch.testing.assert_close(mixed.images, case["x_mixed"][index], atol=1e-5, rtol=0)
    torch.testing.assert_close(mixed.targets, case[target][index], atol=1e-5, rtol=0)


def assert_same_mask(mixed: MixedBatch, mask: Tensor, atol: float = 0) -> None:
    assert mixed.mask is not None
    torch.testing.assert_close(
        mixed.mask[:, 0], mask.expand_as(mixed.mask[:, 0]), atol=atol, rtol=0
    )
