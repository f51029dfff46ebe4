from collections import deque

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn
from torchvision.ops import box_iou

from automix.evaluation.localization import (
    best_overlaps,
    box_overlaps,
    boxes_of,
    class_activation_maps,
    last_feature_layer,
    localization_accuracy,
    max_box_accuracy,
)


class Pooled(nn.Module):
    """Features, in-place ReLU, global average pooling, one linear map."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2), nn.BatchNorm2d(6))
        self.activation = nn.ReLU(inplace=True)
        self.head = nn.Linear(6, 4)
        source = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=source))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        active = self.activation(self.features(images))
        result: torch.Tensor = self.head(active.mean((2, 3)))
        return result


def images(num_images: int = 5) -> torch.Tensor:
    return torch.randn(num_images, 3, 15, 19, generator=torch.Generator().manual_seed(1))


def test_maps_are_cam_where_pooling_and_one_linear_map_follow() -> None:
    model = Pooled().eval()
    classes = torch.tensor([0, 1, 2, 3, 1])
    result = class_activation_maps(model, images(), classes, layer=model.activation)
    with torch.no_grad():
        active = model.activation(model.features(images()))
        cam = torch.einsum("bc,bchw->bhw", model.head.weight[classes], active)
        large = F.interpolate(cam[:, None], size=(15, 19), mode="bicubic")[:, 0]
    low, high = large.amin((1, 2), keepdim=True), large.amax((1, 2), keepdim=True)
    torch.testing.assert_close(result, (large - low) / (high - low), atol=1e-5, rtol=1e-4)
    assert result.shape == (5, 15, 19)


def test_maps_leave_the_model_as_it_was_even_before_an_in_place_layer() -> None:
    model = Pooled().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    result = class_activation_maps(
        model, images(), torch.zeros(5, dtype=torch.int64), layer=model.features
    )
    assert result.isfinite().all()
    assert model.features.training
    assert not model.features._forward_hooks
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_constant_map_becomes_zero() -> None:
    model = Pooled().eval()
    blank = torch.zeros(2, 3, 15, 19)
    result = class_activation_maps(model, blank, torch.tensor([0, 1]), layer=model.activation)
    assert (result == 0).all()


def test_a_layer_that_does_not_run_or_has_no_map_is_refused() -> None:
    model = Pooled()
    classes = torch.zeros(5, dtype=torch.int64)
    with pytest.raises(ValueError, match="layer: expected a module that runs once"):
        class_activation_maps(model, images(), classes, layer=nn.ReLU())
    with pytest.raises(ValueError, match="layer: expected a module that runs once"):
        class_activation_maps(model, images(), classes, layer=model.head)
    assert not model.head._forward_hooks


def slow_boxes(is_on: NDArray[np.bool_]) -> set[tuple[int, int, int, int]]:
    """Flood fill over eight neighbors."""
    left = {(int(y), int(x)) for y, x in zip(*np.nonzero(is_on), strict=True)}
    boxes = set()
    while left:
        queue = deque([left.pop()])
        region = []
        while queue:
            y, x = queue.popleft()
            region.append((y, x))
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            left -= near
            queue.extend(near)
        rows, columns = zip(*region, strict=True)
        boxes.add((min(columns), min(rows), max(columns) + 1, max(rows) + 1))
    return boxes


@pytest.mark.parametrize("threshold", [0.0, 0.55, 0.8, 1.0])
def test_boxes_agree_with_flood_fill(threshold: float) -> None:
    maps = np.random.default_rng(0).random((6, 13, 17))
    for image in maps:
        result = boxes_of(image, threshold)
        assert result.shape == (len(result), 4)
        assert {tuple(box) for box in result.tolist()} == slow_boxes(image > threshold)


def test_overlaps_agree_with_torchvision_and_disjoint_boxes_have_none() -> None:
    generator = np.random.default_rng(1)
    corners = generator.integers(0, 20, (2, 30, 2))
    sizes = generator.integers(1, 15, (2, 30, 2))
    first, second = (np.concatenate(pair, 1) for pair in zip(corners, corners + sizes, strict=True))
    expected = box_iou(torch.from_numpy(first).double(), torch.from_numpy(second).double())
    np.testing.assert_allclose(box_overlaps(first, second), expected)
    apart = box_overlaps(np.array([[0, 0, 2, 2]]), np.array([[5, 5, 9, 9]]))
    assert apart.tolist() == [[0.0]]


def test_accuracy_by_threshold_and_overlap() -> None:
    # A bright 4x4 square in a dim 8x8 one: low thresholds give the large box.
    image = np.zeros((10, 10))
    image[1:9, 1:9] = 0.5
    image[3:7, 3:7] = 1.0
    maps = np.stack([image, image])
    boxes = [np.array([[1, 1, 9, 9]]), np.array([[0, 0, 1, 1], [3, 3, 7, 7]])]
    overlaps = best_overlaps(maps, boxes, num_thresholds=10)
    table = localization_accuracy(overlaps, is_right=np.array([True, True]))
    assert table.shape == (10, 3)
    # Below 0.5 the first image fits exactly and the second overlaps by 16/64; above, the reverse.
    assert table[0].tolist() == [0.5, 0.5, 0.5]
    assert table[5].tolist() == [0.5, 0.5, 0.5]
    assert max_box_accuracy(table) == 0.5
    wrong = localization_accuracy(overlaps, is_right=np.array([True, False]))
    assert wrong[0].tolist() == [0.5] * 3
    assert wrong[9].tolist() == [0.0] * 3


def test_thresholds_can_be_chosen_on_other_images() -> None:
    table = np.array([[0.9, 0.5, 0.1], [0.8, 0.6, 0.2], [0.1, 0.1, 0.3]])
    other = np.array([[0.1, 0.9, 0.9], [0.9, 0.1, 0.1], [0.1, 0.1, 0.1]])
    assert max_box_accuracy(table) == pytest.approx((0.9 + 0.6 + 0.3) / 3)
    assert max_box_accuracy(table, tuned_on=other) == pytest.approx((0.8 + 0.5 + 0.1) / 3)


def test_several_regions_and_no_region() -> None:
    image = np.zeros((6, 12))
    image[1:4, 1:4] = 1
    image[2:5, 8:11] = 1
    second = [np.array([[8, 2, 11, 5]])]
    assert best_overlaps(image[None], second, num_thresholds=2).tolist() == [[1, 1]]
    nothing = best_overlaps(np.zeros((1, 6, 12)), second, num_thresholds=2)
    assert nothing.tolist() == [[0, 0]]
    with pytest.raises(ValueError, match="expected at least one map and as many sets of boxes"):
        best_overlaps(image[None], [])


def test_boxes_may_be_fractions_of_a_pixel_and_empty_ones_overlap_nothing() -> None:
    overlaps = box_overlaps(
        np.array([[0, 0, 1, 1]]), np.array([[0.5, 0, 1, 1], [0.2, 0.2, 0.2, 1]])
    )
    assert overlaps.tolist() == [[0.5, 0.0]]
    assert box_overlaps(np.zeros((0, 4)), np.array([[0.0, 0.0, 1.0, 1.0]])).shape == (0, 1)
    assert box_overlaps(np.zeros((1, 4)), np.zeros((1, 4))).tolist() == [[0.0]]


def published_max_box_acc_v2(
    maps: NDArray[np.float64], boxes: list[NDArray[np.int64]], num_thresholds: int
) -> float:
    """Loops over images, thresholds, regions, boxes and levels of overlap, pixel by pixel."""
    per_level = []
    for level in (0.3, 0.5, 0.7):
        per_threshold = []
        for step in range(num_thresholds):
            hits = 0
            for image, true in zip(maps, boxes, strict=True):
                result = slow_boxes(image > step / num_thresholds)
                pairs = [(f, t) for f in result for t in true.tolist()]
                hits += any(slow_overlap(f, t, image.shape) >= level for f, t in pairs)
            per_threshold.append(hits / len(maps))
        per_level.append(max(per_threshold))
    return float(np.mean(per_level))


def slow_overlap(first: tuple[int, ...], second: tuple[int, ...], shape: tuple[int, ...]) -> float:
    painted = np.zeros((2, *shape), dtype=bool)
    for canvas, (left, top, right, bottom) in zip(painted, (first, second), strict=True):
        canvas[top:bottom, left:right] = True
    return float((painted[0] & painted[1]).sum() / (painted[0] | painted[1]).sum())


def test_max_box_accuracy_agrees_with_loops_over_pixels() -> None:
    generator = np.random.default_rng(3)
    smooth = generator.random((5, 4, 5)).repeat(4, axis=1).repeat(4, axis=2)
    maps = (smooth + 0.2 * generator.random(smooth.shape)) / 1.2
    boxes = []
    for count in (1, 2, 1, 3, 1):
        low = generator.integers(0, 10, (count, 2))
        boxes.append(np.concatenate((low, low + generator.integers(3, 8, (count, 2))), axis=1))
    for image, (left, top, right, bottom) in zip(maps, (true[0] for true in boxes), strict=True):
        # Bright where the first object is, but for its upper row.
        image[top + 1 : bottom, left:right] += 0.6
    overlaps = best_overlaps(maps, boxes, num_thresholds=12)
    result = max_box_accuracy(localization_accuracy(overlaps, is_right=np.ones(5, dtype=bool)))
    assert result == pytest.approx(published_max_box_acc_v2(maps, boxes, 12))
    assert 0 < result < 1


class Tokens(nn.Module):
    """A map of patches that becomes a row of tokens, as in a vision transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 6, 4, stride=4)
        self.block = nn.Linear(6, 6)
        self.head = nn.Linear(6, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        tokens = self.block(self.patches(images).flatten(2).transpose(1, 2))
        result: torch.Tensor = self.head(tokens.mean(1))
        return result


def test_the_last_map_of_features_is_found_where_there_is_one() -> None:
    assert last_feature_layer(Pooled(), images(1)) == "activation"
    assert last_feature_layer(Tokens(), images(1)) is None
    flat = nn.Sequential(nn.Flatten(), nn.Linear(3 * 15 * 19, 4))
    assert last_feature_layer(flat, images(1)) is None
    pooled = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert last_feature_layer(pooled, images(1)) == "0"
    assert not any(module._forward_hooks for module in pooled.modules())
