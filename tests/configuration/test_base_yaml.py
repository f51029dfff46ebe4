"""YAML of plain values: what is written reads back, and nothing is constructed."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from automix.configuration.base import read_yaml, scalar_of, to_yaml
from automix.errors import ConfigError

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
    | st.sampled_from(["1e-3", "no", "on", "12:30", "0x1f", "010", "1_000", "~", "<<", "=", ".5"]),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=10,
)
"""What a YAML file may hold."""


def round_trip(values: object, folder: Path) -> object:
    file = folder / "values.yaml"
    file.write_text(to_yaml(values), encoding="utf-8")
    return read_yaml(file)


@pytest.fixture(scope="module")
def module_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("yaml")


@given(values=PLAIN)
def test_plain_values_survive_yaml(values: object, module_folder: Path) -> None:
    again = round_trip(values, module_folder)
    assert again == values
    assert repr(again) == repr(values), "-0.0, True and 1.0 keep their kind"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("80", 80),
        ("-3", -3),
        ("010", 10),
        ("1e-3", 1e-3),
        ("1E3", 1000.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("no", "no"),
        ("yes", "yes"),
        ("on", "on"),
        ("12:30", "12:30"),
        ("1_000", "1_000"),
        ("0x1f", "0x1f"),
        ("1e", "1e"),
        ("2026-01-01", "2026-01-01"),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text: str, value: object, tmp_path: Path) -> None:
    file = tmp_path / "scalar.yaml"
    file.write_text(f"key: {text}\n")
    assert read_yaml(file) == {"key": value}
    assert type(scalar_of(text)) is type(value)
    assert scalar_of(text) == value


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    file = tmp_path / "windows.yaml"
    file.write_bytes(b"\xef\xbb\xbfcount: 1\r\nname: y\r\n")
    assert read_yaml(file) == {"count": 1, "name": "y"}


def test_nothing_is_constructed_from_a_tag(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    file = tmp_path / "hostile.yaml"
    for tag in ("!!python/object/apply:os.system", "!!python/name:os.system", "!custom", "!!set"):
        file.write_text(f"a: {tag} ['touch {marker}']\n")
        with pytest.raises(ConfigError, match="expected plain YAML, got: the tag"):
            read_yaml(file)
    assert not marker.exists()
