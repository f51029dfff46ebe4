"""Tables of outcomes, and what they say of a task that no run was trained in."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from agents.outcomes import OutcomeTable, TaskRow
from agents.prior import Prior
from automix.errors import AutoMixError
from automix.schedule import Decision, even_schedule
from envs.observations import TaskFacts

NONE = Decision(operator="none")
MIXUP = Decision(operator="mixup")
CUTMIX = Decision(operator="cutmix")
CHOICES = (NONE, MIXUP, CUTMIX)
STARTS = (0.0, 0.25, 0.5, 0.75)


def facts(images_per_class: float) -> TaskFacts:
    return TaskFacts(
        num_classes=10,
        images_per_class=images_per_class,
        image_side=8,
        channels=1,
        epochs=60,
        steps=240,
    )


def effect(choice: Decision, segment: int, images_per_class: float) -> float:
    """Return what a choice adds: Mixup helps with few labels, CutMix with many, late neither."""
    if choice is NONE or segment == 3:
        return 0.0 if choice is NONE else -0.5
    few = 1.0 if images_per_class < 100 else -1.0
    return few if choice is MIXUP else -few


def table(num_tasks: int = 12, runs: int = 24, *, noise: float = 0.3) -> OutcomeTable:
    generator = np.random.default_rng(0)
    result = OutcomeTable(CHOICES, STARTS)
    for task in range(num_tasks):
        count = float(10 ** (1 if task % 2 else 3)) * generator.uniform(0.8, 1.2)
        result.add_task(TaskRow.of("toy", facts(count), mean=-1.0, deviation=0.5))
        for _ in range(runs):
            chosen = [CHOICES[index] for index in generator.integers(3, size=4)]
            outcome = sum(effect(one, segment, count) for segment, one in enumerate(chosen))
            schedule = even_schedule(chosen)
            result.add(task, schedule, outcome + noise * generator.standard_normal())
    return result


TABLE = table()


def test_a_saved_table_is_the_same(tmp_path: Path) -> None:
    TABLE.save(tmp_path)
    again = OutcomeTable.load(tmp_path)
    assert again.choices == TABLE.choices
    assert again.starts == TABLE.starts
    assert again.tasks == TABLE.tasks
    assert (again.task_of, again.decisions) == (TABLE.task_of, TABLE.decisions)
    assert again.outcomes == pytest.approx(TABLE.outcomes, rel=1e-6)
    assert again.schedule(3) == TABLE.schedule(3)


@pytest.mark.parametrize(
    ("images_per_class", "best"), [(10, MIXUP), (1000, CUTMIX)], ids=["few", "many"]
)
def test_the_prior_of_a_new_task_depends_on_its_description(
    images_per_class: float, best: Decision
) -> None:
    prior = Prior.of(TABLE, facts(images_per_class))
    assert prior.best_schedule() == even_schedule([best, best, best, NONE])


def test_the_prior_of_other_segments_divides_effects_by_time() -> None:
    prior = Prior.of(TABLE, facts(10))
    halves = Prior.of(TABLE, facts(10), starts=(0.0, 0.5))
    assert halves.effects == pytest.approx(
        np.stack([prior.effects[:2].sum(axis=0), prior.effects[2:].sum(axis=0)])
    )
    eighths = Prior.of(TABLE, facts(10), starts=tuple(index / 8 for index in range(8)))
    assert eighths.effects[::2] + eighths.effects[1::2] == pytest.approx(prior.effects)


def test_choices_that_no_run_has_mixed_are_judged_by_what_is_alike() -> None:
    weak = Decision(operator="mixup", strength=0.2)
    foreign = Decision(operator="fmix")
    prior = Prior.of(TABLE, facts(10), choices=(NONE, MIXUP, weak, foreign))
    none, mixup, like_mixup, unknown = prior.effects[0] - prior.effects[0, 0]
    assert none == 0
    assert like_mixup > 0
    assert abs(unknown) < like_mixup < mixup


def test_runs_of_the_task_itself_overrule_the_prior() -> None:
    prior = Prior.of(TABLE, facts(10))
    generator = np.random.default_rng(1)
    schedules, values = [], []
    for _ in range(64):
        chosen = [CHOICES[index] for index in generator.integers(3, size=4)]
        schedules.append(even_schedule(chosen))
        # As in tasks of many labels: the opposite.
        values.append(0.01 * sum(effect(one, place, 1000) for place, one in enumerate(chosen)))
    fit = prior.updated(schedules, values)
    assert fit.best_schedule() == even_schedule([CUTMIX, CUTMIX, CUTMIX, NONE])
    few = prior.updated(schedules[:4], values[:4])
    assert few.best_schedule() == prior.best_schedule()


def test_a_prior_saves_runs_in_a_task_like_the_others() -> None:
    generator = np.random.default_rng(2)
    right = {True: 0, False: 0}
    for _ in range(10):
        schedules, values = [], []
        for _ in range(8):
            chosen = [CHOICES[index] for index in generator.integers(3, size=4)]
            schedules.append(even_schedule(chosen))
            outcome = sum(effect(one, place, 10) for place, one in enumerate(chosen))
            values.append(outcome + generator.standard_normal())
        informed = Prior.of(TABLE, facts(10))
        blank = Prior(
            choices=informed.choices, starts=STARTS, effects=np.zeros_like(informed.effects)
        )
        for prior, is_informed in ((informed, True), (blank, False)):
            best = prior.updated(schedules, values).best_schedule()
            right[is_informed] += best == even_schedule([MIXUP, MIXUP, MIXUP, NONE])
    assert right[True] >= 8
    assert right[True] > right[False]


def forged(facts_of: dict[str, Any] | None = None, **tensors: torch.Tensor) -> Any:
    def forge(folder: Path) -> None:
        path = folder / "outcomes.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | (facts_of or {})))
        path = folder / "outcomes.safetensors"
        kept = safetensors.torch.load_file(path)
        safetensors.torch.save_file(kept | tensors, path)

    return forge


ROWS = len(TABLE)


@pytest.mark.parametrize(
    "forge",
    [
        forged({"version": 2}),
        forged({"format": "automix-policy"}),
        forged({"num_rows": 2_000_000_000}),
        forged({"num_rows": 3}),
        forged({"starts": [0.0, 0.5, 0.25, 0.75]}),
        forged({"starts": [0.1]}),
        forged({"choices": []}),
        forged({"tasks": [{"source": "x"}]}),
        forged({"tasks": []}),
        forged({"extra": 1}),
        forged(task=torch.full((ROWS,), 99, dtype=torch.int32)),
        forged(task=torch.full((ROWS,), -1, dtype=torch.int32)),
        forged(choice=torch.full((ROWS, 4), 3, dtype=torch.int16)),
        forged(choice=torch.zeros(ROWS, 5, dtype=torch.int16)),
        forged(outcome=torch.full((ROWS,), float("nan"))),
        forged(outcome=torch.zeros(ROWS, dtype=torch.float64)),
        forged(more=torch.zeros(1)),
        lambda folder: (folder / "outcomes.safetensors").write_bytes(b"\x80\x04."),
        lambda folder: (folder / "outcomes.json").write_text("[" * 100_000),
        lambda folder: (folder / "outcomes.json").unlink(),
        lambda folder: (folder / "outcomes.safetensors").unlink(),
    ],
)
def test_a_table_that_is_none_is_refused_in_one_line(forge: Any, tmp_path: Path) -> None:
    TABLE.save(tmp_path)
    forge(tmp_path)
    with pytest.raises(AutoMixError) as caught:
        OutcomeTable.load(tmp_path)
    assert "\n" not in str(caught.value)
