"""torchvision's reference script with a schedule: who mixes, and where the schedule is."""

from pathlib import Path

import pytest

from automix.schedule import Decision, even_schedule
from tests.integrations.in_scripts import TORCHVISION, seen, seen_in_ranks
from tests.worlds import RunWorld

BATCHES, EPOCHS = 3, 3
OPERATORS = ("cutmix", "mixup", "puzzlemix")
IN_TURN = even_schedule([Decision(operator=name) for name in OPERATORS])
STEPS = [(step, OPERATORS[step // BATCHES]) for step in range(BATCHES * EPOCHS)]
EXACT = 1e-6


@pytest.mark.parametrize("options", ["", "--workers 2", "--label-smoothing 0.1"])
def test_the_schedule_mixes_whatever_the_loader_is(photographs: Path, options: str) -> None:
    run = seen(TORCHVISION, IN_TURN, photographs, options)
    assert run.steps == STEPS
    assert len(run.losses) == len(STEPS)
    assert [it for it, _ in run.losses] == pytest.approx([it for _, it in run.losses], EXACT)
    assert any(targets.amax(1).min() < 0.8 for targets in run.targets)


def test_a_resumed_run_continues_where_its_epoch_is(photographs: Path, tmp_path: Path) -> None:
    seen(TORCHVISION, IN_TURN, photographs, f"--output-dir {tmp_path}")
    run = seen(TORCHVISION, IN_TURN, photographs, f"--resume {tmp_path / 'model_0.pth'}")
    assert run.steps == STEPS[BATCHES:]


def test_the_mixing_of_torchvision_is_off_and_says_so(photographs: Path) -> None:
    with pytest.warns(UserWarning, match="^--mixup-alpha, --cutmix-alpha: expected none"):
        run = seen(TORCHVISION, IN_TURN, photographs, "--mixup-alpha 0.2 --cutmix-alpha 1")
    assert run.steps == STEPS


def test_two_processes_draw_on_their_own(run_world: RunWorld, photographs: Path) -> None:
    (_, first), (_, second) = run_world(2, seen_in_ranks, TORCHVISION, IN_TURN, photographs)
    assert [step for step, _ in first.steps] == [step for step, _ in second.steps]
    assert first.losses != second.losses
