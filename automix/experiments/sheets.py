"""Contact sheets: a few images, each operator, what came out."""

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from automix.operators import OPERATORS
from automix.operators.types import BatchShape, MixedBatch
from automix.random_streams import Stream, stream_generator
from automix.reporting.contact_sheet import ContactSheet, Originals, contact_sheet
from automix.saliency.spectral import spectral_residual
from automix.schedule import Decision


def make_sheet(
    decision: Decision,
    images_BCHW: Tensor,
    labels_B: Tensor,
    *,
    class_names: Sequence[str],
    saliency_BHW: Tensor | None = None,
    seed: int = 0,
) -> ContactSheet:
    """Mix ``images_BCHW`` as ``decision`` says, every batch, and lay the result out.

    Args:
        decision: operator and strength.
        images_BCHW: uint8.
        labels_B: int64 classes.
        class_names: name of each class.
        saliency_BHW: maps for operators that need them; the squared spectral residual if None.
        seed: names the draws.
    """
    spec = OPERATORS[decision.operator]
    pixels = images_BCHW.float() / 255
    saliency = None
    if spec.facts.needs_saliency:
        # Squared, as in the paper of the spectral residual: cells then differ as much as those
        # of a trained network's maps, and without that the solvers have little to choose.
        saliency = spectral_residual(pixels).square() if saliency_BHW is None else saliency_BHW
    mixed = _mix(decision, pixels, labels_B, len(class_names), saliency, None, seed)
    partners = None
    if spec.facts.needs_previous:
        # What was mixed in the step before: the same images in another order.
        previous = mixed
        images, labels = pixels.roll(1, 0), labels_B.roll(1, 0)
        mixed = _mix(decision, images, labels, len(class_names), saliency, previous, seed + 1)
        pixels, partners = images, previous.images
    rounded = dataclasses.replace(mixed, images=mixed.images.clamp(0, 1))
    originals = Originals(
        images=pixels, class_names=class_names, saliency=saliency, partners=partners
    )
    return contact_sheet(rounded, originals, decision=decision)


def _mix(
    decision: Decision,
    images: Tensor,
    labels: Tensor,
    num_classes: int,
    saliency: Tensor | None,
    previous: MixedBatch | None,
    seed: int,
) -> MixedBatch:
    spec = OPERATORS[decision.operator]
    shape = BatchShape(len(images), images.shape[-2], images.shape[-1])
    generator = stream_generator(seed, Stream.MIXING)
    draws = spec.draw(shape, strength=decision.strength, generator=generator)
    return spec.apply(
        images,
        labels,
        draws,
        num_classes=num_classes,
        saliency_BHW=saliency,
        previous=previous,
    )


def spread_over_classes(labels_N: Tensor, count: int, *, seed: int) -> Tensor:
    """Return indices of ``count`` images, classes in turn, drawn from ``seed``."""
    generator = stream_generator(seed, Stream.PROBE, step=1)
    shuffled = torch.randperm(len(labels_N), generator=generator)
    turn = torch.zeros(len(labels_N), dtype=torch.int64)
    for label in torch.unique(labels_N).tolist():
        members = (labels_N[shuffled] == label).nonzero().squeeze(1)
        turn[members] = torch.arange(len(members))
    return shuffled[turn.argsort(stable=True)][:count]
