"""Contact sheets as one picture, drawn pixel by pixel so that small images stay exact."""

import math
from functools import lru_cache
from pathlib import Path

import matplotlib as mpl
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from automix.reporting.contact_sheet import ContactRow, ContactSheet, Tile
from automix.reporting.palette import LIGHT, OWN_COLOUR, PARTNER_COLOUR
from automix.reporting.tiles import Pixels, enlarged, png

_SMALL_SIDE = 128
_LARGE_SIDE = 224
_GAP = 12
_MARGIN = 16
_FRAME = 3
_LINE = 18
_BAR = 6
_TITLE_LINES = 80
_WIDEST_NOTE = 640
_FRAMES = {"image A": OWN_COLOUR, "image B": PARTNER_COLOUR}


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
    """Draw the colour of the parent around its image, outside its pixels."""
    if colour := _FRAMES.get(tile.kind):
        (left, top), (height, width) = corner, picture.shape[:2]
        box = (left - _FRAME, top - _FRAME, left + width + _FRAME - 1, top + height + _FRAME - 1)
        draw.rectangle(box, outline=colour, width=_FRAME)


def _write_label(
    draw: ImageDraw.ImageDraw, row: ContactRow, place: tuple[int, int], tile_width: int
) -> None:
    """Draw the label weights as a bar below the mix, and the label in words at its right end."""
    right, top = place
    left = right - tile_width
    middle = left + round(row.lam * tile_width)
    draw.rectangle((left, top, right - 1, top + _BAR - 1), fill=PARTNER_COLOUR)
    if middle > left:
        draw.rectangle((left, top, middle - 1, top + _BAR - 1), fill=OWN_COLOUR)
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
