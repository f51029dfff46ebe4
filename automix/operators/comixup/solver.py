"""Solver of the Co-Mixup objective: all groups at once, without a graph cut.

The authors solve output by output: the reuse term W is linearized with the others fixed, a graph
cut chooses the cells, and up to four sweeps follow: 20 x 4 cuts one after the other for a group of
20. Here capacities keep W at 0 instead, which leaves a problem of assignment; the result is
compared with no mixing, and the better one is returned.

Shape suffixes: G groups, M images in a group (J as outputs, K as inputs), P grid side.
"""

from typing import Literal

import torch
from torch import Tensor

from automix.operators.comixup.energy import CoMixupProblem, objective_of
from automix.operators.comixup.rings import few_inputs
from automix.operators.comixup.roles import many_inputs

MostInputs = int | Literal["few"] | None
"""How many images an output may show; few: 3, or 4 with the soft threshold; None: any number."""


def solve_comixup(
    problem: CoMixupProblem, order_GM: Tensor, *, most_inputs: MostInputs = "few"
) -> Tensor:
    """Return the two inputs that each cell of each output shows half and half.

    (G, J, P, P, 2) int64, the same input twice where a cell shows one. Padding shows itself. The
    objective of no group is above that of no mixing. The random numbers ``order_GM`` decide which
    outputs show which inputs. ``most_inputs``, from 1, is how many inputs an output may show:
    ``few``, as the published solver, or None for the lowest objective, with 6 to 11 of them.
    """
    # On the recorded problems the published solver shows 2.0 to 2.8, and 3.6 with the soft one.
    few = 4 if problem.weights.is_soft else 3
    own_J = torch.arange(order_GM.shape[1], device=order_GM.device)
    if most_inputs is None:
        # The first wins where its capacities are too tight for whole cells, as with 11 images, a
        # threshold of 0.81 and no prior, where half of the groups would not be mixed.
        candidates = [few_inputs(problem, order_GM, few), many_inputs(problem, order_GM)]
    else:
        number = few if most_inputs == "few" else most_inputs
        candidates = [few_inputs(problem, order_GM, number)]
    best = own_J.view(1, -1, 1, 1, 1).expand_as(candidates[0])
    for mixed in candidates:
        is_better_G = objective_of(mixed, problem) < objective_of(best, problem)
        best = torch.where(is_better_G.view(-1, 1, 1, 1, 1), mixed, best)
    return best
