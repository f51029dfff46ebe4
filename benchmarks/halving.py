"""Halving over runs or over epochs: which chooses better for the same number of steps.

    python -m benchmarks.halving configs/search/digits.yaml --folder FOLDER [--seeds 10]

Trains the first 16 candidates of a race with paired seeds, once, and notes the calibrated NLL on
the reward split at a quarter, half and the end of each run; a race of either kind is then drawn
from these curves many times. Over runs, every run is whole (`race_rounds`). Over epochs, all
candidates train to a quarter, the better half of them to a half, and a quarter to the end, with no
mixing and the first schedule that ships among them to the end. A choice costs what its candidate
loses to the best on the selection split, by seeds that were not drawn. Training resumes where it
was stopped.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from automix.data.splits import SearchData
from automix.experiments.config import SearchConfig
from automix.experiments.search.candidates import zero_search_candidates
from automix.experiments.search.halving import Candidate
from automix.experiments.search.plan import race_rounds
from automix.models.pretrained import images_of
from automix.random_streams import Stream, derived_seed
from automix.training.trainer import ClassifierTrainer, build_trainer, load_search_data

RUNGS = (0.25, 0.5, 1.0)
"""Progress at which candidates are compared over epochs."""

NUM_CANDIDATES = 16
BUDGETS = (8, 12, 16, 24, 32)
NUM_DRAWS = 4000
# No mixing and the first schedule that ships, which are trained to the end.
_ALWAYS = 2
_LAST = 3

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def curve_of(
    trainer: ClassifierTrainer, data: SearchData, candidate: Candidate, seed: int
) -> list[float]:
    """Return the losses at the rungs on the reward split, and at the end on the selection split."""
    trainer.reset(seed)
    losses = []
    for rung in RUNGS:
        while trainer.progress < rung:
            mixture = candidate.schedule.mixture_at(trainer.progress)
            limit = round(rung * trainer.total_steps)
            stop = candidate.schedule.holds_until(
                trainer.step, limit=limit, num_steps=trainer.total_steps
            )
            trainer.train(mixture, num_steps=stop - trainer.step)
        losses.append(trainer.evaluate(data.reward).calibrated_nll)
    return [*losses, trainer.evaluate(data.selection).calibrated_nll]


def train_curves(config: SearchConfig, folder: Path, num_seeds: int) -> Floats:
    """Return (num_candidates, num_seeds, num_rungs + 1) losses; those in the folder are read."""
    candidates = zero_search_candidates(config)[:NUM_CANDIDATES]
    data = load_search_data(images_of(config.task))
    trainer = build_trainer(config.task, data, seed=0)
    folder.mkdir(parents=True, exist_ok=True)
    journal = folder / "curves.jsonl"
    rows = (
        [json.loads(line) for line in journal.read_text().splitlines()] if journal.exists() else []
    )
    kept = {(row["seed"], row["name"]): row["losses"] for row in rows}
    # Seed by seed: what an interrupted command has is paired.
    for number in range(num_seeds):
        for candidate in candidates:
            if (number, candidate.name) in kept:
                continue
            seed = derived_seed(config.seed, Stream.RACE, step=number)
            losses = curve_of(trainer, data, candidate, seed)
            kept[number, candidate.name] = losses
            with journal.open("a") as file:
                row = {"seed": number, "name": candidate.name, "losses": losses}
                file.write(json.dumps(row) + "\n")
    return np.array([[kept[number, one.name] for number in range(num_seeds)] for one in candidates])


def choose_over_runs(ends: Floats, budget: int, *, always: int = 0) -> tuple[int, float]:
    """Return the choice and the cost in runs, of (num_candidates, num_seeds) final losses.

    The first ``always`` candidates stay to the end.
    """
    remaining, cost, last = np.arange(len(ends)), 0.0, 0
    for one in race_rounds(budget, num_candidates=len(ends), last=_LAST):
        if last:
            remaining = _best(remaining, ends[:, :last].mean(1), one.num_candidates, always)
        remaining = remaining[: one.num_candidates]
        last, cost = one.seeds.stop, cost + one.num_runs
    return int(remaining[np.argmin(ends[remaining, :last].mean(1))]), cost


def _best(remaining: Ints, losses: Floats, count: int, always: int) -> Ints:
    """Return ``count`` of the remaining candidates: the first ``always``, then the best."""
    ranked = remaining[np.argsort(losses[remaining], kind="stable")]
    kept = [one for one in ranked if one < always]
    others = [one for one in ranked if one >= always]
    return np.array([*kept, *others[: count - len(kept)]])


def choose_over_epochs(
    curves: Floats, num_candidates: int, num_seeds: int, *, first: int
) -> tuple[int, float]:
    """Return the choice and the cost in runs, of (num_candidates, num_seeds, num_rungs) losses.

    The first comparison is at rung number ``first``.
    """
    remaining, cost, progress = np.arange(num_candidates), 0.0, 0.0
    for number in range(first, len(RUNGS)):
        rung = RUNGS[number]
        cost += len(remaining) * num_seeds * (rung - progress)
        progress = rung
        means = curves[:, :num_seeds, number].mean(1)
        best = int(remaining[np.argmin(means[remaining])])
        kept = max(_LAST, -(-len(remaining) // 2))
        remaining = _best(remaining, means, kept, _ALWAYS)
    return best, cost


def loss_of_choice(losses: Floats, chosen: int, num_drawn: int) -> float:
    """Return what the choice loses to the best, by the seeds that were not drawn, in nats."""
    truth = losses[:, num_drawn:, -1].mean(1)
    return float(truth[chosen] - truth.min())


def compare(losses: Floats, budget: int, *, draws: int, seed: int) -> Sequence[str]:
    """Return rows of a table: mean loss of the choice of each kind at no more than this cost."""
    generator = np.random.default_rng(seed)
    _, num_seeds, _ = losses.shape
    orders = [generator.permutation(num_seeds) for _ in range(draws)]
    kinds: dict[str, Callable[[Floats], tuple[int, float]]] = {
        "runs": lambda drawn: choose_over_runs(drawn[..., -2], budget),
        "runs, two to the end": lambda drawn: choose_over_runs(
            drawn[..., -2], budget, always=_ALWAYS
        ),
        "runs, of those two and one by chance": lambda drawn: _of_few(
            drawn[..., -2], int(generator.integers(_ALWAYS, len(drawn)))
        ),
        "epochs, from a quarter on": _over_epochs(losses, budget, first=0),
        "epochs, from a half on": _over_epochs(losses, budget, first=1),
    }
    rows = []
    for kind, choose in kinds.items():
        drawn = [losses[:, order] for order in orders]
        chosen = [(*choose(one), one) for one in drawn]
        lost = np.mean([loss_of_choice(one, index, num_seeds // 2) for index, _, one in chosen])
        rows.append(f"| {budget} | over {kind} | {chosen[0][1]:.1f} | {lost:.4f} |")
    return rows


def _of_few(ends: Floats, other: int) -> tuple[int, float]:
    """Return the choice among those that always stay and another, with two seeds, and its cost."""
    few = np.array([*range(_ALWAYS), other])
    return int(few[np.argmin(ends[few, :2].mean(1))]), 2.0 * len(few)


def _over_epochs(
    losses: Floats, budget: int, *, first: int
) -> Callable[[Floats], tuple[int, float]]:
    """Return a choice over epochs: with one seed as many candidates as fit, then more seeds."""

    def cost_of(num_candidates: int, seeds: int) -> float:
        return choose_over_epochs(losses[..., :-1], num_candidates, seeds, first=first)[1]

    fitting = [n for n in range(_LAST, len(losses) + 1) if cost_of(n, 1) <= budget]
    most = fitting[-1]
    seeds = max(n for n in range(1, losses.shape[1] // 2 + 1) if cost_of(most, n) <= budget)
    return lambda drawn: choose_over_epochs(drawn[..., :-1], most, seeds, first=first)


def main() -> None:
    """Train the curves and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=10)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    losses = train_curves(
        SearchConfig.from_yaml(arguments.config), arguments.folder, arguments.seeds
    )
    print("| budget, runs | halving | runs it took | lost to the best, nats |\n|---|---|---|---|")
    for budget in BUDGETS:
        print("\n".join(compare(losses, budget, draws=NUM_DRAWS, seed=0)))


if __name__ == "__main__":
    main()
