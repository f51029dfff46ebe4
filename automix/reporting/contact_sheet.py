"""Contact sheets: what an operator does to images, as PNG and HTML.

Shape suffixes: B batch, N partners, C channels, H rows, W columns, K classes.
"""

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from markupsafe import Markup
from matplotlib import colormaps
from PIL import Image, ImageColor, ImageDraw, ImageFont
from torch import Tensor

from automix.escapes import one_line
from automix.files import write_bytes, write_text
from automix.operator_info import OPERATOR_FACTS
from automix.operators.types import MixedBatch
from automix.reporting.html import render
from automix.reporting.palette import LIGHT, OWN_COLOR, PARTNER_COLOR
from automix.reporting.pixels import Pixels, as_bytes, enlarged, photograph, png
from automix.schedule import Decision


@dataclass(frozen=True, slots=True, kw_only=True)
class Originals:
    """The inputs of an operator."""

    images: Tensor  # (B, C, H, W), uint8, or floating point in [0, 1]
    class_names: Sequence[str]
    # (B, H, W) floating point, at least 0; None where the operator read none.
    saliency: Tensor | None = None
    # (N, C, H, W), the batch that `MixedBatch.partner` indexes, where that is another one, such as
    # RecursiveMix's batch of the step before.
    partners: Tensor | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """One picture of a row."""

    kind: str  # what it shows, the heading of its column
    caption: str  # written below; may be empty
    pixels: Pixels | None  # (H, W, 3) uint8; None where there is nothing to show


@dataclass(frozen=True, slots=True, kw_only=True)
class ContactRow:
    """One mixed image and where it comes from."""

    tiles: tuple[Tile, ...]  # from left to right; the same kinds in each row of a sheet
    lam: float  # label weight of the first image, in [0, 1]
    label: str  # the soft label in words, such as "62% cat + 38% dog"


@dataclass(frozen=True, slots=True, kw_only=True)
class ContactSheet:
    """Rows of one operator."""

    name: str  # letters, digits, hyphens and underscores: the stem of its files
    title: str  # such as "CutMix 1"
    note: str  # one line on what the operator does
    strength: str  # one line on what the strength means; empty where there is none
    rows: tuple[ContactRow, ...]  # at least one


