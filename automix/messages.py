"""What is wrong with a value, as ``path.to.key: expected ..., got ...``."""

import difflib
import re
import reprlib
import types
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

_MAX_SHOWN = 80
# pydantic's words where there are better ones, or where they name Python's types.
_WANTED = {
    "bool_type": "true or false",
    "int_type": "an integer",
    "float_type": "a number",
    "string_type": "text",
    "tuple_type": "a list",
    "model_type": "a mapping of keys to values",
    "mapping_type": "a mapping of keys to values",
}
_PLAIN = {None: "null", True: "true", False: "false"}

# Bounded in depth and length before anything is formatted: a hostile value may be deep or huge.
_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother, _SHORT.maxlong = 3, _MAX_SHOWN, _MAX_SHOWN, 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """The first thing that is wrong with a set of values.

    Attributes:
        path: keys and list positions that lead to it; empty for the whole.
        expectation: ``expected ..., got ...``.
    """

    path: tuple[str | int, ...]
    expectation: str

    def __str__(self) -> str:
        """Return ``path: expected ..., got ...``."""
        where = ".".join(str(part) for part in self.path)
        return f"{where}: {self.expectation}" if where else self.expectation


def shown(value: object) -> str:
    """Return ``value`` for an error message: shortened, and as a file would spell it."""
    if value is None or isinstance(value, bool):
        return _PLAIN[value]
    text = _SHORT.repr(value)
    return text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 3] + "..."


def did_you_mean(wrong: object, known: Iterable[str]) -> str:
    """Return `` (did you mean 'x'?)`` if one of ``known`` is close to ``wrong``, else nothing."""
    # At the usual cutoff of 0.6, "output" is close to "compute".
    close = difflib.get_close_matches(str(wrong), list(known), n=1, cutoff=0.7)
    return f" (did you mean {close[0]!r}?)" if close else ""


def first_problem(error: ValidationError, model: type[BaseModel]) -> Problem:
    """Return the first problem that ``model`` has with values."""
    found = [
        (_path(problem["loc"], model), problem)
        for problem in error.errors(include_url=False)
        # Says that another problem came first.
        if problem["type"] != "default_factory_not_called"
    ]
    # A list that lost a bad item may be too short as well: the item is what to mend.
    containers = {path[:length] for path, _ in found for length in range(len(path))}
    found = [(path, problem) for path, problem in found if path not in containers]
    # A union has a problem per alternative; a value of the right type but out of range is what
    # the user meant, and where every type is wrong all are wanted.
    first = found[0][0]
    field = _without_positions(first)
    same = [(path, problem) for path, problem in found if _without_positions(path) == field]
    ranges = [pair for pair in same if not pair[1]["type"].endswith("_type")]
    path, problem = (ranges or same)[0]
    others = [_wanted(other) for _, other in same[1:]] if not ranges else []
    expectation = _expectation(problem, model, others)
    left = len({_without_positions(other) for other, _ in found}) - 1
    if left:
        expectation += f" (and {left} more)"
    return Problem(path=path, expectation=expectation)


def alternatives(annotation: Any) -> list[Any]:
    """Return the members of a union, without `Annotated`; of any other type, itself."""
    if get_origin(annotation) is Annotated:
        return alternatives(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return [kind for member in get_args(annotation) for kind in alternatives(member)]
    return [annotation]


def _expectation(problem: Any, model: type[BaseModel], others: Sequence[str]) -> str:
    kind, value = problem["type"], problem["input"]
    if kind == "extra_forbidden":
        return _unknown_key(str(problem["loc"][-1]), _model_at(model, problem["loc"][:-1]))
    if kind == "missing":
        return "expected a value, got nothing"
    if kind == "value_error":
        # Our own validators already speak in "expected ..., got ...".
        return str(problem["msg"]).removeprefix("Value error, ")
    if kind == "json_invalid":
        return f"expected plain values, got: {problem['msg'].removeprefix('Invalid JSON: ')}"
    wanted = " or ".join(dict.fromkeys((_wanted(problem), *others)))
    hint = ""
    if kind in ("enum", "literal_error"):
        hint = did_you_mean(value, re.findall(r"'([^']*)'", problem["ctx"]["expected"]))
    return f"expected {wanted}, got {shown(value)}{hint}"


def _wanted(problem: Any) -> str:
    if (words := _WANTED.get(problem["type"])) is not None:
        return words
    wanted = re.sub(r"^(Input|Value|String|List|Tuple) should (be|have) ", "", problem["msg"])
    return re.sub(r", unable to .*| after validation, not .*", "", wanted)


def _unknown_key(key: str, model: type[BaseModel] | None) -> str:
    names = list(model.model_fields) if model else []
    return (
        f"expected one of {', '.join(names)}, got the unknown key {key!r}{did_you_mean(key, names)}"
    )


def _path(location: Sequence[str | int], model: type[BaseModel]) -> tuple[str | int, ...]:
    """Return ``location`` without the names that pydantic gives to the members of a union."""
    path: list[str | int] = []
    current: type[BaseModel] | None = model
    is_tag_next = False
    for part in location:
        if is_tag_next:
            is_tag_next = False
            continue
        path.append(part)
        if isinstance(part, int) or current is None:
            continue
        field = current.model_fields.get(part)
        kinds = alternatives(field.annotation) if field else []
        is_tag_next = len([kind for kind in kinds if kind is not type(None)]) > 1
        current = _model_in(field.annotation) if field else None
    return tuple(path)


def _without_positions(path: Sequence[str | int]) -> tuple[str, ...]:
    return tuple(part for part in path if isinstance(part, str))


def _model_at(model: type[BaseModel], location: Sequence[str | int]) -> type[BaseModel] | None:
    """Follow field names from ``model`` down to the model that holds the last of them."""
    current: type[BaseModel] | None = model
    for part in location:
        if current is None or not isinstance(part, str):
            continue
        field = current.model_fields.get(part)
        current = _model_in(field.annotation) if field else None
    return current


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in get_args(annotation):
        if found := _model_in(argument):
            return found
    return None
