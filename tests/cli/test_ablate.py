"""Sweeps by the command line: killed, shared, listed, failed, mistaken."""

import json
import random
import re
import subprocess
from pathlib import Path

import pytest

from tests.cli.running import RunCommand, listing
from tests.cli.sweeps import (
    DIGITS_TASK,
    TINY_TASK,
    kill,
    num_finished,
    run_here,
    start,
    starts,
    tables,
    wait_for_progress,
    wait_until_finished,
    write_sweep,
)

WIDE = "thin: {}, wide: {task.model.width: 3}"


def end(process: subprocess.Popen[str]) -> str:
    """Return what a sweep printed, after checking that it succeeded."""
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    return out


@pytest.mark.slow
def test_a_killed_sweep_resumes_in_two_processes_at_once(tmp_path: Path) -> None:
    path, folder = write_sweep(tmp_path / "sweep.yaml", TINY_TASK, seeds=3, variants=WIDE), tmp_path
    killed = start(path, folder / "a", workers=1)
    wait_until_finished(folder / "a", 2)
    kill(killed, group=False)
    before = starts(folder / "a", finished=True)
    assert set(before.values()) == {1}
    both = [start(path, folder / "a", workers=1) for _ in range(2)]
    printed = [end(process) for process in both]
    after = starts(folder / "a")
    assert after.items() >= before.items(), "a finished cell was run again"
    assert len(after) == 6
    assert sum(after.values()) <= 7, "more than the cell in flight was run again"
    run_here(path, folder / "b")
    assert tables(folder / "a") == tables(folder / "b")
    assert all("variant=wide" in out and "P(better)" in out for out in printed)


@pytest.mark.slow
def test_24_digit_cells_killed_at_random_end_with_the_same_table(tmp_path: Path) -> None:
    variants = "short: {task.trainer.epochs: 10}, long: {}, mixed: {task.trainer.batch_size: 25}"
    path = write_sweep(tmp_path / "sweep.yaml", DIGITS_TASK, seeds=8, variants=variants)
    folder, source, finished = tmp_path / "killed", random.Random(7), dict[str, int]()
    for number in range(8):
        process = start(path, folder, workers=2)
        # From before the first cell to a few cells later, on any machine: a cell is six things.
        wait_for_progress(folder, process, source.randrange(16))
        kill(process, group=number % 2 == 0)
        now = starts(folder, finished=True)
        assert now.items() >= finished.items(), "a finished cell was run again"
        finished = now
    assert len(finished) > 0
    both = [start(path, folder, workers=1) for _ in range(2)]
    for process in both:
        end(process)
    final = starts(folder)
    assert final.items() >= finished.items()
    assert len(final) == 24
    # Two cells may have been in flight at each kill.
    assert sum(final.values()) <= 24 + 8 * 2
    run_here(path, tmp_path / "whole")
    assert tables(folder) == tables(tmp_path / "whole")


@pytest.mark.slow
def test_failed_cells_are_named_and_do_not_stop_the_others(tmp_path: Path) -> None:
    variants = "good: {}, greedy: {task.data.selection_size: 5000}"
    path = write_sweep(tmp_path / "sweep.yaml", TINY_TASK, seeds=1, variants=variants)
    process = start(path, tmp_path / "out", workers=1)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 2
    assert num_finished(tmp_path / "out") == 1
    (failed,) = [line for line in out.splitlines() if line.startswith("failed: ")]
    assert "digits: expected at least 5008 images of class" in failed
    assert "1 of 2 cells are finished." in out
    last = err.splitlines()[-1]
    assert "expected every cell to finish, got 1 of 2 that failed: compare-" in last


