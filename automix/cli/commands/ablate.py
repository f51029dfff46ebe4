"""``automix ablate``: a sweep, one of its cells, its cells, its table."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from automix.cli.commands.common import dispatch
from automix.cli.main import continued_by
from automix.configuration.arguments import NoFlags, Signature, read_arguments
from automix.configuration.base import Config
from automix.errors import AutoMixError, ConfigError

if TYPE_CHECKING:
    from automix.experiments.sweep.run import Sweep

_SWEEP = {
    "SWEEP.yaml": "a base configuration, variants and a grid, such as configs/ablation/*.yaml"
}


class FolderFlags(Config):
    """Where a sweep is."""

    output: Path | None = None
    """Folder of the sweep; by default one in runs/ that is named after its file. Finished cells in
    it are left alone, interrupted ones continued."""


class SweepFlags(FolderFlags):
    """Flags of ``automix ablate``."""

    workers: Annotated[int, Field(ge=1, le=1024)] = 2
    """Cells that run at the same time; what each of them starts is in its own compute section."""

    devices: tuple[str, ...] = ()
    """Values of CUDA_VISIBLE_DEVICES: each process gets one, and no more processes run than there
    are values. None: processes see all devices."""

    dry_run: bool = False
    """Print the cells, their states and what they would cost, and stop."""


ABLATE = Signature(
    command="automix ablate",
    summary="Run every cell of a sweep that has no result yet, and print its table. Parts of a "
    "sweep have commands of their own: automix ablate list, run-cell and table.",
    config=NoFlags,
    flags=SweepFlags,
    words=_SWEEP,
)
RUN_CELL = Signature(
    command="automix ablate run-cell",
    summary="Run one cell of a sweep in this process: for schedulers.",
    config=NoFlags,
    flags=FolderFlags,
    words={
        "CELL": "beginning of its identifier or of the hash in it, or @3 for the third cell",
        **_SWEEP,
    },
)
LIST = Signature(
    command="automix ablate list",
    summary="Print identifier, state and settings of each cell of a sweep.",
    config=NoFlags,
    flags=FolderFlags,
    words=_SWEEP,
)
TABLE = Signature(
    command="automix ablate table",
    summary="Write and print the table of the finished cells of a sweep.",
    config=NoFlags,
    flags=FolderFlags,
    words=_SWEEP,
)


def run(argv: Sequence[str]) -> None:
    """``automix ablate SWEEP.yaml``, and the commands about parts of a sweep."""
    commands = {"run-cell": _run_cell, "list": _list, "table": _table}
    if argv and argv[0] in commands:
        dispatch(argv, commands, (RUN_CELL, LIST, TABLE))
    else:
        _run_all(argv)


def _run_all(argv: Sequence[str]) -> None:
    arguments = read_arguments(ABLATE, argv)
    flags = arguments.flags
    sweep = _load(arguments.words[0], flags.output)
    from automix.experiments.sweep import run as experiment

    if flags.dry_run:
        num_workers = min(flags.workers, len(flags.devices) or flags.workers)
        for line in experiment.predict(sweep, num_workers=num_workers):
            print(line, flush=True)
        return
    words = [str(sweep.path), f"--workers={flags.workers}"]
    words += ["--devices", *flags.devices] if flags.devices else []
    with continued_by(sweep.folder, "ablate", *words, mark=experiment.SWEEP_NAME):
        outcome = experiment.run_all(sweep, num_workers=flags.workers, devices=flags.devices)
    for identifier, reason in outcome.failed.items():
        print(f"failed: {identifier}: {reason}")
    _print_table(sweep)
    if outcome.failed:
        raise AutoMixError(
            f"{sweep.folder}: expected every cell to finish, got {len(outcome.failed)} of "
            f"{len(sweep.cells)} that failed: {', '.join(outcome.failed)}"
        )


def _run_cell(argv: Sequence[str]) -> None:
    arguments = read_arguments(RUN_CELL, argv)
    sweep = _load(arguments.words[1], arguments.flags.output)
    from automix.experiments.sweep import run as experiment

    words = ["ablate", "run-cell", *arguments.words]
    with continued_by(sweep.folder, *words, mark=None):
        cell = experiment.run_one(sweep, arguments.words[0])
    print(f"finished: {cell.identifier}")


def _list(argv: Sequence[str]) -> None:
    arguments = read_arguments(LIST, argv)
    sweep = _load(arguments.words[0], arguments.flags.output)
    from automix.experiments.sweep import run as experiment

    print(experiment.list_cells(sweep))


def _table(argv: Sequence[str]) -> None:
    arguments = read_arguments(TABLE, argv)
    sweep = _load(arguments.words[0], arguments.flags.output)
    _print_table(sweep)


def _print_table(sweep: "Sweep") -> None:
    from automix.experiments.sweep import run as experiment

    print(experiment.save_table(sweep))
    print(f"table: {sweep.folder / 'table.json'}")


def _load(file: str, output: Path | None) -> "Sweep":
    """Return the sweep in a file.

    Raises:
        ConfigError: the file or a cell does not fit, or there is a file where its folder should be.
    """
    path = Path(file)
    folder = output or Path("runs") / f"ablate-{path.stem}"
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"--output: expected a folder, got the file {folder}")
    from automix.experiments.sweep import run as experiment

    return experiment.load_sweep(path, folder)
