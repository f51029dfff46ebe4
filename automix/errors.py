"""Errors that a user can cause: the command line prints one line and exits with code 2."""


class AutoMixError(Exception):
    """A fault in the input of the user; the text is one line, "where: expected ..., got ..."."""


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


class DivergedError(AutoMixError):
    """Training produced a loss that is not finite."""
