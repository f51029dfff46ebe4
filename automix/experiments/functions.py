"""Commands as functions: `automix.search` and `automix.recommend`."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from automix.configuration.flags import PresetName
from automix.experiments.commands import COMMANDS
from automix.schedule import Schedule


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchOutcome:
    """Outcome of `search`."""

    schedule: Schedule  # the one to use
    verdict: str  # whether it pays, with intervals and cost, as the command prints it
    result: Mapping[str, Any]  # content of result.json
    folder: Path  # of the run: schedule.json, result.json, logs


def search(
    images: str | Path,
    *,
    output: str | Path,
    preset: PresetName | None = None,
    minutes: float | None = None,
    runs: int | None = None,
    settings: Mapping[str, object] | None = None,
) -> SearchOutcome:
    """Find a schedule for your images, and say whether mixing pays; ``automix search`` as a call.

    A finished search in ``output`` is returned, an interrupted one resumed. Training runs take
    place in worker processes, which run nothing of the calling script.

    Args:
        images: folder with one folder of images per class, a configuration file, or the name of one
            that ships, such as ``digits``.
        output: folder of the run.
        preset: quick, medium or best, with a folder of images; None: quick.
        minutes: budget in minutes; None: that of the preset or the file.
        runs: budget in training runs, in place of minutes.
        settings: further fields by their names on the command line, such as
            ``{"task.model.width": 16}``.

    Raises:
        AutoMixError: arguments, images or the folder do not fit.

    Example:
        >>> outcome = search("photos/", output="runs/mine", minutes=5)  # doctest: +SKIP
        >>> outcome.schedule.save(Path("mine.json"))  # doctest: +SKIP
    """
    # Takes seconds to import: torch, Gymnasium, Stable-Baselines3.
    from automix.configuration.arguments import read_arguments  # noqa: PLC0415
    from automix.experiments.search.run import search as run_search  # noqa: PLC0415
    from automix.experiments.search.verdict import summarize_search  # noqa: PLC0415

    fields = {"preset": preset, "minutes": minutes, "runs": runs, **(settings or {})}
    argv = [str(images)]
    for name, value in fields.items():
        if value is not None:
            argv += _flag(name, value)
    folder = Path(output)
    result = run_search(read_arguments(COMMANDS["search"], argv).config, folder)
    return SearchOutcome(
        schedule=Schedule.load(folder / COMMANDS["search"].artifact),
        verdict=summarize_search(result),
        result=result,
        folder=folder,
    )


def recommend() -> Schedule:
    """Return the schedule to use where nothing was searched.

    Example:
        >>> recommend().mixture_at(1.0).label()
        'none'
    """
    return Schedule.recommended()


def _flag(name: str, value: object) -> list[str]:
    """Return a field and its value as they are typed."""
    if isinstance(value, list | tuple):
        return [f"--{name}", *map(str, value)]
    return [f"--{name}={str(value).lower() if isinstance(value, bool) else value}"]
