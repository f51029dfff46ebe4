"""Files from anybody: every reader refuses what is no file, too large or too deep, in one line."""

import csv
import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from automix.configuration.base import Config, read_yaml
from automix.errors import AutoMixError, CheckpointError, ConfigError, DataError
from automix.readers import MAX_VALUES, parse_json, parsing, read_json, read_text
from automix.schedule import Schedule


def test_reading_stops_at_the_limit(tmp_path: Path) -> None:
    file = tmp_path / "text"
    file.write_text("x" * 10)
    assert read_text(file, limit=10) == "x" * 10
    with pytest.raises(DataError, match=r"text: expected at most 9 bytes, got 10$"):
        read_text(file, limit=9, error=DataError)


def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for path, kind in (
        (tmp_path / "pipe", "is a pipe"),
        (tmp_path / "folder", "is a directory"),
        (Path("/dev/zero"), "is a device"),
        (tmp_path / "absent", "no such file or directory"),
    ):
        for read in (read_json, read_yaml, Config.from_json_file, Schedule.load):
            with pytest.raises(AutoMixError, match=f"{path.name}: expected .*, got: {kind}$"):
                read(path)
    with pytest.raises(CheckpointError, match="expected the name of a file, got: embedded null"):
        read_json(Path("a\0b"))


@pytest.mark.parametrize(
    ("text", "got"),
    [
        ("", "Expecting value"),
        ("[" * 100_000, "more than 50 levels of nesting"),
        ("[" * 51 + "]" * 51, "more than 50 levels of nesting"),
        ('["\\"]", ' + "[" * 51 + "]" * 52, "more than 50 levels of nesting"),
        ('["' + "\\" * 4_000_000, "Unterminated string"),
        ("[" + "[]," * MAX_VALUES + "[]]", "2000002 values, more than 1000000"),
        ("9" * 5000, "Exceeds the limit"),
        ("[1e999]", "1e999, which is too large"),
        ("[" + "9" * 400 + ".0]", "9+.*, which is too large"),
        ("[NaN]", "NaN, which is not a number"),
        ('{"a": 1, "b": 2, "a": 3}', "the key 'a' is given twice"),
        ('{"' + "a" * 10**6 + '": 1, "' + "a" * 10**6 + '": 3}', "the key 'a+ ... a+' is given"),
    ],
)
def test_other_text_than_plain_json_is_one_short_line(text: str, got: str) -> None:
    with pytest.raises(DataError, match=f"^here: expected JSON, got: {got}") as caught:
        parse_json(text, source="here", error=DataError)
    assert len(str(caught.value)) <= 500
    assert "\n" not in str(caught.value)


def test_brackets_and_commas_in_text_are_text() -> None:
    values = {"a": "[" * 1000 + '"' + "\\" + "]" * 1000, "b": ["{" * 60, [[["}"]]], 1e22, -0.5]}
    assert parse_json(json.dumps(values), source="here", error=DataError) == values


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=9))
def test_plain_values_come_back(value: object) -> None:
    assert parse_json(json.dumps(value), source="here", error=DataError) == value


@pytest.mark.parametrize(
    "cause",
    [OverflowError("a\nb"), RecursionError(), MemoryError(), csv.Error("x" * 10**6), KeyError("a")],
)
def test_whatever_a_parser_raises_is_one_short_line(cause: Exception) -> None:
    with (
        pytest.raises(ConfigError, match="here: expected a table, got: ") as caught,
        parsing("here", "a table", error=ConfigError),
    ):
        raise cause
    assert len(str(caught.value)) <= 500
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ['a: "\\UFFFFFFFF"', "a: \x01", "? [a]", "a: " + "9" * 5000])
def test_any_error_of_the_yaml_parser_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"bad\.yaml.*: expected plain YAML, got: ") as caught:
        read_yaml(tmp_path / "bad.yaml")
    assert "\n" not in str(caught.value)


def test_a_long_message_keeps_its_begin_and_its_end() -> None:
    text = str(ConfigError("where: expected a name, got " + "x" * 989_029 + ", the last"))
    assert text.startswith("where: expected a name, got xx")
    assert text.endswith("xx, the last")
    assert len(text) == 500
    assert str(ConfigError("short")) == "short"
