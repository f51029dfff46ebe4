import csv
import io
import json
import math
import subprocess
import sys

import pytest

from automix.reporting.figures.comparison import cost_table
from automix.reporting.figures.schedule import schedule_table
from automix.reporting.page import block_html
from automix.reporting.tables import (
    Cell,
    Column,
    Direction,
    Table,
    duration_text,
    number_text,
    table_csv,
    table_json,
)
from tests.reporting.examples import COST, HOSTILE, LEARNED, interval
from tests.reporting.parsing import parse

TABLE = Table(
    name="main",
    title="Results",
    columns=(
        Column(name="schedule"),
        Column(name="NLL", unit="nats", better=Direction.LOWER),
        Column(name="accuracy", better=Direction.HIGHER),
        Column(name="cost"),
    ),
    rows=(
        ("learned", interval(0.088), 0.9712, 440),
        (HOSTILE, interval(0.12), 0.9734, 1),
        ("none", None, None, 1.05),
    ),
)


def test_every_cell_is_in_the_page() -> None:
    document = parse(block_html(TABLE))
    assert [len(row) for row in document.cells] == [4, 4, 4, 4]
    assert document.cells[1:] == [
        ["learned", "0.088 [0.085, 0.091]", "0.971", "440"],
        [HOSTILE, "0.120 [0.117, 0.123]", "0.973", "1"],
        ["none", "", "", "1.05"],
    ]
    assert document.cells[0][1] == "NLLnats"


def test_sorting_values_are_exact() -> None:
    values = parse(block_html(TABLE)).attributes("data-value")
    assert [float(value) for value in values] == [0.088, 0.9712, 440, 0.12, 0.9734, 1, 1.05]


def test_the_best_cell_is_bold() -> None:
    html = block_html(TABLE)
    assert html.count("<b>") == 2
    assert "<b>0.088</b>" in html
    assert "<b>0.973</b>" in html


def test_headings_are_buttons_in_scoped_cells() -> None:
    elements = parse(block_html(TABLE)).elements
    assert [name for name, _ in elements].count("button") == 4
    scopes = [attributes.get("scope") for name, attributes in elements if name == "th"]
    assert scopes == ["col"] * 4 + ["row"] * 3


def test_csv_holds_every_number_exactly() -> None:
    rows = list(csv.reader(io.StringIO(table_csv(TABLE))))
    names = ["schedule", "NLL (nats)", "NLL (nats)_low", "NLL (nats)_high", "accuracy", "cost"]
    assert rows[0] == names
    expected = interval(0.088)
    assert [float(value) for value in rows[1][1:]] == [
        expected.estimate,
        expected.low,
        expected.high,
        0.9712,
        440,
    ]
    assert rows[2][0] == HOSTILE
    assert rows[3][1:] == ["", "", "", "", "1.05"]


def test_json_gives_every_cell_back() -> None:
    content = json.loads(json.dumps(table_json(TABLE), allow_nan=False))
    assert [column["name"] for column in content["columns"]] == [
        column.name for column in TABLE.columns
    ]
    first = interval(0.088)
    assert content["rows"][0] == [
        "learned",
        {"estimate": 0.088, "low": first.low, "high": first.high, "confidence": 0.95},
        0.9712,
        440,
    ]
    assert content["rows"][2] == ["none", None, None, 1.05]


@pytest.mark.parametrize("cell", [math.nan, math.inf, interval(math.nan)])
def test_numbers_that_are_not_finite_are_refused(cell: Cell) -> None:
    with pytest.raises(ValueError, match="expected finite numbers"):
        Table(name="a", title="", columns=(Column(name="x"),), rows=((cell,),))


def test_a_row_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="expected 1 cells"):
        Table(name="a", title="", columns=(Column(name="x"),), rows=((1, 2),))


@pytest.mark.parametrize("name", ["", "../evil", "a b", "a/b", "1st", "a\n", 'a"'])
def test_names_that_cannot_be_files_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="expected letters"):
        Table(name=name, title="", columns=(Column(name="x"),), rows=())


def test_a_schedule_as_a_table() -> None:
    table = schedule_table(LEARNED, name="schedule", title="Schedule")
    assert table.rows == (
        (0, "Mixup", 2.0, 100),
        (30, "CutMix", 2.0, 75),
        (60, "GuidedMixup", 0.0, 50),
        (90, "none", None, 0),
    )


def test_a_cost_as_a_table_counts_the_training_runs() -> None:
    table = cost_table(COST, name="cost", title="")
    assert table.rows == (
        ("search", 300, 310.0),
        ("greedy", 4, None),
        ("replay", None, 1.1),
        ("total", 304, 311.1),
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0880, "0.0880"), (0.000123, "0.000123"), (123456, "123456"), (0, "0"), (-12.345, "-12.3"),
     (9.999, "10.00"), (1.5e9, "1.50e+09")],
)  # fmt: skip
def test_numbers_are_written_with_three_digits(value: float, text: str) -> None:
    assert number_text(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (0.0123, "12 ms"), (1.05, "1.1 s"), (90, "90 s"), (310, "5.2 min"),
     (6000, "100 min"), (20000, "5.6 h"), (400000, "4.6 days")],
)  # fmt: skip
def test_durations_are_written_in_the_unit_a_reader_would_choose(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


def test_numbers_are_written_without_a_drawing_library() -> None:
    program = (
        "import sys, automix.reporting.tables; "
        "print(sorted({'jinja2', 'matplotlib', 'torch'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
