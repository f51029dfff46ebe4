"""Transport of PuzzleMix: salient patches move into the cells where their image is seen.

The published rule repeats, for all patches of an image at once: each patch asks for the cell that
costs it least, ``t_eps * squared distance - saliency`` for a visible cell; each cell keeps the
cheapest patch that asks, and a patch that was refused does not ask there again. That is deferred
acceptance (Gale and Shapley 1962, https://doi.org/10.2307/2312726), so all that a patch has to
know is which cells around it are visible, from near to far, and which of them have refused it.
These cells are the bits of one integer for each patch, in place of a row of a T^2 x T^2 matrix.

The bits cover the 61 nearest offsets, up to 4.2 cells away. A farther move would only pay for a
hidden patch with no visible cell within that distance and with more than 18 t_eps / (T - 1)^2 of
the saliency of its image, 6 % at T = 16; it is not made.

Shape suffixes: T patches along a side, N patches (T * T), K offsets, M patches of a batch.
"""

import torch
from torch import Tensor
from torch.nn.functional import pad

from automix.operators.blend import is_channels_last
from automix.operators.host import is_host
from automix.operators.sampling import enlarge_cells

_REACH = 4
_WINDOW = 2 * _REACH + 1
# All offsets of squared distance 18 or less: complete for T = 4, and less than 63 bits.
_NUM_OFFSETS = 61
_FLOAT32_BIAS = 127
# The published code runs T rounds. All its recorded plans, T up to 16, have settled after 8.
_MOST_ROUNDS = 8


def transport_plan(saliency_BTT: Tensor, visible_BTT: Tensor, t_eps: float) -> Tensor:
    """Return which patch each cell shows, (B, N) int64 in row-major order, -1 where none is seen.

    Each patch is used at most once, and each visible cell shows one. A patch only moves where it
    is worth more than the move costs, so a visible patch without saliency stays. (The published
    code loses it: its cost ties with an empty entry.) The saliency of an image sums to 1;
    ``visible_BTT`` says where the image has weight; ``t_eps`` is the cost of a move across it.
    """
    batch, side, _ = saliency_BTT.shape
    num_patches = side * side
    offset_K, cost_K, place = _offsets(side, t_eps, saliency_BTT.device)
    worth_BN = saliency_BTT.flatten(1)
    patch_N = torch.arange(num_patches, device=worth_BN.device)
    first_wins_N = patch_N.flip(0)
    open_BN = _visible_bits(visible_BTT, place)
    nothing_BN = torch.full_like(open_BN, -1)
    best_BN = nothing_BN
    num_rounds = min(side, _MOST_ROUNDS)
    for number in range(num_rounds):
        # Each patch asks: the lowest bit is the nearest visible cell that has not refused it.
        nearest_BN = open_BN & -open_BN
        index_M = _offset_index(nearest_BN).flatten()
        gain_BN = worth_BN - cost_K.index_select(0, index_M).view(batch, -1)
        cell_BN = patch_N + offset_K.index_select(0, index_M).view(batch, -1)
        # The bits of a float that is not negative are in the order of its values, those of a
        # negative one are a negative number. The patch in the low digits breaks ties: first wins.
        bid_BN = torch.add(first_wins_N, gain_BN.view(torch.int32), alpha=num_patches)
        # Each cell keeps the best bid; a patch that was refused will not ask there again.
        best_BN = nothing_BN.scatter_reduce(1, cell_BN, bid_BN, "amax")
        is_refused_BN = best_BN.gather(1, cell_BN) != bid_BN
        open_BN = open_BN ^ (nearest_BN * is_refused_BN)
        if is_host(worth_BN):
            refused = (is_refused_BN & (bid_BN >= 0)).flatten().nonzero().squeeze(1)
            tables = (worth_BN, offset_K, cost_K)
            best_BN = _later_rounds(best_BN, open_BN, refused, tables, num_rounds - 1 - number)
            break
    # The low digits of the best bid say whose it is; a cell with no bid above 0 shows nothing.
    winner_BN = num_patches - 1 - best_BN % num_patches
    return winner_BN.where(best_BN >= 0, nothing_BN)


