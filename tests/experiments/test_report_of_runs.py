"""The report of a folder with two searches, a comparison, replays and a sweep."""

import csv
import functools
import json
import shutil
from pathlib import Path
from pkgutil import resolve_name

import pytest

from automix.configuration.task import ReplayConfig
from automix.errors import CheckpointError
from automix.evaluation.statistics import Interval
from automix.experiments.commands import COMMANDS
from automix.experiments.common.summaries import METRICS
from automix.experiments.compare.run import compare
from automix.experiments.replay.deciders import ScheduleSource
from automix.experiments.replay.run import replay
from automix.experiments.report.comparison_sections import comparison_section, search_cost
from automix.experiments.report.finished_runs import FinishedRun, compared_splits
from automix.experiments.report.run import write_report
from automix.experiments.sweep.cell import run_cell
from automix.experiments.sweep.run import load_sweep, save_table
from automix.operator_info import Operator
from automix.reporting.page import ReportFigure
from automix.schedule import Schedule, strong_to_weak
from envs.smoke import SMOKE_TASK
from tests.cli.sweeps import TINY_TASK, write_sweep
from tests.experiments.test_compare import BOTH
from tests.experiments.tiny_search import TINY
from tests.reporting.parsing import Document, parse


@pytest.fixture(scope="module")
def folder(finished_search: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with runs and its report."""
    folder = tmp_path_factory.mktemp("runs")
    for number in (1, 2):
        path = folder / f"search {number}"
        shutil.copytree(finished_search, path, ignore=shutil.ignore_patterns("sums.json"))
        (path / "config.yaml").write_text(TINY.model_copy(update={"seed": number}).to_yaml())
    schedule_file = folder / "search 1" / "schedule.json"
    # No mixing, which so short a search selects, would be one row with the baseline.
    strong_to_weak(Operator.CUTMIX, off_from=0.5).save(schedule_file)
    schedules = (*BOTH.schedules, str(schedule_file), f"shuffled:{schedule_file}")
    compare(BOTH.model_copy(update={"schedules": schedules}), folder / "compare.1")
    replay(
        ReplayConfig(task=SMOKE_TASK),
        ScheduleSource(Schedule.load(schedule_file)),
        folder / "replay",
    )
    sweep = load_sweep(
        write_sweep(folder / "widths.yaml", TINY_TASK, seeds=3), folder / "ablate-widths", COMMANDS
    )
    for cell in sweep.cells[:-1]:
        run_cell(cell, sweep.folder, resolve_name(sweep.experiment.run))
    save_table(sweep)
    write_report(folder)
    return folder


@pytest.fixture(scope="module")
def document(folder: Path) -> Document:
    return parse((folder / "report.html").read_text())


def test_every_part_is_there_and_cells_of_a_sweep_are_not_runs(document: Document) -> None:
    assert [name for name, _ in document.elements].count("h2") == 14
    for part in (
        "all 2 seeds",
        "Learning and cost: digits, small_cnn, seed 1",
        "Selection: digits, small_cnn, seed 2",
        "Comparison on the selection split",
        "Comparison on the test split",
        "Ablation: widths",
        "5 of 6 cells are finished; a cell is one compare.",
        "widths: 1 cells have no result.",
        "Gain over none, and what it cost",
        "Replayed training runs",
        "What the operators do",
    ):
        assert part in document.text, part
    ids = document.attributes("id")
    assert len(ids) == len(set(ids))


def test_every_figure_has_its_command_and_versions(folder: Path) -> None:
    report = json.loads((folder / "report.json").read_text())
    figures = [
        block
        for section in report["sections"]
        for block in section["blocks"]
        if block["kind"] == "figure"
    ]
    assert len(figures) > 8
    for figure in figures:
        assert figure["source"]["command"].startswith("automix")
        assert {"automix", "torch", "python"} <= set(figure["source"]["versions"])
        assert (folder / figure["file"]).stat().st_size > 1000


def test_tables_lie_beside_the_page_with_intervals_and_corrected_values(folder: Path) -> None:
    result = json.loads((folder / "compare.1" / "result.json").read_text())
    mixup = result["splits"]["test"][1]
    for metric in METRICS:
        with (folder / "tables" / f"compare-1-test-{metric}.csv").open() as stream:
            header, *rows = csv.reader(stream)
        assert header[:2] == ["schedule", "difference (to none)"], "what decides comes first"
        assert "p-value (after Holm)" in header
        assert len(rows) == len(result["splits"]["test"])
        [shown] = [dict(zip(header, row, strict=True)) for row in rows if row[0] == "mixup 1"]
        assert float(shown["mean (3 seeds)"]) == mixup[metric]["mean"]
    with (folder / "tables" / "ablate-widths-cells.csv").open() as stream:
        assert len(list(csv.reader(stream))) == 1 + 5
    report = json.loads((folder / "report.json").read_text())
    tables = [b for section in report["sections"] for b in section["blocks"] if "rows" in b]
    assert all((folder / table["file"]).exists() for table in tables)


def test_gains_are_drawn_with_what_they_are_over(folder: Path) -> None:
    run = FinishedRun(folder / "compare.1", slug="compare-1")
    finished = FinishedRun(folder / "search 1")
    for split in compared_splits([run]):
        blocks = comparison_section(split, [finished]).blocks
        [figure] = [block for block in blocks if block.name.endswith("-gain")]
        assert isinstance(figure, ReportFigure)
        assert isinstance(figure.draw, functools.partial)
        gains = {point.label: point.gain for point in figure.draw.args[0]}
        assert list(gains) == [row["name"] for row in split.rows]
        assert gains["none"] == Interval(estimate=0.0, low=0.0, high=0.0, confidence=0.95)
        mixup = split.rows[1]["calibrated_nll"]["difference"]
        assert gains["mixup 1"].estimate == -mixup["estimate"]
        assert gains["mixup 1"].low == -mixup["high"]
        # What the search finished, and what is drawn from it, cost the search as well.
        dear = {point.label for point in figure.draw.args[0] if point.cost > 1}
        assert dear == {"search 1", "shuffled search 1"}


def test_schedules_that_all_cost_one_training_run_have_no_picture_of_cost(folder: Path) -> None:
    run = FinishedRun(folder / "compare.1", slug="compare-1")
    for split in compared_splits([run]):
        blocks = comparison_section(split, []).blocks
        assert not [block for block in blocks if block.name.endswith("-gain")]


def test_a_learned_finalist_cost_its_search(folder: Path) -> None:
    finished = FinishedRun(folder / "search 1")
    first, *others = finished.result["final"]
    first["origin"] = "learned"
    for row in others:
        row["origin"] = "constant"
    cost = finished.result["cost"]
    assert search_cost(first, [finished]) == cost["trainings"]
    assert [search_cost(row, [finished]) for row in others] == [0.0] * len(others)


def test_a_sweep_alone_has_a_report(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "ablate-widths", tmp_path / "ablate-widths")
    page = write_report(tmp_path / "ablate-widths")
    assert "Ablation: widths" in page.read_text()
    assert write_report(tmp_path / "ablate-widths") == page, "its own files are no runs"


def test_a_folder_without_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="expected finished runs or sweeps, got none"):
        write_report(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_ours_is_left_alone_and_what_is_old_is_refused(
    folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "table.json").write_text('{"legs": 4}')
    with pytest.raises(CheckpointError, match="expected finished runs or sweeps, got none"):
        write_report(tmp_path)
    shutil.copytree(folder / "compare.1", tmp_path / "compare")
    result = json.loads((tmp_path / "compare" / "result.json").read_text())
    result["rows"] = result.pop("splits")["test"]
    (tmp_path / "compare" / "result.json").write_text(json.dumps(result))
    with pytest.raises(CheckpointError, match="expected splits, got the result of an earlier"):
        write_report(tmp_path)
    assert not (tmp_path / "report.html").exists()
