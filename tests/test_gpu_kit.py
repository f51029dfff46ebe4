"""The kit for a GPU, with parts that are only a line of Python."""

import json
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import tyro

from automix.configuration.arguments import read_arguments
from automix.experiments.commands import COMMANDS
from benchmarks import gpu, operators, population, trainer_loops
from benchmarks.gpu_tables import BEGIN, END, document_tables, read_figures
from benchmarks.hardware import hardware_facts
from benchmarks.kit import DONE, FAILED, LATE, Part, run_part, run_parts

HARDWARE = {"accelerator": "a GPU"}
ROOT = Path(__file__).parents[1]


def part(name: str, code: str, *, seconds: float = 60.0) -> Part:
    # -S: without packages, Python starts at once.
    return Part(
        name=name, command=f"-S -c {shlex.quote(code)} {{json}} {{folder}}", seconds=seconds
    )


def test_a_part_writes_figures_and_what_is_done_is_skipped(tmp_path: Path) -> None:
    file = tmp_path / "kit" / "gpu.json"
    code = "import sys; open(sys.argv[1], 'w').write('[1, NaN]')"
    parts = [part("measures", code), part("prints", "print('3 passed')")]
    content = run_parts(parts, file=file, hardware=HARDWARE)
    assert content == json.loads(file.read_text())
    assert content["hardware"] == HARDWARE
    measures, prints = content["parts"].values()
    assert (measures["state"], measures["figures"]) == (DONE, [1, None])
    assert (prints["state"], prints["last_line"], prints["figures"]) == (DONE, "3 passed", None)
    before = file.stat().st_mtime_ns
    run_parts(parts, file=file, hardware=HARDWARE)
    assert file.stat().st_mtime_ns == before
    # Another command is another part; asked to, all run again.
    changed = run_parts([parts[0], part("prints", "print(4)")], file=file, hardware=HARDWARE)
    assert changed["parts"]["prints"]["last_line"] == "4"
    assert run_parts(parts[1:], file=file, hardware=HARDWARE, again=True)["parts"].keys() == {
        "prints"
    }


def test_a_kit_that_was_killed_resumes(tmp_path: Path) -> None:
    file = tmp_path / "gpu.json"
    once = "import os, sys; f = sys.argv[2]; first = not os.path.exists(f + '.was'); "
    parts = [
        part("first", "print('done')"),
        part("kills", once + "open(f + '.was', 'w'); first and os.kill(os.getppid(), 9)"),
        part("last", "print('done')"),
    ]
    script = (
        "import sys; from pathlib import Path; from benchmarks.kit import Part, run_parts\n"
        f"run_parts({parts!r}, file=Path({str(file)!r}), hardware={HARDWARE!r})"
    )
    killed = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, check=False, timeout=120
    )
    assert killed.returncode == -9
    stopped = json.loads(file.read_text())["parts"]
    assert list(stopped) == ["first"]
    resumed = run_parts(parts, file=file, hardware=HARDWARE)["parts"]
    assert resumed["first"] == stopped["first"]
    assert [result["state"] for result in resumed.values()] == [DONE] * 3


def is_running(status: Path) -> bool:
    try:
        return status.read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the state is Linux's")
def test_a_part_over_its_time_is_ended_with_its_children(tmp_path: Path) -> None:
    child = [sys.executable, "-S", "-c", "import time; time.sleep(60)"]
    code = f"import subprocess, time; print(subprocess.Popen({child!r}).pid, flush=True); "
    # On a busy machine, Python may need longer to start the child.
    for limit in (0.5, 5.0, 30.0):
        result = run_part(part("sleeps", code + "time.sleep(60)"), folder=tmp_path, limit=limit)
        assert result.state == LATE
        if result.last_line:
            break
    status = Path("/proc") / result.last_line / "stat"
    # It has been sent its signal, and ends, before it would of its own.
    ends_before = time.monotonic() + 30
    while is_running(status):
        assert time.monotonic() < ends_before
        time.sleep(0.01)