def _later_rounds(
    best_BN: Tensor,
    open_BN: Tensor,
    asking_R: Tensor,
    tables: tuple[Tensor, Tensor, Tensor],
    most_rounds: int,
) -> Tensor:
    """Return the best bids after the rounds in which only refused patches ask.

    The others would repeat their bids. Less than 1 % of the patches of 224 x 224 images are refused
    in the first round by a cell that they could afford, but how many has to be read.
    """
    worth_M, offset_K, cost_K = tables[0].flatten(), *tables[1:]
    num_patches = best_BN.shape[1]
    best_M, open_M = best_BN.flatten(), open_BN.flatten()
    for _ in range(most_rounds):
        if not len(asking_R):
            break
        open_R = open_M[asking_R]
        nearest_R = open_R & -open_R
        index_R = _offset_index(nearest_R)
        gain_R = worth_M[asking_R] - cost_K[index_R]
        # A patch that cannot afford its nearest cell cannot afford a farther one.
        is_bid_R = gain_R >= 0
        asking_R, gain_R = asking_R[is_bid_R], gain_R[is_bid_R]
        nearest_R, index_R = nearest_R[is_bid_R], index_R[is_bid_R]
        cell_R = asking_R + offset_K[index_R]
        lowest_R = num_patches - 1 - asking_R % num_patches
        bid_R = torch.add(lowest_R, gain_R.view(torch.int32), alpha=num_patches)
        before_R = best_M[cell_R]
        best_M = best_M.scatter_reduce(0, cell_R, bid_R, "amax")
        has_won_R = best_M[cell_R] == bid_R
        # Who loses: the patches that asked in vain, and the former holders of the cells won.
        is_taken_R = has_won_R & (before_R >= 0)
        cell_T, before_T = cell_R[is_taken_R], before_R[is_taken_R]
        holder_T = cell_T - cell_T % num_patches + num_patches - 1 - before_T % num_patches
        open_M[asking_R] ^= nearest_R * ~has_won_R
        open_T = open_M[holder_T]
        open_M[holder_T] = open_T ^ (open_T & -open_T)
        asking_R = torch.cat((asking_R[~has_won_R], holder_T))
    return best_M.view_as(best_BN)


def _offset_index(nearest: Tensor) -> Tensor:
    """Return where the offset of a bit is in the tables of `_offsets`."""
    # A power of two is exact in float32: what it is the power of is in the exponent.
    return nearest.to(torch.float32).view(torch.int32) >> 23


