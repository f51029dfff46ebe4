"""A schedule is where its run is: after a resume, in workers, and at the end of the process."""

import math
import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset, default_collate

from automix.integrations import ScheduledMix
from automix.integrations.progress import Calls, warn_if_never_called
from automix.schedule import Decision, Schedule, constant_schedule, even_schedule

NUM_CLASSES, STEPS = 4, 12
IN_TURN = even_schedule(
    [Decision(operator="mixup"), Decision(operator="cutmix"), Decision(operator="none")]
)
OPTIMIZERS = [torch.optim.AdamW, torch.optim.Adam, torch.optim.RAdam, torch.optim.RMSprop]


def batch(step: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(step)
    return torch.rand(4, 3, 8, 8, generator=generator), torch.arange(4)


def new_mix(schedule: Schedule = IN_TURN, **options: Any) -> ScheduledMix:
    return ScheduledMix(schedule, num_classes=NUM_CLASSES, total_steps=STEPS, **options)


def expected(step: int) -> Tensor:
    mix = new_mix()
    mix.step = step
    return mix(*batch(step))[0]


def trained(kind: type[torch.optim.Optimizer], steps: int, **options: Any) -> torch.optim.Optimizer:
    model = nn.Linear(3, NUM_CLASSES)
    optimizer = kind(model.parameters(), **{"lr": 0.1} | options)
    for _ in range(steps):
        optimizer.zero_grad()
        torch.autograd.backward(model(torch.ones(2, 3)).sum())
        optimizer.step()
    resumed = kind(model.parameters(), **{"lr": 0.1} | options)
    resumed.load_state_dict(optimizer.state_dict())
    return resumed


@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_resumed_loop_that_forgets_the_state(
    kind: type[torch.optim.Optimizer], accumulation: int
) -> None:
    mix = new_mix(optimizer=trained(kind, 5), accumulation=accumulation)
    step = 5 * accumulation
    with pytest.warns(UserWarning, match=f"has done 5 steps, so it resumes at batch {step}"):
        images, _ = mix(*batch(step))
    assert torch.equal(images, expected(step))
    # Said once; then it counts by itself.
    assert torch.equal(mix(*batch(step + 1))[0], expected(step + 1))


def test_a_new_run_and_a_loaded_state_stay_where_they_are() -> None:
    new = new_mix(optimizer=trained(torch.optim.AdamW, 0))
    assert torch.equal(new(*batch(0))[0], expected(0))
    loaded = new_mix(optimizer=trained(torch.optim.AdamW, 5))
    loaded.load_state_dict({"step": 3, "mixup_enabled": True, "previous": None})
    assert torch.equal(loaded(*batch(3))[0], expected(3))


def test_an_optimizer_that_does_not_count_is_told() -> None:
    optimizer = trained(torch.optim.SGD, 5, momentum=0.9)
    with pytest.raises(ValueError, match=r"SGD, which has done steps, .* mix.set_progress"):
        new_mix(optimizer=optimizer)(*batch(0))
    mix = new_mix(optimizer=optimizer)
    mix.set_progress(step=0)
    assert torch.equal(mix(*batch(0))[0], expected(0))
    mix.set_progress(epoch=2, num_epochs=4)
    assert torch.equal(mix(*batch(6))[0], expected(6))


@pytest.mark.parametrize(
    ("where", "step"),
    [
        ({"step": 0}, 0),
        ({"step": 7}, 7),
        ({"epoch": 0, "num_epochs": 4}, 0),
        ({"epoch": 3, "num_epochs": 4}, 9),
        ({"epoch": 1, "num_epochs": 5}, 2),
    ],
)
def test_progress_is_a_step_or_an_epoch(where: dict[str, int], step: int) -> None:
    mix = new_mix()
    mix(*batch(0))
    mix.set_progress(**where)
    assert mix.step == step
    assert torch.equal(mix(*batch(step))[0], expected(step))


@pytest.mark.parametrize(
    "where",
    [
        {},
        {"epoch": 1},
        {"num_epochs": 4},
        {"step": 1, "epoch": 1},
        {"step": -1},
        {"step": 0.5},
        {"epoch": math.nan, "num_epochs": 2},
        {"epoch": 1, "num_epochs": 0},
    ],
)
def test_progress_that_is_none(where: dict[str, Any]) -> None:
    mix = new_mix()
    with pytest.raises(ValueError, match=r"(set_progress|step|epoch|num_epochs): expected"):
        mix.set_progress(**where)
    assert mix.step == 0


def test_recursivemix_begins_anew_where_it_is_put() -> None:
    schedule = constant_schedule(Decision(operator="recursivemix"))
    mix, other = new_mix(schedule), new_mix(schedule)
    mix(*batch(0))
    mix.set_progress(step=1)
    assert mix.state_dict()["previous"] is not None
    mix.set_progress(step=5)
    other.step = 5
    assert torch.equal(mix(*batch(5))[0], other(*batch(5))[0])


def test_a_summary_counts_what_was_done() -> None:
    mix = new_mix()
    for step in range(STEPS + 2):
        mix(*batch(step))
    assert mix.summary() == (
        "next batch 14 of 12; since it was bound: cutmix 4, mixup 4, unmixed 6; 2 beyond the end, "
        "where the last mixture holds"
    )


def test_a_loaders_worker_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    mix = new_mix()
    data = TensorDataset(*batch(0))

    def collate(items: list[Any]) -> Any:
        return mix(*default_collate(items))

    images, _ = next(iter(DataLoader(data, 4, collate_fn=collate)))
    assert torch.equal(images, expected(0))
    # Also of an object that has mixed in the training process, which a fork takes along.
    workers = DataLoader(data, 4, collate_fn=collate, num_workers=1, multiprocessing_context="fork")
    with pytest.raises(RuntimeError, match=r"ScheduledMix: .* got one in a loader's worker"):
        next(iter(workers))


def test_a_process_in_which_nothing_was_mixed_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Calls, "num_bound", 0)
    monkeypatch.setattr(Calls, "num_called", 0)
    warn_if_never_called()
    mix = new_mix()
    with pytest.warns(UserWarning, match="ScheduledMix: expected batches, got none"):
        warn_if_never_called()
    monkeypatch.setattr(sys, "last_value", ValueError(), raising=False)
    warn_if_never_called()
    monkeypatch.undo()
    mix(*batch(0))
    warn_if_never_called()
