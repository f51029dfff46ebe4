import base64
import dataclasses
import hashlib
import itertools
import json
import re
from pathlib import Path

import pytest

from automix.operator_info import Operator
from automix.reporting.contact_sheet import contact_sheet
from automix.reporting.figures.schedule import schedule_table
from automix.reporting.page import (
    Fact,
    ReportData,
    ReportFigure,
    Section,
    Source,
    report_html,
    write_report,
)
from automix.schedule import Decision
from tests.reporting.examples import (
    COMPARISON,
    FIGURES,
    HOSTILE,
    LEARNED,
    comparison_table,
    half_and_half,
    small_images,
    small_originals,
)
from tests.reporting.parsing import Document, parse

SOURCE = Source(command=f"automix search {HOSTILE}", versions={"torch": "2.15", "data": HOSTILE})


def a_figure(name: str) -> ReportFigure:
    return ReportFigure(
        name=name,
        title=HOSTILE,
        description=f"{name} {HOSTILE}",
        draw=FIGURES[name],
        caption=HOSTILE,
    )


def a_report() -> ReportData:
    images = small_images(2, 1, 8, 8)
    mixed = half_and_half(images, [0, 1], num_classes=3)
    sheet = contact_sheet(
        mixed, small_originals(images), decision=Decision(operator=Operator.CUTMIX)
    )
    return ReportData(
        title=HOSTILE,
        headline=(HOSTILE, "Second sentence."),
        facts=(Fact(label="search cost", value="453 training runs", note=HOSTILE),),
        sections=(
            Section(
                title=HOSTILE,
                text=(HOSTILE,),
                blocks=(
                    a_figure("comparison"),
                    comparison_table(name="comparison", title=HOSTILE, caption=HOSTILE),
                ),
                source=SOURCE,
            ),
            Section(
                title="More",
                blocks=(
                    a_figure("cost"),
                    schedule_table(LEARNED, name="schedule", title="Schedule"),
                    sheet,
                ),
                source=SOURCE,
            ),
        ),
        limits=(HOSTILE, "Not tested on photographs."),
        source=SOURCE,
    )


@pytest.fixture(scope="module")
def html() -> str:
    return report_html(a_report())


@pytest.fixture(scope="module")
def document(html: str) -> Document:
    return parse(html)


def test_nothing_is_loaded_from_outside(html: str, document: Document) -> None:
    assert document.outside_references() == []
    assert not re.findall(r"https?://", html)


def test_the_policy_allows_only_our_own_script(document: Document) -> None:
    assert len(document.scripts) == 1
    digest = base64.b64encode(hashlib.sha256(document.scripts[0].encode()).digest()).decode()
    policies = [attributes for name, attributes in document.elements if "http-equiv" in attributes]
    assert len(policies) == 1
    policy = str(policies[0]["content"])
    assert policy.startswith("default-src 'none';")
    assert f"script-src 'sha256-{digest}'" in policy
    names = [name for _, attributes in document.elements for name in attributes]
    assert not any(name.startswith("on") for name in names)


def test_hostile_strings_are_shown_as_they_are(html: str, document: Document) -> None:
    assert html.count("<script>") == 1
    assert document.title == HOSTILE
    # Title twice, headline, fact, section in text and contents, and so on: each one whole.
    assert document.text.count(HOSTILE) >= 15
    assert "alert('x')" not in "".join(document.scripts)


def test_identifiers_are_unique_and_links_lead_somewhere(document: Document) -> None:
    ids = document.attributes("id")
    assert len(ids) == len(set(ids))
    links = [link[1:] for link in document.attributes("href") if link.startswith("#")]
    assert links
    assert set(links) <= set(ids)


def test_every_picture_has_words(document: Document) -> None:
    pictures = [attributes for name, attributes in document.elements if name == "svg"]
    assert len(pictures) == 4
    assert all(attributes["role"] == "img" and attributes["aria-label"] for attributes in pictures)
    images = [attributes for name, attributes in document.elements if name == "img"]
    assert len(images) == 2 * 4
    assert all(attributes["alt"] for attributes in images)


def test_tables_are_complete(document: Document) -> None:
    rows = document.cells
    assert len(rows) == 2 + len(COMPARISON.rows) + len(LEARNED.segments)
    assert [row[0] for row in rows[1:4]] == [row.label for row in COMPARISON.rows]


def test_commands_versions_and_limits_are_shown(document: Document) -> None:
    assert document.text.count(SOURCE.command) == 3
    assert f"data {HOSTILE}" in document.text
    assert "Not tested on photographs." in document.text
    assert "453 training runs" in document.text


def test_headings_do_not_skip_a_level(document: Document) -> None:
    levels = [int(name[1]) for name, _ in document.elements if re.fullmatch("h[1-6]", name)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(later <= earlier + 1 for earlier, later in itertools.pairwise(levels))


def test_the_same_data_gives_the_same_page(html: str) -> None:
    assert report_html(a_report()) == html


def test_everything_is_written_beside_the_page(tmp_path: Path) -> None:
    path = write_report(a_report(), tmp_path / "run")
    written = sorted(
        file.relative_to(path.parent).as_posix()
        for file in path.parent.rglob("*")
        if file.is_file()
    )
    assert written == [
        "figures/comparison.png",
        "figures/cost.png",
        "figures/cutmix.png",
        "report.html",
        "report.json",
        "tables/comparison.csv",
        "tables/comparison.json",
        "tables/schedule.csv",
        "tables/schedule.json",
    ]
    report = json.loads((path.parent / "report.json").read_text())
    assert report["headline"] == [HOSTILE, "Second sentence."]
    assert [block["kind"] for block in report["sections"][1]["blocks"]] == [
        "figure",
        "table",
        "contact sheet",
    ]
    assert report["sections"][0]["blocks"][0]["source"]["command"] == SOURCE.command
    table = json.loads((path.parent / "tables/comparison.json").read_text())
    assert len(table["rows"]) == len(COMPARISON.rows)
    assert path.read_text() == report_html(a_report())


def test_blocks_of_one_name_are_refused() -> None:
    section = Section(title="", blocks=(a_figure("cost"), a_figure("cost")))
    with pytest.raises(ValueError, match="distinct names"):
        dataclasses.replace(a_report(), sections=(section,))


def test_a_report_says_its_result_and_its_limits() -> None:
    with pytest.raises(ValueError, match="at least one limit"):
        dataclasses.replace(a_report(), headline=())
    with pytest.raises(ValueError, match="at least one limit"):
        dataclasses.replace(a_report(), limits=())
