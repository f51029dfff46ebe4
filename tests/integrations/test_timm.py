"""timm's training script with a schedule: who mixes, where the schedule is, what the loss takes."""

import re
import sys
from pathlib import Path

import pytest

from automix.errors import ConfigError
from automix.integrations.scripts import main
from automix.integrations.timm import train
from automix.schedule import Decision, even_schedule
from tests.worlds import RunWorld

pytest.importorskip("timm", reason="timm is an extra")
from tests.integrations.in_scripts import TIMM, seen, seen_in_ranks

# timm's reader of folders leaves its files to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:.*unclosed file:ResourceWarning")

BATCHES, EPOCHS = 3, 3
OPERATORS = ("cutmix", "mixup", "puzzlemix")
IN_TURN = even_schedule([Decision(operator=name) for name in OPERATORS])
STEPS = [(step, OPERATORS[step // BATCHES]) for step in range(BATCHES * EPOCHS)]
# Of each batch of 4, by timm and by hand.
EXACT = 1e-6


@pytest.mark.parametrize(
    "options",
    [
        "",
        "--workers 1",
        "--no-prefetcher",
        "--no-prefetcher --workers 1",
        "--grad-accum-steps 2",
        "--smoothing 0",
    ],
)
def test_the_schedule_mixes_whatever_the_loader_is(photographs: Path, options: str) -> None:
    run = seen(TIMM, IN_TURN, photographs, options)
    assert run.steps == STEPS
    assert [ours for ours, _ in run.losses] == pytest.approx([it for _, it in run.losses], EXACT)
    smoothing = 0.0 if "smoothing" in options else 0.1
    assert len(run.targets) == len(STEPS)
    assert all(targets.min() >= smoothing / 3 - EXACT for targets in run.targets)
    assert any(targets.amax(1).min() < 0.8 for targets in run.targets)


@pytest.mark.parametrize("options", ["", "--no-prefetcher"])
def test_a_resumed_run_continues_where_its_epoch_is(
    photographs: Path, tmp_path: Path, options: str
) -> None:
    seen(TIMM, IN_TURN, photographs, f"{options} --output {tmp_path} --experiment run")
    checkpoint = tmp_path / "run" / "checkpoint-0.pth.tar"
    resumed = seen(TIMM, IN_TURN, photographs, f"{options} --resume {checkpoint}")
    assert resumed.steps == STEPS[BATCHES:]


def test_more_epochs_than_asked_for_stretch_the_schedule(photographs: Path) -> None:
    run = seen(TIMM, IN_TURN, photographs, "--epochs 2 --cooldown-epochs 1")
    assert run.steps == STEPS


def test_mixing_ends_where_the_script_says(photographs: Path) -> None:
    run = seen(TIMM, IN_TURN, photographs, "--mixup-off-epoch 1")
    assert run.steps == STEPS[:BATCHES]
    assert len(run.losses) == len(STEPS)


def test_options_of_the_mixing_of_timm_have_no_effect_and_say_so(photographs: Path) -> None:
    with pytest.warns(UserWarning, match="^--mixup, --cutmix: expected none"):
        run = seen(TIMM, IN_TURN, photographs, "--mixup 0.2 --cutmix 1.0")
    assert run.steps == STEPS


@pytest.mark.parametrize(
    "options",
    ["--mixup 0", "--aug-splits 3 --no-prefetcher", "--jsd-loss --aug-splits 3 --no-prefetcher"],
)
def test_what_no_schedule_can_mix_is_refused(photographs: Path, options: str) -> None:
    with pytest.raises(ConfigError, match=f"{options.split(maxsplit=1)[0]}: expected"):
        seen(TIMM, IN_TURN, photographs, options)


def test_two_processes_draw_on_their_own(run_world: RunWorld, photographs: Path) -> None:
    (first_rank, first), (second_rank, second) = run_world(
        2, seen_in_ranks, TIMM, IN_TURN, photographs
    )
    assert (first_rank, second_rank) == (0, 1)
    assert [step for step, _ in first.steps] == [step for step, _ in second.steps]
    assert first.losses != second.losses
    for run in (first, second):
        assert [it for it, _ in run.losses] == pytest.approx([it for _, it in run.losses], EXACT)


def test_another_script_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other.py"
    other.write_text("def main(): pass\n")
    monkeypatch.setattr(sys, "path", [*sys.path])
    for script, expected in (
        (other, "a function train_one_epoch(args, device, epoch, loader, model)"),
        (tmp_path / "none.py", "a training script, got no such file"),
    ):
        monkeypatch.setattr(sys, "argv", ["", "recommended", str(script), "photos"])
        with pytest.raises(SystemExit, match=re.escape(f"error: {script}: expected {expected}")):
            main(train, usage="")
    monkeypatch.setattr(sys, "argv", ["", "recommended"])
    with pytest.raises(SystemExit, match="usage: it"):
        main(train, usage="it")
