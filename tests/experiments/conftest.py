"""The tiny search, run once without interruption."""

from pathlib import Path

import pytest

from automix.configuration.task import ReplayConfig
from automix.experiments.evaluate.run import evaluate
from automix.experiments.replay.deciders import ScheduleSource
from automix.experiments.replay.run import replay
from automix.experiments.search.run import search
from automix.operator_info import Operator
from automix.schedule import Decision, constant_schedule
from envs.smoke import SMOKE_TASK
from tests.experiments.quick_evaluation import every_task
from tests.experiments.tiny_search import TINY


@pytest.fixture(scope="session")
def finished_search(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the finished tiny search; read only."""
    folder = tmp_path_factory.mktemp("finished") / "search"
    search(TINY, folder)
    return folder


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished replay on the digits; read only."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    schedule = constant_schedule(Decision(operator=Operator.CUTMIX))
    replay(ReplayConfig(seed=1, task=SMOKE_TASK), ScheduleSource(schedule), folder)
    return folder


@pytest.fixture(scope="session")
def boxes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with boxes of every other of the first 18 test images."""
    path = tmp_path_factory.mktemp("boxes") / "boxes.csv"
    rows = "".join(f"{number},1,1,7,{4 + number % 4}\n" for number in range(0, 18, 2))
    path.write_text("image,left,top,right,bottom\n" + rows)
    return path


@pytest.fixture(scope="session")
def evaluated(trained: Path, boxes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished evaluation with every task; read only."""
    folder = tmp_path_factory.mktemp("evaluated") / "evaluation"
    evaluate(every_task(boxes, trained), trained, folder)
    return folder
