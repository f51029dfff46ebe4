"""Checkpoints and journals with right sums that hold something else are refused in one line."""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from agents.ppo import Episode
from automix.errors import AutoMixError, CheckpointError
from automix.experiments.common.run_folder import RunFolder
from automix.experiments.common.run_logs import Journal, MetricsLog, _with_sum
from automix.experiments.common.training_pool import TrainingOutcome
from automix.experiments.replay.run import replay
from automix.experiments.search.learning import LearningLog
from automix.files import CheckpointFolder, check_fields, read_checkpoint, write_checkpoint
from automix.operator_info import Operator
from automix.schedule import Decision, even_schedule
from tests.experiments.tiny_replay import Stops, schedule_of, tiny
from tests.experiments.tiny_search import TINY


def others(state: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield states that are not of this kind, and what is wrong with each."""
    yield "nothing", {}
    for name, value in state.items():
        yield f"no {name}", {key: state[key] for key in state if key != name}
        wrong: object = "text" if isinstance(value, list) else [{"a": torch.zeros(2)}]
        yield f"other {name}", state | {name: wrong}


def test_a_replay_does_not_resume_from_something_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = schedule_of(Operator.CUTMIX)
    with monkeypatch.context() as patched:
        Stops(patched).steps = {4}
        with pytest.raises(KeyboardInterrupt):
            replay(tiny(), source, tmp_path)
    *earlier, path = sorted((tmp_path / "checkpoints").glob("step-*.ckpt"))
    for file in earlier:
        file.unlink()
    state = read_checkpoint(path)
    log = (tmp_path / "metrics.jsonl").read_bytes()
    # A step, a network and decisions that are not this run's.
    inner: list[dict[str, Any]] = [
        {"trainer": state["trainer"] | {"step": -1}},
        {"trainer": state["trainer"] | {"model": {}}},
        {"applied": [{"start": 0}]},
        {"sums": {"sums": torch.zeros(1, 5), "seconds": None}},
    ]
    wrong = [other for _, other in itertools.islice(others(state), 3)]
    for other in (*wrong, *(state | values for values in inner)):
        write_checkpoint(path, other)
        with pytest.raises(CheckpointError, match="expected") as caught:
            replay(tiny(), source, tmp_path)
        assert "\n" not in str(caught.value)
    # Nothing was written by those that were refused.
    assert (tmp_path / "metrics.jsonl").read_bytes() == log


def test_a_search_does_not_resume_from_something_else(tmp_path: Path) -> None:
    with RunFolder(tmp_path, TINY) as run:
        log = LearningLog(run)
        log.save()
        state = read_checkpoint(tmp_path / "checkpoints" / "step-000000000.ckpt")
        path = tmp_path / "checkpoints" / "step-000000000.ckpt"
        for what, wrong in others(state):
            write_checkpoint(path, wrong)
            with pytest.raises(CheckpointError, match="expected") as caught:
                LearningLog(run)
            assert "\n" not in str(caught.value), what
        # Names of files in it are not followed.
        policy = {"policy": {"../config.yaml": torch.zeros(2, dtype=torch.uint8)}}
        inner: list[dict[str, Any]] = [policy, {"episodes": [{}]}, {"configuration": "0" * 16}]
        for other in inner:
            write_checkpoint(path, state | other)
            with pytest.raises(CheckpointError, match="expected"):
                LearningLog(run)


def test_parts_of_the_state_of_a_search_agree(tmp_path: Path) -> None:
    episode = Episode(
        number=0,
        schedule=even_schedule([Decision(operator="none")]),
        total_reward=0.5,
        potential=-0.5,
        training_seed=1,
        seconds=1.0,
    )
    with RunFolder(tmp_path, TINY) as run:
        log = LearningLog(run)
        log.add(episode)
        log.save()
        path = tmp_path / "checkpoints" / "step-000000001.ckpt"
        state = read_checkpoint(path)
        assert LearningLog(run).episodes == [episode]
        with pytest.raises(CheckpointError, match="expected the agent of 1 episodes, got none"):
            LearningLog(run).agent_to_resume()
        for count in (0, 2):
            line = torch.cat([state["episodes"], torch.tensor([10], dtype=torch.uint8)])
            write_checkpoint(path, state | {"episodes": line.repeat(count)})
            with pytest.raises(CheckpointError, match="expected the 1 episodes of its log, got"):
                LearningLog(run)


@pytest.mark.parametrize("text", ["x", "[1]\n", "{}\n{", "{}\n\n", "{}"])
def test_a_log_is_not_restored_from_something_else(text: str, tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.add({"step": 1})
    with pytest.raises(CheckpointError, match="expected a line of JSON for each step"):
        log.restore(text)
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1}\n'


@pytest.mark.parametrize(
    "changed", [{"key": None}, {"key": 1}, {"waited_seconds": "1"}, {"journal_line": None}]
)
def test_a_line_of_something_else_costs_its_unit(changed: dict[str, Any], tmp_path: Path) -> None:
    journal = Journal(tmp_path / "units.jsonl")
    journal.add("first", {"value": 1})
    line = json.loads((tmp_path / "units.jsonl").read_text())
    del line["journal_sum"]
    # A key that is None is left out.
    other = {key: value for key, value in (line | changed).items() if value is not None}
    lines: list[dict[str, Any]] = [other, {}, {"a": []}]
    for content in lines:
        with (tmp_path / "units.jsonl").open("ab") as stream:
            stream.write(_with_sum(content))
    assert Journal(tmp_path / "units.jsonl").results == {"first": {"value": 1}}
    assert len((tmp_path / "units.jsonl").read_text().splitlines()) == 1


@pytest.mark.parametrize("values", [{}, {"metrics": []}, {"metrics": {"test": {"a": 1}}}])
def test_an_outcome_of_something_else_is_one_line(values: dict[str, Any]) -> None:
    with pytest.raises(AutoMixError, match="journal: expected the outcome of a training run, got"):
        TrainingOutcome.from_plain(values)


def test_fields_are_named_with_what_is_wrong(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, keep=1, fields={"a": (int, float), "b": (type(None),)})
    folder.save(1, {"a": 0.5, "b": None, "more": []})
    assert folder.load_newest() == {"a": 0.5, "b": None, "more": []}
    folder.save(2, {"a": "1", "b": None})
    with pytest.raises(CheckpointError, match=r"step-000000002\.ckpt: a: expected int or float, "):
        folder.load_newest()
    with pytest.raises(CheckpointError, match=r"^here: b: expected NoneType, got nothing$"):
        check_fields({}, {"b": (type(None),)}, source="here")


def test_a_long_log_is_compared_without_being_read_whole(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.add({"step": 1})
    text = log.synchronized()
    with (tmp_path / "metrics.jsonl").open("r+b") as stream:
        stream.truncate(400_000_000)
    log.restore(text)
    assert (tmp_path / "metrics.jsonl").read_text() == text


def test_episodes_are_few_operations_of_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As plain values, 3,000 of pretraining were more than a reader of checkpoints allows."""
    monkeypatch.setattr("automix.tensor_files._MAX_OPERATIONS", 1000)
    episode = Episode(
        number=0,
        schedule=even_schedule([Decision(operator="none")] * 8),
        total_reward=0.5,
        potential=-0.5,
        training_seed=1,
        seconds=1.0,
        observations=((0.1,) * 60,) * 8,
    )
    with RunFolder(tmp_path, TINY) as run:
        log = LearningLog(run)
        for _ in range(20):
            log.add(episode)
        log.save()
        assert LearningLog(run).episodes == [episode] * 20
