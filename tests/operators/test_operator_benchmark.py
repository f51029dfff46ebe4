import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from automix.operators.registry import OPERATORS
from benchmarks.contenders import all_variants, named_function, neighbors, our_call, pairing_call
from benchmarks.inputs import cell_contrast, synthetic_batch
from benchmarks.measure import median_seconds, peak_bytes
from benchmarks.operators import FLOOR, Options, main
from tests.operators.cases import seeded

# No operator takes more memory than this many batches beyond what it is given.
MOST_BATCHES = 10
CPU = torch.device("cpu")


def another_operator(images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    return images.flip(0), targets


def test_table_and_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures = tmp_path / "operators.json"
    main(
        Options(
            batches=(4, 3),
            size=(16, 16),
            rounds=2,
            only=("mixup", "saliencymix"),
            against=("tests.operators.test_operator_benchmark:another_operator",),
            json=figures,
        )
    )
    printed = capsys.readouterr().out
    assert "batch 4, 3 x 16 x 16, 1 thread(s), cpu" in printed
    rows = json.loads(figures.read_text())["rows"]
    names = [row["name"] for row in rows if row["batch"] == 4]
    assert {FLOOR, "mixup", "saliencymix", "timm CutMix, elem"} <= set(names)
    assert names[-1] == "tests.operators.test_operator_benchmark:another_operator"
    floor = rows[0]
    assert (floor["name"], floor["multiple"], floor["memory"]) == (FLOOR, 1.0, 2.0)
    assert all(row["milliseconds"] > 0 for row in rows)


def test_every_operator_is_timed() -> None:
    assert {variant.operator for variant in all_variants().values()} == set(OPERATORS)


def test_saliency_has_the_contrast_of_a_trained_network() -> None:
    batch = synthetic_batch((256, 3, 32, 32), num_classes=10, generator=seeded(0))
    assert 0.55 < cell_contrast(batch.saliency, 4) < 0.65
    assert 0.7 < cell_contrast(batch.saliency, 8) < 0.8


@pytest.mark.parametrize(("batch", "count"), [(4, 6), (3, 2)])
def test_neighbors_take_the_batch(batch: int, count: int) -> None:
    inputs = synthetic_batch((batch, 3, 8, 8), num_classes=10, generator=seeded(0))
    before = inputs.images.clone()
    calls = dict(neighbors(inputs))
    assert len(calls) == count
    for call in calls.values():
        call()
    assert torch.equal(inputs.images, before)


def test_memory_counts_what_is_alive_at_once() -> None:
    ones = torch.ones(1000)
    assert 8000 <= peak_bytes(lambda: (ones + 1, ones + 2), CPU) < 8100
    assert peak_bytes(lambda: [(ones + 1).sum() for _ in range(3)], CPU) < 4100


def test_median_of_the_rounds() -> None:
    calls = {"nothing": lambda: None, "something": lambda: sum(range(50_000))}
    seconds = median_seconds(calls, rounds=5, device=CPU)
    assert 0 <= seconds["nothing"] < seconds["something"]


def test_unknown_rows_are_refused() -> None:
    with pytest.raises(ValueError, match=r"only: expected names.*got 'mixupp'"):
        main(Options(batches=(4,), only=("mixup", "mixupp")))


@pytest.mark.parametrize(
    "path", ["math", "math:", ":sin", "math:nothing", "math:pi", "no.module:x"]
)
def test_refused_functions(path: str) -> None:
    with pytest.raises(ValueError, match="against: expected"):
        named_function(path)


@pytest.mark.parametrize("batch", [16, 128])
@pytest.mark.parametrize("name", all_variants())
def test_peak_of_an_operator(name: str, batch: int) -> None:
    inputs = synthetic_batch((batch, 3, 32, 32), num_classes=10, generator=seeded(0))
    call = our_call(all_variants()[name], inputs, seeded(1))
    assert 0 < peak_bytes(call, CPU) <= MOST_BATCHES * inputs.images.nbytes


def test_peak_of_the_greedy_pairing() -> None:
    inputs = synthetic_batch((128, 3, 32, 32), num_classes=10, generator=seeded(0))
    assert peak_bytes(pairing_call(inputs), CPU) <= MOST_BATCHES * inputs.images.nbytes
