"""Help is complete and instant."""

import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from automix.configuration.arguments import every_field, flag_name
from automix.configuration.command import Command
from automix.experiments.commands import COMMANDS
from tests.cli.running import RunCommand, leaves

ROOT = Path(__file__).parents[2]
ON_COMMAND_LINE = [command for command in COMMANDS.values() if command.handler]


def without_frames(text: str) -> str:
    """Return the words of a help text in one line, without frames and line breaks."""
    return " ".join(re.sub("[\u2500-\u257f]", " ", text).split())


@pytest.mark.parametrize("command", ON_COMMAND_LINE, ids=lambda command: command.name)
def test_help_explains_every_word_and_field(command: Command, run_command: RunCommand) -> None:
    outcome = run_command(*command.name.split(), "--help", "all")
    assert (outcome.code, outcome.err) == (0, "")
    text = without_frames(outcome.out)
    assert text.startswith(f"usage: {command.usage}")
    for word, explanation in command.positionals.items():
        assert f"{word}: {explanation}." in text
    for path, field in leaves(every_field(command)):
        assert field.description, path
        # A truth value has two names: "--dry-run, --no-dry-run".
        _, flag, after = re.split(f" ({flag_name(path)}),? ", text, maxsplit=1)
        assert flag
        assert field.description in after


@pytest.mark.parametrize(
    "command", [one for one in ON_COMMAND_LINE if one.first_flags], ids=lambda one: one.name
)
def test_help_shows_what_matters_first_and_names_the_rest(
    command: Command, run_command: RunCommand
) -> None:
    outcome = run_command(*command.name.split(), "--help")
    assert (outcome.code, outcome.err) == (0, "")
    fields = {flag_name(path): field for path, field in leaves(every_field(command))}
    shown = re.findall(r"^  (--[a-z.-]+) ", outcome.out, flags=re.MULTILINE)
    assert shown == [flag_name(name.split(".")) for name in command.first_flags]
    text = " ".join(outcome.out.split())
    assert all(f"{fields[flag].description} (default: " in text for flag in shown)
    rest = len(fields) - len(shown)
    assert f"{rest} more options: automix {command.name} --help all" in outcome.out


def test_commands_with_many_fields_show_some_first() -> None:
    for command in ON_COMMAND_LINE:
        count = sum(1 for _ in leaves(every_field(command)))
        assert (8 <= len(command.first_flags) <= 12) == (count > 20), command.name


@pytest.mark.parametrize("group", ["schedule", "config"])
def test_a_group_lists_its_commands(group: str, run_command: RunCommand) -> None:
    usages = [command.usage for command in ON_COMMAND_LINE if command.name.startswith(f"{group} ")]
    assert len(usages) > 1
    for argv in ([group], [group, "--help"]):
        outcome = run_command(*argv)
        assert outcome.code == 0
        assert all(usage in outcome.out for usage in usages)


def test_help_lists_every_command(run_command: RunCommand) -> None:
    for argv in ([], ["-h"], ["--help"]):
        outcome = run_command(*argv)
        assert (outcome.code, outcome.err) == (0, "")
        assert all(f"  {command.name.split()[0]} " in outcome.out for command in ON_COMMAND_LINE)
        assert all(command.summary in outcome.out for command in COMMANDS.values())


def test_help_shows_what_a_file_says(folder: Path, run_command: RunCommand) -> None:
    Path("mine.yaml").write_text("task: {trainer: {epochs: 123}}")
    for argv in (["--help"], ["--help", "all"]):
        text = without_frames(run_command("search", "mine.yaml", "--seed", "45", *argv).out)
        assert "Number of passes over the training split. (default: 123)" in text
        assert "(default: 45)" in text


def test_help_is_there_for_those_who_have_it_wrong(run_command: RunCommand) -> None:
    for argv in (["nowhere.yaml"], ["--sed", "1"], ["--task.data.source", "folder"]):
        outcome = run_command("search", *argv, "--help")
        assert (outcome.code, outcome.err) == (0, "")
        assert "--task.trainer.epochs" in outcome.out


def imported_by(*argv: str) -> set[str]:
    """Return the modules that a command imports, in a process of its own."""
    result = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "automix", *argv],
        capture_output=True, text=True, check=True, cwd=ROOT,
    )  # fmt: skip
    return {line.rpartition("|")[2].strip() for line in result.stderr.splitlines()}


def test_help_loads_nothing_heavy() -> None:
    modules = imported_by("--help")
    assert "automix.cli.main" in modules
    assert not modules & {"torch", "pydantic", "tyro", "numpy", "gymnasium", "stable_baselines3"}


def test_the_help_of_a_command_does_not_load_torch(tmp_path: Path) -> None:
    heavy = {"torch", "stable_baselines3", "matplotlib", "sklearn"}
    modules = imported_by("search", "--help", "all")
    assert "tyro" in modules
    assert not modules & heavy
    # With a folder too, whose images nobody counts for it.
    assert not imported_by("search", str(tmp_path), "--help") & (heavy | {"tyro"})


def test_a_schedule_file_is_read_without_anything_heavy() -> None:
    modules = imported_by("schedule", "show", "docs/schedules/digits.json")
    assert "automix.schedule" in modules
    assert not modules & {"torch", "numpy", "gymnasium", "tyro", "matplotlib"}


def test_a_folder_is_refused_without_torch(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
    argv = (str(tmp_path), "--runs", "20")
    result = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "automix", "search", *argv],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    assert result.returncode == 2
    assert "expected at least one image" in result.stderr
    assert "| torch\n" not in result.stderr.replace("  ", "")


def test_help_is_instant() -> None:
    def seconds(*argv: str) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *argv], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    # The best of three, in CPU time because the machine may be busy, and without what Python itself
    # takes to start: about 0.06 s where bytecode is cached.
    used = min(seconds("-m", "automix", "--help") for _ in range(3))
    assert used - min(seconds("-c", "pass") for _ in range(3)) < 0.3
