"""Contact sheets as HTML: a piece of a report, or pages of their own beside the pictures."""

from collections.abc import Sequence
from pathlib import Path

from automix.files import write_bytes, write_text
from automix.reporting.contact_sheet import ContactRow, ContactSheet, Tile
from automix.reporting.contact_sheet_png import contact_sheet_png
from automix.reporting.markup import Html, tag
from automix.reporting.page import page, page_header
from automix.reporting.tiles import data_uri, enlarged, png

# Images up to this side are shown as squares of one colour per pixel.
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
    rows = [_row(row) for row in sheet.rows]
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


def _row(row: ContactRow) -> Html:
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