def test_one_cell_for_a_scheduler_then_the_list_and_the_table(
    tmp_path: Path, run_command: RunCommand
) -> None:
    path = str(write_sweep(tmp_path / "sweep.yaml", TINY_TASK, seeds=1, variants=WIDE))
    output = ("--output", str(tmp_path / "out"))
    listed = run_command("ablate", "list", path, *output)
    assert listed.code == 0
    assert not (tmp_path / "out").exists()
    first, second = (line.split() for line in listed.out.splitlines())
    assert first[1:] == ["waiting", "variant=thin,", "seed=0"]
    for word in ("@2", second[0], second[0].removeprefix("compare-")[:6]):
        ran = run_command("ablate", "run-cell", word, path, *output)
        assert (ran.code, ran.out) == (0, f"finished: {second[0]}\n")
    assert starts(tmp_path / "out") == {second[0]: 1}
    dry = run_command("ablate", path, "--dry-run", *output)
    assert f"{second[0]}  finished  variant=wide, seed=0\n" in dry.out
    assert "4 training runs of 12 steps" in dry.out
    assert "2 cells: 1 waiting, 1 finished; about " in dry.out
    table = run_command("ablate", "table", path, *output)
    assert "1 of 2 cells are finished." in table.out
    saved = json.loads((tmp_path / "out" / "table.json").read_text())
    assert [cell["cell"] for cell in saved["cells"]] == [second[0]]


def test_a_schedule_file_with_other_content_is_another_cell(
    tmp_path: Path, run_command: RunCommand
) -> None:
    file = tmp_path / "mine.json"
    sweep = tmp_path / "sweep.yaml"
    sweep.write_text(f"experiment: replay\noverrides: {{schedule: {file}}}\n")
    listed = []
    for description in ("constant:mixup", "constant:cutmix"):
        assert run_command("schedule", "make", description, str(file)).code == 0
        listed.append(run_command("ablate", "list", str(sweep)).out)
    assert listed[0] != listed[1]


@pytest.mark.parametrize(
    ("text", "argv", "message"),
    [
        ("experiment: serach", (), "experiment: expected one of search, replay, .* mean 'search'"),
        ("experiment: search\ngrid: {sed: [1]}", (), r"cell \(sed=1\): sed: expected"),
        ("experiment: compare\noverrides: {schedules: [mixup]}", (), r"cell \(\): schedules: exp"),
        ("experiment: replay\noverrides: {schedule: absent.json}", (), "absent.json: expected a"),
        ("experiment: replay\noverrides: {schedule: constants}", (), "description of one schedule"),
        (
            "experiment: search_and_compare\noverrides: {outcome.schedules: [lerned]}",
            (),
            r"schedules: expected a schedule file, .* got 'lerned'",
        ),
        ("experiment: search", ("--workers", "0"), "--workers: expected"),
        ("experiment: search", ("--compute.workers", "3"), "expected --workers for the number of"),
        (
            "experiment: search",
            ("--compute.executor", "ray", "--devices", "0"),
            "expected compute.gpus with executor ray, got devices",
        ),
        ("experiment: search", ("--output", "sweep.yaml"), "--output: expected a folder"),
        ("", (), "expected a mapping"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(
    run_command: RunCommand,
    text: str,
    argv: tuple[str, ...],
    message: str,
) -> None:
    Path("sweep.yaml").write_text(text)
    before = listing(Path.cwd())
    outcome = run_command("ablate", "sweep.yaml", *argv)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.count("\n") == 1
    assert re.search(message, outcome.err), outcome.err
    assert listing(Path.cwd()) == before


def test_a_cell_that_is_not_there(tmp_path: Path, run_command: RunCommand) -> None:
    path = str(write_sweep(tmp_path / "sweep.yaml", TINY_TASK, seeds=1, variants=WIDE))
    for word, message in (("@3", "expected @1 to @2, got @3"), ("zz", "expected the beginning of")):
        outcome = run_command("ablate", "run-cell", word, path, "--output", str(tmp_path / "out"))
        assert outcome.code == 2
        assert message in outcome.err
    assert not (tmp_path / "out").exists()
