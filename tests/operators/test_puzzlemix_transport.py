"""Transport plans of PuzzleMix, and the patches they move."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from automix.operators.puzzlemix.transport import move_patches, transport_plan
from automix.operators.sampling import enlarge_cells, pool_cells, unit_sum
from tests.operators.cases import Scenario, as_laid_out, random_images, seeded
from tests.operators.published import published_case

NAMES = [f"puzzlemix_grid{grid}{variant}_32x32" for grid in (4, 8, 16) for variant in "ab"]
PARENTS = ["own", "partner"]
every_case = pytest.mark.parametrize("name", NAMES)
every_side = pytest.mark.parametrize("side", [1, 2, 3, 4, 5, 8])


def recorded(
    shared_folder: Path, name: str, parent: str, num_labels: int
) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Return a case, and saliency and visible cells of one parent."""
    case = published_case(shared_folder, name)
    z = case[f"z_n{num_labels}"]
    patch, cell = int(case["t_size"]), 32 // z.shape[1]
    side = z.shape[1] if patch == -1 or patch >= cell else 32 // patch
    worth = unit_sum(pool_cells(case["saliency"], side))
    z = enlarge_cells(z, (side, side)).squeeze(1)
    if parent == "own":
        return dict(case), worth, z > 0
    return dict(case), worth[case["perm"]], z < 1


def random_parents(side: int, seed: int, batch: int = 12) -> tuple[Tensor, Tensor]:
    worth = torch.rand((batch, side, side), generator=seeded(seed)) ** 4
    visible = torch.rand((batch, side, side), generator=seeded(seed + 1)) < 0.6
    return worth / worth.sum((1, 2), keepdim=True), visible


def transport_cost(plan: Tensor, worth: Tensor, visible: Tensor, t_eps: float) -> Tensor:
    """Return what a plan costs each image, (B,): distance moved minus saliency seen."""
    side = worth.shape[1]
    cell = torch.arange(side * side)
    patch = plan.clamp_min(0)
    down = patch // side - cell // side
    right = patch % side - cell % side
    scale = t_eps / max(1, side - 1) ** 2
    cost = scale * (down**2 + right**2) - worth.flatten(1).gather(1, patch)
    return (cost * visible.flatten(1)).sum(1)


def by_the_published_rule(worth: Tensor, visible: Tensor, t_eps: float) -> list[int]:
    """Return the plan of one image, -1 where nothing is seen: T rounds with a dense matrix."""
    side = worth.shape[0]
    cells = range(side * side)
    value, seen = worth.flatten().tolist(), visible.flatten().tolist()

    def distance(one: int, other: int) -> float:
        rows, columns = one // side - other // side, one % side - other % side
        return float(rows**2 + columns**2) / max(1, side - 1) ** 2

    cost = [[t_eps * distance(m, j) - value[m] * seen[j] for j in cells] for m in cells]
    shown = [-1 for _ in cells]
    for _ in range(side):
        choice = [min(cells, key=lambda j, m=m: (cost[m][j], j)) for m in cells]  # type: ignore[misc]
        shown = [-1 for _ in cells]
        for j in cells:
            asking = [m for m in cells if choice[m] == j]
            if seen[j] and asking:
                shown[j] = min(asking, key=lambda m: (cost[m][j], m))
            for m in asking:
                cost[m][j] += m != shown[j]
    return shown


@every_case
@pytest.mark.parametrize("parent", PARENTS)
@pytest.mark.parametrize("num_labels", [2, 3])
def test_recorded_plans(shared_folder: Path, name: str, parent: str, num_labels: int) -> None:
    case, worth, visible = recorded(shared_folder, name, parent, num_labels)
    t_eps = float(case["t_eps"])
    plan = transport_plan(worth, visible, t_eps)
    seen = visible.flatten(1)
    assert torch.equal(plan[seen], case[f"src_{parent}_n{num_labels}"][seen])
    cost = transport_cost(plan, worth.double(), visible, t_eps)
    published = case[f"transport_cost_{parent}_n{num_labels}"]
    torch.testing.assert_close(cost, published, atol=1e-6, rtol=0)


