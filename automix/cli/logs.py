"""Messages of our packages on standard error."""

import logging

from automix.escapes import visible


def show_own_logs() -> None:
    """Show the messages of our packages on standard error, and not those of libraries."""
    logging.basicConfig()
    for handler in logging.getLogger().handlers:
        handler.setFormatter(_VisibleFormatter())
    for package in ("automix", "agents", "envs"):
        logging.getLogger(package).setLevel(logging.INFO)


class _VisibleFormatter(logging.Formatter):
    """Formats a message alone, in which names of files and classes cannot command a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record))
