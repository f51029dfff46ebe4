"""Whatever goes wrong in a replay is one error, and what was trained before is kept."""

import errno
import logging
import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from automix.configuration.base import Config
from automix.configuration.task import CheckpointConfig, ReplayConfig
from automix.errors import CheckpointError, DivergedError
from automix.experiments.common.run_folder import StopRequest
from automix.experiments.common.saved_classifier import load_classifier
from automix.experiments.replay import run as replay_loop
from automix.experiments.replay.applied import check_decisions, note_applied
from automix.experiments.replay.run import next_mark, replay
from automix.files import CheckpointFolder, atomic_writer, read_checkpoint
from automix.operator_info import Operator
from tests.equality import assert_same
from tests.experiments.tiny_replay import (
    TOTAL_STEPS,
    Stops,
    attempts,
    metrics,
    outputs,
    schedule_of,
    tiny,
)

SOURCE = schedule_of(Operator.CUTMIX)


def changed(config: ReplayConfig, **fields: object) -> ReplayConfig:
    plain = {
        name: value.model_dump() if isinstance(value, Config) else value
        for name, value in fields.items()
    }
    return ReplayConfig.model_validate(config.model_dump() | plain)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a replay that nothing happened to; read only."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    replay(tiny(), SOURCE, folder)
    return folder


