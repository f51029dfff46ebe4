"""The objective of Co-Mixup (Kim et al. 2021, https://arxiv.org/abs/2102.03065).

Cell q of output j holds a weight z_{j,q,k} for each input k: 1 for one input, or 1/2 for two.
With S_k the pooled saliency of input k, of sum 1, n_j the sum of z_j over cells, b = beta/P^2,
g = gamma/P^2 and c_k = -S_k - eta/P^2 log(d_k + 1e-8), where the d_k are a Dirichlet draw:

    U = sum_j sum_q sum_k c_k(q) z_{j,q,k}                              saliency shown, and prior
    V = b/2 sum_j sum_(q,q') |z_{j,q} - z_{j,q'}|^2                     smoothness, neighbors
    W = g sum_j sum_k n_{j,k} h(v_{j,k}),  v_j = A sum_(j' != j) n_j'   reuse by other outputs

h(v) is v above the threshold P^2 tau and 0 below it, or, with the soft threshold, what v exceeds
it by. A = (1 - omega) I + omega m D / sum(D), D the L1 distances between the peaks of the maps.

V is submodular in the cells of an output, which is why the authors solve output by output with
graph cuts; W couples the outputs: it is what makes them differ.

Shape suffixes: G groups, M images in a group (J as outputs, K as inputs).
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from automix.operators.sampling import pool_cells, unit_sum

# Published; keeps the cost of an image that the prior excludes finite.
_PRIOR_FLOOR = 1e-8


@dataclass(frozen=True, slots=True, kw_only=True)
class CoMixupWeights:
    """Parameters of the objective; the defaults are the published ones."""

    grid: int = 4  # P, cells along a side, 2 or more
    beta: float = 0.32  # weight of smoothness, not negative
    gamma: float = 1.0  # weight of the reuse of an input by several outputs, not negative
    # Fraction of a whole image that the other outputs may use of an input, positive.
    tau: float = 0.83
    is_soft: bool = False  # whether only what exceeds that fraction is paid for
    eta: float = 0.05  # weight of the prior over inputs, not negative
    omega: float = 0.001  # weight of the distance between peaks, in [0, 1)
    # Side of the windows whose sums have the peak, in pixels; 8 as published, None for one cell.
    peak_window: int | None = None

    def __post_init__(self) -> None:
        if self.grid < 2:
            raise ValueError(f"grid: expected 2 or more, got {self.grid}")
        if not self.tau > 0:
            raise ValueError(f"tau: expected a positive number, got {self.tau}")
        if not 0 <= self.omega < 1:
            raise ValueError(f"omega: expected 0 or more and less than 1, got {self.omega}")
        if self.peak_window is not None and self.peak_window < 1:
            raise ValueError(f"peak_window: expected 1 or more, or None, got {self.peak_window}")
        for name in ("beta", "gamma", "eta"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}: expected 0 or more, got {getattr(self, name)}")


class CoMixupProblem(NamedTuple):
    """The objective of each group of a batch, as coefficients."""

    cost: Tensor  # (G, K, P, P) c, cost of showing input k in a cell
    affinity: Tensor  # (G, M, M) A
    size: Tensor  # (G,) int64, images in each group; the rest of M is padding
    weights: CoMixupWeights


def comixup_problem(
    saliency_GMHW: Tensor, prior_GM: Tensor, size_G: Tensor, weights: CoMixupWeights
) -> CoMixupProblem:
    """Return the objective of each group, whose ``size_G`` images come first in it.

    The saliency is non-negative and of any scale; the prior is a Dirichlet draw up to a factor for
    each group.
    """
    groups, members, height, width = saliency_GMHW.shape
    maps_BHW = saliency_GMHW.flatten(0, 1)
    shown_BPP = unit_sum(pool_cells(maps_BHW, weights.grid))
    is_image_GM = torch.arange(members, device=size_G.device) < size_G.unsqueeze(1)
    weight_GM = prior_GM.to(shown_BPP.dtype) * is_image_GM
    # Normalized here, because only now is it known which images form a group.
    dirichlet_GM = weight_GM / weight_GM.sum(1, keepdim=True)
    log_prior_GM = (dirichlet_GM + _PRIOR_FLOOR).log() * (weights.eta / weights.grid**2)
    shown_GMPP = shown_BPP.view(groups, members, weights.grid, weights.grid)
    # Peaks of windows of one cell, which move by single pixels: A tells images apart whose salient
    # parts are far from each other.
    side = weights.peak_window
    window = (
        (height // weights.grid, width // weights.grid)
        if side is None
        else (min(side, height), min(side, width))
    )
    peak_GM2 = peaks(unit_sum(maps_BHW), window).view(groups, members, 2)
    distance_GMM = (peak_GM2.unsqueeze(2) - peak_GM2.unsqueeze(1)).abs().sum(3)
    distance_GMM = distance_GMM * (is_image_GM.unsqueeze(2) & is_image_GM.unsqueeze(1))
    return CoMixupProblem(
        cost=-shown_GMPP - log_prior_GM[:, :, None, None],
        affinity=_affinity(distance_GMM.to(shown_BPP.dtype), size_G, weights.omega),
        size=size_G,
        weights=weights,
    )


def peaks(maps_BHW: Tensor, window: tuple[int, int]) -> Tensor:
    """Return row and column of the window (rows, columns) of largest sum, (B, 2) int64."""
    sums_BWH = _window_sums(maps_BHW, window[0]).transpose(1, 2)
    sums_BHW = _window_sums(sums_BWH, window[1]).transpose(1, 2)
    place_B = sums_BHW.flatten(1).argmax(1)
    columns = sums_BHW.shape[2]
    return torch.stack((place_B // columns, place_B % columns), 1)


def _window_sums(maps_BHW: Tensor, length: int) -> Tensor:
    """Return the sums of ``length`` rows that follow each other, (B, H - length + 1, W)."""
    # Running sums: ten times as fast on a CPU as average pooling with stride 1.
    running = torch.nn.functional.pad(maps_BHW.cumsum(1), (0, 0, 1, 0))
    return running[:, length:] - running[:, :-length]


def _affinity(distance_GMM: Tensor, size_G: Tensor, omega: float) -> Tensor:
    total_G11 = distance_GMM.sum((1, 2), keepdim=True)
    scale_G11 = omega * size_G.view(-1, 1, 1) / total_G11.where(total_G11 > 0, 1.0)
    identity_MM = torch.eye(
        distance_GMM.shape[1], dtype=distance_GMM.dtype, device=distance_GMM.device
    )
    return (1 - omega) * identity_MM + scale_G11 * distance_GMM


def comixup_objective(z_GJPPK: Tensor, problem: CoMixupProblem) -> Tensor:
    """Return U, V and W of a solution z, which is 0 in padding: (G, 3), of the objective as sum."""
    weights = problem.weights
    num_cells = weights.grid**2
    z = z_GJPPK.to(problem.cost.dtype)
    cost_G1PPK = problem.cost.permute(0, 2, 3, 1).unsqueeze(1)
    # V counts each change once, of two inputs that differ: |z - z'|^2 / 2 is 1 for one-hot labels.
    jump_down = (z[:, :, 1:] - z[:, :, :-1]).square().sum((1, 2, 3, 4))
    jump_right = (z[:, :, :, 1:] - z[:, :, :, :-1]).square().sum((1, 2, 3, 4))
    used_GJK = z.sum((2, 3))
    others_GJK = used_GJK.sum(1, keepdim=True) - used_GJK
    # W: what the other outputs use of input k, or of inputs like it, if it is above the threshold.
    reuse_GJK = (problem.affinity.unsqueeze(1) * others_GJK.unsqueeze(2)).sum(3)
    threshold = num_cells * weights.tau
    excess_GJK = (reuse_GJK - threshold).clamp_min(0)
    if not weights.is_soft:
        excess_GJK = reuse_GJK * (reuse_GJK > threshold)
    terms = (
        (z * cost_G1PPK).sum((1, 2, 3, 4)),
        (jump_down + jump_right) * (weights.beta / num_cells / 2),
        (used_GJK * excess_GJK).sum((1, 2)) * (weights.gamma / num_cells),
    )
    return torch.stack(terms, 1)


def input_weights(inputs_GJPP2: Tensor, num_inputs: int) -> Tensor:
    """Return the weight of each input in each cell, (G, J, P, P, K) float32 of 0, 1/2 and 1."""
    weight = torch.zeros((*inputs_GJPP2.shape[:4], num_inputs), device=inputs_GJPP2.device)
    halves = torch.full_like(inputs_GJPP2, 0.5, dtype=weight.dtype)
    return weight.scatter_add(4, inputs_GJPP2, halves)


def objective_of(inputs_GJPP2: Tensor, problem: CoMixupProblem) -> Tensor:
    """Return the objective of the two inputs of each cell, (G,); padding does not count."""
    members = problem.affinity.shape[1]
    is_image_GM = torch.arange(members, device=problem.size.device) < problem.size.unsqueeze(1)
    z = input_weights(inputs_GJPP2, members) * is_image_GM.view(-1, members, 1, 1, 1)
    return comixup_objective(z, problem).sum(1)
