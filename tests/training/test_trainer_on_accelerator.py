"""Training on an accelerator: no wait for the device within a step, and every way to be faster."""

import contextlib
import math
from collections.abc import Callable, Iterator

import pytest
import torch

from automix.data.splits import SearchData, Split
from automix.operator_info import Operator
from automix.operators.registry import OPERATORS
from automix.schedule import Decision
from automix.training.metrics import RunningSums
from automix.training.trainer import ClassifierTrainer
from tests.training.conftest import TOTAL_STEPS, MakeTrainer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.accelerator.is_available(), reason="no accelerator"),
]
FAST = {"precision": "bf16", "channels_last": True}


@contextlib.contextmanager
def waiting_is_an_error() -> Iterator[None]:
    """Let every operation fail that makes the host wait for the device."""
    accelerator = torch.accelerator.current_accelerator()
    assert accelerator is not None
    set_mode: Callable[[str], None] | None = getattr(
        torch.get_device_module(accelerator), "set_sync_debug_mode", None
    )
    if set_mode is None:
        pytest.skip(f"{accelerator.type} does not tell when the host waits")
    set_mode("error")
    try:
        yield
    finally:
        set_mode("default")


@pytest.mark.parametrize("fields", [{}, FAST, {"precision": "fp16", "max_grad_norm": 1.0}])
@pytest.mark.parametrize("operator", list(OPERATORS))
def test_steps_do_not_wait(
    make_trainer: MakeTrainer, operator: Operator, fields: dict[str, object]
) -> None:
    trainer, decision = make_trainer(**fields), Decision(operator=operator)
    sums = RunningSums(trainer.device)
    # The first steps allocate, and choose among kernels.
    trainer.train(decision, num_steps=2, sums=sums)
    with waiting_is_an_error():
        # Four steps: a new epoch begins among them.
        trainer.train(decision, num_steps=4, sums=sums)
    assert math.isfinite(sums.read().loss)


def test_the_check_sees_what_waits() -> None:
    value = torch.ones(2, device=torch.accelerator.current_accelerator())
    with waiting_is_an_error(), pytest.raises(RuntimeError, match="synchroniz"):
        value.sum().item()


@pytest.mark.parametrize(
    "fields",
    [
        FAST,
        {"precision": "fp16"},
        {"compile": True},
        FAST | {"compile": True, "accumulation": 2},
        {"compile": True, "cuda_graphs": True},
    ],
    ids=str,
)
def test_faster_ways_learn_as_well(
    make_trainer: MakeTrainer, search_data: SearchData, fields: dict[str, object]
) -> None:
    images = search_data.train
    assert isinstance(images, Split)

    def accuracy(trainer: ClassifierTrainer) -> float:
        trainer.train(Decision(operator=Operator.RMIX, probability=0.5), num_steps=TOTAL_STEPS * 5)
        return trainer.evaluate(images).accuracy

    plain, fast = make_trainer(epochs=20), make_trainer(epochs=20, **fields)
    assert fast.device.type != "cpu"
    assert accuracy(fast) > accuracy(plain) - 0.2
