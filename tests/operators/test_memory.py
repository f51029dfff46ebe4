"""No operator takes more than ten times the memory of its batch beyond what it is given."""

import pytest
import torch

from benchmarks.contenders import all_variants, our_call, pairing_call
from benchmarks.inputs import synthetic_batch
from benchmarks.measure import peak_bytes
from tests.operators.cases import seeded

MOST_BATCHES = 10
CPU = torch.device("cpu")


@pytest.mark.parametrize("batch", [16, 128])
@pytest.mark.parametrize("name", all_variants())
def test_peak_of_an_operator(name: str, batch: int) -> None:
    inputs = synthetic_batch((batch, 3, 32, 32), num_classes=10, generator=seeded(0))
    call = our_call(all_variants()[name], inputs, seeded(1))
    assert 0 < peak_bytes(call, CPU) <= MOST_BATCHES * inputs.images.nbytes


def test_peak_of_the_greedy_pairing() -> None:
    inputs = synthetic_batch((128, 3, 32, 32), num_classes=10, generator=seeded(0))
    assert peak_bytes(pairing_call(inputs), CPU) <= MOST_BATCHES * inputs.images.nbytes
