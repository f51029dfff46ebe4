"""Contact sheets: what an operator does to images, as PNG and HTML.

Shape suffixes: C channels, H rows, W columns.

Shape suffixes: B batch, C channels, H rows, W columns, K classes.
"""

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from matplotlib import colormaps
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from automix.files import write_bytes, write_text
from automix.operator_info import OPERATOR_FACTS
from automix.operators.types import MixedBatch
from automix.reporting.markup import Html, page, page_header, tag
from automix.reporting.palette import LIGHT, OPERATOR_NAMES, OWN_COLOR, PARTNER_COLOR
from automix.schedule import Decision

Pixels = NDArray[np.uint8]

_TOLERANCE = 0.01


def photograph(image_CHW: Tensor) -> Pixels:
    """Return an image as pixels.

    Args:
        image_CHW: (1 | 3 | 4, H, W), uint8, or floating point in [0, 1]; a fourth channel is left
            out.

    Raises:
        ValueError: another number of channels, or values outside [0, 1].
    """
    if image_CHW.dim() != 3 or image_CHW.shape[0] not in {1, 3, 4}:
        raise ValueError(
            f"expected an image of shape (1, 3 or 4, H, W), got {tuple(image_CHW.shape)}"
        )
    image = image_CHW[:3].permute(1, 2, 0).expand(-1, -1, 3).cpu()
    if not image.is_floating_point():
        return np.ascontiguousarray(image.numpy(), dtype=np.uint8)
    values = image.float().numpy()
    if values.min() < -_TOLERANCE or values.max() > 1 + _TOLERANCE:
        raise ValueError(
            f"expected pixels in [0, 1], before normalization, got {values.min():g} to "
            f"{values.max():g}"
        )
    return _bytes(255 * values.clip(0, 1))


def heat_map(saliency_HW: Tensor) -> Pixels:
    """Return a saliency map in colors, dark for nothing, relative to its own maximum."""
    values = np.nan_to_num(saliency_HW.detach().float().cpu().numpy()).clip(min=0)
    values = values / (values.max() or 1)
    return _bytes(255 * colormaps["magma"](values)[..., :3])


def mask_map(mask_HW: Tensor) -> Pixels:
    """Return a mask of partner weights as a blend from the own to the partner's color."""
    weight = mask_HW.detach().float().cpu().numpy().clip(0, 1)[..., None]
    own, partner = (np.array(rgb(color)) for color in (OWN_COLOR, PARTNER_COLOR))
    return _bytes(own * (1 - weight) + partner * weight)


def _bytes(values: ArrayLike) -> Pixels:
    return np.rint(values).astype(np.uint8, copy=False)


def rgb(color: str) -> tuple[int, int, int]:
    """Return ``#rrggbb`` as three numbers in [0, 255]."""
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)


def enlarged(pixels: Pixels, side: int) -> Pixels:
    """Return pixels repeated a whole number of times, the longer side near ``side``.

    Small images keep their exact pixels, each as a square. Larger ones are averaged down.
    """
    longest = max(pixels.shape[:2])
    if longest <= side:
        factor = max(1, round(side / longest))
        return pixels.repeat(factor, axis=0).repeat(factor, axis=1)
    height, width = (max(1, round(size * side / longest)) for size in pixels.shape[:2])
    small = Image.fromarray(pixels).resize((width, height), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.uint8)


