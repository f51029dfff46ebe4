"""The base of every configuration model, and YAML in and out of it.

A model is frozen and closed to unknown keys. Whatever is wrong with a file becomes one
`ConfigError` of the form ``path.to.key: expected ..., got ...``. A section may be a file of its
own: ``agent: ../agent/ppo.yaml`` stands for what that file holds.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from automix.errors import ConfigError
from automix.files import sha256_of
from automix.messages import first_problem, shown
from automix.plain_yaml import read_yaml, to_yaml


class Config(BaseModel):
    """A frozen set of named values; unknown keys, NaN and infinity are refused.

    The docstring under each field is its help text on the command line.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False
    )

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
        """Return a hash of every value: equal configurations have equal hashes."""
        return sha256_of(self.model_dump_json().encode())[:16]

    @classmethod
    def from_plain(cls, values: dict[Any, Any]) -> Self:
        """Validate plain values by JSON's types: ``true`` is no 1, ``"80"`` no number.

        Raises:
            ValidationError: a key is unknown or a value does not fit.
        """
        # As JSON, because in pydantic's strict Python mode a list is no tuple and text no enum.
        return cls.model_validate_json(json.dumps(values, default=str), strict=True)

    @classmethod
    def from_mapping(cls, values: object, *, source: str) -> Self:
        """Validate ``values`` (what YAML or JSON gave).

        Raises:
            ConfigError: a key is unknown or a value does not fit; the text names ``source``.
        """
        if not isinstance(values, dict):
            found = "nothing" if values is None else shown(values)
            raise ConfigError(f"{source}: expected a mapping of keys to values, got {found}")
        try:
            return cls.from_plain(values)
        except ValidationError as error:
            raise ConfigError(f"{source}: {first_problem(error, cls)}") from None
        except RecursionError:
            raise ConfigError(f"{source}: expected plain values, got too deep a nesting") from None

    @classmethod
    def from_yaml(cls, path: Path) -> Self:
        """Read and validate a YAML file.

        Raises:
            ConfigError: the file is missing, not YAML, or does not fit the model.
        """
        return cls.from_mapping(read_values(path, cls), source=str(path))


def sections_of(model: type[BaseModel]) -> Iterator[tuple[str, type[Config]]]:
    """Yield name and model of each field that holds a configuration itself."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Config):
            yield name, field.annotation


def read_values(path: Path, model: type[BaseModel]) -> object:
    """Return what a YAML file holds, with the files put in that it names for sections.

    Their names end in ``.yaml`` or ``.yml``, relative to the file that names them.

    Args:
        path: the file.
        model: of which it gives values; decides which keys are sections. It is not validated.

    Raises:
        ConfigError: a file is missing or not YAML, or that of a section does not fit its model.
    """
    values = read_yaml(path)
    return _filled(values, model, folder=path.parent) if isinstance(values, dict) else values


def read_section(path: Path, section: type[Config]) -> object:
    """Return what the file of a section holds, which fits on its own.

    Raises:
        ConfigError: it is missing, not YAML or does not fit.
    """
    values = read_values(path, section)
    section.from_mapping(values, source=str(path))
    return values


def _filled(values: dict[Any, Any], model: type[BaseModel], *, folder: Path) -> dict[Any, Any]:
    filled = dict(values)
    for name, section in sections_of(model):
        found = filled.get(name)
        if isinstance(found, str) and found.endswith((".yaml", ".yml")):
            filled[name] = read_section(folder / found, section)
        elif isinstance(found, dict):
            filled[name] = _filled(found, section, folder=folder)
    return filled
