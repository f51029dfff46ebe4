"""The HTML report: one page without network access."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from automix.files import write_bytes, write_json, write_text
from automix.reporting.canvas import INLINE, NARROW, WIDE, FigureFunction, inline_svg, light_png
from automix.reporting.contact_sheet import ContactSheet, contact_sheet_html, contact_sheet_png
from automix.reporting.markup import Html, page, page_header, tag
from automix.reporting.tables import Table, check_name, table_csv, table_html, table_json


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """How to get a result again.

    Attributes:
        command: the exact command line.
        versions: of the packages that matter, of the data and the configuration, by name.
    """

    command: str
    versions: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportFigure:
    """A figure and what is said about it.

    Attributes:
        name: letters, digits, hyphens and underscores: the stem of its file.
        title: its heading: the message, where there is one.
        description: what it shows, for those who cannot see it.
        draw: one of the figure functions with its data, as a `functools.partial`.
        caption: what the reader must know: data, number of seeds, kind of interval.
        source: how to get it again; None where the report's own source says it.
    """

    name: str
    title: str
    description: str
    draw: FigureFunction
    caption: str = ""
    source: Source | None = None

    def __post_init__(self) -> None:
        check_name(self.name)


Block = ReportFigure | Table | ContactSheet
"""What a section is made of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One number a reader should take away.

    Attributes:
        label: what it is.
        value: with its unit, such as "295 trainings".
        note: interval or remark; may be empty.
    """

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A part of a report.

    Attributes:
        title: its heading.
        text: paragraphs before the blocks.
        blocks: figures, tables and contact sheets in order.
    """

    title: str
    blocks: tuple[Block, ...] = ()
    text: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportData:
    """Everything a report says.

    Attributes:
        title: its heading.
        headline: one to three sentences with the result, good or bad.
        facts: the numbers to take away; the search's cost in training runs is one of them.
        sections: in reading order.
        limits: what does not hold, was not tested, or turned out negative; at least one.
        source: how the whole was made.
    """

    title: str
    headline: tuple[str, ...]
    facts: tuple[Fact, ...]
    sections: tuple[Section, ...]
    limits: tuple[str, ...]
    source: Source

    def __post_init__(self) -> None:
        if not self.headline or not self.limits:
            raise ValueError("expected a headline and at least one limit, got none")
        blocks = [block for section in self.sections for block in section.blocks]
        for is_table in (True, False):
            names = [block.name for block in blocks if isinstance(block, Table) is is_table]
            if len(set(names)) != len(names):
                raise ValueError(f"expected blocks with distinct names, got {sorted(names)}")


def report_html(data: ReportData) -> str:
    """Return the report as one document that needs no other file; same data, same text."""
    titles = [section.title for section in data.sections] + ["Limits", "How this was made"]
    links = [
        tag("li", tag("a", title, href=f"#section-{number}"))
        for number, title in enumerate(titles, start=1)
    ]
    limits = tag("ul", *(tag("li", limit) for limit in data.limits))
    bodies = [_section_body(section) for section in data.sections]
    bodies += [limits, _source_html(data.source)]
    return page(
        data.title,
        page_header(data.title),
        tag(
            "main",
            *(tag("p", sentence, class_="headline") for sentence in data.headline),
            _facts_html(data.facts),
            tag("nav", tag("ul", *links), aria_label="Contents"),
            *(
                tag("section", tag("h2", title), body, id=f"section-{number}")
                for number, (title, body) in enumerate(zip(titles, bodies, strict=True), start=1)
            ),
        ),
    )


def write_report(data: ReportData, folder: Path) -> Path:
    """Write ``report.html``, ``report.json``, ``tables/*.csv`` and ``*.json``, ``figures/*.png``.

    The page is written last: where it exists, everything else does.

    Args:
        data: what the report says.
        folder: is made if missing; files of the same names are replaced.

    Returns:
        The page.

    Raises:
        OSError: the folder cannot be written.
    """
    text = report_html(data)
    for block in (block for section in data.sections for block in section.blocks):
        match block:
            case Table():
                write_text(folder / "tables" / f"{block.name}.csv", table_csv(block))
                write_json(folder / "tables" / f"{block.name}.json", table_json(block))
            case ReportFigure():
                write_bytes(folder / "figures" / f"{block.name}.png", light_png(block.draw))
            case ContactSheet():
                write_bytes(folder / "figures" / f"{block.name}.png", contact_sheet_png(block))
    write_json(folder / "report.json", report_json(data))
    path = folder / "report.html"
    write_text(path, text)
    return path


def report_json(data: ReportData) -> dict[str, Any]:
    """Return a report as a value for JSON: tables with their cells, pictures by their file."""
    return {
        "title": data.title,
        "headline": list(data.headline),
        "facts": [
            {"label": fact.label, "value": fact.value, "note": fact.note} for fact in data.facts
        ],
        "sections": [
            {
                "title": section.title,
                "text": list(section.text),
                "blocks": [_block_json(block) for block in section.blocks],
            }
            for section in data.sections
        ],
        "limits": list(data.limits),
        "source": _source_json(data.source),
    }


def _block_json(block: Block) -> dict[str, Any]:
    match block:
        case Table():
            return {"kind": "table", "file": f"tables/{block.name}.csv", **table_json(block)}
        case ContactSheet():
            return {"kind": "contact sheet", "file": f"figures/{block.name}.png"}
        case ReportFigure():
            return {
                "kind": "figure",
                "file": f"figures/{block.name}.png",
                "title": block.title,
                "description": block.description,
                "caption": block.caption,
                "source": None if block.source is None else _source_json(block.source),
            }


def _source_json(source: Source) -> dict[str, Any]:
    return {"command": source.command, "versions": dict(source.versions)}


def _facts_html(facts: tuple[Fact, ...]) -> Html:
    boxes = []
    for fact in facts:
        note = tag("dd", fact.note, class_="note") if fact.note else Html("")
        boxes.append(tag("div", tag("dt", fact.label), tag("dd", fact.value), note, class_="fact"))
    return tag("dl", *boxes, class_="facts") if boxes else Html("")


def _section_body(section: Section) -> Html:
    paragraphs = [tag("p", paragraph) for paragraph in section.text]
    return tag("div", *paragraphs, *(_block_html(block) for block in section.blocks))


def _block_html(block: Block) -> Html:
    match block:
        case Table():
            return table_html(block)
        case ContactSheet():
            return contact_sheet_html(block)
        case ReportFigure():
            return _figure_html(block)


def _figure_html(figure: ReportFigure) -> Html:
    """Return the figure twice, for a wide window and for a phone; the style sheet shows one."""
    drawings = []
    for layout, width in (("wide", WIDE), ("narrow", NARROW)):
        svg = inline_svg(
            figure.draw(width=width, theme=INLINE),
            identifier=f"{figure.name.replace('_', '-')}-{layout}",
            description=figure.description,
        )
        drawings.append(tag("div", Html(svg), class_=layout))
    caption = tag("figcaption", figure.caption) if figure.caption else Html("")
    source = Html("")
    if figure.source is not None:
        source = tag("details", tag("summary", "How to get it again"), _source_html(figure.source))
    return tag(
        "figure", tag("h3", figure.title), *drawings, caption, source, id=f"figure-{figure.name}"
    )


def _source_html(source: Source) -> Html:
    versions = [tag("li", f"{name} {version}") for name, version in source.versions.items()]
    command = tag("pre", tag("code", source.command), tabindex="0")
    return tag("div", command, tag("ul", *versions, class_="versions") if versions else Html(""))
