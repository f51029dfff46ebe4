"""Co-Mixup without a limit on the images of an output: the lowest objective.

1. Roles: which outputs may show which inputs, so that capacities for inputs keep the reuse term W
   at 0;
2. prices and placement within these capacities, see `automix.operators.comixup.assignment`.

With the published threshold of 0.83 images, W is 0 where an input is shown either

- in a few cells by many outputs: by up to about 13 of 16 cells in all ("shared"), or
- by two outputs only, in up to 13 cells each ("owned").

16 cells of m outputs do not fit into 13 cells of m inputs, so the inputs with the flattest
saliency are owned: by the output in the same place and by one other. An owner has to show what it
owns in so many cells that the others find room in what is shared.

Shape suffixes: G groups, M images in a group (J as outputs, K as inputs), P grid side, Q cells of
an output.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from automix.operators.comixup.assignment import FORBIDDEN, TIE_STEP, place, with_prices
from automix.operators.comixup.energy import CoMixupProblem

# In units of the mean saliency of a cell, as all costs below.
_OWN_BONUS = 0.1


def many_inputs(problem: CoMixupProblem, order_GM: Tensor) -> Tensor:
    """Return the two inputs of each cell, (G, J, P, P, 2) int64: outputs show 6 to 11 inputs."""
    roles = assign_roles(problem, order_GM)
    cost = with_prices(_costs(problem, roles), roles.capacity, problem.weights.beta)
    first, second = place(
        _within_ownership(roles, cost),
        roles.capacity,
        problem.weights.beta,
        is_for_all=~roles.is_owned,
    )
    return torch.stack((first, second), 4).permute(0, 3, 1, 2, 4)


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
    extra_KJ = TIE_STEP * slot_M.unsqueeze(1) - bonus_KJ
    extra_KGJ = extra_KJ.unsqueeze(1) + FORBIDDEN * ~roles.is_allowed
    return cost_KGPP1 + extra_KGJ.view(members, groups, 1, 1, members)


def _within_ownership(roles: Roles, cost: Tensor) -> Tensor:
    """Return the costs with what would break the capacities forbidden in the cells of owners.

    An owner shows what it owns where it loses least by it: in so many cells that the others find
    room in the shared inputs, and in no more than it may.
    """
    members, groups, grid = cost.shape[:3]
    is_owned = roles.is_owned.view(members, groups, 1, 1, 1)
    best_owned = torch.add(cost, ~is_owned, alpha=FORBIDDEN).amin(0)
    best_shared = torch.add(cost, is_owned, alpha=FORBIDDEN).amin(0)
    turn_GJQ = rank((best_owned - best_shared).flatten(1, 2).transpose(1, 2))
    turn = turn_GJQ.transpose(1, 2).view(groups, grid, grid, members)
    is_owner = roles.is_owner.view(groups, 1, 1, members)
    is_first = is_owner & (turn < roles.least_owned.view(-1, 1, 1, 1))
    is_late = is_owner & (turn >= roles.most_owned)
    return cost + FORBIDDEN * ((is_owned & is_late) | (~is_owned & is_first))
