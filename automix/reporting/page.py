"""The HTML report: one page without network access, with its tables and figures beside it."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from markupsafe import Markup

from automix.files import write_bytes, write_json, write_text
from automix.reporting.canvas import INLINE, NARROW, WIDE, FigureFunction, inline_svg, png_bytes
from automix.reporting.contact_sheet import ContactSheet, contact_sheet_html, contact_sheet_png
from automix.reporting.html import render
from automix.reporting.mixed_rows import MixedRows, mixed_rows_html
from automix.reporting.pixels import webp
from automix.reporting.tables import Table, check_name, shown_rows, table_csv, table_json

PAGE_NAME = "report.html"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The exact command line that made a result, and versions of packages, data and so on."""

    command: str
    versions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportFigure:
    """A figure and what is said about it."""

    name: str  # letters, digits, hyphens and underscores: the stem of its file
    title: str  # its heading: the message, where there is one
    description: str  # what it shows, for those who cannot see it
    draw: FigureFunction  # one of the figure functions with its data, as a `functools.partial`
    caption: str = ""  # what the reader must know: data, number of seeds, kind of interval

    def __post_init__(self) -> None:
        check_name(self.name)


Block = ReportFigure | Table | ContactSheet | MixedRows
"""A part of a section."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One number to take away, with its unit, and an interval or a remark (may be empty)."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A heading, paragraphs, and figures, tables and contact sheets below them."""

    title: str
    blocks: tuple[Block, ...] = ()
    text: tuple[str, ...] = ()
    # How to reproduce its figures; None where the report's own source says it.
    source: Source | None = None
    # Leads to the folder of its run; may be empty.
    link: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportData:
    """Everything a report says."""

    title: str
    headline: tuple[str, ...]  # one to three sentences with the result, good or bad
    # The numbers to take away; the search's cost in training runs is one of them.
    facts: tuple[Fact, ...]
    sections: tuple[Section, ...]  # in reading order
    # What does not hold, was not tested, or turned out negative; at least one.
    limits: tuple[str, ...]
    source: Source
    # Shown before the sections: what everybody should see.
    pictures: tuple[MixedRows, ...] = ()
    # After which a browser loads the page anew, where somebody writes it again.
    reload_seconds: float | None = None

    def __post_init__(self) -> None:
        # A report without its limits would be advertising.
        if not self.headline or not self.limits:
            raise ValueError("expected a headline and at least one limit, got none")
        # Tables and pictures go to two folders, so only names within one folder collide.
        for is_table in (True, False):
            names = [block.name for block in self.blocks if isinstance(block, Table) is is_table]
            if len(set(names)) != len(names):
                raise ValueError(f"expected blocks with distinct names, got {sorted(names)}")

    @property
    def blocks(self) -> list[Block]:
        """The pictures at the top; figures, tables and contact sheets of all sections."""
        return [*self.pictures, *(block for section in self.sections for block in section.blocks)]


def write_report(data: ReportData, folder: Path) -> Path:
    """Write ``report.html``, ``report.json``, ``tables/*.csv`` and ``*.json``, ``figures/*.png``.

    The folder is made if missing; files of the same names are replaced. Return the page.
    """
    text = report_html(data)
    for block in data.blocks:
        match block:
            case Table():
                write_text(folder / "tables" / f"{block.name}.csv", table_csv(block))
                write_json(folder / "tables" / f"{block.name}.json", table_json(block))
            case ReportFigure():
                write_bytes(folder / "figures" / f"{block.name}.png", png_bytes(block.draw()))
            case ContactSheet():
                write_bytes(folder / "figures" / f"{block.name}.png", contact_sheet_png(block))
            case MixedRows():
                write_bytes(folder / "figures" / f"{block.name}.webp", webp(block.pixels))
    write_json(folder / "report.json", report_json(data))
    # The page comes last: where it exists, everything else does.
    path = folder / PAGE_NAME
    write_text(path, text)
    return path


def report_html(data: ReportData, *, draw: Callable[..., Markup] | None = None) -> str:
    """Return the report as one document that needs no other file; same data, same text.

    ``draw`` stands for `block_html`, such as to draw each block once for many pages.
    """
    return str(render("report", title=data.title, data=data, block_html=draw or block_html))


def block_html(block: Block, source: Source | None = None) -> Markup:
    """Return a part of a section; each heading of a table is a button that sorts by its column."""
    match block:
        case Table():
            return render("table", table=block, rows=shown_rows(block))
        case ContactSheet():
            return contact_sheet_html(block)
        case MixedRows():
            return mixed_rows_html(block)
        case ReportFigure():
            return _figure_html(block, source)


def _figure_html(figure: ReportFigure, source: Source | None) -> Markup:
    drawings = {
        layout: Markup(
            inline_svg(
                figure.draw(width=width, theme=INLINE),
                identifier=f"{figure.name.replace('_', '-')}-{layout}",
                description=figure.description,
            )
        )
        for layout, width in (("wide", WIDE), ("narrow", NARROW))
    }
    return render("figure", figure=figure, drawings=drawings, source=source)


def report_json(data: ReportData) -> dict[str, Any]:
    """Return a report as a value for JSON: tables with their cells, pictures by their file."""
    return {
        "title": data.title,
        "headline": list(data.headline),
        "facts": [asdict(fact) for fact in data.facts],
        "pictures": [_block_json(picture, None) for picture in data.pictures],
        "sections": [
            {
                "title": section.title,
                "text": list(section.text),
                "blocks": [_block_json(block, section.source) for block in section.blocks],
            }
            for section in data.sections
        ],
        "limits": list(data.limits),
        "source": asdict(data.source),
    }


def _block_json(block: Block, source: Source | None) -> dict[str, Any]:
    match block:
        case Table():
            return {"kind": "table", "file": f"tables/{block.name}.csv", **table_json(block)}
        case ContactSheet():
            return {"kind": "contact sheet", "file": f"figures/{block.name}.png"}
        case MixedRows():
            file = f"figures/{block.name}.webp"
            return {"kind": "mixed images", "file": file, "rows": list(block.labels)}
        case ReportFigure():
            return {
                "kind": "figure",
                "file": f"figures/{block.name}.png",
                "title": block.title,
                "description": block.description,
                "caption": block.caption,
                "source": None if source is None else asdict(source),
            }
