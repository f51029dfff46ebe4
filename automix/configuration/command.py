"""One entry of the table of commands. Free of pydantic and torch: `automix --help` reads it."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

CONFIG_WORD = "CONFIG.yaml"
FOLDER_WORD = "FOLDER"
_NO_FIELDS = "automix.configuration.base:Config"


_NOTHING: Mapping[str, Any] = MappingProxyType({})


# Not a dataclass: with `dataclasses` come `inspect` and a third of the time of the general help.
class Command(NamedTuple):
    """Arguments, code and output of a command; `pkgutil.resolve_name` reads ``module:name``."""

    name: str  # the word or words after ``automix``
    # Its line in ``automix --help``; empty for commands listed by their group only.
    summary: str = ""
    description: str = ""  # first paragraph of its own help; empty: the docstring of ``config``
    # Does what the parsed arguments say and yields lines to print: ``(command, arguments)``. Empty
    # for a group of commands, such as ``schedule``, and for experiments that only sweeps run.
    handler: str = ""
    config: str = _NO_FIELDS  # fields that a file or flags may set
    flags: str = _NO_FIELDS  # fields that only flags may set
    # Fields that its help shows first, in this order; empty: it shows all at once.
    first_flags: tuple[str, ...] = ()
    # Description of each required argument, by name.
    positionals: Mapping[str, str] = _NOTHING
    takes_file: bool = False  # whether a configuration file may follow them
    configs: tuple[str, ...] = ()  # folders of ``configs/`` whose files can be named for it
    # Where a folder of images may come before that file: ``(folder, values)`` to settings for what
    # ``values``, those of flags, leave open; they hold where no file follows.
    preset: str = ""
    # Flags that replace them, and whether a file may follow even so.
    instead: Mapping[str, bool] = _NOTHING
    run: str = ""  # runs or resumes the experiment: ``(config, output)`` to its result
    # Measures a few steps: ``config`` to a `CostEstimate`, or several by name.
    predict_cost: str = ""
    summarize: str = ""  # ``result`` to the text that is printed
    artifact: str = "result.json"  # file in the run folder that is named after it
    # ``config`` to a hash of it and of the schedule files that it names, which are checked; not
    # empty where the experiment can be a cell of a sweep.
    identify: str = ""
    cell_config: str = ""  # configuration of a cell where it is not ``config``
    # Numbers of the result that the table of a sweep shows unless the sweep says: fields of
    # `MeasureConfig` by name.
    measures: Mapping[str, Mapping[str, Any]] = _NOTHING

    @property
    def usage(self) -> str:
        """Return the command and its arguments: ``automix search [FOLDER] [CONFIG.yaml]``."""
        optional = [f"[{FOLDER_WORD}]"] if self.preset else []
        optional += [f"[{CONFIG_WORD}]"] if self.takes_file else []
        return " ".join(["automix", self.name, *self.positionals, *optional])
