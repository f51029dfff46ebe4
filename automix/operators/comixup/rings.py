"""Co-Mixup with few images in an output, as the published solver shows them.

The inputs of a group stand in a ring of random order, and so do the outputs; the output at place r
shows the inputs at places r to r + S - 1, so that an input goes to S outputs. With n its cells in
each of them, the reuse term W of the hard threshold is 0 if

    sum_j n_j - n_i <= R    for each i,    R = P^2 tau, less what inputs like it count,        (1)

which holds for any choice of cells if the capacities of its S places, c_1 >= c_2 = .. = c_S, have

    c_1 + (S - 2) c_2 = R,    c_2 <= R / (S - 1),    c_1 + (S - 1) c_2 >= P^2 + 1/2.           (2)

Outputs do not depend on each other any more: the cells of each are a problem with S inputs
(`automix.operators.comixup.assignment`). Of several random rings, that of the lowest objective is
taken. On maps with the contrast of those of a trained network an output shows 3 images, the largest
in half of its cells; that c_2 is a quarter of them makes it so.

Shape suffixes: R rings, G groups, M images in a group (J as outputs), S places, P grid side, N
outputs of all rings and groups.
"""

import math

import torch
from torch import Tensor

from automix.operators.comixup.assignment import FORBIDDEN, TIE_STEP, place, with_prices
from automix.operators.comixup.energy import CoMixupProblem, CoMixupWeights, objective_of

# As many take 1.0 (B = 128) to 1.2 times (B = 256) as long on a CPU as the solver without a limit,
# whose outputs choose among 20 inputs; 8 take 1.5 times, for an objective that is 0.2% lower.
_NUM_RINGS = 6
# Large, so that the fractional parts of the multiples of one random number order a group in ways
# that have nothing to do with each other.
_STRIDE = 211.31


def few_inputs(problem: CoMixupProblem, order_GM: Tensor, most_inputs: int) -> Tensor:
    """Return the two inputs of each cell, (G, J, P, P, 2) int64, at most ``most_inputs`` in all."""
    if most_inputs < 1:
        raise ValueError(f"most_inputs: expected 1 or more, or None, got {most_inputs}")
    capacity_SG = _capacities(problem, most_inputs)
    member_RGJS = _rings(order_GM, problem.size, len(capacity_SG))
    inputs_RGJPP2 = _cells(problem, member_RGJS, capacity_SG)
    objective_RG = torch.stack([objective_of(one, problem) for one in inputs_RGJPP2])
    best_G = objective_RG.argmin(0)
    index = best_G.view(1, -1, 1, 1, 1, 1).expand(1, *inputs_RGJPP2.shape[1:])
    return inputs_RGJPP2.gather(0, index).squeeze(0)


def place_capacities(weights: CoMixupWeights, *, most: int) -> list[float]:
    """Return the capacities (2) of the places of an output, in cells; ``most`` places or fewer."""
    num_cells = weights.grid**2
    # What the affinity of other inputs counts: omega on average, twice that for the one whose peak
    # is the farthest from those of the others.
    reuse = num_cells * (weights.tau - 2 * weights.omega) / (1 - weights.omega)
    if weights.is_soft:
        # Only what exceeds the threshold is paid for: the best is a little above it.
        reuse += num_cells / 16
    # In halves of a cell.
    reuse = min(math.floor(2 * reuse + 1e-6) / 2, float(num_cells))
    for places in range(most, 2, -1):
        other = math.floor(2 * max(num_cells / 4, num_cells + 0.5 - reuse)) / 2
        capacities = [reuse - (places - 2) * other] + [other] * (places - 1)
        # Cells are placed one by one: without a spare one in many places some find no room.
        has_room = places == 3 or sum(map(math.floor, capacities)) > num_cells
        if has_room and capacities[0] >= other:
            return capacities
    # Of two users each may have as much as the other counts.
    if most > 1 and 2 * reuse >= num_cells:
        return [reuse, reuse]
    return [float(num_cells)]


def _capacities(problem: CoMixupProblem, most_inputs: int) -> Tensor:
    """Return the capacities of the places in each group, (S, G); 0 for places that it lacks."""
    # Groups are of equal size or one image less.
    members = problem.affinity.shape[1]
    all_S, fewer_S = (
        place_capacities(problem.weights, most=max(1, min(most_inputs, size)))
        for size in (members, members - 1)
    )
    fewer_S = fewer_S + [0.0] * (len(all_S) - len(fewer_S))
    both_2S1 = problem.cost.new_tensor([all_S, fewer_S]).unsqueeze(2)
    return torch.where(problem.size == members, both_2S1[0], both_2S1[1])


def _rings(order_GM: Tensor, size_G: Tensor, num_places: int) -> Tensor:
    """Return the inputs of each output, (R, G, J, S); padding stands behind the ring."""
    stride_R = _STRIDE * torch.arange(1, 2 * _NUM_RINGS + 1, device=order_GM.device)
    key_RGM = (order_GM * stride_R.view(-1, 1, 1)) % 1
    slot_M = torch.arange(order_GM.shape[1], device=order_GM.device)
    size_G1 = size_G.unsqueeze(1)
    order_RGM = (key_RGM + 2 * (slot_M >= size_G1)).argsort(2)
    inputs_RGM, outputs_RGM = order_RGM.chunk(2)
    # The place of each output, and the inputs from there on.
    place_RGJ = outputs_RGM.argsort(2)
    members = [inputs_RGM.gather(2, (place_RGJ + shift) % size_G1) for shift in range(num_places)]
    is_image_GM1 = (slot_M < size_G1).unsqueeze(2)
    return torch.where(is_image_GM1, torch.stack(members, 3), slot_M.unsqueeze(1))


def _cells(problem: CoMixupProblem, member_RGJS: Tensor, capacity_SG: Tensor) -> Tensor:
    """Return the two inputs of each cell in each ring, (R, G, J, P, P, 2)."""
    grid, beta = problem.weights.grid, problem.weights.beta
    member_NS = member_RGJS.flatten(0, 2)
    groups, members = problem.affinity.shape[:2]
    first_G1 = members * torch.arange(groups, device=member_NS.device).unsqueeze(1)
    image_NS = (member_RGJS + first_G1.unsqueeze(2)).flatten(0, 2)
    # Each output is a group of its own for the assignment, with its places as inputs.
    capacity_SRGJ = capacity_SG[:, None, :, None].expand(-1, *member_RGJS.shape[:3])
    capacity_SN1 = capacity_SRGJ.flatten(1).unsqueeze(2)
    exists_SN1 = capacity_SN1 > 0
    # Equal costs, of equal images say, would let a cell take more than two inputs.
    ties_S = TIE_STEP * torch.arange(len(capacity_SG), device=capacity_SG.device)
    extra_SN1 = ties_S.view(-1, 1, 1) + FORBIDDEN * ~exists_SN1
    cost_SNPP1 = problem.cost.flatten(0, 1)[image_NS.T].unsqueeze(4) * grid**2
    cost_SNPP1 = cost_SNPP1 + extra_SN1.unsqueeze(3).unsqueeze(4)
    # A place that does not exist has room that nobody asks for.
    capacity_SN1 = capacity_SN1.where(exists_SN1, float(grid**2))
    total_SNPP1 = with_prices(cost_SNPP1, capacity_SN1, beta)
    places = place(total_SNPP1, capacity_SN1, beta, is_for_all=exists_SN1)
    inputs_N2 = member_NS.gather(1, torch.stack(places, 4).flatten(1))
    return inputs_N2.view(*member_RGJS.shape[:3], grid, grid, 2)
