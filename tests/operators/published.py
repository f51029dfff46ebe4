"""Reading the recorded outputs of published code."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor


def published_case(shared_folder: Path, name: str) -> Mapping[str, Tensor]:
    """Return the arrays of one recorded case; of several, the first index counts the cases."""
    with np.load(shared_folder / "fixtures" / f"{name}.npz", allow_pickle=False) as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays.files}
