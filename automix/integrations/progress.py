"""Position of a training run, for a schedule in a loop that is not ours."""

import atexit
import inspect
import sys
import warnings
from collections import Counter
from typing import Any

import torch
from torch.utils.data import get_worker_info


def refuse_worker() -> None:
    """Refuse to count batches where each process counts its own, and anew in each epoch.

    Raises:
        RuntimeError: this is a worker process of a `DataLoader`.
    """
    if (worker := get_worker_info()) is not None:
        raise RuntimeError(
            "ScheduledMix: expected a call in the training process, got one in a loader's worker "
            f"(number {worker.id}), where the schedule would start over in every epoch; mix what "
            "the loader returns, or set num_workers=0"
        )


def refuse_collator_of_trainer(*, knows_position: bool) -> None:
    """Refuse soft labels for a Trainer of Transformers without a loss for them.

    Its models make a binary cross-entropy of them, without a word. A schedule has no business in a
    collator at all: batches that are skipped or fetched ahead do not pass it one after the other.

    Args:
        knows_position: whether what is called would be right with a loss for soft labels.

    Raises:
        RuntimeError: this is called by the collator of a Trainer.
    """
    frame, collates = inspect.currentframe(), False
    while frame is not None:
        name = frame.f_globals.get("__name__")
        collates = collates or name == "torch.utils.data._utils.fetch"
        if collates and name == "transformers.trainer":
            loss = getattr(frame.f_locals.get("self"), "compute_loss_func", None)
            if knows_position and loss is not None:
                return
            raise RuntimeError(
                "labels: expected classes from the data_collator of a Trainer, whose model makes a "
                "binary cross-entropy of soft labels, got mixed ones; call "
                "automix.integrations.transformers.mix_in_trainer(trainer, schedule) instead"
            )
        frame = frame.f_back


def steps_of(optimizer: torch.optim.Optimizer) -> int:
    """Return how many steps an optimizer has done, those before a resume included.

    Raises:
        ValueError: it has done some, but does not count them, as SGD with momentum.
    """
    states: list[dict[str, Any]] = [state for state in optimizer.state.values() if state]
    counts = [int(state["step"]) for state in states if "step" in state]
    if states and not counts:
        raise ValueError(
            "step: expected the position of the schedule in a resumed run, got none, and "
            f"{type(optimizer).__name__}, which has done steps, does not count them; load "
            "mix.state_dict() from the checkpoint, or call mix.set_progress(epoch=..., "
            "num_epochs=...)"
        )
    return max(counts, default=0)


class Calls(Counter[str]):
    """Batches by what was done to them, since a schedule was bound."""

    # Of the whole process, for `warn_if_never_called`.
    num_bound = num_called = 0

    def __init__(self) -> None:
        """Count nothing yet."""
        super().__init__()
        Calls.num_bound += 1

    def count(self, name: str) -> None:
        """Count a batch."""
        Calls.num_called += 1
        self[name] += 1

    def line(self, *, step: int, total_steps: int) -> str:
        """Return the counts as text, after the number of the next batch."""
        counts = ", ".join(f"{name} {count}" for name, count in sorted(self.items()))
        text = f"next batch {step} of {total_steps}; since it was bound: {counts or 'no batch'}"
        if step > total_steps:
            text += f"; {step - total_steps} beyond the end, where the last mixture holds"
        return text


@atexit.register
def warn_if_never_called() -> None:
    """Warn if schedules were bound and no batch ever came; not after an error."""
    if not Calls.num_bound or Calls.num_called or getattr(sys, "last_value", None) is not None:
        return
    warnings.warn(
        "ScheduledMix: expected batches, got none until the end of the process: nothing was mixed; "
        "call it between the loader and the network (for timm's train.py: python -m "
        "automix.integrations.timm)",
        stacklevel=1,
    )
