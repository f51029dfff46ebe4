"""Halving over runs or over epochs, on curves with known answers."""

import numpy as np
import pytest

from benchmarks.halving import choose_over_epochs, choose_over_runs, compare, loss_of_choice


def curves(ends: list[float], *, num_seeds: int = 6) -> np.ndarray:
    """Return (num_candidates, num_seeds, 4) losses that are the same at every rung and seed."""
    return np.broadcast_to(np.array(ends)[:, None, None], (len(ends), num_seeds, 4)).copy()


ENDS = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2]


def test_without_noise_either_finds_the_best() -> None:
    losses = curves(ENDS)
    assert choose_over_runs(losses[..., -2], 24)[0] == 7
    assert choose_over_epochs(losses[..., :-1], 8, 1, first=0)[0] == 7
    assert loss_of_choice(losses, 7, 3) == 0
    assert loss_of_choice(losses, 5, 3) == pytest.approx(0.2)


def test_over_epochs_a_run_is_resumed_and_not_repeated() -> None:
    # 8 to a quarter, 4 (no mixing and the first that ships among them) to a half, 3 to the end.
    _, cost = choose_over_epochs(curves(ENDS)[..., :-1], 8, 2, first=0)
    assert cost == 2 * (8 * 0.25 + 4 * 0.25 + 3 * 0.5)


def test_over_epochs_what_ends_best_may_leave_early() -> None:
    losses = curves(ENDS)
    losses[7, :, 0] = 2.0
    assert choose_over_epochs(losses[..., :-1], 8, 1, first=0)[0] == 6
    assert choose_over_epochs(losses[..., :-1], 8, 1, first=1)[0] == 7
    # No mixing and the first schedule that ships are trained to the end whatever they lose.
    losses[:2, :, 0] = 3.0
    losses[1, :, -2] = 0.0
    assert choose_over_epochs(losses[..., :-1], 8, 1, first=0)[0] == 1


def test_neither_takes_more_than_its_budget() -> None:
    for row in compare(curves([*ENDS, *ENDS]), 12, draws=2, seed=0):
        _, budget, _, cost, _, _ = row.split("|")
        assert float(cost) <= float(budget)
