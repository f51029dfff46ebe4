"""Schedules that ship: what to try before any search, the best first."""

from collections.abc import Mapping
from importlib import resources

from automix.schedule import Schedule

_FOLDER = "schedules"


def portfolio() -> Mapping[str, Schedule]:
    """Return the schedules that ship by name, in the order in which they were chosen."""
    folder = resources.files("automix") / _FOLDER
    files = [file for file in folder.iterdir() if file.name.endswith(".json")]
    schedules = {}
    for file in sorted(files, key=lambda file: file.name):
        # Named NUMBER-NAME.json: the number is the place in the portfolio.
        name = file.name.removesuffix(".json").partition("-")[2]
        schedules[name] = Schedule.from_json(file.read_text(encoding="utf-8"), source=file.name)
    return schedules