@every_case
@pytest.mark.parametrize("num_labels", [2, 3])
def test_recorded_images(shared_folder: Path, name: str, num_labels: int) -> None:
    case = published_case(shared_folder, name)
    first, partner = case["x"], case["x"][case["perm"]]
    weight = enlarge_cells(case[f"z_n{num_labels}"], (32, 32))
    still = weight * first + (1 - weight) * partner
    assert torch.equal(still, case[f"x_mixed_n{num_labels}"])
    first, partner = (
        move_patches(images, case[f"src_{parent}_n{num_labels}"])
        for images, parent in zip((first, partner), PARENTS, strict=True)
    )
    moved = weight * first + (1 - weight) * partner
    assert torch.equal(moved, case[f"x_mixed_n{num_labels}_transport"])


@every_side
@pytest.mark.parametrize("t_eps", [0.1, 0.8])
def test_plans_follow_the_published_rule(side: int, t_eps: float) -> None:
    worth, visible = random_parents(side, seed=side)
    plan = transport_plan(worth, visible, t_eps)
    costs = []
    for entry in (
        plan,
        torch.tensor(
            [by_the_published_rule(*image, t_eps) for image in zip(worth, visible, strict=True)]
        ),
    ):
        costs.append(transport_cost(entry, worth, visible, t_eps))
    assert plan[visible.flatten(1)].min() >= 0
    torch.testing.assert_close(*costs, atol=1e-5, rtol=0)


@every_side
@pytest.mark.parametrize("t_eps", [0.0, 0.05, 0.8])
@pytest.mark.parametrize("contrast", ["random", "flat", "zero cells"])
def test_each_patch_is_used_at_most_once_and_each_visible_cell_filled(
    side: int, t_eps: float, contrast: str
) -> None:
    worth, visible = random_parents(side, seed=7, batch=32)
    if contrast == "flat":
        worth = torch.full_like(worth, 1 / side**2)
    if contrast == "zero cells":
        worth = worth * (worth > worth.median())
    plan = transport_plan(worth, visible, t_eps)
    assert torch.equal(plan >= 0, visible.flatten(1))
    for sources in plan:
        used = sources[sources >= 0]
        assert len(set(used.tolist())) == used.numel()
    stay = torch.arange(side * side).expand_as(plan)
    cost, cost_of_staying = (transport_cost(entry, worth, visible, t_eps) for entry in (plan, stay))
    assert (cost <= cost_of_staying + 1e-6).all()


def test_visible_patches_without_saliency_stay() -> None:
    worth = torch.zeros((1, 4, 4))
    worth[0, 0, 0] = 1.0
    plan = transport_plan(worth, torch.ones((1, 4, 4), dtype=torch.bool), 0.8)
    assert torch.equal(plan, torch.arange(16).unsqueeze(0))


def test_a_salient_hidden_patch_moves_to_the_nearest_visible_cell() -> None:
    worth = torch.full((1, 8, 8), 1e-3)
    worth[0, 2, 2] = 1 - 63e-3
    visible = torch.zeros((1, 8, 8), dtype=torch.bool)
    visible[0, 2, 4:] = True
    plan = transport_plan(worth, visible, 0.8).view(8, 8)
    assert plan[2].tolist() == [-1, -1, -1, -1, 2 * 8 + 2, 21, 22, 23]


@pytest.mark.parametrize(
    ("size", "side"), [((32, 32), 8), ((24, 40), 4), ((13, 17), 5), ((6, 6), 4), ((3, 7), 3)]
)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "strided"])
def test_moved_patches_pixel_by_pixel(size: tuple[int, int], side: int, layout: str) -> None:
    images = as_laid_out(random_images(Scenario(3, channels=2, size=size)), layout)
    plan = torch.stack([torch.randperm(side * side, generator=seeded(i)) for i in range(3)])
    plan[0, :3] = -1
    moved = move_patches(images, plan)
    memory_format = torch.channels_last if layout == "channels_last" else torch.contiguous_format
    assert moved.is_contiguous(memory_format=memory_format)

    def pixels_of(cell: int, length: int) -> list[int]:
        return [pixel for pixel in range(length) if pixel * side // length == cell]

    for image, sources in enumerate(plan.tolist()):
        for cell, source in enumerate(sources):
            shown = cell if source < 0 else source
            rows, columns = pixels_of(cell // side, size[0]), pixels_of(cell % side, size[1])
            from_rows = pixels_of(shown // side, size[0])
            from_columns = pixels_of(shown % side, size[1])
            for i, y in enumerate(rows):
                for j, x in enumerate(columns):
                    source_y = from_rows[min(i, len(from_rows) - 1)]
                    source_x = from_columns[min(j, len(from_columns) - 1)]
                    assert torch.equal(moved[image, :, y, x], images[image, :, source_y, source_x])
