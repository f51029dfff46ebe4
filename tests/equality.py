"""Bit for bit comparison of nested states, and of the global generators before and after."""

import contextlib
import math
import random
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor


def assert_same(left: object, right: object, *, where: str = "state") -> None:
    """Compare nested mappings, sequences, tensors and plain values; NaN equals NaN."""
    if isinstance(left, Tensor):
        assert isinstance(right, Tensor), where
        assert left.dtype == right.dtype, where
        torch.testing.assert_close(
            left, right, rtol=0, atol=0, equal_nan=True, msg=lambda text: f"{where}: {text}"
        )
    elif isinstance(left, Mapping):
        assert isinstance(right, Mapping), where
        assert left.keys() == right.keys(), where
        for key in left:
            assert_same(left[key], right[key], where=f"{where}.{key}")
    elif isinstance(left, Sequence) and not isinstance(left, str):
        assert isinstance(right, Sequence), where
        assert len(left) == len(right), where
        for index, (first, second) in enumerate(zip(left, right, strict=True)):
            assert_same(first, second, where=f"{where}[{index}]")
    else:
        is_nan = isinstance(left, float) and math.isnan(left)
        assert left == right or (is_nan and math.isnan(right)), (  # type: ignore[arg-type]
            f"{where}: {left} {right}"
        )


def are_same(left: object, right: object) -> bool:
    try:
        assert_same(left, right)
    except AssertionError:
        return False
    return True


def global_generators() -> dict[str, object]:
    """Return the states of the three global generators."""
    return {
        "torch": torch.get_rng_state(),
        "numpy": np.random.get_state()[1].tolist(),  # type: ignore[index]  # noqa: NPY002
        "python": random.getstate(),
    }


@contextlib.contextmanager
def untouched_generators() -> Iterator[None]:
    """Fail if the block advances or reseeds a global generator."""
    before = global_generators()
    yield
    assert_same(before, global_generators(), where="global generators")
