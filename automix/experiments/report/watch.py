"""A page that is written again while runs are in progress; an open one loads itself anew."""

import dataclasses
import logging
import time
from collections.abc import Iterator
from pathlib import Path

from markupsafe import Markup

from automix.errors import AutoMixError, CheckpointError
from automix.experiments.common.run_folder import RESULT_NAME
from automix.experiments.report.finished_runs import slug_in
from automix.experiments.report.run import read_folder, report_data, write_report
from automix.experiments.report.running_search import RunningSearch, read_running
from automix.experiments.sweep.table import TABLE_NAME
from automix.files import write_text
from automix.reporting.page import PAGE_NAME, Block, ReportData, Source, block_html, report_html

# Between two looks at the files. The page takes seconds to draw, which the search needs, too.
_SECONDS = 5.0
# Of the time at most: drawing may take a quarter of one processor.
_REST_PER_SECOND = 3.0
_LOG = logging.getLogger(__name__)


def watch(folder: Path) -> Iterator[Path]:
    """Write `report.html` whenever a run in ``folder`` has written something, until Ctrl-C.

    Runs in progress are on it, and it loads itself anew every few seconds. At the end the report
    of what is finished is written, with its tables and figures.

    Yields:
        The page, when it is there for the first time, and when it is written for the last time.

    Raises:
        CheckpointError: there is no such folder.
    """
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: expected a folder, got none")
    page = _LivePage(folder)
    seen: object = None
    is_first = True
    try:
        while True:
            state = _state_of(folder)
            began = time.monotonic()
            if state != seen:
                page.write(is_live=True)
                seen = state
            if is_first:
                is_first = False
                yield page.path
            took = time.monotonic() - began
            time.sleep(max(_SECONDS, _REST_PER_SECOND * took))
    except KeyboardInterrupt:
        _LOG.info("writing the page for the last time")
    try:
        write_report(folder)
    except AutoMixError:
        # Nothing is finished: the page says what there is, and no longer loads itself.
        page.write(is_live=False)
    yield page.path


class _LivePage:
    """The page; what is finished is read and drawn once."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / PAGE_NAME
        self._folder = folder
        self._finished: tuple[object, ReportData | None] | None = None
        # By the block, which is kept, so that no other one gets its identity.
        self._drawn: dict[int, tuple[Block, Markup]] = {}

    def write(self, *, is_live: bool) -> None:
        running = _running(self._folder)
        finished = self._read_finished()
        blank = ReportData(
            title="What mixing to use, and when",
            headline=("Nothing is finished yet.",),
            facts=(),
            sections=(),
            limits=("Nothing is finished yet: what is here may change.",),
            source=running[0].source if running else Source(command="automix report --watch"),
        )
        data = finished or blank
        pictures = [picture for run in running if (picture := run.picture()) is not None]
        live = dataclasses.replace(
            data,
            headline=(*(run.sentence() for run in running), *data.headline)
            if finished or not running
            else tuple(run.sentence() for run in running),
            pictures=(*pictures, *data.pictures),
            sections=(*(run.section() for run in running), *data.sections),
            reload_seconds=_SECONDS if is_live else None,
        )
        write_text(self.path, report_html(live, draw=self._draw))

    def _read_finished(self) -> ReportData | None:
        state = _state_of(self._folder, is_finished=True)
        if self._finished is None or self._finished[0] != state:
            contents = read_folder(self._folder)
            is_empty = not contents.runs and not contents.sweeps
            self._finished = (state, None if is_empty else report_data(contents))
            self._drawn = {}
        return self._finished[1]

    def _draw(self, block: Block, source: Source | None = None) -> Markup:
        if id(block) not in self._drawn:
            self._drawn[id(block)] = (block, block_html(block, source))
        return self._drawn[id(block)][1]


def _running(folder: Path) -> list[RunningSearch]:
    paths = (path.parent for path in sorted(folder.rglob(RESULT_NAME)))
    searches = [read_running(path, slug_in(path, folder), folder) for path in paths]
    return [search for search in searches if search is not None]


def _state_of(folder: Path, *, is_finished: bool = False) -> list[tuple[str, int, int]]:
    """Return path, time and size of what a page is made of; ``is_finished``: results alone."""
    patterns = (RESULT_NAME, TABLE_NAME) if is_finished else (RESULT_NAME, TABLE_NAME, "*.jsonl")
    state = []
    for pattern in patterns:
        for path in sorted(folder.rglob(pattern)):
            try:
                stat = path.stat()
            except OSError:
                # Replaced in this moment: the next look sees it.
                continue
            state.append((str(path), stat.st_mtime_ns, stat.st_size))
    return state
