"""Cells of Co-Mixup that take inputs of limited capacity: prices first, then placement.

Shape suffixes: G groups, J outputs of a group, K inputs, P grid side, Q cells of a group
(P * P * J). Inputs come first: softmax and minimum over the first dimension take a half and a tenth
of the time of those over the last on a CPU.
"""

import torch
from torch import Tensor
from torch.nn.functional import pad

_NUM_ITERATIONS = 12
_NUM_ROUNDS = 4
# All costs are in units of the mean saliency of a cell.
_TEMPERATURES = (0.32, 0.16)
# Above any saliency.
FORBIDDEN = 1e3
# Below any saliency that matters.
TIE_STEP = 1e-6


def with_prices(cost: Tensor, capacity: Tensor, beta: float) -> Tensor:
    """Return the cost of each input in each cell after prices and smoothness, (K, G, P, P, J).

    A price for each input rises until its expected demand fits its ``capacity``, (K, G, 1) cells,
    at falling temperature, with the smoothness linearized around the expected neighbors.
    """
    first, last = _TEMPERATURES
    price_KG1 = torch.zeros_like(capacity)
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
        change_KG1 = temperature * (demand_KG1 / (capacity - 0.5)).log()
        price_KG1 = (price_KG1 + change_KG1).clamp_min(0)
    return _charged(cost, weight, price_KG1, beta)


def _charged(cost: Tensor, weight: Tensor, price_KG1: Tensor, beta: float) -> Tensor:
    """Return the costs with prices, less beta for each neighbor expected to show the same."""
    around = pad(weight, (0, 0, 1, 1, 1, 1))
    near = around[:, :, :-2, 1:-1] + around[:, :, 2:, 1:-1]
    near = near + around[:, :, 1:-1, :-2] + around[:, :, 1:-1, 2:]
    return torch.add(cost + price_KG1.unsqueeze(3).unsqueeze(4), near, alpha=-beta)


def place(
    cost: Tensor, capacity: Tensor, beta: float, *, is_for_all: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return the two inputs of each cell, (G, P, P, J) each, within the capacities.

    Cells ask for their best inputs in order of what the next best would cost them; those for
    which there is room are served, and the others ask again in the next round. What is left after
    the last round goes wherever there is room, among the inputs that are ``is_for_all``, (K, G, 1).
    """
    shape = cost.shape[1:]
    cost_KGQ = cost.flatten(2)
    saving_GQ = _saving(shape, beta, cost.device)
    is_open_GQ = torch.ones_like(saving_GQ)
    weight_KGQ = torch.zeros_like(cost_KGQ)
    room_KG1 = capacity
    for _ in range(_NUM_ROUNDS):
        # 1. Every open cell asks for its best one or two inputs among those with room.
        asked_KGQ, regret_GQ = _two_best(cost_KGQ + FORBIDDEN * (room_KG1 < 1), saving_GQ)
        asked_KGQ = asked_KGQ * is_open_GQ
        # 2. In order of regret, an input serves cells until the sum of what they ask is its room.
        order_GQ = (FORBIDDEN * (1 - is_open_GQ) - regret_GQ).argsort(1)
        sorted_KGQ = asked_KGQ.gather(2, order_GQ.expand_as(asked_KGQ))
        lacking_KGQ = (sorted_KGQ.cumsum(2) - room_KG1).clamp_min(0) * sorted_KGQ
        is_served_GQ = (lacking_KGQ.amax(0) <= 0).to(cost.dtype)
        is_served_GQ = torch.zeros_like(is_served_GQ).scatter(1, order_GQ, is_served_GQ)
        # 3. Served cells are closed, and what they took is no longer there.
        weight_KGQ = torch.addcmul(weight_KGQ, asked_KGQ, is_served_GQ)
        is_open_GQ = is_open_GQ * (1 - is_served_GQ)
        room_KG1 = capacity - weight_KGQ.sum(2, keepdim=True)
    # From weights to numbers: the smallest and the largest input with weight are the two.
    last = cost.shape[0] - 1
    number_K11 = torch.arange(last + 1, device=cost.device, dtype=cost.dtype).view(-1, 1, 1)
    is_used_KGQ = weight_KGQ.ceil()
    first_GQ = last - (is_used_KGQ * (last - number_K11)).amax(0).to(torch.int64)
    second_GQ = (is_used_KGQ * number_K11).amax(0).to(torch.int64)
    # Not by multiplication: the capacity may be infinite.
    spare_KG1 = room_KG1 if is_for_all is None else room_KG1.where(is_for_all, 0.0)
    rest_GQ = _any_room(is_open_GQ, spare_KG1)
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
    others_KGQ = torch.add(cost_KGQ, is_best_KGQ, alpha=2 * FORBIDDEN)
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
