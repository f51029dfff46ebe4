"""A replay that is stopped after any step is resumed to the same bits."""

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from automix.configuration.task import ReplayConfig
from automix.errors import CheckpointError
from automix.experiments.replay import run as replay_loop
from automix.experiments.replay.deciders import ScheduleSource
from automix.experiments.replay.run import replay
from automix.files import read_checkpoint, write_checkpoint
from automix.mixing import StepKey, draw_decision
from automix.mixture import Decision, Mixture, equal_mixture
from automix.operator_info import Operator
from automix.schedule import mix_then_off
from tests.equality import are_same, assert_same, untouched_generators
from tests.experiments.tiny_replay import (
    FAMILIES,
    TOTAL_STEPS,
    Stops,
    attempts,
    outputs,
    schedule_of,
    tiny,
)

# Every family and every setting, and most pairs of settings.
CASES = [
    ("none", tiny()),
    ("random", tiny(ema_decay=0.0, accumulation=2)),
    ("saliency_max", tiny(precision="bf16")),
    ("saliency_optimal", tiny(ema_decay=0.0, precision="bf16", accumulation=2)),
    ("grafting", tiny(accumulation=2)),
    ("grafting", tiny(refresh_every=2, optimizer="adamw", learning_rate=1e-3)),
    ("between", tiny(ema_decay=0.0, precision="bf16")),
    ("recursive", tiny(accumulation=2, precision="bf16")),
    ("recursive", tiny(ema_decay=0.0, label_smoothing=0.1)),
]
EVERY_CASE = [
    (family, tiny(refresh, ema_decay=ema_decay, precision=precision, accumulation=accumulation))
    for family, ema_decay, precision, accumulation, refresh in itertools.product(
        FAMILIES, (0.0, 0.9), ("fp32", "bf16"), (1, 2), (1, 3)
    )
    if refresh == 1 or family in ("saliency_max", "saliency_optimal", "grafting")
]


def name_of(value: object) -> str | None:
    if isinstance(value, ReplayConfig):
        trainer = value.task.trainer
        return (
            f"ema{trainer.ema_decay:g}-{trainer.precision}-accumulate{trainer.accumulation}-"
            f"refresh{value.task.saliency.refresh_every}"
        )
    return None


