"""Places for text in a figure: inside an area, beside line ends, beside points."""

import itertools
import math
from collections.abc import Sequence

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from automix.reporting.canvas import TEXT_POINTS, text_width

Floats = NDArray[np.float64]

_SAMPLES = 400  # positions along the unit axis
_LINE_HEIGHT = 1.35


def place_in_area(
    edges: Floats, lower: Floats, upper: Floats, name: str, size: tuple[float, float]
) -> tuple[float, float, float] | None:
    """Return (x, y, rotation in degrees) where ``name`` fits into an area, or None.

    The room for a text is the smallest height of the area over the width of the text; the place
    with the most room wins, the middle one of equals. ``edges``, (E + 1,) from 0 to at most 1, are
    those of the area's steps, ``lower`` and ``upper``, (E,) in [0, 1], their bottoms and tops;
    ``size`` is that of the unit square on paper, in points.
    """
    num_samples = round(_SAMPLES * edges[-1])
    positions = (np.arange(num_samples) + 0.5) / _SAMPLES
    interval = np.searchsorted(edges, positions, side="right") - 1
    low, high = lower[interval], upper[interval]
    long, short = text_width(name) + 6, _LINE_HEIGHT * TEXT_POINTS
    # Upright text is easier to read; it is turned only where it does not fit.
    for across, along, rotation in ((long, short, 0.0), (short, long, 90.0)):
        window = math.ceil(across / size[0] * _SAMPLES)
        if window > num_samples:
            continue
        # The area under a text of this width: the highest bottom and the lowest top it touches.
        bottoms = sliding_window_view(low, window).max(axis=1)
        tops = sliding_window_view(high, window).min(axis=1)
        room = tops - bottoms
        if room.max() * size[1] < along:
            continue
        best = _middle_of_first_run(room >= room.max() - 1e-9)
        return (best + window / 2) / _SAMPLES, (bottoms[best] + tops[best]) / 2, rotation
    return None


def _middle_of_first_run(flags: NDArray[np.bool_]) -> int:
    first = int(np.argmax(flags))
    rest = flags[first:]
    length = len(rest) if rest.all() else int(np.argmin(rest))
    return first + (length - 1) // 2


def spread(values: Sequence[float], *, gap: float, low: float, high: float) -> list[float]:
    """Return positions near ``values``, in their order, at least ``gap`` apart.

    Positions stay within [low, high] as far as they fit there.
    """
    order = sorted(range(len(values)), key=lambda index: values[index])
    # Upwards first: each position is pushed above the one below it.
    places = [values[index] for index in order]
    for index in range(1, len(places)):
        places[index] = max(places[index], places[index - 1] + gap)
    # Then downwards: a position above the top comes back, and pushes those below it.
    ceiling = high
    for index in reversed(range(len(places))):
        places[index] = min(places[index], ceiling)
        ceiling = places[index] - gap
    shift = max(0.0, low - places[0]) if places else 0.0
    result = [0.0] * len(values)
    for index, place in zip(order, places, strict=True):
        result[index] = place + shift
    return result


def beside_points(
    anchors: Sequence[tuple[float, float]],
    widths: Sequence[float],
    *,
    height: float,
    page_width: float,
) -> list[tuple[float, float]]:
    """Return an offset per point at which its name overlaps no other point or name.

    A positive x offset means the name begins there, a negative one that it ends there. Where a
    crowd leaves no room, the last candidate is taken. Anchors are on the page, from its lower left
    corner; all lengths are in points, ``height`` is that of a line.
    """
    radius = 6.0
    # Boxes as (left, right, bottom, top): the points themselves, then each name once it is placed.
    taken = [(x - radius, x + radius, y - radius, y + radius) for x, y in anchors]
    offsets = []
    for (x, y), width in zip(anchors, widths, strict=True):
        sides = (1, -1) if x + radius + width < page_width else (-1, 1)
        # Level with the point first, then half a line and more above and below.
        for step, side in itertools.product((0, 1, -1, 2, -2, 3, -3), sides):
            offset = side * (radius + 2), step * 0.6 * height
            near, far = sorted((x + offset[0], x + offset[0] + side * width))
            box = (near, far, y + offset[1] - height / 2, y + offset[1] + height / 2)
            if near >= 0 and not any(_overlap(box, other) for other in taken):
                break
        taken.append(box)
        offsets.append(offset)
    return offsets


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a[0] < b[1] and b[0] < a[1] and a[2] < b[3] and b[2] < a[3]
