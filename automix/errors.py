"""Errors that a user can cause: the command line prints one line and exits with code 2."""

_MOST_LETTERS = 500
# Of a text that is cut: its begin says where, its end what was got.
_LETTERS_OF_THE_END = 150


class AutoMixError(Exception):
    """A fault in the input of the user; the text is one line, "where: expected ..., got ..."."""

    def __init__(self, text: object = "") -> None:
        """Take ``text``; of a very long one, which some file made so, begin and end are kept."""
        line = str(text)
        if len(line) > _MOST_LETTERS:
            begin = line[: _MOST_LETTERS - _LETTERS_OF_THE_END - 5]
            line = f"{begin} ... {line[-_LETTERS_OF_THE_END:]}"
        super().__init__(line)


class ConfigError(AutoMixError):
    """A configuration file, a flag or a combination of fields is wrong."""


class DataError(AutoMixError):
    """Images or labels are missing, unreadable or inconsistent."""


class ScheduleError(AutoMixError):
    """A schedule file is missing, unreadable or holds an impossible schedule."""


class CheckpointError(AutoMixError):
    """A checkpoint or a run directory cannot be read, or belongs to another configuration."""


class MissingExtraError(AutoMixError):
    """An optional dependency is not installed; the text names the extra to install."""


class OtherProcessError(AutoMixError):
    """The process of rank 0, of those that train together, failed and says why."""


class WorkerError(AutoMixError):
    """Workers were lost, more often than is allowed; the text names the unit and how it ended."""


class DivergedError(AutoMixError):
    """Training produced a loss that is not finite."""
