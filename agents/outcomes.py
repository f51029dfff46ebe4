"""Table of outcomes: which schedule reached what in which task. JSON and safetensors, no pickle."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

import safetensors.torch
import torch
from pydantic import Field, model_validator

from automix.configuration.base import Config
from automix.errors import CheckpointError
from automix.files import write_bytes, write_json
from automix.mixture import Mixing, Mixture
from automix.schedule import Schedule, even_schedule
from automix.tensor_files import read_weights
from envs.observations import TaskFacts

FACTS_NAME = "outcomes.json"
TENSORS_NAME = "outcomes.safetensors"
OUTCOME_FILES = (FACTS_NAME, TENSORS_NAME)
MAX_ROWS = 1_000_000
_MAX_BYTES = 100_000_000

Start = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1, le=1_000_000_000)]


class TaskRow(Config):
    """A task of the table.

    Attributes:
        source: name of its images.
        facts: its description.
        mean, deviation: of the potentials that random schedules reach in it.
    """

    source: Annotated[str, Field(min_length=1, max_length=200)]
    num_classes: Count
    images_per_class: Annotated[float, Field(gt=0, le=1e9)]
    image_side: Count
    channels: Count
    epochs: Count
    steps: Count
    mean: float
    deviation: Annotated[float, Field(gt=0)]

    @classmethod
    def of(cls, source: str, facts: TaskFacts, *, mean: float, deviation: float) -> Self:
        """Return the row of a task with these facts."""
        return cls(source=source, mean=mean, deviation=deviation, **dataclasses.asdict(facts))

    @property
    def facts(self) -> TaskFacts:
        """Its description."""
        return TaskFacts(
            **{field.name: getattr(self, field.name) for field in dataclasses.fields(TaskFacts)}
        )


class _Facts(Config):
    """The file of facts."""

    format: Literal["automix-outcomes"] = "automix-outcomes"
    version: Literal[1] = 1
    starts: Annotated[
        tuple[Annotated[float, Field(ge=0, lt=1)], ...], Field(min_length=1, max_length=1000)
    ]
    choices: Annotated[tuple[Mixture, ...], Field(min_length=1, max_length=10_000)]
    tasks: Annotated[tuple[TaskRow, ...], Field(max_length=100_000)]
    num_rows: Annotated[int, Field(ge=0, le=MAX_ROWS)]

    @model_validator(mode="after")
    def _starts_rise(self) -> Self:
        if self.starts[0] != 0 or list(self.starts) != sorted(set(self.starts)):
            raise ValueError(f"expected rising starts from 0 on, got {list(self.starts)}")
        return self


class OutcomeTable:
    """Outcomes of training runs in several tasks, of schedules among the same choices.

    An outcome is the number of deviations by which a run ends above random schedules in its task.

    Examples:
        >>> from automix.schedule import Decision, constant_schedule
        >>> none = Decision(operator="none")
        >>> table = OutcomeTable([none], [0.0, 0.5])
        >>> facts = TaskFacts(
        ...     num_classes=10, images_per_class=20, image_side=8, channels=1, epochs=60, steps=240
        ... )
        >>> table.add_task(TaskRow.of("digits", facts, mean=-0.2, deviation=0.03))
        >>> table.add(0, constant_schedule(none), -1.5)
        >>> len(table)
        1
    """

    def __init__(self, choices: Sequence[Mixing], starts: Sequence[float]) -> None:
        """Start an empty table of schedules whose segments begin at ``starts``."""
        self.choices = tuple(map(Mixture.of, choices))
        self.starts = tuple(starts)
        self.tasks: list[TaskRow] = []
        # One per row.
        self.task_of: list[int] = []
        self.decisions: list[list[int]] = []
        self.outcomes: list[float] = []
        self._index = {choice: number for number, choice in enumerate(self.choices)}

    def __len__(self) -> int:
        """Return the number of training runs."""
        return len(self.outcomes)

    def add_task(self, row: TaskRow) -> None:
        """Append a task, whose number is that of the tasks before it."""
        self.tasks.append(row)

    def add(self, task: int, schedule: Schedule, outcome: float) -> None:
        """Append a training run.

        Raises:
            KeyError: a segment of the schedule is not among the choices.
        """
        self.decisions.append([self._index[one] for one in schedule.averaged(self.starts)])
        self.task_of.append(task)
        self.outcomes.append(outcome)

    def schedule(self, row: int) -> Schedule:
        """Return the schedule of a training run."""
        mixtures = [self.choices[index] for index in self.decisions[row]]
        return even_schedule(mixtures).at_starts(self.starts)

    def save(self, folder: Path) -> None:
        """Write `outcomes.json` and `outcomes.safetensors` into ``folder``."""
        tensors = {
            "task": torch.tensor(self.task_of, dtype=torch.int32),
            "choice": torch.tensor(self.decisions, dtype=torch.int16).reshape(len(self), -1),
            "outcome": torch.tensor(self.outcomes, dtype=torch.float32),
        }
        facts = _Facts(
            starts=self.starts,
            choices=self.choices,
            tasks=tuple(self.tasks),
            num_rows=len(self),
        )
        write_bytes(folder / TENSORS_NAME, safetensors.torch.save(tensors))
        write_json(folder / FACTS_NAME, facts.model_dump(mode="json"))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read a table that `save` wrote.

        Raises:
            CheckpointError: a file is missing, or is no such table.
        """
        facts = _Facts.from_json_file(folder / FACTS_NAME)
        path, rows = folder / TENSORS_NAME, facts.num_rows
        tensors = read_weights(
            path,
            {
                "task": torch.empty(rows, dtype=torch.int32, device="meta"),
                "choice": torch.empty(rows, len(facts.starts), dtype=torch.int16, device="meta"),
                "outcome": torch.empty(rows, dtype=torch.float32, device="meta"),
            },
            limit=_MAX_BYTES,
        )
        _check_numbers(path, tensors["task"], len(facts.tasks), "tasks")
        _check_numbers(path, tensors["choice"], len(facts.choices), "choices")
        if not tensors["outcome"].isfinite().all():
            raise CheckpointError(f"{path}: expected finite outcomes, got others")
        table = cls(facts.choices, facts.starts)
        table.tasks = list(facts.tasks)
        table.task_of = tensors["task"].tolist()
        table.decisions = tensors["choice"].tolist()
        table.outcomes = tensors["outcome"].tolist()
        return table


def _check_numbers(path: Path, numbers: torch.Tensor, count: int, of_what: str) -> None:
    if numbers.numel() and not 0 <= int(numbers.min()) <= int(numbers.max()) < count:
        raise CheckpointError(
            f"{path}: expected numbers of its {count} {of_what}, got "
            f"{int(numbers.min())} to {int(numbers.max())}"
        )
