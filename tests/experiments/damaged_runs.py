"""Interrupted tiny runs of each command, damages of their files, and what a resumed one must be."""

import json
import random
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from automix.experiments.commands import COMMANDS
from automix.experiments.common.run_logs import Journal
from automix.experiments.compare.run import compare
from automix.experiments.evaluate.config import EvaluateConfig, EvaluationTask
from automix.experiments.evaluate.run import evaluate
from automix.experiments.replay.run import replay
from automix.experiments.search.learning import LearningLog
from automix.experiments.search.run import search
from automix.experiments.sweep.cell import run_cell
from automix.experiments.sweep.run import load_sweep, run_one, save_table
from automix.operator_info import Operator
from tests.cli.sweeps import TINY_TASK, tables, write_sweep
from tests.experiments import tiny_search
from tests.experiments.quick_evaluation import QUICK
from tests.experiments.test_compare import BOTH
from tests.experiments.test_search_interrupted import Interruptions
from tests.experiments.tiny_replay import TOTAL_STEPS, Stops, metrics, schedule_of, tiny

# Locks hold nothing; events are for TensorBoard, texts of earlier attempts to be read.
_NO_STATE = {".lock", "lock", "tensorboard", "log.txt", "error.txt"}


@dataclass(frozen=True, slots=True, kw_only=True)
class InterruptedRun:
    """A run that was interrupted at several moments, and was not."""

    moments: list[Path]  # copies of its folder
    whole: Path
    argv: Callable[[Path], list[str]]  # the command that resumes it in a folder
    outputs: Callable[[Path], Mapping[str, Any]]  # what it left, without times


