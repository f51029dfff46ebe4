"""Which outputs of a group may show which inputs, so that the reuse term of Co-Mixup stays 0.

With the published threshold of 0.83 images, W is 0 where an input is shown either

- in a few cells by many outputs: by up to about 13 of 16 cells in all ("shared"), or
- by two outputs only, in up to 13 cells each ("owned").

16 cells of m outputs do not fit into 13 cells of m inputs, so the inputs with the flattest
saliency are owned: by the output in the same place and by one other. An owner has to show what it
owns in so many cells that the others find room in what is shared.

Shape suffixes: G groups, M images in a group (J as outputs, K as inputs).
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from automix.operators.comixup_energy import CoMixupProblem


class Roles(NamedTuple):
    """Who may show what.

    Attributes:
        is_owned: (K, G, 1) bool, inputs for two outputs only; padding is owned by itself.
        is_allowed: (K, G, J) bool.
        is_owner: (G, J) bool, outputs that own an input.
        capacity: (K, G, 1) cells of an input for all outputs together.
        least_owned: (G,) cells of an owner that have to show what it owns.
        most_owned: cells of an owner that may show it.
    """

    is_owned: Tensor
    is_allowed: Tensor
    is_owner: Tensor
    capacity: Tensor
    least_owned: Tensor
    most_owned: int


def assign_roles(problem: CoMixupProblem, order_GM: Tensor) -> Roles:
    """Return the roles in each group.

    Args:
        problem: the objective.
        order_GM: (G, M) random numbers, which decide the second owners.
    """
    weights = problem.weights
    num_cells = weights.grid**2
    slot_M = torch.arange(order_GM.shape[1], device=order_GM.device)
    is_image_GM = slot_M < problem.size.unsqueeze(1)
    capacity_GM = _shared_capacity(problem)
    room_GM = capacity_GM.floor().clamp_max(num_cells)
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
