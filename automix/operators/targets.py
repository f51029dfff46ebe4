"""Targets of any accepted form, as float32 rows.

Shape suffixes: B batch, K classes.
"""

import torch
from torch import Tensor


def soft_targets(targets: Tensor, batch: int, num_classes: int | None = None) -> Tensor:
    """Return targets as float32 rows.

    Args:
        targets: (B,) integer classes, or (B, K) one-hot, soft or multi-label targets of any
            number type.
        batch: B, the number of images.
        num_classes: K; needed for integer classes, checked against the columns otherwise.

    Returns:
        (B, K) float32; a new tensor unless the targets have this form already.

    Raises:
        TypeError: (B,) targets that are not integers.
        ValueError: any other shape, or integer classes without ``num_classes``.
    """
    shape = tuple(targets.shape)
    if targets.dim() not in (1, 2) or shape[0] != batch:
        columns = "K" if num_classes is None else num_classes
        raise ValueError(
            f"targets: expected shape ({batch},) or ({batch}, {columns}), one entry or row for "
            f"each image, got {shape}"
        )
    if targets.dim() == 1:
        return _one_hot(targets, num_classes)
    if num_classes is not None and shape[1] != num_classes:
        raise ValueError(f"targets: expected {num_classes} columns, got shape {shape}")
    if targets.is_complex():
        raise TypeError(f"targets: expected real numbers, got {targets.dtype}")
    return targets.to(torch.float32)


def _one_hot(targets_B: Tensor, num_classes: int | None) -> Tensor:
    if targets_B.is_floating_point() or targets_B.is_complex() or targets_B.dtype == torch.bool:
        raise TypeError(
            f"targets: expected integer classes for shape (B,), got {targets_B.dtype}; give soft "
            "or multi-label targets the shape (B, K)"
        )
    if num_classes is None:
        raise ValueError("num_classes: expected a number for integer targets, got None")
    rows_BK = torch.zeros(
        (targets_B.shape[0], num_classes), dtype=torch.float32, device=targets_B.device
    )
    # Not torch.nn.functional.one_hot, which reads the largest class on the host.
    return rows_BK.scatter_(1, targets_B.to(torch.int64).unsqueeze(1), 1.0)


def mix_rows(own_BK: Tensor, partner_BK: Tensor, lam_B: Tensor) -> Tensor:
    """Return ``lam * own + (1 - lam) * partner`` for each row; exact for lam of 0 and 1."""
    return torch.lerp(partner_BK, own_BK, lam_B.unsqueeze(1))
