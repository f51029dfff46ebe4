"""Contact sheets: what an operator made of pairs of images, with everything it looked at.

Shape suffixes: B batch, C channels, H rows, W columns, K classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from automix.operators.types import MixedBatch
from automix.reporting.palette import OPERATOR_NAMES
from automix.reporting.tiles import Pixels, heat_map, mask_map, photograph
from automix.schedule import Decision
from automix.vocabulary import OPERATOR_FACTS

# A class with less than half a percent of the label is not worth a name.
_SMALLEST_SHARE = 0.005


@dataclass(frozen=True, slots=True, kw_only=True)
class Originals:
    """What was mixed.

    Attributes:
        images: (B, C, H, W), uint8, or floating point in [0, 1].
        class_names: K names.
        saliency: (B, H, W) floating point, at least 0; None where the operator read none.
        partners: (N, C, H, W), the batch in which `MixedBatch.partner` counts, where that is
            another one, such as RecursiveMix's batch of the step before.
    """

    images: Tensor
    class_names: Sequence[str]
    saliency: Tensor | None = None
    partners: Tensor | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """One picture of a row.

    Attributes:
        kind: what it shows, the heading of its column.
        caption: written below; may be empty.
        pixels: (H, W, 3) uint8; None where there is nothing to show.
    """

    kind: str
    caption: str
    pixels: Pixels | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ContactRow:
    """One mixed image and where it comes from.

    Attributes:
        tiles: from left to right; the same kinds in each row of a sheet.
        lam: label weight of the first image, in [0, 1].
        label: the soft label in words, such as "62% cat + 38% dog".
    """

    tiles: tuple[Tile, ...]
    lam: float
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ContactSheet:
    """Rows of one operator.

    Attributes:
        name: letters, digits, hyphens and underscores: the stem of its files.
        title: such as "CutMix 1".
        note: one line on what the operator does.
        strength: one line on what the strength means; empty where there is none.
        rows: at least one.
    """

    name: str
    title: str
    note: str
    strength: str
    rows: tuple[ContactRow, ...]


def contact_sheet(
    mixed: MixedBatch, originals: Originals, *, decision: Decision, max_rows: int = 8
) -> ContactSheet:
    """Return the sheet of a mixed batch; columns without any picture are left out.

    Args:
        mixed: what the operator returned.
        originals: what it was given.
        decision: the operator and its strength, for the title.
        max_rows: only so many images, from the first, are shown.

    Raises:
        ValueError: shapes or class names that do not belong together, or pixels outside [0, 1].
    """
    batch, num_classes = mixed.targets.shape
    if len(originals.images) != batch:
        raise ValueError(
            f"expected {batch} images as in the mixed batch, got {len(originals.images)}"
        )
    if len(originals.class_names) != num_classes:
        raise ValueError(f"expected {num_classes} class names, got {len(originals.class_names)}")
    facts = OPERATOR_FACTS[decision.operator]
    strength = facts.strength
    has_strength = strength.low < strength.high
    value = f"{decision.strength:g}"
    rows = [_row(mixed, originals, index) for index in range(min(batch, max_rows))]
    columns = zip(*(row.tiles for row in rows), strict=True)
    kept = [any(tile.pixels is not None for tile in column) for column in columns]
    return ContactSheet(
        name=decision.operator.value,
        title=OPERATOR_NAMES[decision.operator] + (f" {value}" if has_strength else ""),
        note=facts.summary,
        strength=f"strength {value}: {strength.meaning}" if has_strength else "",
        rows=tuple(_without_empty_columns(row, kept) for row in rows),
    )


def _row(mixed: MixedBatch, originals: Originals, index: int) -> ContactRow:
    partner = int(mixed.partner[index])
    names = originals.class_names
    own_name = label_text(_one_hot(mixed.own_targets[index], len(names)), names)
    if mixed.partner_targets is None:  # one of several parents, all in this batch
        partner_name = label_text(_one_hot(mixed.own_targets[partner], len(names)), names)
    else:
        partner_name = label_text(_one_hot(mixed.partner_targets[index], len(names)), names)
    if originals.partners is None:
        image_b, saliency_b = originals.images[partner], _saliency(originals, partner)
    else:
        image_b, saliency_b = originals.partners[partner], None
    lam = float(mixed.lam[index])
    mask = None if mixed.mask is None else mask_map(mixed.mask[index, 0])
    tiles = (
        Tile(kind="image A", caption=own_name, pixels=photograph(originals.images[index])),
        Tile(kind="image B", caption=partner_name, pixels=photograph(image_b)),
        Tile(kind="saliency A", caption="", pixels=_saliency(originals, index)),
        Tile(kind="saliency B", caption="", pixels=saliency_b),
        Tile(kind="mask", caption="", pixels=mask),
        Tile(kind="mix", caption=f"lam {lam:.2f}", pixels=photograph(mixed.images[index])),
    )
    return ContactRow(tiles=tiles, lam=lam, label=label_text(mixed.targets[index], names))


def _saliency(originals: Originals, index: int) -> Pixels | None:
    return None if originals.saliency is None else heat_map(originals.saliency[index])


def _without_empty_columns(row: ContactRow, kept: Sequence[bool]) -> ContactRow:
    tiles = tuple(tile for tile, is_kept in zip(row.tiles, kept, strict=True) if is_kept)
    return ContactRow(tiles=tiles, lam=row.lam, label=row.label)


def _one_hot(target: Tensor, num_classes: int) -> Tensor:
    if target.dim() == 1:
        return target
    return torch.nn.functional.one_hot(target.long(), num_classes)


def label_text(target_K: Tensor, class_names: Sequence[str]) -> str:
    """Return a soft label in words: "62% cat + 38% dog", largest share first; a full one: "cat"."""
    shares = sorted(
        ((share, name) for share, name in zip(target_K.tolist(), class_names, strict=True)),
        key=lambda pair: -pair[0],
    )
    parts = [
        name if share > 1 - _SMALLEST_SHARE else f"{share:.0%} {name}"
        for share, name in shares
        if share >= _SMALLEST_SHARE
    ]
    return " + ".join(parts)