def test_a_failed_part_has_its_last_line_and_runs_again(tmp_path: Path) -> None:
    file, parts = tmp_path / "gpu.json", [part("fails", "print('fine'); raise ValueError('no')")]
    for _ in range(2):
        result = run_parts(parts, file=file, hardware=HARDWARE)["parts"]["fails"]
        assert (result["state"], result["last_line"]) == (FAILED, "ValueError: no")
        assert json.loads(file.read_text())["parts"]["fails"] == result
        parts = [part("fails", "raise ValueError('no')")]


def test_time_that_is_left_goes_to_the_next_part(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = [part("short", "", seconds=100), part("long", "", seconds=100)]
    run_parts(parts, file=tmp_path / "gpu.json", hardware=HARDWARE)
    printed = capsys.readouterr().out
    assert "short: at most 100 s" in printed
    assert int(printed.partition("long: at most ")[2].partition(" s")[0]) > 150


def test_figures_of_two_machines_are_not_mixed(tmp_path: Path) -> None:
    file = tmp_path / "gpu.json"
    run_parts([], file=file, hardware=HARDWARE)
    assert not file.exists()
    run_parts([part("one", "")], file=file, hardware=HARDWARE)
    with pytest.raises(ValueError, match="expected figures of this machine"):
        run_parts([part("one", "")], file=file, hardware={"accelerator": "another"})
    run_parts([part("one", "")], file=file, hardware={"accelerator": "another"}, again=True)


def test_the_hardware_is_named() -> None:
    facts = hardware_facts()
    assert all(facts[name] for name in ("torch", "python", "processor", "cores"))
    assert {"accelerator", "memory_gib", "driver", "runtime"} <= facts.keys()


def test_without_an_accelerator_one_line_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("torch.accelerator.current_accelerator", lambda **_: None)
    assert gpu.main(gpu.Options()) == 2
    assert capsys.readouterr().out == (
        "gpu: expected an accelerator, got none; --device cpu tries the kit out without one\n"
    )


@pytest.mark.parametrize("quick", [False, True])
def test_the_parts_are_commands_that_exist_and_take_nine_minutes(quick: bool) -> None:
    parts = gpu.kit_parts(device="cpu", minutes=9, quick=quick)
    assert sum(timed.seconds for timed in parts) == pytest.approx(540)
    options: dict[str, Any] = {
        "benchmarks.operators": operators.Options,
        "benchmarks.trainer": trainer_loops.Options,
        "benchmarks.population": population.Options,
    }
    for timed in parts:
        _, module, *arguments = shlex.split(timed.command)
        if module == "automix":
            read_arguments(COMMANDS[arguments[0]], arguments[1:])
        elif module != "pytest":
            tyro.cli(options[module], args=arguments)
            assert "--json" in arguments


def test_tables_have_what_was_measured() -> None:
    rows = [{"name": "mixup", "batch": 128, "milliseconds": 0.5, "multiple": 1.25}]
    result = {"state": DONE, "seconds": 3.2, "last_line": "|", "figures": {"rows": rows}}
    late = {"state": LATE, "seconds": 60.0, "last_line": "7 | 8", "figures": None}
    counts = {"in_search": {"1": 1.0, "16": 0.25}, "steps": {"none": {"16": 0.125}}}
    hardware = {"accelerator": "GPU X", "memory_gib": 80.0, "driver": "1.2", "runtime": None}
    hardware |= {"torch": "2.15", "python": "3.11", "processor": "P", "cores": 16}
    parts = {"operators-32": result, "population": result | {"figures": counts}, "tests": late}
    text = document_tables({"hardware": hardware, "parts": parts})
    assert "GPU X, 80.0 GiB, driver 1.2, torch 2.15, Python 3.11, processor P, 16 cores." in text
    assert "| mixup | 256,000 | 1.2 |  |  |  |  |" in text
    assert "| 16 | 0.25 |  |  |  | 0.12 |" in text
    assert "| operators-32 | done | 3 |  |" in text
    assert "| tests | over its time | 60 | 7 / 8 |" in text


def test_the_document_has_the_tables_of_the_file_and_no_others() -> None:
    text = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    tables = text.partition(BEGIN)[2].partition(END)[0].strip()
    assert tables == document_tables(read_figures(ROOT / "docs" / "gpu.json"))
