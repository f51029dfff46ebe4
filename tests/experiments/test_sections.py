import json
import math
import re
from pathlib import Path
from typing import Any

import pytest

from automix.experiments.report.finished_runs import FinishedRun
from automix.experiments.report.run import write_report
from automix.reporting.canvas import NARROW, WIDE
from automix.reporting.page import ReportFigure
from automix.reporting.palette import LIGHT
from automix.reporting.sections import evaluation_section
from automix.reporting.tables import Table


def tables_of(run: FinishedRun) -> dict[str, Table]:
    blocks = evaluation_section(run.result, run.source, 1).blocks
    return {block.name: block for block in blocks if isinstance(block, Table)}


def test_every_task_has_its_figures_and_tables(evaluated: Path) -> None:
    run = FinishedRun(evaluated)
    section = evaluation_section(run.result, run.source, 1)
    figures = [block for block in section.blocks if isinstance(block, ReportFigure)]
    assert [figure.name.rpartition("-")[2] for figure in figures] == [
        "reliability",
        "corruptions",
        "occlusion",
        "attacks",
    ]
    assert section.source == run.source
    for figure in figures:
        for width in (WIDE, NARROW):
            assert figure.draw(width=width, theme=LIGHT).axes
    corruptions = next(figure for figure in figures if figure.name.endswith("corruptions"))
    assert "Unnormalized mean corruption error" in corruptions.caption
    assert "do not compare with errors on the published arrays" in corruptions.caption
    occlusion = next(figure for figure in figures if figure.name.endswith("occlusion"))
    assert "from boxes (the largest of each image)" in occlusion.caption


def test_tables_hold_the_numbers_of_the_result(evaluated: Path) -> None:
    run = FinishedRun(evaluated)
    tables, result = tables_of(run), run.result
    classes = tables["evaluation-1-class"]
    assert [row[2] for row in classes.rows] == result["classification"]["classes"]["values"]
    assert f"{result['classification']['classes']['worst']:.4f}" in classes.caption
    corruptions = tables["evaluation-1-corruptions"]
    assert len(corruptions.rows) == 15
    means = [float(str(row[-1])) for row in corruptions.rows]
    overall = result["corruptions"]["unnormalized_mean_corruption_error"]
    assert math.isclose(sum(means) / 15 / 100, overall)
    scores = {str(row[0]): row for row in tables["evaluation-1-scores"].rows}
    before = result["classification"]["as_trained"]
    assert scores["ECE, 15 equal-width bins"][1] == before["ece"]
    located = tables["evaluation-1-localization"]
    assert located.rows[0][1] == result["localization"]["max_box_acc_v2"]


def copied(evaluated: Path, folder: Path, **changes: Any) -> Path:
    folder.mkdir(parents=True)
    for name in ("config.yaml", "environment.json", "result.json"):
        (folder / name).write_bytes((evaluated / name).read_bytes())
    content = json.loads((folder / "result.json").read_text()) | changes
    kept = {key: value for key, value in content.items() if value is not None}
    (folder / "result.json").write_text(json.dumps(kept))
    return folder


def test_published_images_are_named(evaluated: Path, tmp_path: Path) -> None:
    measured = json.loads((evaluated / "result.json").read_text())["corruptions"]
    changed = measured | {"archive": "CIFAR-10-C", "source": "published arrays"}
    run = FinishedRun(copied(evaluated, tmp_path / "run", corruptions=changed))
    figures = [
        block
        for block in evaluation_section(run.result, run.source, 1).blocks
        if isinstance(block, ReportFigure)
    ]
    caption = next(figure.caption for figure in figures if figure.name.endswith("corruptions"))
    assert "CIFAR-10-C" in caption
    assert "do not compare" not in caption


@pytest.mark.parametrize("task", ["attacks", "localization", "patch_occlusion"])
def test_a_task_that_was_not_measured_is_not_shown(evaluated: Path, task: str) -> None:
    run = FinishedRun(evaluated)
    names = {block.name for block in evaluation_section(run.result, run.source, 1).blocks}
    rest = {key: value for key, value in run.result.items() if key != task}
    section = evaluation_section(rest, run.source, 1)
    missing = names - {block.name for block in section.blocks}
    # Of occlusion, the curve of objects remains.
    assert missing == (set() if task == "patch_occlusion" else {f"evaluation-1-{task}"})


def test_a_report_of_two_evaluations_is_one_page(evaluated: Path, tmp_path: Path) -> None:
    copied(evaluated, tmp_path / "runs" / "one")
    copied(evaluated, tmp_path / "runs" / "two", run="<b>other</b>", attacks=None, corruptions=None)
    page = write_report(tmp_path / "runs").read_text()
    assert page.count("<h2>Evaluation: small_cnn, seed ") == 1
    assert page.count("<h2>Evaluation 2: small_cnn, seed ") == 1
    assert "<b>other" not in page
    assert "&lt;b&gt;other" not in page, "a folder is no word of a sentence"
    assert len(re.findall(r'id="figure-evaluation-1-attacks"', page)) == 1
    names = {path.name for path in (tmp_path / "runs" / "tables").iterdir()}
    assert "evaluation-2-class.csv" in names
    assert "evaluation-2-attacks.csv" not in names
