"""Typed configuration read from YAML: base class, strict parsing, and one-line error messages.

All that read a file raise `ConfigError` where it is missing or does not fit, and every message has
the form ``where: expected ..., got ...``.
"""

import difflib
import json
import re
import reprlib
import types
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from automix.errors import CheckpointError, ConfigError
from automix.files import sha256_of
from automix.readers import parsing, read_json, read_text

RENAMED = {
    # task.trainer and task.data
    "peak_learning_rate": "learning_rate",
    "warm_up": "warmup",
    "max_gradient_norm": "max_grad_norm",
    "normalisation": "normalization",
    # agent, as in Stable-Baselines3
    "entropy_coefficient": "ent_coef",
    "value_coefficient": "vf_coef",
    "epochs_per_update": "n_epochs",
    # environment
    "snapshot_share": "snapshot_fraction",
    # evaluate: a section and a task
    "localisation": "localization",
}
"""New names of keys and values that version 0.1 had, for messages."""

REMOVED = frozenset({"halving_rungs", "stopped_share", "lstm_size"})
"""Keys of version 0.1 that are gone, for messages."""

MAX_CONFIG_BYTES = 100_000
_PLAIN = {None: "null", True: "true", False: "false"}
_MAX_SHOWN = 80
# Bounded in depth and length before anything is formatted: a hostile value may be deep or huge.
_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother, _SHORT.maxlong = 3, _MAX_SHOWN, _MAX_SHOWN, 40


class Config(BaseModel):
    """A frozen set of named values; unknown keys, NaN and infinity are refused.

    The docstring under each field is its help text on the command line.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False
    )
    without_influence: ClassVar[frozenset[str]] = frozenset()
    """Fields that change where and how fast something is computed, and not what."""

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """Make one paragraph of each field's docstring: the help breaks lines where it must."""
        super().__pydantic_init_subclass__(**kwargs)
        for field in cls.model_fields.values():
            if field.description is not None:
                field.description = " ".join(field.description.split())

    def to_yaml(self) -> str:
        """Return the complete configuration, defaults included, as YAML."""
        return to_yaml(self.model_dump(mode="json"))

    def content_hash(self) -> str:
        """Return a hash of every value that results depend on."""
        values = self.model_dump_json(exclude=_without_influence(type(self)))
        return sha256_of(values.encode())[:16]

    @classmethod
    def from_plain(cls, values: dict[Any, Any]) -> Self:
        """Validate plain values by JSON's types: ``true`` is no 1, ``"80"`` no number."""
        # As JSON, because in pydantic's strict Python mode a list is no tuple and text no enum.
        return cls.model_validate_json(json.dumps(values, default=str), strict=True)

    @classmethod
    def from_mapping(cls, values: object, *, source: str) -> Self:
        """Validate ``values`` as parsed from YAML or JSON; messages begin with ``source``."""
        if not isinstance(values, dict):
            got = "nothing" if values is None else shown(values)
            raise ConfigError(f"{source}: expected a mapping of keys to values, got {got}")
        try:
            return cls.from_plain(values)
        except ValidationError as error:
            raise ConfigError(f"{source}: {first_problem(error, cls)}") from None
        except RecursionError:
            raise ConfigError(f"{source}: expected plain values, got too deep a nesting") from None

    @classmethod
    def from_yaml(cls, path: Path) -> Self:
        """Read and validate a YAML file."""
        return cls.from_mapping(read_values(path, cls), source=str(path))

    @classmethod
    def from_json_file(cls, path: Path) -> Self:
        """Read and validate a JSON file that a run wrote.

        Raises:
            CheckpointError: the file is missing, not JSON, or does not fit the model.
        """
        values = read_json(path, limit=MAX_CONFIG_BYTES)
        try:
            return cls.from_mapping(values, source=str(path))
        except ConfigError as error:
            raise CheckpointError(str(error)) from None