def states(folder: Path) -> list[Path]:
    """Return the files that a resumed run reads."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and not _NO_STATE & set(path.relative_to(folder).parts)
    )


def delete(content: bytes, draws: random.Random) -> bytes | None:
    """Delete the file."""
    return None


def cut(content: bytes, draws: random.Random) -> bytes | None:
    """Cut the file, as a power cut does."""
    return content[: draws.randrange(len(content) + 1)]


def flip(content: bytes, draws: random.Random) -> bytes | None:
    """Flip one bit."""
    place = draws.randrange(len(content) or 1)
    flipped = bytes([byte ^ 1 << draws.randrange(8) for byte in content[place : place + 1]])
    return content[:place] + flipped + content[place + 1 :]


def zero(content: bytes, draws: random.Random) -> bytes | None:
    """Replace what follows a place by zeros, as blocks that were never written."""
    place = draws.randrange(len(content) + 1)
    return content[:place] + bytes(len(content) - place)


def lose_a_line(content: bytes, draws: random.Random) -> bytes | None:
    """Delete one line."""
    lines = content.splitlines(keepends=True)
    place = draws.randrange(len(lines) or 1)
    return b"".join(lines[:place] + lines[place + 1 :])


DAMAGES = (delete, cut, flip, zero, lose_a_line)


def damage(folder: Path, draws: random.Random) -> str:
    """Damage a random file; return what was done."""
    path = draws.choice(states(folder))
    kind = draws.choice(DAMAGES)
    content = kind(path.read_bytes(), draws)
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    return f"{kind.__name__} {path.relative_to(folder)}"


def check_logs(folder: Path) -> None:
    """Check that every log in ``folder`` is whole."""
    for path in folder.rglob("*.jsonl"):
        content = path.read_bytes()
        assert content.endswith(b"\n")
        lines = [json.loads(line) for line in content.splitlines()]
        if "journal_sum" in lines[0]:
            assert len(Journal(path).results) == len(lines)
            assert path.read_bytes() == content


def interrupted_search(base: Path, patch: pytest.MonkeyPatch) -> InterruptedRun:
    """Interrupt the tiny search in its race, while it learns, in its selection and final."""
    config, run = tiny_search.TINY, base / "run"
    moments: list[Path] = []
    for owner, name, call in (
        (Journal, "add", 5),
        (LearningLog, "save", 3),
        (Journal, "add", 10),
        (Journal, "add", 3),
    ):
        with patch.context() as patched:
            stops = Interruptions(call)
            patched.setattr(owner, name, stops.wrap(getattr(owner, name), after=True))
            with pytest.raises(KeyboardInterrupt):
                search(config, run)
        moments.append(_copied(run, base / f"moment{len(moments)}"))
    search(config, base / "whole")
    return InterruptedRun(
        moments=moments,
        whole=base / "whole",
        argv=lambda folder: ["search", str(folder / "config.yaml"), "--output", str(folder)],
        outputs=tiny_search.outputs,
    )


def interrupted_replay(base: Path, patch: pytest.MonkeyPatch) -> InterruptedRun:
    """Interrupt a replay before and after its checkpoints."""
    config = tiny().model_copy(update={"weights": "best"})
    source, run = schedule_of(Operator.CUTMIX), base / "run"
    moments: list[Path] = []
    with patch.context() as patched:
        stops = Stops(patched)
        # After these steps a checkpoint is written.
        for step in (0, 4, TOTAL_STEPS - 2):
            stops.steps = {step}
            with pytest.raises(KeyboardInterrupt):
                replay(config, source, run)
            moments.append(_copied(run, base / f"moment{len(moments)}"))
    replay(config, source, base / "whole")

    def outputs(folder: Path) -> Mapping[str, Any]:
        names = ("classifier.safetensors", "classifier.json", "decisions.json", "schedule.json")
        return {
            "metrics": metrics(folder),
            "result": _result(folder),
            **{name: (folder / name).read_bytes() for name in names},
        }

    return InterruptedRun(
        moments=moments,
        whole=base / "whole",
        argv=lambda folder: ["replay", "--resume", str(folder)],
        outputs=outputs,
    )


def interrupted_compare(base: Path, patch: pytest.MonkeyPatch) -> InterruptedRun:
    """Interrupt a comparison of nine training runs."""
    # The number of runs at once is chosen, so that it is among the files.
    compute = BOTH.compute.model_copy(update={"population": None})
    config, run = BOTH.model_copy(update={"compute": compute}), base / "run"
    moments = [_stopped(lambda: compare(config, run), patch, run, add) for add in (2, 4)]
    # The same number in the other folder.
    shutil.copytree(moments[0], base / "whole")
    (base / "whole" / "outcomes.jsonl").unlink()
    compare(config, base / "whole")
    return InterruptedRun(
        moments=moments,
        whole=base / "whole",
        argv=lambda folder: ["compare", str(folder / "config.yaml"), "--output", str(folder)],
        outputs=lambda folder: {"result": _result(folder)},
    )


def interrupted_evaluate(base: Path, patch: pytest.MonkeyPatch, trained: Path) -> InterruptedRun:
    """Interrupt an evaluation of a few tasks."""
    tasks = (EvaluationTask.CLASSIFICATION, EvaluationTask.PATCH_OCCLUSION, EvaluationTask.ATTACKS)
    config = EvaluateConfig.model_validate(QUICK.model_dump() | {"tasks": tasks})
    run = base / "run"
    moments = [_stopped(lambda: evaluate(config, trained, run), patch, run, add) for add in (1, 2)]
    evaluate(config, trained, base / "whole")

    def outputs(folder: Path) -> Mapping[str, Any]:
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        return {"result": _result(folder), "metrics": tiny_search.without_times(lines)}

    return InterruptedRun(
        moments=moments,
        whole=base / "whole",
        argv=lambda folder: [
            "evaluate", str(trained), str(folder / "config.yaml"), "--output", str(folder)
        ],
        outputs=outputs,
    )  # fmt: skip


def interrupted_ablate(base: Path, patch: pytest.MonkeyPatch) -> InterruptedRun:
    """Interrupt a sweep in its third cell of four."""
    # One at a time: a number that is timed anew in each folder has other last bits.
    task = f"{TINY_TASK}  compute.population: 1\n"
    path, run = write_sweep(base / "sweep.yaml", task, seeds=2), base / "run"
    sweep = load_sweep(path, run, COMMANDS)
    for cell in sweep.cells[:2]:
        run_one(sweep, cell.identifier)
    moment = _stopped(lambda: run_one(sweep, sweep.cells[2].identifier), patch, run, 2)
    whole = load_sweep(path, base / "whole", COMMANDS)
    for cell in whole.cells:
        run_cell(cell, base / "whole", compare)
    save_table(whole)
    return InterruptedRun(
        moments=[moment],
        whole=base / "whole",
        argv=lambda folder: ["ablate", str(path), "--output", str(folder)],
        outputs=tables,
    )


def _stopped(
    run: Callable[[], object], patch: pytest.MonkeyPatch, folder: Path, num_units: int
) -> Path:
    """Run until that many units were added to a journal; return a copy of the folder."""
    with patch.context() as patched:
        wrapped = Interruptions(num_units).wrap(Journal.add, after=True)
        patched.setattr(Journal, "add", wrapped)
        with pytest.raises(KeyboardInterrupt):
            run()
    number = len(list(folder.parent.glob("moment*")))
    return _copied(folder, folder.with_name(f"moment{number}"))


def _copied(folder: Path, copy: Path) -> Path:
    shutil.copytree(folder, copy)
    return copy


def _result(folder: Path) -> object:
    return tiny_search.without_times(json.loads((folder / "result.json").read_text()))


def damaged(
    run: InterruptedRun, base: Path, *, count: int, seed: int
) -> Iterator[tuple[str, Path]]:
    """Yield ``count`` damaged copies of the folder, and what was done to each."""
    draws = random.Random(seed)
    for number in range(count):
        moment = draws.choice(run.moments)
        copy = _copied(moment, base / f"damaged{number}")
        yield f"{number}: {damage(copy, draws)} after {moment.name}", copy
        shutil.rmtree(copy)