@pytest.mark.parametrize("name", ["step-000000008.ckpt", "best.ckpt", "classifier.safetensors"])
def test_a_full_disk_names_the_file_and_the_run_goes_on_later(
    name: str, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    replace = Path.replace

    def refuse(path: Path, target: Path) -> Path:
        if Path(target).name == name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return replace(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", refuse)
        with pytest.raises(OSError, match="No space left on device") as caught:
            replay(tiny(), SOURCE, folder)
    assert Path(caught.value.filename).name == name
    assert not list(folder.rglob("*.tmp"))
    replay(tiny(), SOURCE, folder)
    assert_same(outputs(folder), outputs(whole))


def test_a_loss_that_is_not_finite_is_no_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay_loop, "_LOGGED_STRETCHES", 1)
    config = tiny(learning_rate=1e30, max_grad_norm=None)
    with pytest.raises(DivergedError, match=r"run: expected a finite loss, got .* smaller task"):
        replay(config, SOURCE, tmp_path / "run")
    assert not list((tmp_path / "run").rglob("step-*"))
    assert not (tmp_path / "run" / "result.json").exists()


def test_a_folder_that_cannot_be_written_is_one_line() -> None:
    folder = Path("/proc/nowhere")
    with pytest.raises(CheckpointError, match="/proc/nowhere: expected a folder that can be writ"):
        replay(tiny(), SOURCE, folder)


def _cut(content: bytes) -> bytes:
    return content[:-1]


def _flip_a_bit(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def stopped(folder: Path, step: int, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Leave a replay that was stopped in a step; return its newest checkpoint."""
    with monkeypatch.context() as patch:
        Stops(patch).steps = {step}
        assert next(attempts(tiny(), SOURCE, folder)) is False
    return folder / f"checkpoints/step-{step + 1:09d}.ckpt"


@pytest.mark.parametrize("damage", [_cut, _flip_a_bit, lambda content: b""])
def test_a_damaged_checkpoint_is_passed_over(
    damage: Callable[[bytes], bytes],
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder = tmp_path / "run"
    file = stopped(folder, 6, monkeypatch)
    file.write_bytes(damage(file.read_bytes()))
    (file.parent / f".{file.name}.0123abcd.tmp").write_bytes(b"half")
    with caplog.at_level(logging.WARNING):
        replay(tiny(), SOURCE, folder)
    assert "expected an undamaged checkpoint, got damaged bytes; trying the" in caplog.text
    assert_same(outputs(folder), outputs(whole))
    assert not list(folder.rglob("*.tmp"))


def test_a_checkpoint_of_something_else_is_refused(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    stopped(folder, 6, monkeypatch)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(CheckpointError, match="expected an empty folder or a run of the same conf"):
        replay(changed(tiny(), seed=6), SOURCE, folder)
    with pytest.raises(CheckpointError, match="expected a run of this schedule, got another's"):
        replay(tiny(), schedule_of(Operator.MIXUP), folder)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    other = tmp_path / "other"
    stopped(other, 2, monkeypatch)
    (other / "checkpoints/step-000000003.ckpt").unlink()
    state = (whole / "checkpoints/step-000000009.ckpt").read_bytes()
    (other / "checkpoints/step-000000009.ckpt").write_bytes(state)
    config = changed(tiny(), validations=2)
    (other / "config.yaml").write_text(config.to_yaml())
    with pytest.raises(CheckpointError, match=r"config.yaml: expected the file that"):
        replay(config, SOURCE, other)
    # Without sums, as in a folder that was copied in part, the checkpoints tell.
    (other / "sums.json").unlink()
    with pytest.raises(CheckpointError, match=r"expected checkpoints with configuration .*, got"):
        replay(config, SOURCE, other)


def test_the_newest_checkpoints_are_kept_and_the_best(whole: Path) -> None:
    names = sorted(path.name for path in (whole / "checkpoints").iterdir())
    assert names == ["best.ckpt", "step-000000008.ckpt", "step-000000009.ckpt"]


def test_the_best_weights_are_those_of_the_best_validation(tmp_path: Path) -> None:
    config = changed(
        tiny(learning_rate=3.0, ema_decay=0.0, learning_rate_schedule="constant"),
        weights="best",
        validations=9,
    )
    result = replay(config, SOURCE, tmp_path / "run")
    losses = {
        line["step"]: line["selection/calibrated_nll"]
        for line in metrics(tmp_path / "run")
        if "selection/calibrated_nll" in line
    }
    assert list(losses) == list(range(1, TOTAL_STEPS + 1))
    best = min(losses, key=lambda step: losses[step])
    assert best < TOTAL_STEPS, "the test needs a training run that gets worse"
    assert result["weights"] == {"which": "best", "step": best}
    assert result["best"]["step"] == best
    assert result["selection"]["calibrated_nll"] == losses[best]
    exported, _ = load_classifier(tmp_path / "run")
    state = read_checkpoint(tmp_path / "run/checkpoints/best.ckpt")
    assert_same(exported.state_dict(), state["weights"])


def test_without_a_selection_split_nothing_is_validated(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    task = tiny().task.model_dump()
    task["data"]["selection_size"] = 0
    with caplog.at_level(logging.INFO):
        result = replay(changed(tiny(), task=task), SOURCE, tmp_path / "run")
    assert "no selection split: nothing is evaluated during training" in caplog.text
    assert result["selection"] is result["best"] is None
    assert not (tmp_path / "run/checkpoints/best.ckpt").exists()


def test_checkpoints_come_by_time_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[int] = []
    save = CheckpointFolder.save

    def noted(self: CheckpointFolder, step: int, state: dict[str, Any]) -> None:
        assert state["trainer"]["step"] == step
        saved.append(step)
        save(self, step, state)

    monkeypatch.setattr(CheckpointFolder, "save", noted)
    monkeypatch.setattr(replay_loop, "_LONGEST_CHUNK", 1)
    settings = CheckpointConfig(every_minutes=1e-9)
    replay(changed(tiny(), checkpoints=settings), SOURCE, tmp_path / "often")
    assert saved == list(range(1, TOTAL_STEPS + 1))
    saved.clear()
    replay(changed(tiny(), checkpoints=CheckpointConfig()), SOURCE, tmp_path / "once")
    assert saved == [TOTAL_STEPS]


def test_tensorboard_shows_each_step_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "run"
    file = stopped(folder, 6, monkeypatch)
    file.unlink()
    (events,) = (folder / "tensorboard").iterdir()
    # TensorBoard reads files by name: the second, then the process and a number, as text. A command
    # takes seconds to begin again; here both may be of one second, where 10 comes before 9.
    events.rename(events.with_name(re.sub(r"tfevents\.\d+", "tfevents.0000000001", events.name)))
    replay(tiny(), SOURCE, folder)
    board = EventAccumulator(str(folder / "tensorboard"))
    board.Reload()
    tags = set(board.Tags()["scalars"])
    names = {"loss", "mixed_fraction", "clean_accuracy", "learning_rate", "images_per_second"}
    assert {f"train/{name}" for name in names} | {"operator/cutmix", "operator/mixup"} <= tags
    steps = [event.step for event in board.Scalars("train/loss")]
    assert steps == list(range(1, TOTAL_STEPS + 1))


def test_decisions_that_differ_are_noticed() -> None:
    loop_decisions = SOURCE.schedule.decisions(TOTAL_STEPS)
    applied: list[dict[str, Any]] = []
    for stop, decision in enumerate(loop_decisions[:-1], start=1):
        note_applied(applied, decision, stop=stop)
    with pytest.raises(CheckpointError, match="expected steps that followed the decisions"):
        check_decisions(applied, loop_decisions, where=Path("run"))
    note_applied(applied, loop_decisions[-1], stop=TOTAL_STEPS)
    check_decisions(applied, loop_decisions, where=Path("run"))


@pytest.mark.parametrize(("total", "count"), [(9, 4), (9, 9), (3, 100), (100, 1), (97, 10)])
def test_marks_are_the_ends_of_equal_parts(total: int, count: int) -> None:
    marks, step = [], 0
    while step < total:
        step = next_mark(step, total, count)
        marks.append(step)
    assert marks == sorted({-(-part * total // count) for part in range(1, count + 1)})


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_and_a_late_second_one_ends(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    before = signal.getsignal(number)
    made = []
    with StopRequest() as stop:
        made.append(stop.is_made)
        signal.raise_signal(number)
        made.append(stop.is_made)
        now[0] += 1
        signal.raise_signal(number)
        now[0] += 2
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    assert made == [False, True]
    assert signal.getsignal(number) is before


def test_a_classifier_that_is_damaged_is_one_line(whole: Path, tmp_path: Path) -> None:
    for name in ("classifier.json", "classifier.safetensors"):
        (tmp_path / name).write_bytes((whole / name).read_bytes())
    model, facts = load_classifier(tmp_path)
    assert not model.training
    assert (facts.image_shape, len(facts.class_names)) == ((1, 8, 8), 10)
    with atomic_writer(tmp_path / "classifier.safetensors") as stream:
        stream.write((whole / "classifier.safetensors").read_bytes()[:-10])
    with pytest.raises(CheckpointError, match=r"classifier\.safetensors: expected safetensors"):
        load_classifier(tmp_path)
    text = (whole / "classifier.json").read_text()
    (tmp_path / "classifier.json").write_text(text.replace('"width": 2', '"width": 3'))
    (tmp_path / "classifier.safetensors").write_bytes(
        (whole / "classifier.safetensors").read_bytes()
    )
    with pytest.raises(CheckpointError, match="expected weights that fit, got"):
        load_classifier(tmp_path)
    for text in ("{", "{}", "[]"):
        (tmp_path / "classifier.json").write_text(text)
        with pytest.raises(CheckpointError, match=r"classifier\.json: "):
            load_classifier(tmp_path)
