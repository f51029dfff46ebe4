"""Names that ``import automix`` offers, and scripts that use them."""

import subprocess
import sys
from pathlib import Path

import pytest

import automix
from automix.experiments import functions
from automix.experiments.config import SearchConfig
from automix.integrations import ScheduledMix
from automix.schedule import Schedule


def test_public_names_are_those_of_their_modules() -> None:
    assert automix.Schedule is Schedule
    assert automix.ScheduledMix is ScheduledMix
    assert automix.search is functions.search
    assert set(automix.__all__) <= set(dir(automix))
    assert automix.recommend() == Schedule.recommended()


def test_the_example_of_the_document_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document = (Path(__file__).parents[1] / "docs/search.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    exec(document.split("```python\n")[1].split("```")[0], {})
    assert Schedule.load(Path("schedule.json")) == Schedule.recommended()


def test_an_unknown_name_is_an_attribute_error() -> None:
    name = "serch"
    with pytest.raises(AttributeError, match="module 'automix' has no attribute 'serch'"):
        getattr(automix, name)


def imported_by(code: str) -> set[str]:
    """Return the modules that are imported once ``code`` has run."""
    result = subprocess.run(
        [sys.executable, "-c", f"{code}; import sys; print(*sys.modules)"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return set(result.stdout.split())


def test_importing_the_package_imports_nothing_heavy() -> None:
    assert not imported_by("import automix") & {"pydantic", "numpy", "torch", "automix.schedule"}
    modules = imported_by("import automix; automix.Schedule; automix.recommend()")
    assert not modules & {"torch", "gymnasium", "matplotlib"}


SCRIPT = """
import multiprocessing
from automix.worker_processes import apart_from_script
with open("began.txt", "a") as stream:
    stream.write("once\\n")
process = multiprocessing.get_context("spawn").Process(target=print, args=("worker",))
with apart_from_script():
    process.start()
process.join()
print("exit code", process.exitcode)
"""


def test_workers_do_not_run_a_script_without_a_guard_again(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    result = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert result.stdout.split("\n")[:2] == ["worker", "exit code 0"]
    assert (tmp_path / "began.txt").read_text() == "once\n"


def test_arguments_of_a_call_are_those_of_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[SearchConfig] = []

    def run_search(config: SearchConfig, output: Path) -> dict[str, object]:
        seen.append(config)
        raise InterruptedError

    monkeypatch.setattr("automix.experiments.search.run.search", run_search)
    settings = {
        "task.data.augment.horizontal_flip": False,
        "task.model.width": 4,
        "environment.operators": ["none", "mixup"],
    }
    with pytest.raises(InterruptedError):
        automix.search("digits", output="run", settings=settings)
    (config,) = seen
    assert config.task.model.width == 4
    assert config.environment.operators == ("none", "mixup")
    assert config.runs == 240
