"""Any change of any file that a report, a card or an evaluation uses is noticed."""

import json
import logging
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from pkgutil import resolve_name

import pytest

from automix.errors import CheckpointError
from automix.experiments.commands import COMMANDS
from automix.experiments.common.kept_files import (
    SUMS_NAME,
    check_kept,
    check_whole,
    damaged_output,
    keep,
    note_outputs,
    with_sum,
    without_sum,
)
from automix.experiments.common.saved_classifier import load_saved_classifier
from automix.experiments.config import CardConfig
from automix.experiments.report.card import make_card
from automix.experiments.report.run import write_report
from automix.experiments.sweep.cell import run_cell
from automix.experiments.sweep.run import load_sweep, save_table
from automix.files import sha256_of
from tests.cli.sweeps import TINY_TASK, write_sweep
from tests.experiments.damaged_runs import cut, delete, flip, lose_a_line, zero

_NOT_USED = shutil.ignore_patterns("checkpoints", "tensorboard", ".lock")
# Those that a run of this kind may be read without.
_OPTIONAL = {SUMS_NAME, "metrics.jsonl", "race.jsonl", "final.jsonl", "selection.jsonl"}
_OPTIONAL |= {"proposal.json", "decisions.json"}


def used_files(run: Path) -> list[str]:
    """Return the names of the files that a finished run has sums of, and of the sums."""
    return [SUMS_NAME, *json.loads((run / SUMS_NAME).read_bytes())["files"]]


def messages_of(changed: Path, uses: list[Callable[[Path], object]]) -> list[str]:
    """Return what each use of a run says of it; a use that takes it fails the test."""
    messages = []
    for use in uses:
        with pytest.raises(CheckpointError, match="expected") as caught:
            use(changed)
        messages.append(str(caught.value))
    return messages


@pytest.mark.parametrize("kind", ["search", "replay"])
def test_any_change_of_a_file_is_one_line(
    kind: str, finished_search: Path, trained: Path, tmp_path: Path
) -> None:
    run = finished_search if kind == "search" else trained
    uses: list[Callable[[Path], object]] = [write_report, lambda it: make_card(it, CardConfig())]
    if kind == "replay":
        uses.append(load_saved_classifier)
    draws = random.Random(0)
    names = used_files(run)
    assert "schedule.json" in names
    assert ("classifier.safetensors" in names) == (kind == "replay")
    assert ("policy/policy.safetensors" in names) == (kind == "search")
    for name in names:
        for damage in (cut, flip, zero, lose_a_line):
            folder = tmp_path / "run"
            shutil.copytree(run, folder, ignore=_NOT_USED)
            content = (folder / name).read_bytes()
            changed = damage(content, draws)
            # Two texts of one JSON value, such as without its last line break, say the same.
            if changed is not None and changed.strip() != content.strip():
                (folder / name).write_bytes(changed)
                for message in messages_of(folder, uses):
                    assert message.startswith(str(folder / name)), message
                    assert "\n" not in message
                    assert len(message) <= 500
            shutil.rmtree(folder)


