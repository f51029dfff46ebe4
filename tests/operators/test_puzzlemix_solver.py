"""The PuzzleMix objective and its solvers."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order, maximum_flow
from torch import Tensor

from automix.operators.puzzlemix import solver as puzzle_solver
from automix.operators.puzzlemix.energy import PuzzleProblem, PuzzleWeights, puzzle_problem
from automix.operators.puzzlemix.solver import is_exact, solve_puzzle
from tests.operators.cases import Scenario, random_images, random_saliency, seeded
from tests.operators.published import published_case

GRIDS_AND_LABELS = [
    (f"puzzlemix_grid{grid}{variant}_32x32", labels)
    for grid in (4, 8, 16)
    for variant in "ab"
    for labels in (2, 3)
]
every_case = pytest.mark.parametrize(("name", "num_labels"), GRIDS_AND_LABELS)


def recorded_problem(
    shared_folder: Path, name: str, num_labels: int, dtype: torch.dtype
) -> tuple[dict[str, Tensor], PuzzleProblem]:
    case = published_case(shared_folder, name)
    weights = PuzzleWeights(
        grid=case["z_n2"].shape[1],
        num_labels=num_labels,
        beta=float(case["beta"]),
        gamma=float(case["gamma"]),
        eta=float(case["eta"]),
        neigh_size=int(case["neigh_size"]),
        pixel_std=float(case["std"]),
    )
    lam = case["lam_drawn"].to(dtype).expand(len(case["x"]))
    maps = case["saliency"].to(dtype)
    return dict(case), puzzle_problem(case["x"], maps, case["perm"], lam, weights)


def random_problem(
    grid: int,
    num_labels: int,
    seed: int,
    *,
    batch: int = 16,
    beta: float = 1.2,
    gamma: float = 0.5,
) -> PuzzleProblem:
    scenario = Scenario(batch, size=(2 * grid, 3 * grid))
    return puzzle_problem(
        random_images(scenario, seed),
        random_saliency(scenario, seed),
        torch.randperm(batch, generator=seeded(seed)),
        torch.rand(batch, generator=seeded(seed)),
        PuzzleWeights(grid=grid, num_labels=num_labels, beta=beta, gamma=gamma, neigh_size=1),
    )


def objective_terms(z_BPP: Tensor, problem: PuzzleProblem) -> Tensor:
    """Return T1, T2, T3 and T4 of a solution, (B, 4); their sum is the objective."""
    z_PPB = z_BPP.permute(1, 2, 0).to(problem.prior.dtype)
    steps = problem.prior.shape[0] - 1
    jump_down = (z_PPB[1:] - z_PPB[:-1]).square()
    jump_right = (z_PPB[:, 1:] - z_PPB[:, :-1]).square()
    label_PPB = (z_PPB * steps).round().to(torch.int64)
    own_loss = torch.lerp(problem.saliency[0], problem.saliency[1], z_PPB)
    border_loss = torch.lerp(problem.border[0], problem.border[1], z_PPB)
    borders_B = (problem.vertical * jump_down).sum((0, 1))
    borders_B = borders_B + (problem.horizontal * jump_right).sum((0, 1))
    terms = (
        own_loss.sum((0, 1)),
        (jump_down.sum((0, 1)) + jump_right.sum((0, 1))) * problem.smoothness,
        border_loss.sum((0, 1)) + borders_B,
        problem.prior.gather(0, label_PPB.flatten(0, 1)).sum(0),
    )
    return torch.stack(terms, 1)


def objective(z: Tensor, problem: PuzzleProblem) -> Tensor:
    return objective_terms(z, problem).sum(1)


def of_one_image(problem: PuzzleProblem, index: int, count: int) -> PuzzleProblem:
    """Return the problem of one image, many times."""
    repeated: dict[str, Any] = {
        name: field[..., index : index + 1].expand(*field.shape[:-1], count)
        for name, field in problem._asdict().items()
        if isinstance(field, Tensor)
    }
    return problem._replace(**repeated)


def all_masks(grid: int, num_labels: int) -> Tensor:
    labels = torch.arange(num_labels) / (num_labels - 1)
    return torch.cartesian_prod(*[labels] * grid**2).view(-1, grid, grid)


@every_case
def test_terms_of_the_recorded_solutions(shared_folder: Path, name: str, num_labels: int) -> None:
    case, problem = recorded_problem(shared_folder, name, num_labels, torch.float64)
    terms = objective_terms(case[f"z_n{num_labels}"], problem)
    torch.testing.assert_close(terms, case[f"terms_n{num_labels}"], atol=1e-6, rtol=0)


@every_case
def test_no_solution_is_worse_than_the_published_one(
    shared_folder: Path, name: str, num_labels: int
) -> None:
    case, problem = recorded_problem(shared_folder, name, num_labels, torch.float64)
    _, single = recorded_problem(shared_folder, name, num_labels, torch.float32)
    z = solve_puzzle(single)
    allowed = torch.arange(num_labels) / (num_labels - 1)
    assert set(z.flatten().tolist()) <= set(allowed.tolist())
    ours = objective(z, problem)
    published = case[f"objective_n{num_labels}"]
    assert (ours <= published + 0.01 * published.abs()).all()
    # And no worse than the minimum: these sixteen are solved exactly, or nearly.
    minimum = case[f"objective_optimum_n{num_labels}"]
    assert (ours <= minimum + 1e-4 * minimum.abs()).all()
    assert (ours >= minimum - 1e-6).all()


def test_solutions_are_better_than_the_published_ones_on_average(shared_folder: Path) -> None:
    gains = []
    for name, num_labels in GRIDS_AND_LABELS:
        case, problem = recorded_problem(shared_folder, name, num_labels, torch.float64)
        _, single = recorded_problem(shared_folder, name, num_labels, torch.float32)
        published = case[f"objective_n{num_labels}"]
        gains.append((published - objective(solve_puzzle(single), problem)) / published.abs())
    assert torch.cat(gains).mean() > 5e-5


@pytest.mark.parametrize(("grid", "num_labels"), [(2, 2), (2, 3), (3, 2), (3, 3), (4, 2)])
@pytest.mark.parametrize("beta", [0.1, 1.2, 5.0])
def test_exact_solver_finds_the_best_of_all_masks(grid: int, num_labels: int, beta: float) -> None:
    assert is_exact(grid, num_labels)
    problem = random_problem(grid, num_labels, seed=3, batch=3, beta=beta)
    ours = objective(solve_puzzle(problem), problem)
    masks = all_masks(grid, num_labels)
    for index in range(3):
        costs = objective(masks, of_one_image(problem, index, len(masks)))
        torch.testing.assert_close(ours[index], costs.min(), atol=1e-6, rtol=0)


def minimum_cut(problem: PuzzleProblem, index: int) -> Tensor:
    """Return the mask of least objective of one image with 2 labels, by a maximum flow.

    The coupling must not favor differences. A cell on the side of the source has label 1.
    """
    grid = problem.saliency.shape[1]
    source, sink = grid**2, grid**2 + 1
    cost = (problem.saliency + problem.border + problem.prior[:, None, None])[..., index]
    edges: dict[tuple[int, int], float] = {}
    for y, x in itertools.product(range(grid), repeat=2):
        cell, gain = y * grid + x, float(cost[1, y, x] - cost[0, y, x])
        edges[(cell, sink) if gain > 0 else (source, cell)] = abs(gain)
        for other, weights in ((cell + grid, problem.vertical), (cell + 1, problem.horizontal)):
            if y < weights.shape[0] and x < weights.shape[1]:
                weight = float(weights[y, x, index]) + problem.smoothness
                edges[cell, other] = edges[other, cell] = weight
    # The flow is of whole numbers.
    values = np.round(np.array(list(edges.values())) * 1e8).astype(np.int32)
    capacity: Any = csr_array((values, tuple(zip(*edges, strict=True))), shape=(sink + 1, sink + 1))
    rest = capacity - maximum_flow(capacity, source, sink).flow
    rest.data = np.maximum(rest.data, 0)
    rest.eliminate_zeros()
    reached = breadth_first_order(rest, source, return_predecessors=False)
    mask = torch.zeros(sink + 1)
    mask[torch.from_numpy(reached).long()] = 1
    return mask[:source].view(grid, grid)


def test_two_labels_on_large_grids_are_solved_as_by_a_minimum_cut() -> None:
    for beta in (1.2, 3.0):
        problem = random_problem(16, 2, 0, batch=32, beta=beta)
        ours = objective(solve_puzzle(problem), problem)
        for index in range(4):
            best = objective(minimum_cut(problem, index)[None], of_one_image(problem, index, 1))
            torch.testing.assert_close(ours[index : index + 1], best, atol=1e-6, rtol=0)


def test_exact_solver_with_couplings_that_favor_differences() -> None:
    problem = random_problem(3, 3, seed=0, batch=4)
    problem = problem._replace(vertical=-problem.vertical - 0.1, horizontal=problem.horizontal - 1)
    ours = objective(solve_puzzle(problem), problem)
    masks = all_masks(3, 3)
    for index in range(4):
        costs = objective(masks, of_one_image(problem, index, len(masks)))
        torch.testing.assert_close(ours[index], costs.min(), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("grid", "num_labels"), [(4, 3), (5, 3), (7, 2), (8, 2)])
def test_gap_of_the_approximation(
    grid: int, num_labels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    gaps = []
    for seed, beta in itertools.product(range(2), (0.6, 1.2, 3.0)):
        problem = random_problem(grid, num_labels, seed, batch=32, beta=beta)
        exact = objective(solve_puzzle(problem), problem)
        with monkeypatch.context() as patch:
            patch.setattr(puzzle_solver, "_MOST_STATES", 0)
            assert not is_exact(grid, num_labels)
            near = objective(solve_puzzle(problem), problem)
        assert (near >= exact - 1e-6).all()
        gaps.append((near - exact) / exact.abs())
    gap = torch.cat(gaps)
    assert gap.mean() < 2e-4
    assert gap.max() < 0.01


def test_the_prior_decides_where_saliency_is_flat() -> None:
    flat = torch.ones((3, 32, 32))
    lam = torch.tensor([0.05, 0.5, 0.95])
    problem = puzzle_problem(
        torch.zeros(3, 3, 32, 32), flat, torch.tensor([1, 2, 0]), lam, PuzzleWeights()
    )
    z = solve_puzzle(problem)
    assert torch.equal(z.mean((1, 2)), torch.tensor([0.0, 0.5, 1.0]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"grid": 1}, "grid: expected 2 to 16, got 1"),
        ({"grid": 17}, "grid: expected 2 to 16, got 17"),
        ({"num_labels": 4}, "num_labels: expected 2 or 3, got 4"),
        ({"beta": -1.0}, r"beta: expected 0 or more, got -1\.0"),
        ({"gamma": float("nan")}, "gamma: expected 0 or more, got nan"),
        ({"neigh_size": 0}, "neigh_size: expected 1 or more, got 0"),
    ],
)
def test_impossible_weights_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PuzzleWeights(**options)  # type: ignore[arg-type]
