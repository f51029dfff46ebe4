"""The objective of PuzzleMix (Kim et al. 2020, https://arxiv.org/abs/2009.06962).

Each cell has a label z in {0, 1/(N-1), .., 1}, the weight of the own image (index 1 below; the
partner is index 0). With beta_P = beta / (16 P), s the pooled saliency of an image, of sum 1, and
D_ab(c, d) the mean absolute difference across the border of neighboring cells c and d between
image a on the side of c and image b on the side of d:

    T1 = sum_c z_c s_0(c) + (1 - z_c) s_1(c)                                saliency that is lost
    T2 = beta_P sum_(c,d) (z_c - z_d)^2                                     label smoothness
    T3 = beta_P gamma sum_(c,d) [ z_c (D10 + D11)/2 + (1 - z_c) (D01 + D00)/2
                                + z_d (D01 + D11)/2 + (1 - z_d) (D10 + D00)/2
                                + (D10 + D01 - D11 - D00)/2 (z_c - z_d)^2 ]  data smoothness
    T4 = -eta/P^2 sum_c log( Binomial(N-1, lam)((N-1) z_c) + 1e-8 )         prior

For z in {0, 1} the bracket of T3 is D_{z_c z_d} + (D10 + D01)/2: what is seen at the border, up to
a constant.

Shape suffixes: N labels, E pooled positions along the image, R borders between rows of cells, S
rows of positions next to them, two for each. The
batch comes last in what the solver reads: its reductions are then over whole rows of memory.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from automix.operators.sampling import pool_cells, unit_sum

# Published; keeps the cost of an impossible label finite: 18.4 eta / P^2.
_PRIOR_FLOOR = 1e-8


@dataclass(frozen=True, slots=True, kw_only=True)
class PuzzleWeights:
    """Parameters of the objective; the defaults are the published ones."""

    # P, cells along a side, 2 to 16. The authors draw it from {2, 4, 8, 16} for each batch. Here it
    # is fixed, because each grid is another program to compile; draw it outside, as a choice
    # between four operators.
    grid: int = 4
    num_labels: int = 3  # N, 2 or 3; with 3 a cell can show both images half and half
    beta: float = 1.2  # weight of smoothness, not negative
    gamma: float = 0.5  # weight of the image borders within smoothness, not negative
    eta: float = 0.2  # weight of the prior, not negative
    neigh_size: int = 4  # pixels that are pooled to one position along a border, positive
    # What the images were divided by to normalize them; differences of pixels are measured before
    # that.
    pixel_std: float = 0.25

    def __post_init__(self) -> None:
        if not 2 <= self.grid <= 16:
            raise ValueError(f"grid: expected 2 to 16, got {self.grid}")
        if self.num_labels not in (2, 3):
            raise ValueError(f"num_labels: expected 2 or 3, got {self.num_labels}")
        if self.neigh_size < 1:
            raise ValueError(f"neigh_size: expected 1 or more, got {self.neigh_size}")
        for name in ("beta", "gamma", "eta", "pixel_std"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}: expected 0 or more, got {getattr(self, name)}")


class PuzzleProblem(NamedTuple):
    """The objective of every image of a batch, as coefficients."""

    saliency: Tensor  # (2, P, P, B) cost of z = 0 and of z = 1 in each cell, in T1
    border: Tensor  # (2, P, P, B) the same in T3
    vertical: Tensor  # (P-1, P, B) weight of (z - z')^2 in T3, cell and the cell below
    horizontal: Tensor  # (P, P-1, B) the same, cell and the cell to the right
    prior: Tensor  # (N, B) cost of each label in T4
    smoothness: float  # beta_P, weight of (z - z')^2 in T2


def puzzle_problem(
    images_BCHW: Tensor,
    saliency_BHW: Tensor,
    partner_B: Tensor,
    lam_B: Tensor,
    weights: PuzzleWeights,
) -> PuzzleProblem:
    """Return the objective of a batch, in the floating point type of the saliency.

    The costs stay in floating point. The published ones are scaled by 1000 P^2 and cut to int32,
    which overflows once a cell carries more than 8.4 % of the saliency at P = 16.
    """
    grid = weights.grid
    own_PPB = unit_sum(pool_cells(saliency_BHW, grid)).permute(1, 2, 0).contiguous()
    # T1: z = 0 hides the own image, z = 1 the partner.
    saliency_2PPB = torch.stack((own_PPB, own_PPB.index_select(2, partner_B)))
    smoothness = weights.beta / (16 * grid)
    scale = smoothness * weights.gamma
    down, right = _border_differences(images_BCHW.to(own_PPB.dtype), partner_B, weights)
    # T3, its linear part: a cell is first at its lower and right border, second at the others.
    border_2PPB = torch.zeros_like(saliency_2PPB)
    border_2PPB[:, :-1] += down.first(scale)
    border_2PPB[:, 1:] += down.second(scale)
    border_2PPB[:, :, :-1] += right.first(scale)
    border_2PPB[:, :, 1:] += right.second(scale)
    return PuzzleProblem(
        saliency=saliency_2PPB,
        border=border_2PPB,
        vertical=down.coupling(scale),
        horizontal=right.coupling(scale),
        prior=_prior(lam_B.to(own_PPB.dtype), weights),
        smoothness=smoothness,
    )


class _Borders(NamedTuple):
    """Differences D_ab across the borders between cells: each (rows, columns, B)."""

    d00: Tensor
    d01: Tensor
    d10: Tensor
    d11: Tensor

    def first(self, scale: float) -> Tensor:
        """Return what z = 0 and z = 1 cost in the upper or left cell: (2, rows, columns, B)."""
        return torch.stack((self.d01 + self.d00, self.d10 + self.d11)) * (scale / 2)

    def second(self, scale: float) -> Tensor:
        """Return the same for the lower or right cell."""
        return torch.stack((self.d10 + self.d00, self.d01 + self.d11)) * (scale / 2)

    def coupling(self, scale: float) -> Tensor:
        """Return the weight of (z - z')^2: (rows, columns, B)."""
        return (self.d10 + self.d01 - self.d11 - self.d00) * (scale / 2)


def _border_differences(
    images_BCHW: Tensor, partner_B: Tensor, weights: PuzzleWeights
) -> tuple[_Borders, _Borders]:
    """Return the differences across horizontal borders (cells above each other) and vertical."""
    # Positions along a cell that are compared: blocks of neigh_size pixels, at least one.
    along = max(1, min(images_BCHW.shape[2:]) // weights.grid // weights.neigh_size)
    down_BCSE, right_BCES = _border_positions(images_BCHW, weights.grid, along)
    down = _differences(down_BCSE * weights.pixel_std, partner_B, along)
    right = _differences(right_BCES.transpose(2, 3) * weights.pixel_std, partner_B, along)
    return down, _Borders(*(difference.transpose(0, 1) for difference in right))


def _border_positions(images_BCHW: Tensor, grid: int, along: int) -> tuple[Tensor, Tensor]:
    """Return the pooled rows and columns on both sides of each border, first above or left."""
    batch, channels, height, width = images_BCHW.shape
    side = grid * along
    maps_NHW = images_BCHW.flatten(0, 1)
    if along <= 2 or height % side or width % side:
        pooled_NEE = pool_cells(maps_NHW, side)
        border_R = torch.arange(1, grid, device=images_BCHW.device) * along
        line_S = torch.stack((border_R - 1, border_R), 1).flatten()
        down, right = pooled_NEE.index_select(1, line_S), pooled_NEE.index_select(2, line_S)
    else:
        # Only what is next to a border is pooled: a quarter of the pixels of 224 x 224 images.
        down = pool_cells(_next_to_borders(maps_NHW, grid, along), (2 * grid - 2, side))
        turned = _next_to_borders(maps_NHW.transpose(1, 2), grid, along).transpose(1, 2)
        right = pool_cells(turned, (side, 2 * grid - 2))
    return down.reshape(batch, channels, -1, side), right.reshape(batch, channels, side, -1)


def _next_to_borders(maps_NHW: Tensor, grid: int, along: int) -> Tensor:
    """Return the rows that are one position or less from a border between rows of cells."""
    cell = maps_NHW.shape[1] // grid
    near = cell // along
    strips_NRWL = maps_NHW[:, cell - near : near - cell].unfold(1, 2 * near, cell)
    return strips_NRWL.transpose(2, 3).flatten(1, 2)


def _differences(lines_BCSE: Tensor, partner_B: Tensor, along: int) -> _Borders:
    """Return D_ab between each cell and the one below it: four times (P-1, P, B)."""
    batch, _, _, side = lines_BCSE.shape
    own_CSEB = lines_BCSE.permute(1, 2, 3, 0).contiguous()
    partner_CSEB = own_CSEB.index_select(3, partner_B)

    def across(above_CSEB: Tensor, below_CSEB: Tensor) -> Tensor:
        # The last row of positions of each cell against the first of the cell below.
        difference_REB = (above_CSEB[:, ::2] - below_CSEB[:, 1::2]).abs_().mean(0)
        return difference_REB.reshape(-1, side // along, along, batch).mean(2)

    d11_RPB = across(own_CSEB, own_CSEB)
    # Within the partner the differences are those of another image of the batch.
    return _Borders(
        d00=d11_RPB.index_select(2, partner_B),
        d01=across(partner_CSEB, own_CSEB),
        d10=across(own_CSEB, partner_CSEB),
        d11=d11_RPB,
    )


def _prior(lam_B: Tensor, weights: PuzzleWeights) -> Tensor:
    """Return the cost of each label in one cell: (N, B)."""
    # A cell of N labels is the count of N - 1 coin flips that show the own image with lam.
    trials = weights.num_labels - 1
    probability = [
        math.comb(trials, count) * lam_B**count * (1 - lam_B) ** (trials - count)
        for count in range(trials + 1)
    ]
    scale = -weights.eta / weights.grid**2
    return scale * (torch.stack(probability) + _PRIOR_FLOOR).log()
