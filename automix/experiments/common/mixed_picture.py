"""A small picture of what a schedule does to the images that it was searched or trained on.

It is made with the run and kept in its folder: whoever reads the run needs no image.
"""

import dataclasses
import functools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from automix.data.splits import SearchData
from automix.errors import AutoMixError
from automix.experiments.common.kept_files import keep
from automix.mixture import Decision
from automix.operator_info import OPERATOR_FACTS, SaliencyKind
from automix.operators import mix
from automix.operators.types import MixedBatch
from automix.random_streams import Stream, stream_generator
from automix.reporting.pixels import Pixels, enlarged, photograph, webp
from automix.saliency.sources import spectral_residual
from automix.schedule import Schedule
from automix.schedule_words import percent

PICTURE_NAME = "mixed.webp"
SPECTRAL = SaliencyKind.SPECTRAL_RESIDUAL.value.replace("_", " ")
_COLUMNS = 6
# Decisions beyond these are not shown; the schedule has them all.
_MOST_DECISIONS = 4
_SIDE = 96
_GAP = 4
_LOG = logging.getLogger(__name__)

SaliencyOf = Callable[[Tensor, Tensor], Tensor]
"""Maps (B, H, W) of stored uint8 images and labels."""


def keep_picture(
    folder: Path,
    schedule: Schedule,
    data: SearchData,
    *,
    seed: int,
    source: SaliencyKind,
    saliency_of: SaliencyOf | None = None,
) -> dict[str, Any] | None:
    """Write `mixed.webp` for the run in ``folder``; return its file and rows for the result.

    The first row holds training images as they are, each other one what a decision of the schedule
    makes of them. None where there is no picture: images of two channels, or one cannot be read.

    Args:
        folder: of a run, whose lock is held.
        schedule: what is shown.
        data: whose training images are mixed.
        seed: of the choice of images and of the mixing.
        source: saliency that the run trains with.
        saliency_of: its maps, where there is a trained network. Without one, operators get the
            spectral residual, and the row says so unless that is the source.
    """
    decisions = _decisions(schedule)[:_MOST_DECISIONS]
    try:
        indices = spread_over_classes(data.train.labels.cpu(), _COLUMNS, seed=seed)
        images, labels = data.train.take(indices.to(data.train.labels.device))
        rows = [_row(images)]
        for _, decision in decisions:
            maps = None
            if OPERATOR_FACTS[decision.operator].needs_saliency and saliency_of is not None:
                maps = saliency_of(images, labels).cpu()
            batch = mixed_once(
                decision,
                images.cpu(),
                labels.cpu(),
                num_classes=data.num_classes,
                saliency_BHW=maps,
                seed=seed,
            )
            rows.append(_row(batch.mixed.images))
    except (AutoMixError, ValueError) as error:
        _LOG.info("no picture of mixed images: %s", error)
        return None
    keep(folder, PICTURE_NAME, webp(np.concatenate(rows)), again=True)
    origin = source.value.replace("_", " ")
    if saliency_of is None and source is not SaliencyKind.SPECTRAL_RESIDUAL:
        origin = f"{SPECTRAL}, not the {origin} of training, which needs a network"
    labels_of_rows = [
        f"{span}: {decision.model_copy(update={'probability': 1.0}).label()}, "
        f"{percent(decision.probability)} of batches"
        + (f", saliency: {origin}" if OPERATOR_FACTS[decision.operator].needs_saliency else "")
        for span, decision in decisions
    ]
    return {"file": PICTURE_NAME, "rows": ["as they are", *labels_of_rows]}


def _decisions(schedule: Schedule) -> list[tuple[str, Decision]]:
    """Return the distinct decisions that mix, each with the first part of the run that draws it."""
    segments = schedule.without_repeats().segments
    ends = [*(segment.start for segment in segments[1:]), 1.0]
    first: dict[tuple[str, float], tuple[str, Decision]] = {}
    for segment, end in zip(segments, ends, strict=True):
        for decision in segment.mixture.decisions:
            if decision.mixes:
                span = f"{percent(segment.start)} to {percent(end)} of training"
                # The same operator is drawn once, however often it is drawn in training.
                first.setdefault((decision.operator, decision.strength), (span, decision))
    return list(first.values())


def _row(images_BCHW: Tensor) -> Pixels:
    """Return images side by side, with gaps on the right and below, (H, W, 3) uint8."""
    tiles = [enlarged(photograph(image), _SIDE) for image in images_BCHW]
    padded = [np.pad(tile, ((0, _GAP), (0, _GAP), (0, 0)), constant_values=255) for tile in tiles]
    return np.concatenate(padded, axis=1)


class MixedOnce(NamedTuple):
    """Images mixed once, and what they were mixed from."""

    mixed: MixedBatch
    images: Tensor  # (B, C, H, W) in [0, 1]
    saliency: Tensor | None  # (B, H, W); None where the operator reads none
    partners: Tensor | None  # another batch that ``mixed.partner`` indexes, if it is one


def mixed_once(
    decision: Decision,
    images_BCHW: Tensor,
    labels_B: Tensor,
    *,
    num_classes: int,
    saliency_BHW: Tensor | None = None,
    seed: int = 0,
) -> MixedOnce:
    """Mix uint8 images of int64 classes as ``decision`` says.

    Operators that need saliency get ``saliency_BHW``, or else the spectral residual, as training
    on a folder of images does.
    """
    facts = OPERATOR_FACTS[decision.operator]
    pixels = images_BCHW.float() / 255
    saliency = None
    if facts.needs_saliency:
        saliency = spectral_residual(pixels) if saliency_BHW is None else saliency_BHW
    apply = functools.partial(
        mix,
        decision.operator,
        strength=decision.strength,
        num_classes=num_classes,
        saliency=saliency,
    )
    mixed = apply(pixels, labels_B, generator=stream_generator(seed, Stream.MIXING))
    partners = None
    if facts.needs_previous:
        # What was mixed in the step before: the same images in another order.
        previous = mixed
        images, labels = pixels.roll(1, 0), labels_B.roll(1, 0)
        generator = stream_generator(seed + 1, Stream.MIXING)
        mixed = apply(images, labels, generator=generator, previous=previous)
        pixels, partners = images, previous.images
    # Solvers may leave the range by a rounding error, which a picture cannot show.
    rounded = dataclasses.replace(mixed, images=mixed.images.clamp(0, 1))
    return MixedOnce(rounded, pixels, saliency, partners)


def spread_over_classes(labels_N: Tensor, count: int, *, seed: int) -> Tensor:
    """Return indices of ``count`` images, classes in turn, drawn from ``seed``.

    Of (N, K) rows of labels, the first label of an image is its class.
    """
    if labels_N.ndim == 2:
        labels_N = labels_N.argmax(dim=1)
    # Shuffle, then sort by each image's turn within its class: a stable round robin.
    generator = stream_generator(seed, Stream.PROBE, step=1)
    shuffled = torch.randperm(len(labels_N), generator=generator)
    turn = torch.zeros(len(labels_N), dtype=torch.int64)
    for label in torch.unique(labels_N).tolist():
        members = (labels_N[shuffled] == label).nonzero().squeeze(1)
        turn[members] = torch.arange(len(members))
    return shuffled[turn.argsort(stable=True)][:count]
