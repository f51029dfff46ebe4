import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from automix.reporting.canvas import TEXT_POINTS, text_width
from automix.reporting.figures.placement import beside_points, place_in_area, spread

SIZE = (400.0, 200.0)


@given(
    steps=st.lists(
        st.tuples(st.integers(1, 10), st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=8
    ),
    name=st.sampled_from(["Mixup", "none", "Saliency Grafting"]),
)
def test_a_placed_name_lies_inside_its_area(
    steps: list[tuple[int, float, float]], name: str
) -> None:
    lengths = np.array([length for length, _, _ in steps], dtype=float)
    edges = np.concatenate([[0.0], np.cumsum(lengths / lengths.sum())])
    lower = np.array([min(a, b) for _, a, b in steps])
    upper = np.array([max(a, b) for _, a, b in steps])
    place = place_in_area(edges, lower, upper, name, SIZE)
    if place is None:
        return
    x, y, rotation = place
    across, along = text_width(name) / SIZE[0], TEXT_POINTS / SIZE[1]
    if rotation:
        across, along = TEXT_POINTS / SIZE[0], text_width(name) / SIZE[1]
    assert across / 2 <= x <= 1 - across / 2
    covered = (edges[1:] > x - across / 2) & (edges[:-1] < x + across / 2)
    assert covered.any()
    assert (lower[covered] <= y - along / 2).all()
    assert (upper[covered] >= y + along / 2).all()


def test_a_name_turns_where_only_that_fits() -> None:
    def rotation(height: float, fraction: float) -> float | None:
        edges = np.array([0, fraction, 1.0])
        place = place_in_area(edges, np.zeros(2), np.array([height, 0]), "Mixup", SIZE)
        return None if place is None else place[2]

    assert rotation(0.5, 0.5) == 0
    assert rotation(0.5, 0.05) == 90
    assert rotation(0.05, 0.05) is None


@given(values=st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_spread_keeps_order_gaps_and_bounds(values: list[float]) -> None:
    places = spread(values, gap=0.1, low=0.0, high=1.0)
    assert min(places) >= -1e-9
    assert max(places) <= 1 + 1e-9
    ordered = sorted(places)
    assert all(b - a >= 0.1 - 1e-9 for a, b in itertools.pairwise(ordered))
    for (a, place_a), (b, place_b) in itertools.combinations(zip(values, places, strict=True), 2):
        assert a == b or (a < b) == (place_a < place_b)


def test_spread_leaves_distant_values_where_they_are() -> None:
    assert spread([0.9, 0.1, 0.5], gap=0.1, low=0, high=1) == [0.9, 0.1, 0.5]


def test_names_beside_points_do_not_overlap() -> None:
    anchors = [(20.0, 100.0), (20.0, 104.0), (24.0, 60.0), (390.0, 100.0)]
    widths = [60.0, 60.0, 80.0, 50.0]
    offsets = beside_points(anchors, widths, height=11, page_width=400)
    boxes = []
    for (x, y), (dx, dy), width in zip(anchors, offsets, widths, strict=True):
        left = x + dx if dx > 0 else x + dx - width
        assert 0 <= left <= 400 - width
        boxes.append((left, left + width, y + dy - 5.5, y + dy + 5.5))
    for a, b in itertools.combinations(boxes, 2):
        assert a[1] <= b[0] or b[1] <= a[0] or a[3] <= b[2] or b[3] <= a[2]
    assert offsets[3][0] < 0


def test_a_crowd_without_room_still_gets_its_names() -> None:
    offsets = beside_points([(10.0, 10.0)] * 30, [60.0] * 30, height=11, page_width=100)
    assert len(offsets) == 30


@pytest.mark.parametrize("name", ["x" * 200])
def test_a_name_longer_than_the_axes_is_not_placed(name: str) -> None:
    whole = np.array([0.0, 1.0]), np.zeros(1), np.ones(1)
    assert place_in_area(*whole, name, SIZE) is None
