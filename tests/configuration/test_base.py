"""Configurations: plain YAML in and out, closed models, one line for what is wrong."""

import math
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, ValidationError, field_validator, model_validator

from automix.configuration.base import (
    REMOVED,
    RENAMED,
    Config,
    did_you_mean,
    first_problem,
    shown,
)
from automix.errors import ConfigError
from automix.experiments.config import SearchConfig
from automix.experiments.evaluate.config import EvaluateConfig
from tests.configuration.test_base_yaml import PLAIN


class Color(StrEnum):
    RED = "red"
    NO = "no"


class Part(Config):
    """A section."""

    weight: Annotated[float, Field(gt=0)] = 1.0
    """A number
    over two lines."""

    side: Annotated[int, Field(ge=1)] | tuple[Annotated[int, Field(ge=1)], ...] | None = None


class Whole(Config):
    """Every kind of field."""

    count: Annotated[int, Field(ge=0)] = 0
    name: str = "x"
    path: Path | None = None
    is_on: bool = False
    color: Color = Color.RED
    kind: Literal["a", "b"] = "a"
    names: tuple[str, ...] = ()
    part: Part = Part()
    parts: tuple[Part, ...] = ()
    notes: Mapping[str, str] = Field(default_factory=dict)
    exact: int | float = 0

    @field_validator("names")
    @classmethod
    def _no_name_twice(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(names)) < len(names):
            raise ValueError(f"expected each name once, got {list(names)}")
        return names

    @model_validator(mode="after")
    def _b_needs_a_name(self) -> "Whole":
        if self.kind == "b" and not self.name:
            raise ValueError("expected a name for the kind 'b', got ''")
        return self


def test_a_configuration_survives_yaml(tmp_path: Path) -> None:
    config = Whole(
        count=3,
        name="1e-3",
        path=Path("no"),
        is_on=True,
        color=Color.NO,
        names=("null", "0", ""),
        part=Part(weight=1e-7, side=(3, 4)),
        parts=(Part(side=2), Part()),
        notes={"seed": "12", "on": "~"},
        exact=2,
    )
    file = tmp_path / "config.yaml"
    file.write_text(config.to_yaml(), encoding="utf-8")
    again = Whole.from_yaml(file)
    assert again == config
    assert again.content_hash() == config.content_hash()
    assert isinstance(again.exact, int)
    assert yaml.safe_load(Whole().to_yaml()).keys() == Whole.model_fields.keys()


def test_equal_configurations_have_equal_hashes_and_others_do_not() -> None:
    assert (
        Whole(count=1).content_hash() == Whole.from_mapping({"count": 1}, source="").content_hash()
    )
    assert Whole(count=1).content_hash() != Whole(count=2).content_hash()


def test_a_help_text_is_one_paragraph() -> None:
    assert Part.model_fields["weight"].description == "A number over two lines."