def sections_of(model: type[BaseModel]) -> Iterator[tuple[str, type[Config]]]:
    """Yield name and model of each field that holds a configuration itself."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Config):
            yield name, field.annotation


def _without_influence(model: type[Config]) -> dict[str, Any]:
    """Return fields without influence, of sections as well, as pydantic excludes them."""
    fields: dict[str, Any] = dict.fromkeys(model.without_influence, True)
    for name, section in sections_of(model):
        if inner := _without_influence(section):
            fields[name] = inner
    return fields


def read_values(path: Path, model: type[BaseModel]) -> object:
    """Return the values in a YAML file, not validated, with those of its sections' files put in.

    A section may be the name of a file that ends in ``.yaml`` or ``.yml``, relative to the file
    that names it. ``model`` decides which keys are sections.
    """
    values = read_yaml(path)
    return _filled(values, model, path.parent) if isinstance(values, dict) else values


def read_section(path: Path, section: type[Config]) -> object:
    """Return the values in the file of a section, which fits on its own."""
    values = read_values(path, section)
    section.from_mapping(values, source=str(path))
    return values


def _filled(values: dict[Any, Any], model: type[BaseModel], folder: Path) -> dict[Any, Any]:
    filled = dict(values)
    # Sections within sections too, each relative to the file that names it.
    for name, section in sections_of(model):
        value = filled.get(name)
        if isinstance(value, str) and value.endswith((".yaml", ".yml")):
            filled[name] = read_section(folder / value, section)
        elif isinstance(value, dict):
            filled[name] = _filled(value, section, folder)
    return filled


# pydantic's phrases where there are better ones, or where they name Python's types.
_EXPECTED = {
    "bool_type": "true or false",
    "int_type": "an integer",
    "float_type": "a number",
    "string_type": "text",
    "tuple_type": "a list",
    "model_type": "a mapping of keys to values",
    "mapping_type": "a mapping of keys to values",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """The first problem of a set of values."""

    path: tuple[str | int, ...]  # keys and list positions that lead to it; empty for the whole
    expectation: str  # ``expected ..., got ...``

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


def did_you_mean(wrong: object, names: Iterable[str]) -> str:
    """Return `` (did you mean 'x'?)`` if one of ``names`` is close to ``wrong``, else nothing."""
    # At the usual cutoff of 0.6, "output" is close to "compute".
    close = difflib.get_close_matches(str(wrong), list(names), n=1, cutoff=0.7)
    return f" (did you mean {close[0]!r}?)" if close else ""


def outdated(name: object, names: Sequence[str]) -> str | None:
    """Return the expectation of a key or value of version 0.1 that is none of ``names`` now."""
    if not isinstance(name, str):
        return None
    if name in REMOVED:
        return f"expected no such key (removed, see CHANGELOG.md), got {name!r}"
    # The new name may belong to another section: then it would be no help here.
    new = RENAMED.get(name)
    return f"expected its new name {new}, got the old one" if new in names else None


def first_problem(error: ValidationError, model: type[BaseModel]) -> Problem:
    """Return the first problem that ``model`` has with values."""
    problems = [
        (*_located(problem["loc"], model), problem)
        for problem in error.errors(include_url=False)
        # Says that another problem came first.
        if problem["type"] != "default_factory_not_called"
    ]
    # A list that lost a bad item may be too short as well: the item is what to mend.
    containers = {path[:length] for path, _, _ in problems for length in range(len(path))}
    problems = [entry for entry in problems if entry[0] not in containers]
    # A union has a problem per alternative; a value of the right type but out of range is what
    # the user meant, and where every type is wrong all are expected.
    fields = [tuple(part for part in path if isinstance(part, str)) for path, _, _ in problems]
    same = [entry for entry, field in zip(problems, fields, strict=True) if field == fields[0]]
    ranges = [entry for entry in same if not entry[2]["type"].endswith("_type")]
    path, names, problem = (ranges or same)[0]
    others = [] if ranges else [_expected(other) for _, _, other in same[1:]]
    expectation = _expectation(problem, names, others)
    if num_more := len(set(fields)) - 1:
        expectation += f" (and {num_more} more)"
    return Problem(path=path, expectation=expectation)


def alternatives(annotation: Any) -> list[Any]:
    """Return the members of a union, without `Annotated`; of any other type, itself."""
    if get_origin(annotation) is Annotated:
        return alternatives(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return [kind for member in get_args(annotation) for kind in alternatives(member)]
    return [annotation]


def _located(
    location: Sequence[str | int], model: type[BaseModel]
) -> tuple[tuple[str | int, ...], list[str]]:
    """Return the path of a problem, and the names of the fields beside its last key.

    pydantic puts the member of a union that it tried after the name of the field; a path does not.
    """
    path: list[str | int] = []
    section: type[BaseModel] | None = model
    names: list[str] = []
    is_member_next = False
    for part in location:
        if is_member_next:
            is_member_next = False
            continue
        path.append(part)
        if isinstance(part, int):
            continue
        names = list(section.model_fields) if section else []
        field = section.model_fields.get(part) if section else None
        kinds = alternatives(field.annotation) if field else []
        is_member_next = sum(kind is not type(None) for kind in kinds) > 1
        section = _model_in(field.annotation) if field else None
    return tuple(path), names


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_model_in, get_args(annotation))), None)


def _expectation(problem: Any, names: Sequence[str], others: Sequence[str]) -> str:
    kind, value = problem["type"], problem["input"]
    if kind == "extra_forbidden":
        key = str(problem["loc"][-1])
        return outdated(key, names) or (
            f"expected one of {', '.join(names)}, got the unknown key {key!r}"
            f"{did_you_mean(key, names)}"
        )
    if kind == "missing":
        return "expected a value, got nothing"
    if kind == "value_error":
        # Our own validators already speak in "expected ..., got ...".
        return str(problem["msg"]).removeprefix("Value error, ")
    if kind == "json_invalid":
        reason = problem["msg"].removeprefix("Invalid JSON: ")
        # A path of bytes that are no text: neither YAML nor JSON could hold it.
        is_bytes = "surrogate" in reason
        got = "names in UTF-8, got other bytes" if is_bytes else f"plain values, got: {reason}"
        return f"expected {got}"
    expected = " or ".join(dict.fromkeys((_expected(problem), *others)))
    if kind not in ("enum", "literal_error"):
        return f"expected {expected}, got {shown(value)}"
    choices = re.findall(r"'([^']*)'", problem["ctx"]["expected"])
    return outdated(value, choices) or (
        f"expected {expected}, got {shown(value)}{did_you_mean(value, choices)}"
    )


def _expected(problem: Any) -> str:
    if (phrase := _EXPECTED.get(problem["type"])) is not None:
        return phrase
    phrase = re.sub(r"^(Input|Value|String|List|Tuple) should (be|have) ", "", problem["msg"])
    return re.sub(r", unable to .*| after validation, not .*", "", phrase)


# Plain YAML: the scalars of version 1.2, and nothing that constructs objects.

_MAX_LEVELS = 20


def read_yaml(path: Path) -> object:
    """Parse a YAML file without constructing anything but plain values; None if it is empty."""
    text = read_text(path, limit=MAX_CONFIG_BYTES, error=ConfigError)
    with parsing(str(path), "plain YAML", error=ConfigError):
        try:
            return yaml.load(text, Loader=_PlainLoader)  # a SafeLoader
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark
            where = f"{path}, line {mark.line + 1}" if mark else str(path)
            problem = str(error.problem).removeprefix("but ")
            raise ConfigError(f"{where}: expected plain YAML, got: {problem}") from None


def to_yaml(values: object) -> str:
    """Return plain values as YAML that `read_yaml` reads back as they were."""
    return yaml.dump(values, Dumper=_PlainDumper, sort_keys=False)


def scalar_of(text: str) -> int | float | bool | str | None:
    """Return ``text`` as a scalar of a YAML file is read."""
    loader: Any = _PlainLoader("")
    # Not by parsing a document: text such as "a: b" or "[1" is one scalar on the command line.
    node = yaml.ScalarNode(loader.resolve(yaml.ScalarNode, text, (True, False)), text)
    try:
        value: int | float | bool | str | None = loader.construct_object(node)
    except ValueError:
        # Thousands of digits, which Python does not read: for validation to refuse.
        return text
    return value


class _PlainLoader(yaml.SafeLoader):
    """Refuses what a configuration has no need of, and what an attack is made of.

    Aliases let a short file stand for a huge value, tags name types, nesting uses up the stack,
    and of a key given twice one value would be ignored.
    """

    yaml_implicit_resolvers = {}  # noqa: RUF012 - PyYAML's own registry, filled in below

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._level = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        # Refused as the parser reads, before anything is built: a bomb never unfolds.
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            self._refuse("an anchor or alias; write the value out", event.start_mark)
        if event.tag is not None:
            self._refuse(f"the tag {event.tag!r}; write a plain value", event.start_mark)
        if self._level == _MAX_LEVELS:
            self._refuse(f"more than {_MAX_LEVELS} levels of nesting", event.start_mark)
        self._level += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self._level -= 1

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self._refuse("a list or a mapping as a key", key.start_mark)
            if key.value in seen:
                self._refuse(f"the key {key.value!r} twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)

    @staticmethod
    def _refuse(problem: str, mark: yaml.Mark) -> None:
        raise yaml.constructor.ConstructorError(None, None, problem, mark)


class _PlainDumper(yaml.SafeDumper):
    """Quotes the texts that `_PlainLoader` would read as something else."""

    yaml_implicit_resolvers = {}  # noqa: RUF012 - PyYAML's own registry, filled in below


# YAML 1.2's core scalars: PyYAML's own are of 1.1, where `no` is false, 12:30 is 750 and 010 is 8.
for _name, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", "~nN"),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?"
        r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
):
    for _kind in (_PlainLoader, _PlainDumper):
        _kind.add_implicit_resolver(
            f"tag:yaml.org,2002:{_name}",
            re.compile(f"(?:{_pattern})$"),
            [*_first, *([""] if _name == "null" else [])],
        )
_PlainLoader.add_constructor(
    "tag:yaml.org,2002:int",
    # PyYAML's own reads a leading zero as octal.
    lambda loader, node: int(str(loader.construct_scalar(node))),  # type: ignore[arg-type]
)
