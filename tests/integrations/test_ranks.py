"""Processes that train one network together make the same saliency passes, or hear why not."""

import pytest

from automix.mixture import Mixture
from automix.schedule import Decision, Schedule, constant_schedule, even_schedule
from tests.integrations.in_ranks import STEPS, refused, trained
from tests.worlds import RunWorld

PUZZLEMIX = constant_schedule(Decision(operator="puzzlemix", probability=0.5))
MIXTURE = constant_schedule(
    Mixture(
        decisions=(
            Decision(operator="rmix", probability=0.4),
            Decision(operator="cutmix", probability=0.3),
        )
    )
)
LATE = even_schedule(
    [Decision(operator="mixup", probability=0.5), Decision(operator="rmix", probability=0.5)]
)


@pytest.mark.parametrize("kind", ["norms", "sharded"])
@pytest.mark.parametrize("schedule", [PUZZLEMIX, MIXTURE, LATE])
def test_passes_of_networks_whose_parts_talk(
    run_world: RunWorld, kind: str, schedule: Schedule
) -> None:
    (first, first_losses), (second, second_losses) = run_world(2, trained, kind, schedule)
    saliency = slice(STEPS // 2, STEPS) if schedule is LATE else slice(0, STEPS)
    assert first[saliency] == second[saliency]
    assert set(first) == {True, False}
    # Each has images of its own.
    assert first_losses != second_losses


def test_sharded_weights_learn_what_copies_do(run_world: RunWorld) -> None:
    for sharded, copied in zip(
        run_world(2, trained, "sharded", PUZZLEMIX),
        run_world(2, trained, "copied", PUZZLEMIX),
        strict=True,
    ):
        assert sharded[0] == copied[0]
        assert sharded[1] == pytest.approx(copied[1], rel=1e-4)


@pytest.mark.parametrize("differing", ["seed", "total_steps"])
def test_processes_that_would_not_make_the_same_passes(run_world: RunWorld, differing: str) -> None:
    for heard in run_world(2, refused, "norms", PUZZLEMIX, differing):
        assert heard.startswith("seed: expected the same seed, schedule, total_steps and step")
    mixup = constant_schedule(Decision(operator="mixup"))
    assert run_world(2, refused, "norms", mixup, differing) == ["taken", "taken"]
