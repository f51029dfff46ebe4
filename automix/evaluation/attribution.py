"""Checks of attribution maps: whether what they rank matters, and whether training runs agree.

Shape suffixes: N images, B batch, C channels, H rows, W columns, K classes, P cells,
F fractions.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from automix.evaluation.inference import EvaluationImages, ImageBatch, Predictor
from automix.evaluation.occlusion import FRACTIONS, occlude_patches, occlude_salient_patches
from automix.evaluation.statistics import rank_correlation, student_interval

Maps = Callable[[ImageBatch], Tensor]
"""Returns (B, H, W) maps of the images of a batch, not negative."""

NUM_ORDERS = 4
"""Random orders in which the cells of each image are removed."""

_CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class RemovalCurves:
    """Accuracy while cells of the image are removed, the most salient, random or least ones first.

    ``margin`` is the accuracy with random cells removed less that with the most salient ones, mean
    over the fractions above 0, with a 95% interval over the images. Above 0 the map means
    something.
    """

    fractions: tuple[float, ...]
    salient: tuple[float, ...]
    random: tuple[float, ...]
    least: tuple[float, ...]
    margin: float
    margin_interval: tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class MapAgreement:
    """Agreement of two maps of the same images, means over images with 95% intervals.

    ``rank_correlation`` is Spearman's, of the cells of an image; ``top_quarter`` the fraction that
    the most salient quarters of the cells have in common, 1/4 by chance.
    """

    rank_correlation: float
    rank_correlation_interval: tuple[float, float]
    top_quarter: float
    top_quarter_interval: tuple[float, float]


@torch.no_grad()
def removal_curves(
    predict: Predictor,
    maps: Maps,
    images: EvaluationImages,
    *,
    patch_size: int,
    fill: Sequence[float],
    seed: int,
) -> RemovalCurves:
    """Return the accuracy while cells are filled in the order of ``maps``, and in random orders.

    Cells are patches of ``patch_size`` pixels. At least 2 images.
    """
    salient = functools.partial(occlude_salient_patches, patch_size=patch_size, fill=fill)
    random = functools.partial(occlude_patches, patch_size=patch_size, fill=fill)
    # By image: correct or not at each fraction, in each kind of order.
    rows: dict[str, list[Tensor]] = {"salient": [], "random": [], "least": []}
    for batch in images.batches():
        maps_BHW = maps(batch)
        # The order turned around, by maps that are not negative again.
        turned_BHW = maps_BHW.amax(dim=(1, 2), keepdim=True) - maps_BHW
        curve = functools.partial(_curve, predict, batch)
        rows["salient"].append(curve(functools.partial(salient, saliency_NHW=maps_BHW)))
        rows["least"].append(curve(functools.partial(salient, saliency_NHW=turned_BHW)))
        orders = [
            curve(functools.partial(random, seed=seed + order, indices=batch.indices))
            for order in range(NUM_ORDERS)
        ]
        rows["random"].append(torch.stack(orders).mean(dim=0))
    hits_FN = {name: torch.cat(parts, dim=1) for name, parts in rows.items()}
    # At fraction 0 nothing is removed.
    margins_N = (hits_FN["random"] - hits_FN["salient"])[1:].mean(dim=0)
    margin, interval = _mean(margins_N.numpy())
    curves = {name: tuple(hits.mean(dim=1).tolist()) for name, hits in hits_FN.items()}
    return RemovalCurves(fractions=FRACTIONS, margin=margin, margin_interval=interval, **curves)


def map_agreement(first_NP: Tensor, second_NP: Tensor) -> MapAgreement:
    """Return how far two sets of maps agree on the cells of the same N >= 2 images.

    Examples:
        >>> maps = torch.rand(5, 16, generator=torch.Generator().manual_seed(0))
        >>> map_agreement(maps, maps).top_quarter, map_agreement(maps, -maps).top_quarter
        (1.0, 0.0)
    """
    ranks = rank_correlation(first_NP.double().numpy(), second_NP.double().numpy())
    count = max(1, first_NP.shape[1] // 4)
    tops = [
        torch.zeros(maps.shape, dtype=torch.bool).scatter(
            1, maps.argsort(dim=1, descending=True, stable=True)[:, :count], value=True
        )
        for maps in (first_NP, second_NP)
    ]
    shared_N = (tops[0] & tops[1]).sum(dim=1).double() / count
    correlation, correlation_interval = _mean(np.asarray(ranks))
    top, top_interval = _mean(shared_N.numpy())
    return MapAgreement(
        rank_correlation=correlation,
        rank_correlation_interval=correlation_interval,
        top_quarter=top,
        top_quarter_interval=top_interval,
    )


def _curve(predict: Predictor, batch: ImageBatch, occlude: Callable[..., Tensor]) -> Tensor:
    """Return which images are classified correctly at each fraction, (F, B) of 0 and 1."""
    rows = []
    for fraction in FRACTIONS:
        logits_BK = predict(occlude(batch.images, fraction))
        hits = (logits_BK.argmax(dim=1) == batch.labels) & logits_BK.isfinite().all(dim=1)
        rows.append(hits.double().cpu())
    return torch.stack(rows)


def _mean(values_N: NDArray[np.float64]) -> tuple[float, tuple[float, float]]:
    interval = student_interval(values_N[:, None], confidence=_CONFIDENCE)
    return interval.estimate, (interval.low, interval.high)
