"""Solver of the Co-Mixup objective: all groups at once, without a graph cut.

The authors solve output by output: the reuse term W is linearized with the others fixed, a graph
cut chooses the cells, and up to four sweeps follow: 20 x 4 cuts one after the other for a group of
20. Here W is kept at 0 by capacities instead, which leaves a problem of assignment, in four steps:

1. roles: which outputs may show which inputs, so that capacities for inputs keep W at 0;
2. prices: a price for each input rises until its expected demand fits its capacity, at falling
   temperature, with the smoothness V linearized around the expected neighbors;
3. few inputs, if asked for: all but those that an output uses most are made dear;
4. placement: cells take their best inputs in order of regret, as long as there is room.

The result is compared with no mixing, and the better one is returned.

With the published threshold of 0.83 images, W is 0 where an input is shown either

- in a few cells by many outputs: by up to about 13 of 16 cells in all ("shared"), or
- by two outputs only, in up to 13 cells each ("owned").

16 cells of m outputs do not fit into 13 cells of m inputs, so the inputs with the flattest
saliency are owned: by the output in the same place and by one other. An owner has to show what it
owns in so many cells that the others find room in what is shared.

Shape suffixes: G groups, M images in a group (J as outputs, K as inputs), P grid side, Q cells of
a group (P * P * J). Inputs come first: softmax and minimum over the first dimension take a half
and a tenth of the time of those over the last on a CPU.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from automix.operators.comixup.energy import CoMixupProblem, comixup_objective

_NUM_ITERATIONS = 12
_NUM_ROUNDS = 4
# All costs from here on are in units of the mean saliency of a cell.
_TEMPERATURES = (0.32, 0.16)
_OWN_BONUS = 0.1
# Above any saliency, and above anything that is dear.
_DEAR = 1e2
_FORBIDDEN = 1e3
# Below any saliency that matters.
_TIE_STEP = 1e-6


def solve_comixup(
    problem: CoMixupProblem, order_GM: Tensor, *, most_inputs: int | None = None
) -> Tensor:
    """Return the two inputs that each cell of each output shows half and half.

    (G, J, P, P, 2) int64, the same input twice where a cell shows one. Padding shows itself. The
    objective of no group is above that of no mixing. The random numbers ``order_GM`` decide the
    second outputs of owned inputs. ``most_inputs``, from 1, is how many inputs an output may show;
    cells for which none of these has room show another one all the same. None for the lowest
    objective.
    """
    roles = assign_roles(problem, order_GM)
    cost = _anneal(roles, _costs(problem, roles), problem.weights.beta)
    if most_inputs is not None:
        cost = _without_rare_inputs(cost, most_inputs)
    first, second = _place(roles, _within_ownership(roles, cost), problem.weights.beta)
    mixed = torch.stack((first, second), 4).permute(0, 3, 1, 2, 4)
    own_J = torch.arange(order_GM.shape[1], device=order_GM.device)
    unmixed = own_J.view(1, -1, 1, 1, 1).expand_as(mixed)
    change_G = _objective(mixed, problem) - _objective(unmixed, problem)
    return torch.where((change_G < 0).view(-1, 1, 1, 1, 1), mixed, unmixed)


def input_weights(inputs_GJPP2: Tensor, num_inputs: int) -> Tensor:
    """Return the weight of each input in each cell, (G, J, P, P, K) float32 of 0, 1/2 and 1."""
    weight = torch.zeros((*inputs_GJPP2.shape[:4], num_inputs), device=inputs_GJPP2.device)
    halves = torch.full_like(inputs_GJPP2, 0.5, dtype=weight.dtype)
    return weight.scatter_add(4, inputs_GJPP2, halves)


def _objective(inputs_GJPP2: Tensor, problem: CoMixupProblem) -> Tensor:
    members = problem.affinity.shape[1]
    is_image_GM = torch.arange(members, device=problem.size.device) < problem.size.unsqueeze(1)
    z = input_weights(inputs_GJPP2, members) * is_image_GM.view(-1, members, 1, 1, 1)
    return comixup_objective(z, problem).sum(1)


class Roles(NamedTuple):
    """Assignment of inputs to the outputs that may show them."""

    is_owned: Tensor  # (K, G, 1) bool, inputs for two outputs only; padding is owned by itself
    is_allowed: Tensor  # (K, G, J) bool
    is_owner: Tensor  # (G, J) bool, outputs that own an input
    capacity: Tensor  # (K, G, 1) cells of an input for all outputs together
    least_owned: Tensor  # (G,) cells of an owner that have to show what it owns
    most_owned: int  # cells of an owner that may show it


def assign_roles(problem: CoMixupProblem, order_GM: Tensor) -> Roles:
    """Return the roles in each group; the random numbers ``order_GM`` decide the second owners."""
    weights = problem.weights
    num_cells = weights.grid**2
    slot_M = torch.arange(order_GM.shape[1], device=order_GM.device)
    is_image_GM = slot_M < problem.size.unsqueeze(1)
    capacity_GM = _shared_capacity(problem)
    room_GM = capacity_GM.floor().clamp_max(num_cells)
    # Two outputs that own an input: each counts what the other uses, and omega's part of the rest.
    most_owned = math.floor(num_cells * min(1.0, max(0.0, weights.tau - 2 * weights.omega)))
    flat_rank_GM = rank((-problem.cost.amin((2, 3))).masked_fill(~is_image_GM, torch.inf))
    num_owned_G1 = _num_owned(problem, room_GM, most_owned)
    is_owned_GM = (flat_rank_GM < num_owned_G1) & is_image_GM
    is_self_KJ = slot_M.unsqueeze(1) == slot_M
    is_second_GKJ = _second_owners(is_owned_GM, flat_rank_GM, order_GM, is_image_GM)
    is_held_GKJ = is_owned_GM.unsqueeze(2) & (is_second_GKJ | is_self_KJ)
    is_owner_GJ = is_held_GKJ.any(1)
    is_shared_GM = is_image_GM & ~is_owned_GM
    is_allowed_GKJ = is_held_GKJ | (is_shared_GM.unsqueeze(2) & is_image_GM.unsqueeze(1))
    is_allowed_GKJ = is_allowed_GKJ | (~is_image_GM.unsqueeze(2) & is_self_KJ)
    # Cells of owners that shared inputs have room for, once all other outputs are served.
    num_owners_G = is_owner_GJ.sum(1)
    for_others_G = num_cells * (problem.size - num_owners_G)
    for_owners_G = (room_GM * is_shared_GM).sum(1) - for_others_G
    most_shared_G = (for_owners_G / num_owners_G.clamp_min(1)).floor()
    return Roles(
        is_owned=~is_shared_GM.T.unsqueeze(2),
        is_allowed=is_allowed_GKJ.transpose(0, 1),
        is_owner=is_owner_GJ,
        capacity=capacity_GM.masked_fill(~is_shared_GM, torch.inf).T.unsqueeze(2),
        least_owned=(num_cells - most_shared_G).clamp(0, most_owned),
        most_owned=most_owned,
    )


def rank(key: Tensor) -> Tensor:
    """Return the place of each entry along the last dimension, from the smallest key."""
    return key.argsort(-1).argsort(-1)


def _shared_capacity(problem: CoMixupProblem) -> Tensor:
    """Return how many cells may show an input that all outputs share, (G, M)."""
    num_cells = problem.weights.grid**2
    own_GM = problem.affinity.diagonal(dim1=1, dim2=2)
    # What other inputs count towards this one, if they are used a little more than once.
    others_GM = (problem.affinity.sum(2) - own_GM) * (1.25 * num_cells)
    most_GM = (num_cells * problem.weights.tau - others_GM) / own_GM
    # In halves of a cell; what counts for a user is what the others use, and it uses half a cell
    # or more itself.
    return (2 * most_GM - 1e-3).floor().clamp_min(0) / 2 + 0.5


def _num_owned(problem: CoMixupProblem, room_GM: Tensor, most_owned: int) -> Tensor:
    """Return how many inputs have to be owned for all cells to fit, (G, 1)."""
    missing_G1 = (problem.weights.grid**2 - room_GM).mean(1, keepdim=True)
    gained_G1 = (2 * most_owned - room_GM).mean(1, keepdim=True).clamp_min(1)
    return (problem.size.unsqueeze(1) * missing_G1 / gained_G1 - 1e-3).ceil()


def _second_owners(
    is_owned_GM: Tensor, flat_rank_GM: Tensor, order_GM: Tensor, is_image_GM: Tensor
) -> Tensor:
    """Return which output an owned input also goes to, (G, K, J) bool.

    The i-th owned input goes to the i-th output in random order, those that own none first.
    """
    key_GM = order_GM + is_owned_GM.to(order_GM.dtype) - 2 * is_image_GM.to(order_GM.dtype)
    turn_GJ = rank(key_GM)
    num_images_G1 = is_image_GM.sum(1, keepdim=True)
    num_free_G1 = (num_images_G1 - is_owned_GM.sum(1, keepdim=True)).clamp_min(1)
    return (flat_rank_GM % num_free_G1).unsqueeze(2) == turn_GJ.unsqueeze(1)


def _costs(problem: CoMixupProblem, roles: Roles) -> Tensor:
    """Return the cost of each input in each cell, (K, G, P, P, J), in mean saliencies of a cell."""
    groups, members = problem.affinity.shape[:2]
    grid = problem.weights.grid
    cost_KGPP1 = problem.cost.transpose(0, 1).unsqueeze(4) * grid**2
    slot_M = torch.arange(members, device=cost_KGPP1.device)
    bonus_KJ = _OWN_BONUS * (slot_M.unsqueeze(1) == slot_M)
    # Equal costs, of equal images say, would let a cell take more than two inputs.
    extra_KJ = _TIE_STEP * slot_M.unsqueeze(1) - bonus_KJ
    extra_KGJ = extra_KJ.unsqueeze(1) + _FORBIDDEN * ~roles.is_allowed
    return cost_KGPP1 + extra_KGJ.view(members, groups, 1, 1, members)


def _anneal(roles: Roles, cost: Tensor, beta: float) -> Tensor:
    """Return the cost of each input in each cell after prices and smoothness, (K, G, P, P, J)."""
    first, last = _TEMPERATURES
    price_KG1 = torch.zeros_like(roles.capacity)
    # All inputs alike: smoothness favors none at first.
    weight = torch.full_like(cost, 1 / cost.shape[0])
    # Softmax weights are the demand at a temperature. A price changes by T log(demand / capacity):
    # at the old weights of the others that is what scales the demand to the capacity, half a cell
    # below it because whole cells are placed in the end. Inputs with room cost nothing.
    for iteration in range(_NUM_ITERATIONS):
        temperature = first * (last / first) ** (iteration / (_NUM_ITERATIONS - 1))
        total = _charged(cost, weight, price_KG1, beta)
        weight = (total * (-1 / temperature)).softmax(0)
        demand_KG1 = weight.sum((2, 3, 4)).unsqueeze(2)
        change_KG1 = temperature * (demand_KG1 / (roles.capacity - 0.5)).log()
        price_KG1 = (price_KG1 + change_KG1).clamp_min(0)
    return _charged(cost, weight, price_KG1, beta)


def _charged(cost: Tensor, weight: Tensor, price_KG1: Tensor, beta: float) -> Tensor:
    """Return the costs with prices, less beta for each neighbor expected to show the same."""
    around = pad(weight, (0, 0, 1, 1, 1, 1))
    near = around[:, :, :-2, 1:-1] + around[:, :, 2:, 1:-1]
    near = near + around[:, :, 1:-1, :-2] + around[:, :, 1:-1, 2:]
    return torch.add(cost + price_KG1.unsqueeze(3).unsqueeze(4), near, alpha=-beta)


def _without_rare_inputs(cost: Tensor, most_inputs: int) -> Tensor:
    """Return the costs with all but the inputs that an output asks for most made dear."""
    if most_inputs < 1:
        raise ValueError(f"most_inputs: expected 1 or more, or None, got {most_inputs}")
    demand_KGJ = (cost / -_TEMPERATURES[1]).softmax(0).sum((2, 3))
    last_rank = min(most_inputs, cost.shape[0]) - 1
    least_GJ = demand_KGJ.sort(0, descending=True).values[last_rank]
    is_rare_KGJ = (demand_KGJ < least_GJ).to(cost.dtype)
    return cost + _DEAR * is_rare_KGJ.unsqueeze(2).unsqueeze(3)


def _within_ownership(roles: Roles, cost: Tensor) -> Tensor:
    """Return the costs with what would break the capacities forbidden in the cells of owners.

    An owner shows what it owns where it loses least by it: in so many cells that the others find
    room in the shared inputs, and in no more than it may.
    """
    members, groups, grid = cost.shape[:3]
    is_owned = roles.is_owned.view(members, groups, 1, 1, 1)
    best_owned = torch.add(cost, ~is_owned, alpha=_FORBIDDEN).amin(0)
    best_shared = torch.add(cost, is_owned, alpha=_FORBIDDEN).amin(0)
    turn_GJQ = rank((best_owned - best_shared).flatten(1, 2).transpose(1, 2))
    turn = turn_GJQ.transpose(1, 2).view(groups, grid, grid, members)
    is_owner = roles.is_owner.view(groups, 1, 1, members)
    is_first = is_owner & (turn < roles.least_owned.view(-1, 1, 1, 1))
    is_late = is_owner & (turn >= roles.most_owned)
    return cost + _FORBIDDEN * ((is_owned & is_late) | (~is_owned & is_first))


def _place(roles: Roles, cost: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """Return the two inputs of each cell, (G, P, P, J) each, within the capacities.

    Cells ask for their best inputs in order of what the next best would cost them; those for
    which there is room are served, and the others ask again in the next round. What is left after
    the last round goes wherever there is room.
    """
    shape = cost.shape[1:]
    cost_KGQ = cost.flatten(2)
    saving_GQ = _saving(shape, beta, cost.device)
    is_open_GQ = torch.ones_like(saving_GQ)
    weight_KGQ = torch.zeros_like(cost_KGQ)
    room_KG1 = roles.capacity
    for _ in range(_NUM_ROUNDS):
        # 1. Every open cell asks for its best one or two inputs among those with room.
        asked_KGQ, regret_GQ = _two_best(cost_KGQ + _FORBIDDEN * (room_KG1 < 1), saving_GQ)
        asked_KGQ = asked_KGQ * is_open_GQ
        # 2. In order of regret, an input serves cells until the sum of what they ask is its room.
        order_GQ = (_FORBIDDEN * (1 - is_open_GQ) - regret_GQ).argsort(1)
        sorted_KGQ = asked_KGQ.gather(2, order_GQ.expand_as(asked_KGQ))
        lacking_KGQ = (sorted_KGQ.cumsum(2) - room_KG1).clamp_min(0) * sorted_KGQ
        is_served_GQ = (lacking_KGQ.amax(0) <= 0).to(cost.dtype)
        is_served_GQ = torch.zeros_like(is_served_GQ).scatter(1, order_GQ, is_served_GQ)
        # 3. Served cells are closed, and what they took is no longer there.
        weight_KGQ = torch.addcmul(weight_KGQ, asked_KGQ, is_served_GQ)
        is_open_GQ = is_open_GQ * (1 - is_served_GQ)
        room_KG1 = roles.capacity - weight_KGQ.sum(2, keepdim=True)
    # From weights to numbers: the smallest and the largest input with weight are the two.
    last = cost.shape[0] - 1
    number_K11 = torch.arange(last + 1, device=cost.device, dtype=cost.dtype).view(-1, 1, 1)
    is_used_KGQ = weight_KGQ.ceil()
    first_GQ = last - (is_used_KGQ * (last - number_K11)).amax(0).to(torch.int64)
    second_GQ = (is_used_KGQ * number_K11).amax(0).to(torch.int64)
    rest_GQ = _any_room(is_open_GQ, room_KG1.masked_fill(roles.is_owned, 0.0))
    first_GQ = torch.where(is_open_GQ > 0, rest_GQ, first_GQ)
    second_GQ = torch.where(is_open_GQ > 0, rest_GQ, second_GQ)
    return first_GQ.view(shape), second_GQ.view(shape)


def _any_room(is_open_GQ: Tensor, room_KG1: Tensor) -> Tensor:
    """Return an input with room for each open cell, (G, Q): the i-th gets the i-th free place."""
    last_place_KG1 = room_KG1.floor().cumsum(0)
    turn_GQ = is_open_GQ.cumsum(1)
    return (last_place_KG1 < turn_GQ).sum(0).clamp_max(room_KG1.shape[0] - 1)


def _two_best(cost_KGQ: Tensor, saving_GQ: Tensor) -> tuple[Tensor, Tensor]:
    """Return the best weights of each cell on its own, and what the second best would cost more."""
    # Showing both half and half costs half the regret and saves half of `saving_GQ` on borders.
    least_GQ = cost_KGQ.amin(0)
    is_best_KGQ = 1 - (cost_KGQ - least_GQ).sign()
    others_KGQ = torch.add(cost_KGQ, is_best_KGQ, alpha=2 * _FORBIDDEN)
    next_GQ = others_KGQ.amin(0)
    regret_GQ = next_GQ - least_GQ
    is_next_KGQ = 1 - (others_KGQ - next_GQ).sign()
    half_GQ = 0.5 * (regret_GQ < saving_GQ).to(cost_KGQ.dtype)
    return torch.lerp(is_best_KGQ, is_next_KGQ, half_GQ), regret_GQ


def _saving(shape: torch.Size, beta: float, device: torch.device) -> Tensor:
    """Return beta / 2 for each neighbor of each cell, (G, Q)."""
    groups, grid, _, members = shape
    place_P = torch.arange(grid, device=device)
    num_along_P = (place_P > 0).to(torch.float32) + (place_P < grid - 1)
    num_PP = num_along_P.unsqueeze(1) + num_along_P
    saving = (num_PP * (beta / 2)).view(1, grid, grid, 1).expand(groups, -1, -1, members)
    return saving.flatten(1)