@pytest.mark.parametrize(("family", "config"), CASES, ids=name_of)
def test_a_replay_that_is_stopped_after_every_step_ends_in_the_same_bits(
    family: str, config: ReplayConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    schedule = schedule_of(FAMILIES[family])
    with untouched_generators():
        replay(config, schedule, tmp_path / "whole")
        stops = Stops(monkeypatch)
        stops.steps = set(range(TOTAL_STEPS))
        assert len(list(attempts(config, schedule, tmp_path / "cut"))) == TOTAL_STEPS + 1
    assert_same(outputs(tmp_path / "cut"), outputs(tmp_path / "whole"))


def test_a_replay_of_mixtures_that_is_stopped_after_every_step_ends_in_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cutmix, recursive = Decision(operator=Operator.CUTMIX), Decision(operator=Operator.RECURSIVEMIX)
    mixture = equal_mixture([cutmix, recursive, Decision(operator=Operator.NONE)])
    source, config = ScheduleSource(mix_then_off(mixture, off_from=0.75)), tiny(accumulation=2)
    replay(config, source, tmp_path / "whole")
    stops = Stops(monkeypatch)
    stops.steps = set(range(TOTAL_STEPS))
    assert len(list(attempts(config, source, tmp_path / "cut"))) == TOTAL_STEPS + 1
    assert_same(outputs(tmp_path / "cut"), outputs(tmp_path / "whole"))
    applied = json.loads((tmp_path / "cut/decisions.json").read_text())["runs"]
    assert [(run["start"], run["stop"], Mixture.from_entry(run)) for run in applied] == [
        (0, 7, mixture), (7, TOTAL_STEPS, Mixture.of(Decision(operator=Operator.NONE))),
    ]  # fmt: skip
    lines = [json.loads(line) for line in (tmp_path / "cut/metrics.jsonl").read_text().splitlines()]
    mixed = [line for line in lines if line.get("decision") == mixture.label()]
    # Every step is a line, which tells what was drawn by the key of the step.
    for step, line in enumerate(mixed):
        drawn = draw_decision(mixture, StepKey(seed=config.seed, step=step))
        assert line["train/mixed_fraction"] == (drawn is not None)
        for name in mixture.operators:
            is_drawn = drawn is not None and drawn.operator is name
            assert line[f"operator/{name.value}"] == is_drawn


@pytest.mark.slow
@pytest.mark.parametrize(("family", "config"), EVERY_CASE, ids=name_of)
def test_a_replay_that_is_stopped_once_at_any_step_ends_in_the_same_bits(
    family: str, config: ReplayConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    schedule = schedule_of(FAMILIES[family])
    replay(config, schedule, tmp_path / "whole")
    whole = outputs(tmp_path / "whole")
    stops = Stops(monkeypatch)
    for step in range(TOTAL_STEPS):
        stops.steps = {step}
        assert list(attempts(config, schedule, tmp_path / f"{step}")) == [False, True]
        assert_same(outputs(tmp_path / f"{step}"), whole)


Change = Callable[[dict[str, Any]], None]


def _zero_momentum(state: dict[str, Any]) -> None:
    for values in state["trainer"]["updates"]["optimizer"]["state"].values():
        values["momentum_buffer"].zero_()


def _forget(name: str) -> Change:
    def change(state: dict[str, Any]) -> None:
        assert state["trainer"]["shares"][0][name] is not None
        state["trainer"]["shares"][0][name] = None

    change.__name__ = f"_forget_{name}"
    return change


def _one_step_more(state: dict[str, Any]) -> None:
    state["trainer"]["step"] += 1


def _one_bit(state: dict[str, Any]) -> None:
    weights = next(iter(state["trainer"]["model"].values()))
    weights.view(-1).view(torch.int32)[0] ^= 1


def _old_average(state: dict[str, Any]) -> None:
    state["trainer"]["updates"]["average"] = state["trainer"]["model"]


def _fresh_sums(state: dict[str, Any]) -> None:
    state["sums"]["sums"].zero_()


def _better_best(state: dict[str, Any]) -> None:
    state["best"]["metrics"]["calibrated_nll"] = 0.0


def _no_statistics(state: dict[str, Any]) -> None:
    for name, value in state["trainer"]["model"].items():
        if "running" in name:
            value.zero_()


def _lost_lines(state: dict[str, Any]) -> None:
    state["metrics"] = "".join(state["metrics"].splitlines(keepends=True)[:-1])


STOPPED_AFTER = 4
# What is changed, under which operator, and how long saliency maps are kept.
PARTS: list[tuple[Change, Operator, int]] = [
    (_zero_momentum, Operator.CUTMIX, 1),
    (_one_bit, Operator.CUTMIX, 1),
    (_old_average, Operator.CUTMIX, 1),
    (_no_statistics, Operator.CUTMIX, 1),
    (_better_best, Operator.CUTMIX, 1),
    (_lost_lines, Operator.CUTMIX, 1),
    (_fresh_sums, Operator.CUTMIX, 1),
    (_one_step_more, Operator.CUTMIX, 1),
    (_forget("previous"), Operator.RECURSIVEMIX, 1),
    (_forget("saliency"), Operator.SALIENCYMIX, 5),
]


@pytest.mark.parametrize(
    ("change", "operator", "refresh_every"), PARTS, ids=lambda value: getattr(value, "__name__", "")
)
def test_each_part_of_a_checkpoint_matters(
    change: Change,
    operator: Operator,
    refresh_every: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The guard of the tests above: they notice if something is not restored."""
    config, schedule = tiny(refresh_every), schedule_of(operator)
    # With a logged line every third step, the sums of a stretch are under way at the stop.
    monkeypatch.setattr(replay_loop, "_LOGGED_STRETCHES", 3)
    replay(config, schedule, tmp_path / "whole")
    stops = Stops(monkeypatch)
    stops.steps = {STOPPED_AFTER - 1}
    folder = tmp_path / "cut"
    replaying = attempts(config, schedule, folder)
    assert next(replaying) is False
    file = folder / f"checkpoints/step-{STOPPED_AFTER:09d}.ckpt"
    state = read_checkpoint(file)
    change(state)
    assert not are_same(state, read_checkpoint(file))
    write_checkpoint(file, state)
    if change is _one_step_more:
        with pytest.raises(CheckpointError, match="decisions"):
            next(replaying)
    else:
        assert next(replaying) is True
        assert not are_same(outputs(folder), outputs(tmp_path / "whole"))