def png(pixels: Pixels) -> bytes:
    """Return pixels as PNG; equal pixels give equal bytes."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="png", optimize=True)
    return buffer.getvalue()


def data_uri(content: bytes) -> str:
    """Return PNG bytes as an address that needs no file."""
    return "data:image/png;base64," + base64.b64encode(content).decode()


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


_SMALL_SIDE = 128
_LARGE_SIDE = 224
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
    pictures = _pictures(sheet)
    shapes = [picture.shape for row in pictures for picture in row if picture is not None]
    tile_height, tile_width = (max(shape[axis] for shape in shapes) for axis in (0, 1))
    across, down = tile_width + _GAP, tile_height + 2 * _LINE + _BAR + _GAP
    columns = len(sheet.rows[0].tiles)
    note_width = max(_font(12).getlength(line) for line in (sheet.note, sheet.strength))
    content = max(columns * across - _GAP, min(_WIDEST_NOTE, math.ceil(note_width)))
    size = (2 * _MARGIN + content, _TITLE_LINES + _LINE + len(pictures) * down)
    image = Image.new("RGB", size, LIGHT.surface)
    draw = ImageDraw.Draw(image)
    width = size[0] - 2 * _MARGIN
    _write(draw, (_MARGIN, 12), sheet.title, width=width, font=_font(17, is_bold=True))
    _write(draw, (_MARGIN, 36), sheet.note, width=width, fill=LIGHT.muted)
    _write(draw, (_MARGIN, 54), sheet.strength, width=width, fill=LIGHT.muted)
    for column, tile in enumerate(sheet.rows[0].tiles):
        place = (_MARGIN + column * across, _TITLE_LINES - 2)
        _write(draw, place, tile.kind, width=tile_width, fill=LIGHT.muted)
    for index, row in enumerate(sheet.rows):
        top = _TITLE_LINES + _LINE + index * down
        for column, (tile, picture) in enumerate(zip(row.tiles, pictures[index], strict=True)):
            left = _MARGIN + column * across
            if picture is not None:
                image.paste(Image.fromarray(picture), (left, top))
                _frame(draw, tile, (left, top), picture)
            below = (left, top + tile_height + 3)
            _write(draw, below, tile.caption, width=tile_width)
        right = _MARGIN + columns * across - _GAP
        _write_label(draw, row, (right, top + tile_height + _LINE + 3), tile_width)
    return np.asarray(image, dtype=np.uint8)


def _pictures(sheet: ContactSheet) -> list[list[Pixels | None]]:
    given = [[tile.pixels for tile in row.tiles] for row in sheet.rows]
    longest = max(max(pixels.shape) for row in given for pixels in row if pixels is not None)
    side = _SMALL_SIDE if longest <= _SMALL_SIDE else _LARGE_SIDE
    return [[None if pixels is None else enlarged(pixels, side) for pixels in row] for row in given]


def _frame(draw: ImageDraw.ImageDraw, tile: Tile, corner: tuple[int, int], picture: Pixels) -> None:
    """Draw the color of the parent around its image, outside its pixels."""
    if color := _FRAMES.get(tile.kind):
        (left, top), (height, width) = corner, picture.shape[:2]
        box = (left - _FRAME, top - _FRAME, left + width + _FRAME - 1, top + height + _FRAME - 1)
        draw.rectangle(box, outline=color, width=_FRAME)


def _write_label(
    draw: ImageDraw.ImageDraw, row: ContactRow, place: tuple[int, int], tile_width: int
) -> None:
    """Draw the label weights as a bar below the mix, and the label in words at its right end."""
    right, top = place
    left = right - tile_width
    middle = left + round(row.lam * tile_width)
    draw.rectangle((left, top, right - 1, top + _BAR - 1), fill=PARTNER_COLOR)
    if middle > left:
        draw.rectangle((left, top, middle - 1, top + _BAR - 1), fill=OWN_COLOR)
    text = _shortened(row.label, 3 * tile_width, _font(12))
    draw.text((right, top + _BAR), text, fill=LIGHT.ink, font=_font(12), anchor="ra")


def _write(
    draw: ImageDraw.ImageDraw,
    place: tuple[int, int],
    text: str,
    *,
    width: float,
    fill: str = LIGHT.ink,
    font: ImageFont.FreeTypeFont | None = None,
) -> None:
    font = font or _font(12)
    draw.text(place, _shortened(text, width, font), fill=fill, font=font)


def _shortened(text: str, width: float, font: ImageFont.FreeTypeFont) -> str:
    """Return ``text`` on one line, cut to ``width`` pixels."""
    text = " ".join(text.split())
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


# Images up to this side are shown as squares of one color per pixel.
_PIXELATED_SIDE = 64
_LARGEST_SIDE = 320


def contact_sheet_html(sheet: ContactSheet, *, heading: str = "h3") -> Html:
    """Return the sheet as a section; its pictures are inside the text.

    Args:
        sheet: what is shown.
        heading: the element of its title; empty where the page already has that title.
    """
    title = tag(heading, sheet.title) if heading else Html("")
    lines = [tag("p", line) for line in (sheet.note, sheet.strength) if line]
    rows = [_row_contact_sheet_html(row) for row in sheet.rows]
    name = f"sheet-{sheet.name}"
    return tag("section", title, *lines, *rows, class_="sheet", id=name)


def write_contact_sheets(folder: Path, sheets: Sequence[ContactSheet], *, title: str) -> Path:
    """Write each sheet as PNG and HTML, and all of them as one page; each file stands alone.

    Args:
        folder: is made if missing; files of the same names are replaced.
        sheets: with distinct names.
        title: heading of the page of all sheets.

    Returns:
        The page of all sheets.

    Raises:
        ValueError: two sheets of the same name.
        OSError: the folder cannot be written.
    """
    names = [sheet.name for sheet in sheets]
    if len(set(names)) != len(names):
        raise ValueError(f"expected sheets with distinct names, got {names}")
    for sheet in sheets:
        write_bytes(folder / f"{sheet.name}.png", contact_sheet_png(sheet))
        main = tag("main", contact_sheet_html(sheet, heading=""))
        text = page(sheet.title, page_header(sheet.title), main)
        write_text(folder / f"{sheet.name}.html", text)
    links = [tag("li", tag("a", sheet.title, href=f"#sheet-{sheet.name}")) for sheet in sheets]
    contents = tag("nav", tag("ul", *links), aria_label="Operators")
    main = tag("main", *(contact_sheet_html(sheet, heading="h2") for sheet in sheets))
    index = folder / "index.html"
    write_text(index, page(title, page_header(title), contents, main))
    return index


def _row_contact_sheet_html(row: ContactRow) -> Html:
    columns = len(row.tiles)
    # Two lines on a phone: the images and the mix are wider than a thumb.
    style = f"--columns: {columns}; --columns-phone: {-(-columns // 2)}"
    tiles = tag("div", *(_tile(tile) for tile in row.tiles), class_="tiles", style=style)
    share = f"{100 * row.lam:.1f}%"
    gradient = f"background: linear-gradient(to right, var(--own) {share}, var(--partner) {share})"
    bar = tag("span", class_="bar", style=gradient, aria_hidden="true")
    caption = tag("figcaption", "Label: ", tag("b", row.label), bar)
    return tag("figure", tiles, caption, class_="pair")


def _tile(tile: Tile) -> Html:
    side = {"image A": " own", "image B": " partner"}.get(tile.kind, "")
    if tile.pixels is None:
        picture = tag("span", class_="empty")
    else:
        longest = max(tile.pixels.shape[:2])
        pixels = enlarged(tile.pixels, _LARGEST_SIDE) if longest > _LARGEST_SIDE else tile.pixels
        height, width = pixels.shape[:2]
        picture = tag(
            "img",
            src=data_uri(png(pixels)),
            alt=f"{tile.kind}: {tile.caption}" if tile.caption else tile.kind,
            width=str(width),
            height=str(height),
            class_="small" if longest <= _PIXELATED_SIDE else None,
        )
    caption = tag("span", tile.caption) if tile.caption else Html("")
    return tag("div", tag("span", tile.kind), picture, caption, class_=f"tile{side}")