def test_a_changed_run_is_left_out_and_named(
    finished_search: Path, trained: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(trained, tmp_path / "good", ignore=_NOT_USED)
    shutil.copytree(trained, tmp_path / "bad", ignore=_NOT_USED)
    result = tmp_path / "bad" / "result.json"
    # A value that fits as well as the one that was measured.
    result.write_text(result.read_text().replace('"steps": ', '"steps": 1'))
    with caplog.at_level(logging.WARNING):
        text = write_report(tmp_path).read_text()
    assert f"left out: {result}: expected the file that this run wrote" in caplog.text
    assert f"Left out, because it is damaged: {result}: expected the file" in text
    # Whoever removes the sums takes it as it is.
    (tmp_path / "bad" / SUMS_NAME).unlink()
    caplog.clear()
    write_report(tmp_path)
    assert "left out" not in caplog.text


def test_a_copy_without_files_that_are_not_needed_is_reported(
    finished_search: Path, trained: Path, tmp_path: Path
) -> None:
    for number, run in enumerate((finished_search, trained)):
        folder = tmp_path / f"{number}"
        shutil.copytree(run, folder, ignore=_NOT_USED)
        for name in _OPTIONAL:
            (folder / name).unlink(missing_ok=True)
        make_card(folder, CardConfig())
    write_report(tmp_path)


@pytest.mark.parametrize("damage", [delete, cut, flip, zero])
def test_outputs_of_a_finished_run_can_be_written_again(
    damage: Callable[[bytes, random.Random], bytes | None], tmp_path: Path
) -> None:
    keep(tmp_path, "config.yaml", b"a: 1\n")
    (tmp_path / "log.jsonl").write_bytes(b"{}\n" * 9)
    (tmp_path / "weights").write_bytes(bytes(range(200)))
    note_outputs(tmp_path, ["weights", "absent"])
    keep(tmp_path, "result.json", b'{"a": 1}\n', again=True)
    check_whole(tmp_path)
    assert damaged_output(tmp_path) is None
    for name in ("log.jsonl", "weights", "result.json"):
        content = (tmp_path / name).read_bytes()
        changed = damage(content, random.Random(1))
        (tmp_path / name).unlink()
        if changed is not None:
            (tmp_path / name).write_bytes(changed)
        assert damaged_output(tmp_path) == name
        check_kept(tmp_path)
        (tmp_path / name).write_bytes(content)
    (tmp_path / "config.yaml").unlink()
    with pytest.raises(CheckpointError, match=r"config\.yaml: expected .* got nothing there"):
        check_kept(tmp_path)


@pytest.mark.parametrize("files", [[], {"a": 1}, {"a": [1]}, {"../a": [""]}, {"/etc/passwd": [""]}])
def test_sums_from_others_are_checked_first(files: object, tmp_path: Path) -> None:
    right = sha256_of(json.dumps(files, sort_keys=True).encode())
    (tmp_path / SUMS_NAME).write_text(json.dumps({"files": files, "sum": right}))
    for check in (check_whole, check_kept, damaged_output):
        with pytest.raises(CheckpointError, match="expected the sums of the files of this run"):
            check(tmp_path)


def test_what_would_take_minutes_to_hash_is_not_hashed(tmp_path: Path) -> None:
    keep(tmp_path, "log.jsonl", b"{}\n")
    (tmp_path / "log.jsonl").write_bytes(b"x")
    with pytest.raises(CheckpointError, match="got another or a damaged one"):
        check_whole(tmp_path)
    os.truncate(tmp_path / "log.jsonl", 10**12)
    check_whole(tmp_path)
    with pytest.raises(CheckpointError, match=r"log\.jsonl: expected the file that this run"):
        check_kept(tmp_path)
    note_outputs(tmp_path, ["log.jsonl"])
    assert damaged_output(tmp_path) is None
    (tmp_path / "log.jsonl").unlink()
    os.mkfifo(tmp_path / "log.jsonl")
    with pytest.raises(CheckpointError, match=r"log\.jsonl: expected the file that this run"):
        check_whole(tmp_path)


def test_a_changed_table_of_a_sweep_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_sweep(tmp_path / "sweep.yaml", TINY_TASK, seeds=1)
    sweep = load_sweep(path, tmp_path / "sweep", COMMANDS)
    run_cell(sweep.cells[0], sweep.folder, resolve_name(sweep.experiment.run))
    save_table(sweep)
    write_report(sweep.folder)
    table = sweep.folder / "table.json"
    text = table.read_text()
    assert '"num_cells": 2' in text
    table.write_text(text.replace('"num_cells": 2', '"num_cells": 3'))
    with caplog.at_level(logging.WARNING):
        write_report(sweep.folder)
    assert f"left out: {table}: expected the table of a sweep, got a changed one" in caplog.text


def test_a_sum_in_a_file_tells_every_change() -> None:
    content = {"a": [1, 0.5], "b": {"c": None}}
    assert without_sum(with_sum(content)) == content
    assert without_sum(content) == content
    assert without_sum(with_sum(content) | {"a": [1, 0.25]}) is None
    assert without_sum(content | {"sum": 1}) is None