def _offsets(side: int, t_eps: float, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Return the offsets from near to far, their costs, and the place of each among them.

    Offsets are row-major numbers; of equally far ones the first comes first. They and their costs
    are found by the exponent of a float32: bit k is at 127 + k. Exponent 0 is that of a patch with
    no cell left to ask; it cannot afford any.
    """
    # Computed on the device: a table from the host would make it wait.
    number = torch.arange(_WINDOW * _WINDOW, device=device)
    down, right = number // _WINDOW - _REACH, number % _WINDOW - _REACH
    order = ((down**2 + right**2) * _WINDOW**2 + number).argsort()
    nearest_K = order[:_NUM_OFFSETS]
    offset_K = (down * side + right).index_select(0, nearest_K)
    distance_K = (down**2 + right**2).index_select(0, nearest_K)
    cost_K = distance_K * (t_eps / max(1, side - 1) ** 2)
    place = order.argsort().view(_WINDOW, _WINDOW)
    bias = (_FLOAT32_BIAS, 0)
    return pad(offset_K, bias), pad(cost_K, bias, value=float("inf")), place


def _visible_bits(visible_BTT: Tensor, place: Tensor) -> Tensor:
    """Return the visible cells around each patch, (B, N) int64, as bits in order of distance."""
    # A row of the window is a number of 9 bits: cut out of the row of the image, which is a number
    # of T + 8 bits. A table of 512 entries for each row of the window sends them to their places.
    batch, side, _ = visible_BTT.shape
    device = visible_BTT.device
    column = torch.arange(side + 2 * _REACH, device=device)
    padded = pad(
        visible_BTT.transpose(0, 1).to(torch.int64), (_REACH, _REACH, 0, 0, _REACH, _REACH)
    )
    rows = (padded << column).sum(2)
    pattern = (rows.unsqueeze(2) >> column[:side]) & (2**_WINDOW - 1)  # (T + 8, B, T)
    pattern = pattern.to(torch.int32)
    is_set = torch.arange(2**_WINDOW, device=device) >> column[:_WINDOW].unsqueeze(1) & 1
    value = torch.ones_like(place) << place.clamp_max(_NUM_OFFSETS)
    value = value.where(place < _NUM_OFFSETS, 0)
    table = (value.unsqueeze(2) * is_set).sum(1)  # (9, 512)
    bits = table[0].index_select(0, pattern[:side].flatten())
    for row in range(1, _WINDOW):
        bits = bits | table[row].index_select(0, pattern[row : row + side].flatten())
    return bits.view(side, batch, side).transpose(0, 1).reshape(batch, side * side)


def move_patches(images_BCHW: Tensor, source_BN: Tensor) -> Tensor:
    """Return the images with each cell showing the patch of a plan.

    Pixel y of H belongs to cell ``y * T // H``. Where the grid does not divide the image, a patch
    with a row or column less than its cell repeats the last one. A cell without a patch shows its
    own. The memory format is that of the input.
    """
    batch, channels, height, width = images_BCHW.shape
    own_N = torch.arange(source_BN.shape[1], device=source_BN.device)
    source_BN = source_BN.where(source_BN >= 0, own_N)
    is_last = is_channels_last(images_BCHW)
    # Planes of pixels, or one plane whose rows are the pixels with their channels.
    stored = images_BCHW.permute(0, 2, 3, 1).flatten(2).unsqueeze(1) if is_last else images_BCHW
    wide = _wide_type(stored, images_BCHW, round(source_BN.shape[1] ** 0.5))
    if wide is not None:
        # Flattened first, as sides of length 1 may have any stride.
        numbers = stored.flatten().view(wide).view(*stored.shape[:3], -1)
        moved = _gather_pixels(numbers, source_BN).view(images_BCHW.dtype)
    elif is_last:
        pixel_BM1 = _source_pixels(source_BN, (height, width)).view(batch, -1, 1)
        moved = stored.view(batch, -1, channels).gather(1, pixel_BM1.expand(-1, -1, channels))
    else:
        moved = _gather_pixels(images_BCHW, source_BN)
    return moved.view(batch, height, width, channels).permute(0, 3, 1, 2) if is_last else moved


def _wide_type(stored_BCHW: Tensor, images_BCHW: Tensor, side: int) -> torch.dtype | None:
    """Return the widest type that takes the rows of a patch apart into whole numbers of it.

    A patch of 4 float32 pixels is one number of 16 bytes: half of the time of moving 4 pixels.
    """
    height, units = stored_BCHW.shape[2:]
    fits = not (height % side or images_BCHW.shape[3] % side) and stored_BCHW.is_contiguous()
    if fits and is_host(images_BCHW) and not images_BCHW.requires_grad:
        size = images_BCHW.element_size()
        for wide in (torch.complex128, torch.int64):
            if not (units // side * size % wide.itemsize or stored_BCHW.data_ptr() % wide.itemsize):
                return wide
    return None


def _gather_pixels(planes_BCHW: Tensor, source_BN: Tensor) -> Tensor:
    pixel_B1HW = _source_pixels(source_BN, (planes_BCHW.shape[2], planes_BCHW.shape[3]))
    pixel_BCM = pixel_B1HW.flatten(2).expand(-1, planes_BCHW.shape[1], -1)
    return planes_BCHW.flatten(2).gather(2, pixel_BCM).view(planes_BCHW.shape)


def _source_pixels(source_BN: Tensor, size: tuple[int, int]) -> Tensor:
    """Return which pixel of its image each pixel shows, (B, 1, H, W) in row-major numbers."""
    (height, width), device = size, source_BN.device
    side = round(source_BN.shape[1] ** 0.5)
    edge = torch.arange(side + 1, device=device)
    top, left = _first_pixel(edge, height, side), _first_pixel(edge, width, side)
    down_H1 = _inside_cell(height, side, device).unsqueeze(1)
    right_W = _inside_cell(width, side, device)

    def of_source(value_TT: Tensor) -> Tensor:
        chosen = value_TT.flatten().index_select(0, source_BN.flatten())
        return enlarge_cells(chosen.view(-1, side, side), size)

    first_TT = top[:-1].unsqueeze(1) * width + left[:-1]
    pixel_B1HW = of_source(first_TT).add_(down_H1 * width + right_W)
    # Cells differ by at most one pixel: the pixel after the last of the patch is one step back.
    if height % side:
        rows_TT = (top[1:] - top[:-1]).unsqueeze(1).expand(side, side)
        pixel_B1HW = pixel_B1HW - (of_source(rows_TT) == down_H1) * width
    if width % side:
        columns_TT = (left[1:] - left[:-1]).expand(side, side)
        pixel_B1HW = pixel_B1HW - (of_source(columns_TT) == right_W).to(torch.int64)
    return pixel_B1HW


def _inside_cell(length: int, side: int, device: torch.device) -> Tensor:
    """Return the place of each pixel along an axis within its cell, (length,)."""
    pixel_L = torch.arange(length, device=device)
    return pixel_L - _first_pixel(pixel_L * side // length, length, side)


def _first_pixel(cell: Tensor, length: int, side: int) -> Tensor:
    return (cell * length + side - 1) // side
