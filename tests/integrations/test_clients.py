"""Each library's own loop mixes as the schedule says, resumed and in several processes, too.

And what users change in the examples, or forget, is right, refused or warned of.
"""

import warnings
from pathlib import Path

import pytest

from tests.integrations.in_clients import BATCH, EPOCHS, IMAGES, OPERATORS, seen, seen_in_ranks
from tests.worlds import RunWorld

MODULES = {
    "accelerate": "accelerate",
    "fabric": "lightning",
    "lightning": "lightning",
    "fastai": "fastai",
}
# Lightning's own words about torch's tree utilities, and about loaders without workers.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    # Of an import of fastai.
    pytest.mark.filterwarnings("ignore:.*torch.jit.script:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*mode.chained_assignment"),
]

BATCHES = IMAGES // BATCH
STEPS = [(step, OPERATORS[step // BATCHES]) for step in range(EPOCHS * BATCHES)]


@pytest.fixture(params=MODULES)
def client(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    pytest.importorskip(MODULES[name], reason=f"{MODULES[name]} is an extra")
    return name


@pytest.mark.parametrize("workers", [0, 1])
def test_what_is_mixed_is_the_schedule_and_the_loss_takes_it(
    client: str, workers: int, tmp_path: Path
) -> None:
    run = seen(client, tmp_path, workers=workers)
    assert run.steps == STEPS
    assert run.losses == pytest.approx(run.by_hand, rel=1e-5)
    assert len(run.losses) == len(STEPS)


@pytest.mark.parametrize("forgets", [False, True])
def test_a_resumed_run_continues_where_it_is(client: str, forgets: bool, tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    whole = seen(client, tmp_path / "whole")
    # Its loops are a user's own, who leaves the schedule out of the checkpoint.
    own_loop = client in ("accelerate", "fabric")
    seen(client, tmp_path, epochs=1, forgets=forgets and own_loop)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        rest = seen(client, tmp_path, epochs=EPOCHS - 1, resumes=True, forgets=forgets)
    assert rest.steps == STEPS[BATCHES:]
    if client != "fastai":
        assert rest.losses == pytest.approx(whole.losses[BATCHES:], rel=1e-5)
    heard = any("has done 6 steps, so it resumes at batch 6" in str(it.message) for it in caught)
    # Lightning and fastai know the position on their own.
    assert heard == (forgets and own_loop)


@pytest.mark.parametrize("name", ["accelerate", "fabric", "lightning"])
def test_two_processes_draw_on_their_own(run_world: RunWorld, name: str, tmp_path: Path) -> None:
    pytest.importorskip(MODULES[name], reason=f"{MODULES[name]} is an extra")
    (first_rank, first), (second_rank, second) = run_world(2, seen_in_ranks, name, tmp_path)
    assert (first_rank, second_rank) == (0, 1)
    operators = [OPERATORS[step // 3] for step in range(9)]
    assert first.steps == second.steps == list(enumerate(operators))
    assert first.losses != second.losses
    for run in (first, second):
        assert run.losses == pytest.approx(run.by_hand, rel=1e-5)