def contact_sheet(
    mixed: MixedBatch, originals: Originals, *, decision: Decision, max_rows: int = 8
) -> ContactSheet:
    """Return the sheet of the first images of a mixed batch, without columns that are all empty.

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
    rows = [_row(mixed, originals, index) for index in range(min(batch, max_rows))]
    # A column stays if any row has a picture in it, so that all rows keep the same columns.
    columns = [
        column
        for column in zip(*(row.tiles for row in rows), strict=True)
        if any(tile.pixels is not None for tile in column)
    ]
    facts = OPERATOR_FACTS[decision.operator]
    has_strength = facts.strength.low < facts.strength.high
    value = f"{decision.strength:g}"
    return ContactSheet(
        name=decision.operator.value,
        title=f"{facts.label} {value}" if has_strength else facts.label,
        note=facts.summary,
        strength=f"strength {value}: {facts.strength.meaning}" if has_strength else "",
        rows=tuple(
            replace(row, tiles=tiles)
            for row, tiles in zip(rows, zip(*columns, strict=True), strict=True)
        ),
    )


def _row(mixed: MixedBatch, originals: Originals, index: int) -> ContactRow:
    partner, names = int(mixed.partner[index]), originals.class_names
    if mixed.partner_targets is None:  # one of several parents, all in this batch
        partner_target = mixed.own_targets[partner]
    else:
        partner_target = mixed.partner_targets[index]
    saliency_a = saliency_b = None
    if originals.saliency is not None:
        saliency_a = heat_map(originals.saliency[index])
        # The maps are of this batch, so a partner from outside it has none.
        saliency_b = heat_map(originals.saliency[partner]) if originals.partners is None else None
    image_b = (originals.images if originals.partners is None else originals.partners)[partner]
    lam = float(mixed.lam[index])
    mask = None if mixed.mask is None else mask_map(mixed.mask[index, 0])
    caption_a = _class_text(mixed.own_targets[index], names)
    caption_b = _class_text(partner_target, names)
    tiles = (
        Tile(kind="image A", caption=caption_a, pixels=photograph(originals.images[index])),
        Tile(kind="image B", caption=caption_b, pixels=photograph(image_b)),
        Tile(kind="saliency A", caption="", pixels=saliency_a),
        Tile(kind="saliency B", caption="", pixels=saliency_b),
        Tile(kind="mask", caption="", pixels=mask),
        Tile(kind="mix", caption=f"lam {lam:.2f}", pixels=photograph(mixed.images[index])),
    )
    return ContactRow(tiles=tiles, lam=lam, label=label_text(mixed.targets[index], names))


def _class_text(target: Tensor, class_names: Sequence[str]) -> str:
    """Return a hard label (0-d) or a soft one (K,) in words."""
    if target.dim() == 0:
        target = torch.nn.functional.one_hot(target.long(), len(class_names))
    return label_text(target, class_names)


def label_text(target_K: Tensor, class_names: Sequence[str]) -> str:
    """Return a soft label in words, largest first: "62% cat + 38% dog"; a full one: "cat"."""
    weights = sorted(
        zip(target_K.tolist(), class_names, strict=True), key=lambda pair: pair[0], reverse=True
    )
    # A class with less than half a percent of the label is not worth a name.
    return " + ".join(
        name if weight > 0.995 else f"{weight:.0%} {name}"
        for weight, name in weights
        if weight >= 0.005
    )


def write_contact_sheets(folder: Path, sheets: Sequence[ContactSheet], *, title: str) -> Path:
    """Write each sheet as PNG and HTML, and all of them as one page, which is returned.

    Each file stands alone. The folder is made if missing; files of the same names are replaced.

    Raises:
        ValueError: two sheets of the same name.
    """
    names = [sheet.name for sheet in sheets]
    if len(set(names)) != len(names):
        raise ValueError(f"expected sheets with distinct names, got {names}")
    for sheet in sheets:
        write_bytes(folder / f"{sheet.name}.png", contact_sheet_png(sheet))
        write_text(folder / f"{sheet.name}.html", _page(sheet.title, [sheet], heading=""))
    index = folder / "index.html"
    write_text(index, _page(title, sheets, heading="h2"))
    return index


def _page(title: str, sheets: Sequence[ContactSheet], *, heading: str) -> Markup:
    values = {"title": title, "sheets": sheets, "heading": heading}
    return render("contact_sheets", sheet_html=contact_sheet_html, **values)


def contact_sheet_html(sheet: ContactSheet, *, heading: str = "h3") -> Markup:
    """Return the sheet as a section; its pictures are inside the text.

    ``heading`` is the element of its title; empty where the page already has that title.
    """
    rows = [(row, [_tile_values(tile) for tile in row.tiles]) for row in sheet.rows]
    return render("contact_sheet", sheet=sheet, heading=heading, rows=rows)


def _tile_values(tile: Tile) -> dict[str, Any]:
    """Return what the template needs of a tile."""
    values: dict[str, Any] = {
        "kind": tile.kind,
        "caption": tile.caption,
        "side": {"image A": " own", "image B": " partner"}.get(tile.kind, ""),
        "image": "",
    }
    if tile.pixels is not None:
        longest = max(tile.pixels.shape[:2])
        # Small images keep their pixels and are enlarged by the browser, as squares up to 64.
        pixels = tile.pixels if longest <= 320 else enlarged(tile.pixels, 320)
        values["image"] = "data:image/png;base64," + base64.b64encode(png(pixels)).decode()
        values["height"], values["width"] = pixels.shape[:2]
        values["is_small"] = longest <= 64
    return values


# Lengths of the drawn sheet, in pixels.
_SMALL_SIDE, _LARGE_SIDE = 128, 224
_GAP = 12
_MARGIN = 16
_FRAME = 3
_LINE = 18
_BAR = 6
_TITLE_LINES = 80
_WIDEST_NOTE = 640
_FRAMES = {"image A": OWN_COLOR, "image B": PARTNER_COLOR}


def contact_sheet_png(sheet: ContactSheet) -> bytes:
    """Return the sheet as PNG; the same sheet gives the same bytes."""
    return png(contact_sheet_pixels(sheet))


def contact_sheet_pixels(sheet: ContactSheet) -> Pixels:
    """Return the sheet as (H, W, 3) uint8, black on white."""
    # All tiles get the size of the largest one, then the title or the widest note decides.
    pictures = _enlarged_pictures(sheet)
    shapes = [picture.shape for row in pictures for picture in row if picture is not None]
    tile_height, tile_width = (max(shape[axis] for shape in shapes) for axis in (0, 1))
    across, down = tile_width + _GAP, tile_height + 2 * _LINE + _BAR + _GAP
    tiles_width = len(sheet.rows[0].tiles) * across - _GAP
    note_width = max(_font(12).getlength(line) for line in (sheet.note, sheet.strength))
    width = max(tiles_width, min(_WIDEST_NOTE, math.ceil(note_width)))
    size = (2 * _MARGIN + width, _TITLE_LINES + _LINE + len(pictures) * down)
    image = Image.new("RGB", size, LIGHT.surface)
    draw = ImageDraw.Draw(image)
    # Title, notes and the headings of the columns.
    _write(draw, (_MARGIN, 12), sheet.title, width=width, font=_font(17, is_bold=True))
    _write(draw, (_MARGIN, 36), sheet.note, width=width, fill=LIGHT.muted)
    _write(draw, (_MARGIN, 54), sheet.strength, width=width, fill=LIGHT.muted)
    for column, tile in enumerate(sheet.rows[0].tiles):
        corner = (_MARGIN + column * across, _TITLE_LINES - 2)
        _write(draw, corner, tile.kind, width=tile_width, fill=LIGHT.muted)
    # One line of tiles per row, each with its caption, and the label at the right end.
    for index, (row, row_pictures) in enumerate(zip(sheet.rows, pictures, strict=True)):
        top = _TITLE_LINES + _LINE + index * down
        for column, (tile, picture) in enumerate(zip(row.tiles, row_pictures, strict=True)):
            left = _MARGIN + column * across
            if picture is not None:
                image.paste(Image.fromarray(picture), (left, top))
                if color := _FRAMES.get(tile.kind):
                    # The color of the parent around its image, outside its pixels.
                    right, bottom = left + picture.shape[1] - 1, top + picture.shape[0] - 1
                    box = (left - _FRAME, top - _FRAME, right + _FRAME, bottom + _FRAME)
                    draw.rectangle(box, outline=color, width=_FRAME)
            _write(draw, (left, top + tile_height + 3), tile.caption, width=tile_width)
        corner = (_MARGIN + tiles_width, top + tile_height + _LINE + 3)
        _draw_label(draw, row, corner, tile_width)
    return np.asarray(image, dtype=np.uint8)


def _enlarged_pictures(sheet: ContactSheet) -> list[list[Pixels | None]]:
    rows = [[tile.pixels for tile in row.tiles] for row in sheet.rows]
    # One size for all tiles: small images are enlarged more.
    longest = max(max(pixels.shape) for row in rows for pixels in row if pixels is not None)
    side = _SMALL_SIDE if longest <= _SMALL_SIDE else _LARGE_SIDE
    return [[None if pixels is None else enlarged(pixels, side) for pixels in row] for row in rows]


def _draw_label(
    draw: ImageDraw.ImageDraw, row: ContactRow, corner: tuple[int, int], tile_width: int
) -> None:
    """Draw the label weights as a bar below the mix, and the label in words at its right end."""
    right, top = corner
    left = right - tile_width
    middle = left + round(row.lam * tile_width)
    draw.rectangle((left, top, right - 1, top + _BAR - 1), fill=PARTNER_COLOR)
    if middle > left:
        draw.rectangle((left, top, middle - 1, top + _BAR - 1), fill=OWN_COLOR)
    # Right-aligned, so that a long label may reach below the tiles on its left.
    text = _shortened(row.label, 3 * tile_width, _font(12))
    draw.text((right, top + _BAR), text, fill=LIGHT.ink, font=_font(12), anchor="ra")


def _write(
    draw: ImageDraw.ImageDraw,
    corner: tuple[int, int],
    text: str,
    *,
    width: float,
    fill: str = LIGHT.ink,
    font: ImageFont.FreeTypeFont | None = None,
) -> None:
    font = font or _font(12)
    draw.text(corner, _shortened(text, width, font), fill=fill, font=font)


def _shortened(text: str, width: float, font: ImageFont.FreeTypeFont) -> str:
    """Return ``text`` on one line, cut to ``width`` pixels."""
    text = one_line(" ".join(text.split()))
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "...") > width:
        text = text[:-1]
    return text.rstrip() + "..."


@lru_cache(maxsize=4)
def _font(size: int, *, is_bold: bool = False) -> ImageFont.FreeTypeFont:
    """Return Matplotlib's bundled font, so that every machine draws the same sheet."""
    name = "DejaVuSans-Bold.ttf" if is_bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(mpl.get_data_path(), "fonts", "ttf", name)), size)


def heat_map(saliency_HW: Tensor) -> Pixels:
    """Return a saliency map in colors, dark for nothing, relative to its own maximum."""
    # Only the order within one map matters to an operator, so each has its own scale.
    values = np.nan_to_num(saliency_HW.detach().float().cpu().numpy()).clip(min=0)
    values = values / (values.max() or 1)
    return as_bytes(255 * colormaps["magma"](values)[..., :3])


def mask_map(mask_HW: Tensor) -> Pixels:
    """Return a mask of partner weights as a blend from the first to the second parent's color."""
    weight = mask_HW.detach().float().cpu().numpy().clip(0, 1)[..., None]
    color_a, color_b = (np.array(ImageColor.getrgb(color)) for color in (OWN_COLOR, PARTNER_COLOR))
    return as_bytes(color_a * (1 - weight) + color_b * weight)
