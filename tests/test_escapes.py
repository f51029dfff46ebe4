"""Nothing that others wrote is printed raw: terminal, CSV, Markdown, HTML."""

import contextlib
import csv
import io
import json
import logging
import tempfile
import unicodedata
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from automix.cli import logs
from automix.cli import main as command_line
from automix.cli.main import main
from automix.escapes import markdown, markdown_code, markdown_span, one_line, visible
from automix.experiments.common.run_folder import ProgressBar
from automix.experiments.common.summaries import align
from automix.experiments.sweep.cell import describe_settings
from automix.operator_info import Operator
from automix.reporting.html import render
from automix.reporting.page import Source
from automix.reporting.tables import Column, Table, table_csv
from automix.schedule import Decision, constant_schedule

ESCAPES = ("\x1b[2J", "\x1b]0;title\x07", "\x9b31m", "\x08", "\x7f", "\x00")
MARKS = ("\u202e", "\u2066", "\u200f", "\u061c", "\ufeff", "\u200b", "\u2028", "\u2029")
PIECES = (
    *ESCAPES, *MARKS, "\n", "\r\n", "\t", "\x0b", "\x85", "\udcff", "\ud800", "=cmd|' /C calc'!A0",
    "+1", "-1", "@SUM(A1)", "\uff1d1", "|", "`", "```", "# ", "- ", "* ", "> ", "~~~", "<script>",
    "</pre>", "&amp;", "\\", '"', "'", "[a](b)", "![a](b)", "$x$", "name", " ", "\N{SNOWMAN}",
)  # fmt: skip
hostile = st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=8).map("".join)


def is_shown(text: str) -> bool:
    return not any(unicodedata.category(it) in {"Cc", "Cf", "Cs", "Zl", "Zp"} for it in text)


@given(hostile)
def test_a_line_moves_no_cursor(text: str) -> None:
    line = one_line(text)
    assert is_shown(line)
    assert len(line.splitlines()) <= 1
    # Whatever needs no escape stays.
    assert (line == text) == is_shown(text)


@given(hostile)
def test_only_line_breaks_and_tabs_are_left_in_text(text: str) -> None:
    assert is_shown(visible(text).replace("\n", "").replace("\t", ""))
    assert visible(text).count("\n") == text.count("\n")


@given(hostile, hostile)
def test_no_cell_is_a_formula(name: str, cell: str) -> None:
    table = Table(
        name="t", title="t", caption="", columns=(Column(name=name or "x"),), rows=((cell,),)
    )
    header, row = csv.reader(io.StringIO(table_csv(table)))
    for (value,) in (header, row or [""]):
        assert not value.lstrip().startswith(tuple("=+-@\t\r\uff1d\uff0b\uff0d\uff20"))
        assert is_shown(value)


@given(hostile)
def test_markdown_is_one_line_without_markup(text: str) -> None:
    escaped = markdown(text)
    assert is_shown(escaped)
    # Without the escaped letters, nothing is left that means something.
    bare = "".join(_unescaped(escaped))
    assert not set(bare) & set("`*_{}[]<>()#|!~&$@\\")
    assert not bare.startswith(("-", "+", "="))


def _unescaped(text: str) -> list[str]:
    letters, place = [], 0
    while place < len(text):
        if text[place] == "\\":
            place += 2
            continue
        letters.append(text[place])
        place += 1
    return letters


@given(hostile)
def test_code_of_markdown_is_one_line(text: str) -> None:
    block, span = markdown_code(text), markdown_span(text)
    assert block.startswith("    ")
    assert is_shown(block)
    assert is_shown(span)
    fence = span[: len(span) - len(span.lstrip("`"))]
    inner = span[len(fence) : -len(fence)]
    assert span == f"{fence}{inner}{fence}"
    assert not inner.startswith("`")
    assert not inner.endswith("`")
    assert fence not in [it for it in inner.replace("``", "` `").split(" ") if len(fence) > 1]


class Text(HTMLParser):
    """Collects the text and the tags of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.text, self.tags = "", list[str]()

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_starttag(self, tag: str, attributes: object) -> None:
        self.tags.append(tag)


@given(hostile)
def test_html_shows_the_text_and_nothing_else(text: str) -> None:
    parser = Text()
    parser.feed(str(render("source", source=Source(command=text))))
    assert parser.tags == ["pre", "code"]
    assert parser.text.removesuffix("\n") == visible(text)


def printed(*argv: str) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(argv)
    return code, out.getvalue(), err.getvalue()


@settings(max_examples=25)
@given(hostile, hostile, hostile)
def test_a_schedule_file_prints_no_line_of_its_own(name: str, key: str, value: str) -> None:
    schedule = constant_schedule(Decision(operator=Operator.MIXUP))
    name = "".join(it for it in name if it not in "/\0" and not 0xD800 <= ord(it) < 0xDC80) + "x"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name[-40:]
        # The reader refuses halves of pairs in the file itself.
        key, value = (
            "".join(it for it in text if not 0xD800 <= ord(it) < 0xE000) for text in (key, value)
        )
        content = schedule.to_plain() | {"provenance": {key: value}}
        path.write_text(json.dumps(content))
        code, out, _ = printed("schedule", "show", str(path))
        assert code == 0
        assert is_shown(out.replace("\n", ""))
        first, *_, origin, _ = out.splitlines()
        assert first.startswith(one_line(path))
        assert origin == f"{one_line(key)}: {one_line(value)}"
        # The same file broken: its name and content in an error.
        path.write_text(json.dumps(content | {key + "x": value}))
        code, out, err = printed("schedule", "show", str(path))
        assert (code, out) == (2, "")
        assert err.count("\n") == 1
        assert is_shown(err.rstrip("\n"))


@given(hostile)
def test_names_in_tables_settings_and_progress_are_lines(text: str) -> None:
    for line in [*align([["name", "x"], [text, "y"]]), describe_settings({text: text})]:
        assert is_shown(line)
    err = io.StringIO()
    with contextlib.redirect_stderr(err), ProgressBar("ablate", 1) as bar:
        bar.advance(note=text)
    assert is_shown(err.getvalue().rstrip("\n"))


@given(hostile)
def test_logs_and_errors_are_visible(text: str) -> None:
    record = logging.LogRecord("automix", logging.INFO, "", 0, "%s", (text,), None)
    assert logs._VisibleFormatter().format(record) == visible(text)
    err = io.StringIO()
    with contextlib.redirect_stderr(err):
        command_line._say(text)
    assert is_shown(err.getvalue().removesuffix("\n"))


def test_an_error_keeps_its_beginning_and_its_end(capsys: pytest.CaptureFixture[str]) -> None:
    command_line._say("file: expected this, got " + "x" * 1_000_000 + "; do that")
    line = capsys.readouterr().err
    assert len(line) < 5000
    assert line.startswith("file: expected this")
    assert line.endswith("x; do that\n")
