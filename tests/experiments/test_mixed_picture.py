"""The picture of mixed images that a run keeps, and what a report takes from it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from automix.configuration.task import ReplayConfig
from automix.errors import CheckpointError
from automix.experiments.common.mixed_picture import PICTURE_NAME, keep_picture
from automix.experiments.replay.deciders import ScheduleSource
from automix.experiments.replay.run import replay
from automix.experiments.report.finished_runs import FinishedRun
from automix.experiments.report.replay_sections import mixed_rows
from automix.experiments.report.run import write_report
from automix.operator_info import Operator, SaliencyKind
from automix.reporting.pixels import read_webp, webp
from automix.schedule import Decision, Schedule, mix_then_off, mixture_then_off
from automix.training.trainer import load_search_data
from envs.smoke import SMOKE_TASK

MIXED = mixture_then_off(
    [Decision(operator=Operator.SALIENCYMIX), Decision(operator=Operator.RECURSIVEMIX)],
    off_from=0.5,
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished replay; read only."""
    folder = tmp_path_factory.mktemp("picture") / "run"
    replay(ReplayConfig(seed=2, task=SMOKE_TASK), ScheduleSource(MIXED), folder)
    return folder


def test_a_replay_keeps_a_small_picture_and_says_which_saliency_it_is(run: Path) -> None:
    picture = json.loads((run / "result.json").read_text())["picture"]
    assert picture["rows"] == [
        "as they are",
        "0% to 50% of training: saliencymix 1, 50% of batches, saliency: input gradient",
        "0% to 50% of training: recursivemix 0.5, 50% of batches",
    ]
    assert (run / picture["file"]).stat().st_size < 10_000
    rows = mixed_rows(FinishedRun(run))
    assert rows is not None
    assert rows.labels == tuple(picture["rows"])
    first, *others = np.split(rows.pixels, 3)
    assert all(np.abs(other.astype(int) - first).mean() > 3 for other in others), "they are mixed"


@pytest.mark.parametrize(
    ("schedule", "source", "phrase"),
    [
        (MIXED, SaliencyKind.SPECTRAL_RESIDUAL, "saliency: spectral residual 0%"),
        (
            mix_then_off(Decision(operator=Operator.PUZZLEMIX)),
            SaliencyKind.INPUT_GRADIENT,
            "saliency: spectral residual, not the input gradient of training, which needs a",
        ),
    ],
)
def test_the_same_schedule_and_seed_give_the_same_picture(
    schedule: Schedule, source: SaliencyKind, phrase: str, tmp_path: Path
) -> None:
    data = load_search_data(SMOKE_TASK.data)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        picture = keep_picture(tmp_path / name, schedule, data, seed=1, source=source)
        assert picture is not None
        assert phrase in " ".join(picture["rows"])
    first, second = ((tmp_path / name / PICTURE_NAME).read_bytes() for name in ("one", "two"))
    assert first == second


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected a WebP"),
        (b"GIF89a" + bytes(50), "expected a WebP"),
        (webp(np.zeros((10, 10, 3), dtype=np.uint8))[:-20], "expected a WebP"),
        (webp(np.zeros((10, 10, 3), dtype=np.uint8)), "expected a height that 3 rows share"),
        (webp(np.zeros((3, 5000, 3), dtype=np.uint8)), "expected sides up to 4096, got 5000"),
    ],
)
def test_a_picture_that_is_none_is_left_out_and_named(
    run: Path, tmp_path: Path, content: bytes, message: str
) -> None:
    shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("sums.json"))
    (tmp_path / "run" / PICTURE_NAME).write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        mixed_rows(FinishedRun(tmp_path / "run"))


def test_the_report_shows_it_before_the_sections(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "a run")
    page = write_report(tmp_path).read_text()
    assert page.index('id="mixed-a-run-mixed"') < page.index('id="section-1"')
    assert "recursivemix 0.5, 50% of batches" in page
    assert '<a href="./a%20run">a run</a>' in page


def test_a_small_picture_of_any_pixels_is_read_back() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (32, 48, 3)).astype(np.uint8)
    assert read_webp(webp(pixels)).shape == pixels.shape