def test_a_configuration_is_frozen() -> None:
    with pytest.raises(ValidationError):
        Whole().count = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"count": True}, "count: expected an integer, got true"),
        ({"count": 1.0}, "count: expected an integer, got 1.0"),
        ({"count": "1"}, "count: expected an integer, got '1'"),
        ({"count": None}, "count: expected an integer, got null"),
        ({"count": -1}, "count: expected greater than or equal to 0, got -1"),
        ({"name": 1}, "name: expected text, got 1"),
        ({"name": True}, "name: expected text, got true"),
        ({"path": 1}, "path: expected text, got 1"),
        ({"is_on": 1}, "is_on: expected true or false, got 1"),
        ({"is_on": "yes"}, "is_on: expected true or false, got 'yes'"),
        ({"color": "redd"}, "color: expected 'red' or 'no', got 'redd' (did you mean 'red'?)"),
        ({"color": False}, "color: expected 'red' or 'no', got false"),
        ({"kind": "c"}, "kind: expected 'a' or 'b', got 'c'"),
        ({"names": "x"}, "names: expected a list, got 'x'"),
        ({"names": ["x", 1]}, "names.1: expected text, got 1"),
        ({"names": ["x", "x"]}, "names: expected each name once, got ['x', 'x']"),
        ({"kind": "b", "name": ""}, "expected a name for the kind 'b', got ''"),
        ({"part": None}, "part: expected a mapping of keys to values, got null"),
        ({"part": {"weight": math.nan}}, "part.weight: expected a finite number, got nan"),
        ({"part": {"weight": math.inf}}, "part.weight: expected a finite number, got inf"),
        ({"part": {"weight": 0}}, "part.weight: expected greater than 0, got 0"),
        ({"part": {"side": "x"}}, "part.side: expected an integer or a list, got 'x'"),
        ({"part": {"side": 0}}, "part.side: expected greater than or equal to 1, got 0"),
        ({"part": {"side": [1, 0]}}, "part.side.1: expected greater than or equal to 1, got 0"),
        ({"parts": [{}, {"weigth": 1}]}, "parts.1.weigth: expected one of weight, side, got the "
         "unknown key 'weigth' (did you mean 'weight'?)"),
        ({"notes": {"a": 1}}, "notes.a: expected text, got 1"),
        ({"exact": "x"}, "exact: expected an integer or a number, got 'x'"),
        ({"count": -1, "name": 1}, "count: expected greater*(and 1 more)"),
        ({1: 2}, "1: expected one of count,*got the unknown key '1'"),
        ([], "expected a mapping of keys to values, got []"),
        (None, "expected a mapping of keys to values, got nothing"),
        ("\n", r"expected a mapping of keys to values, got '\n'"),
    ],
    ids=str,
)  # fmt: skip
def test_a_wrong_value_is_one_line(values: object, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Whole.from_mapping(values, source="here")
    head, star, tail = f"here: {message}".partition("*")
    text = str(caught.value)
    assert text == head or (star and text.startswith(head) and text.endswith(tail))
    assert "\n" not in text


@given(values=st.dictionaries(st.sampled_from([*Whole.model_fields, "x"]), PLAIN, max_size=4))
def test_any_plain_values_are_accepted_or_refused_in_one_line(values: dict[str, object]) -> None:
    try:
        config = Whole.from_mapping(values, source="here")
    except ConfigError as error:
        text = str(error)
        assert text.startswith("here: ")
        assert "expected" in text
        assert ", got" in text
        assert "\n" not in text
        assert len(text) < 500
    else:
        assert Whole.from_mapping(config.model_dump(mode="json"), source="again") == config


def test_a_value_too_deep_to_write_is_refused() -> None:
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(ConfigError, match="here: expected plain values, got too deep a nesting"):
        Whole.from_mapping({"names": deep}, source="here")
    while deep:
        # Freed from the outside in, or the interpreter recurses a hundred thousand levels deep.
        deep = deep.pop()  # type: ignore[assignment]


@pytest.mark.parametrize("value", [[[[[[[1]]]]]], "x" * 10_000, list(range(10_000)), 10**4000])
def test_a_shown_value_is_short(value: object) -> None:
    assert len(shown(value)) <= 80


def test_hints_need_likeness() -> None:
    assert did_you_mean("mixupp", ["cutmix", "mixup"]) == " (did you mean 'mixup'?)"
    assert did_you_mean("output", ["compute", "agent"]) == ""
    assert did_you_mean(3, ["a"]) == ""


OLD_KEYS: list[tuple[type[Config], list[str], list[str]]] = [
    (
        SearchConfig,
        ["task", "trainer"],
        ["peak_learning_rate", "warm_up", "max_gradient_norm"],
    ),
    (SearchConfig, ["task", "data"], ["normalisation"]),
    (SearchConfig, ["agent"], ["entropy_coefficient", "value_coefficient", "epochs_per_update"]),
    (SearchConfig, ["environment"], ["snapshot_share"]),
    (EvaluateConfig, [], ["localisation"]),
]


@pytest.mark.parametrize(("model", "section", "keys"), OLD_KEYS)
def test_a_renamed_key_is_refused_with_its_new_name(
    model: type[Config], section: list[str], keys: list[str]
) -> None:
    for key in keys:
        values: dict[str, object] = {key: 1}
        for part in reversed(section):
            values = {part: values}
        with pytest.raises(ConfigError) as caught:
            model.from_mapping(values, source="my.yaml")
        where = ".".join([*section, key])
        assert str(caught.value) == (
            f"my.yaml: {where}: expected its new name {RENAMED[key]}, got the old one"
        )


def test_every_renamed_key_is_tested_and_elsewhere_is_an_unknown_one() -> None:
    assert {key for _, _, keys in OLD_KEYS for key in keys} == set(RENAMED)
    with pytest.raises(ConfigError, match="weight, side, got the unknown key 'warm_up'"):
        Part.from_mapping({"warm_up": 1}, source="here")


@pytest.mark.parametrize("key", sorted(REMOVED))
def test_a_removed_key_is_said_to_be(key: str) -> None:
    message = f"here: {key}: expected no such key \\(removed, see CHANGELOG.md\\), got '{key}'"
    with pytest.raises(ConfigError, match=message):
        Part.from_mapping({key: 1}, source="here")


def test_the_path_of_a_problem() -> None:
    with pytest.raises(ValidationError) as caught:
        Whole.from_plain({"parts": [{"side": [3, "x"]}]})
    problem = first_problem(caught.value, Whole)
    assert problem.path == ("parts", 0, "side", 1)
    assert str(problem) == "parts.0.side.1: expected an integer, got 'x'"
