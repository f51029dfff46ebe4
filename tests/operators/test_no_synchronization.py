"""The applying halves never make the host wait for the device."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from automix.operator_info import Operator
from automix.operators.guidedmixup import greedy_cycle
from automix.operators.registry import OPERATORS
from tests.operators.cases import (
    ALL,
    NUM_CLASSES,
    Scenario,
    apply,
    classes,
    draw,
    previous_batch,
    random_images,
    random_saliency,
)

# What reads a value, or returns a shape that depends on values.
WAITING = (
    "_local_scalar_dense",
    "equal",
    "is_nonzero",
    "item",
    "masked_select",
    "nonzero",
    "nonzero_numpy",
    "repeat_interleave.Tensor",
    "unique",
    "_unique2",
    "unique_consecutive",
    "unique_dim",
)


class RecordedOperations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Lists the names of all operations."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: list[str] = []

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        self.names.append(f"{func.overloadpacket.__name__}.{func._overloadname}")
        is_mask = [
            isinstance(index, Tensor) and index.dtype == torch.bool
            for argument in args[1:2]
            if isinstance(argument, list | tuple)
            for index in argument
        ]
        if any(is_mask):
            self.names.append("nonzero.of_a_boolean_index")
        return func(*args, **(kwargs or {}))

    def waiting(self) -> list[str]:
        return [name for name in self.names if name in WAITING or name.partition(".")[0] in WAITING]


@contextmanager
def no_copies_to_the_host(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def refuse(name: str) -> Callable[..., None]:
        def refused(*args: object, **kwargs: object) -> None:
            raise AssertionError(f"Tensor.{name} was called")

        return refused

    with monkeypatch.context() as patch:
        for name in ("numpy", "__array__", "tolist", "item", "cpu", "__bool__", "__float__"):
            patch.setattr(Tensor, name, refuse(name))
        yield


def recorded(call: Callable[[], object]) -> RecordedOperations:
    operations = RecordedOperations()
    with operations:
        call()
    assert operations.names
    return operations


@pytest.fixture(autouse=True)
def as_on_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the way of devices that a host would wait for; `test_host` compares both ways."""
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)


@pytest.mark.parametrize("operator", ALL)
@pytest.mark.parametrize("scenario", [Scenario(5), Scenario(4, size=(13, 17))], ids=str)
def test_applying_reads_nothing(
    operator: Operator, scenario: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, targets = random_images(scenario), classes(scenario)
    draws, saliency = draw(operator, images), random_saliency(scenario)
    previous = previous_batch(scenario)
    apply_half = OPERATORS[operator].apply

    def call() -> None:
        apply_half(
            images,
            targets,
            draws,
            num_classes=NUM_CLASSES,
            saliency_BHW=saliency,
            previous=previous,
        )

    with no_copies_to_the_host(monkeypatch):
        assert recorded(call).waiting() == []


def test_greedy_pairing_reads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    maps = random_saliency(Scenario(9)).flatten(1)
    with no_copies_to_the_host(monkeypatch):
        assert recorded(lambda: greedy_cycle(maps)).waiting() == []


@pytest.mark.parametrize("operator", ALL)
def test_no_loop_over_the_batch(operator: Operator) -> None:
    counts = []
    for batch in (5, 11):
        scenario = Scenario(batch)
        images = random_images(scenario)
        draws = draw(operator, images)

        def call(
            scenario: Scenario = scenario, images: Tensor = images, draws: Any = draws
        ) -> None:
            apply(operator, scenario, images, draws)

        counts.append(len(recorded(call).names))
    assert counts[0] == counts[1]


@pytest.mark.parametrize(
    "waits",
    [
        lambda x: float(x.sum()),
        lambda x: x[x > 0],
        torch.nonzero,
        lambda x: x.masked_select(x > 0),
        lambda x: bool((x > 0).any()),
        lambda x: torch.nn.functional.one_hot(x.long()),
    ],
)
def test_the_recorder_sees_what_waits(waits: Callable[[Tensor], object]) -> None:
    assert recorded(lambda: waits(torch.ones(3))).waiting()


def test_the_patches_see_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    with no_copies_to_the_host(monkeypatch), pytest.raises(AssertionError, match=r"Tensor\.numpy"):
        torch.ones(3).numpy()
