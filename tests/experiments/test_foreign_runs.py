"""Run folders from others, or damaged: left out of reports, refused by cards and evaluations."""

import copy
import functools
import json
import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from automix.errors import AutoMixError, CheckpointError
from automix.experiments.common.kept_files import SUMS_NAME
from automix.experiments.common.run_files import SweepTable, check_written
from automix.experiments.common.saved_classifier import load_classifier, load_saved_classifier
from automix.experiments.config import CardConfig
from automix.experiments.report.card import make_card
from automix.experiments.report.finished_runs import FinishedRun
from automix.experiments.report.run import write_report
from tests.reporting.parsing import parse

_SMALL = ("*.json", "*.yaml", "classifier.*")
# Each is the wrong kind of value nearly everywhere.
_OTHERS: tuple[Any, ...] = (
    None, True, -1, 10**30, 1e308, -0.5, "", "x" * 5000, [], {}, [None], {"a": {}}, [[[[]]]],
)  # fmt: skip


def copied(run: Path, folder: Path) -> Path:
    """Copy the files of a run that its reader needs, without the sums that tell every change."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in (path for pattern in _SMALL for path in run.glob(pattern)):
        if path.name != SUMS_NAME:
            shutil.copy(path, folder / path.name)
    return folder


def places(value: object, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every value in a JSON value, except of the whole."""
    pairs = value.items() if isinstance(value, dict) else ()
    for key, entry in enumerate(value) if isinstance(value, list) else pairs:
        yield (*path, key)
        yield from places(entry, (*path, key))


@st.composite
def changes(draw: st.DrawFn, values: dict[str, Any]) -> bytes:
    """Return the text of ``values`` with one of them replaced or removed, a flipped bit, or cut."""
    text = json.dumps(values).encode()
    kind = draw(st.sampled_from(("replaced", "removed", "flipped", "cut")))
    if kind == "cut":
        return text[: draw(st.integers(0, len(text) - 1))]
    if kind == "flipped":
        at, bit = draw(st.integers(0, len(text) - 1)), draw(st.integers(0, 7))
        return text[:at] + bytes([text[at] ^ 1 << bit]) + text[at + 1 :]
    changed = copy.deepcopy(values)
    *path, last = draw(st.sampled_from(list(places(values))))
    parent: Any = changed
    for key in path:
        parent = parent[key]
    if kind == "removed":
        del parent[last]
    else:
        parent[last] = draw(st.sampled_from(_OTHERS))
    return json.dumps(changed).encode()


def _card(folder: Path) -> str:
    return make_card(folder, CardConfig())


def message_of(read: Callable[[], object]) -> str:
    """Return what is wrong, or nothing; any other exception fails the test."""
    try:
        read()
    except AutoMixError as error:
        return str(error)
    return ""


@pytest.fixture(scope="module")
def runs(
    finished_search: Path,
    trained: Path,
    evaluated: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A folder with small copies of a search, a replay, and an evaluation in it."""
    folder = tmp_path_factory.mktemp("copies")
    copied(finished_search, folder / "search")
    copied(trained, folder / "replay")
    copied(evaluated, folder / "replay" / "evaluation")
    return folder


@pytest.mark.parametrize("name", ["search", "replay", "replay/evaluation"])
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_changed_file_is_read_or_refused_in_one_line(
    runs: Path, tmp_path: Path, name: str, data: st.DataObject
) -> None:
    for file in ("result.json", "environment.json"):
        folder = copied(runs / name, tmp_path / "run")
        content = data.draw(changes(json.loads((runs / name / file).read_bytes())))
        (folder / file).write_bytes(content)
        # What makes pages of them is not tried here: it takes seconds.
        for read in (lambda path: FinishedRun(path).check(), _card):
            message = message_of(functools.partial(read, folder))
            assert "\n" not in message
            assert len(message) <= 500


@pytest.mark.parametrize("file", ["result.json", "environment.json"])
@pytest.mark.parametrize(
    "content", ["[" * 100_000, '{"a": ' * 3000, '{"kind": []}', '{"kind": "replay"}']
)
def test_a_damaged_run_is_left_out_of_the_report_and_named(
    runs: Path, tmp_path: Path, file: str, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    copied(runs / "replay", tmp_path / "good")
    bad = copied(runs / "replay", tmp_path / "bad")
    (bad / file).write_text(content)
    with caplog.at_level(logging.WARNING):
        page = parse(write_report(tmp_path).read_text())
    assert "Replayed training runs" in page.text
    assert f"Left out, because it is damaged: {bad / file}: " in page.text
    assert f"left out: {bad / file}: " in caplog.text
    # Alone it is an error, and a card is of one run.
    for read in (write_report, _card):
        with pytest.raises(CheckpointError, match=f"bad/{file}: .*expected") as caught:
            read(bad)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"model": {"name": "resnext29_999x999"}}, "safetensors: expected weights that fit, got"),
        ({"model": {"name": "torchvision/vit_h_14"}}, "safetensors: expected weights that fit"),
        ({"model": {"weights": "pretrained", "name": "torchvision/resnet18"}}, "got 'pretrained'"),
        ({"model": {"weights": "/dev/zero"}}, "model: expected no initial weights, got '/dev/zero"),
        ({"class_names": ["x"] * 15_000}, "expected weights that fit, got head"),
        ({"image_shape": [60_000, 8, 8]}, "expected a mean and a std for each of 60000 channels"),
        ({"more": 1}, "got the unknown key 'more'"),
    ],
)
def test_a_foreign_classifier_is_refused_before_it_is_built(
    runs: Path, tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    folder = copied(runs / "replay", tmp_path / "run")
    facts = json.loads((folder / "classifier.json").read_text())
    (folder / "classifier.json").write_text(json.dumps(facts | changed))
    for load in (load_classifier, load_saved_classifier):
        with pytest.raises(CheckpointError, match=message):
            load(folder)


def test_weights_of_another_type_are_not_evaluated(runs: Path, tmp_path: Path) -> None:
    folder = copied(runs / "replay", tmp_path / "run")
    file = folder / "classifier.safetensors"
    weights = safetensors.torch.load(file.read_bytes())
    file.write_bytes(safetensors.torch.save({n: t.half() for n, t in weights.items()}))
    with pytest.raises(CheckpointError, match=r"of torch\.float32, got torch\.float16"):
        load_classifier(folder)


@pytest.mark.parametrize("cell", ["../other", "/etc", "a/b", "..", ""])
def test_a_cell_of_a_sweep_is_a_folder_in_it(cell: str) -> None:
    table = {"name": "n", "experiment": "compare", "seed_key": None, "num_cells": 1}
    rows: dict[str, Any] = {"measures": [], "rows": [{"settings": {}, "measures": {}}]}
    good = {"cell": "compare-1", "settings": {}, "values": {}}
    check_written(table | rows | {"cells": [good]}, SweepTable, source="table.json")
    with pytest.raises(CheckpointError, match=r"table\.json: cells\.0\.cell: expected"):
        check_written(
            table | rows | {"cells": [good | {"cell": cell}]}, SweepTable, source="table.json"
        )
