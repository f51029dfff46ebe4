import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageColor

from automix.operator_info import Operator
from automix.reporting.contact_sheet import (
    ContactSheet,
    Originals,
    contact_sheet,
    contact_sheet_html,
    contact_sheet_pixels,
    contact_sheet_png,
    heat_map,
    label_text,
    mask_map,
    write_contact_sheets,
)
from automix.reporting.palette import OWN_COLOR, PARTNER_COLOR
from automix.reporting.pixels import enlarged, photograph, png
from automix.schedule import Decision
from tests.reporting.examples import (
    HOSTILE,
    half_and_half,
    small_images,
    small_originals,
)
from tests.reporting.parsing import parse

CUTMIX = Decision(operator=Operator.CUTMIX)


def a_sheet(decision: Decision = CUTMIX, max_rows: int = 8) -> ContactSheet:
    images = small_images(3, 3, 8, 8)
    mixed = half_and_half(images, [0, 1, 2], num_classes=3)
    saliency = images.mean(dim=1)
    originals = small_originals(images, saliency=saliency)
    return contact_sheet(mixed, originals, decision=decision, max_rows=max_rows)


def contains(picture: NDArray[np.uint8], part: NDArray[np.uint8]) -> bool:
    """Say whether ``part`` stands somewhere in ``picture``, pixel by pixel."""
    windows = np.lib.stride_tricks.sliding_window_view(picture, part.shape)[:, :, 0]
    candidates = np.argwhere((windows[:, :, 0, 0] == part[0, 0]).all(axis=-1))
    return any(np.array_equal(windows[row, column], part) for row, column in candidates)


def test_a_row_holds_what_was_mixed() -> None:
    sheet = a_sheet()
    images = small_images(3, 3, 8, 8)
    assert [tile.kind for tile in sheet.rows[0].tiles] == [
        "image A",
        "image B",
        "saliency A",
        "saliency B",
        "mask",
        "mix",
    ]
    first, partner, saliency, partner_saliency, mask, mix = sheet.rows[1].tiles
    assert first.pixels is not None
    assert mix.pixels is not None
    assert mask.pixels is not None
    np.testing.assert_array_equal(first.pixels, photograph(images[1]))
    np.testing.assert_array_equal(partner.pixels, photograph(images[2]))
    np.testing.assert_array_equal(saliency.pixels, heat_map(images[1].mean(dim=0)))
    np.testing.assert_array_equal(partner_saliency.pixels, heat_map(images[2].mean(dim=0)))
    np.testing.assert_array_equal(mix.pixels[:, :4], first.pixels[:, :4])
    np.testing.assert_array_equal(mix.pixels[:, 4:], photograph(images[2])[:, 4:])
    assert tuple(mask.pixels[0, 0]) == ImageColor.getrgb(OWN_COLOR)
    assert tuple(mask.pixels[0, 7]) == ImageColor.getrgb(PARTNER_COLOR)
    assert (first.caption, partner.caption, mix.caption) == ("dog", HOSTILE, "lam 0.50")
    assert sheet.rows[0].label == "50% cat + 50% dog"


def test_the_drawn_mix_is_the_mix_pixel_by_pixel() -> None:
    sheet = a_sheet()
    drawn = contact_sheet_pixels(sheet)
    for row in sheet.rows:
        for tile in row.tiles:
            assert tile.pixels is not None
            factor = 16
            large = tile.pixels.repeat(factor, axis=0).repeat(factor, axis=1)
            assert contains(drawn, large), tile.kind
    other = photograph(small_images(3, 3, 8, 8)[0].flip(-1))
    assert not contains(drawn, other.repeat(16, axis=0).repeat(16, axis=1))


def test_the_label_bar_is_as_long_as_lam() -> None:
    sheet = a_sheet()
    row = dataclasses.replace(sheet.rows[0], lam=0.25)
    drawn = contact_sheet_pixels(dataclasses.replace(sheet, rows=(row,)))
    below = drawn[-40:]
    first = (below == ImageColor.getrgb(OWN_COLOR)).all(axis=-1).sum()
    partner = (below == ImageColor.getrgb(PARTNER_COLOR)).all(axis=-1).sum()
    assert first / (first + partner) == 0.25


def test_columns_without_pictures_are_left_out() -> None:
    images = small_images(3, 1, 8, 8)
    mixed = half_and_half(images, [0, 1, 2], num_classes=3)
    mixed = dataclasses.replace(mixed, mask=None, partner_targets=None)
    sheet = contact_sheet(mixed, small_originals(images), decision=CUTMIX)
    assert [tile.kind for tile in sheet.rows[0].tiles] == ["image A", "image B", "mix"]
    # One of several parents is shown, under its own class.
    captions = [[tile.caption for tile in row.tiles[:2]] for row in sheet.rows]
    assert [second for _, second in captions] == [captions[index][0] for index in (1, 2, 0)]


def test_partners_from_outside_the_batch_are_shown() -> None:
    images = small_images(3, 1, 8, 8)
    mixed = half_and_half(images, [0, 1, 2], num_classes=3)
    originals = small_originals(images, partners=1 - images, saliency=images[:, 0])
    sheet = contact_sheet(mixed, originals, decision=CUTMIX)
    tiles = {tile.kind: tile.pixels for tile in sheet.rows[0].tiles}
    np.testing.assert_array_equal(tiles["image B"], photograph(1 - images[1]))
    assert "saliency B" not in tiles


def test_titles_name_the_strength_where_there_is_one() -> None:
    assert a_sheet().title == "CutMix 1"
    assert a_sheet().strength.startswith("strength 1: alpha of Beta")
    guided = a_sheet(Decision(operator=Operator.GUIDEDMIXUP))
    assert guided.title == "GuidedMixup"
    assert guided.strength == ""
    assert len(a_sheet(max_rows=2).rows) == 2


@pytest.mark.parametrize(
    ("target", "text"),
    [
        ([0.3, 0.7, 0.0], "70% b + 30% a"),
        ([0, 1, 0], "b"),
        ([0.2, 0.3, 0.5], "50% c + 30% b + 20% a"),
        ([0.001, 0.0, 0.999], "c"),
        ([0.5, 0.5, 0.0], "50% a + 50% b"),
    ],
)
def test_labels_in_words(target: list[float], text: str) -> None:
    assert label_text(torch.tensor(target), ["a", "b", "c"]) == text


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.uint8])
def test_photographs_of_every_kind(channels: int, dtype: torch.dtype) -> None:
    image = small_images(1, channels, 4, 6)[0]
    image = (image * 255).to(dtype) if dtype is torch.uint8 else image.to(dtype)
    pixels = photograph(image)
    assert pixels.shape == (4, 6, 3)
    for row, column, channel in np.ndindex(4, 6, 3):
        value = image[min(channel, channels - 1), row, column]
        level = float(value) if dtype is torch.uint8 else round(255 * float(value))
        assert pixels[row, column, channel] == level


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (torch.zeros(2, 4, 4), "shape"),
        (torch.zeros(4, 4), "shape"),
        (torch.full((3, 4, 4), -1.0), "before normalization"),
        (torch.full((3, 4, 4), 2.0), "before normalization"),
    ],
)
def test_other_images_are_refused(image: torch.Tensor, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        photograph(image)


def test_heat_is_relative_to_the_maximum_and_flat_maps_are_dark() -> None:
    rising = heat_map(torch.tensor([[0.0, 1.0, 2.0]]))
    assert rising.sum(axis=-1).argsort().tolist() == [[0, 1, 2]]
    np.testing.assert_array_equal(rising, heat_map(torch.tensor([[0.0, 10.0, 20.0]])))
    assert heat_map(torch.zeros(2, 2)).max() < 10
    assert heat_map(torch.full((2, 2), torch.nan)).max() < 10


def test_a_partial_mask_is_a_blend() -> None:
    half = mask_map(torch.tensor([[0.5]]))[0, 0].astype(int)
    ends = np.array([ImageColor.getrgb(OWN_COLOR), ImageColor.getrgb(PARTNER_COLOR)])
    assert np.abs(half - ends.mean(axis=0)).max() <= 0.5


def test_enlarging_repeats_and_reducing_averages() -> None:
    small = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    large = enlarged(small, 9)
    assert large.shape == (4, 8, 3)
    np.testing.assert_array_equal(large[::2, ::2], small)
    np.testing.assert_array_equal(large[1::2, 1::2], small)
    checks = np.indices((64, 128)).sum(axis=0) % 2 * 200
    reduced = enlarged(np.repeat(checks[..., None], 3, axis=2).astype(np.uint8), 32)
    assert reduced.shape == (16, 32, 3)
    assert (reduced == 100).all()


def test_png_gives_the_pixels_back() -> None:
    pixels = photograph(small_images(1, 3, 5, 7)[0])
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(png(pixels)))), pixels)


def test_the_same_sheet_gives_the_same_bytes() -> None:
    assert contact_sheet_png(a_sheet()) == contact_sheet_png(a_sheet())
    assert contact_sheet_html(a_sheet()) == contact_sheet_html(a_sheet())


def test_html_holds_exact_pixels_and_escapes_names() -> None:
    html = contact_sheet_html(a_sheet())
    document = parse(html)
    assert "<script" not in html
    assert HOSTILE in document.text
    images = document.images()
    tiles = [tile for row in a_sheet().rows for tile in row.tiles]
    assert len(images) == len(tiles)
    for (attributes, pixels), tile in zip(images, tiles, strict=True):
        np.testing.assert_array_equal(pixels, tile.pixels)
        assert attributes["class"] == "small"
        assert str(attributes["alt"]).startswith(tile.kind)


def test_large_images_are_reduced_in_html() -> None:
    images = small_images(2, 1, 400, 600)
    mixed = half_and_half(images, [0, 1], num_classes=3)
    html = contact_sheet_html(contact_sheet(mixed, small_originals(images), decision=CUTMIX))
    for attributes, pixels in parse(html).images():
        assert max(pixels.shape) == 320
        assert "class" not in attributes


def test_sheets_are_written_as_files_that_stand_alone(tmp_path: Path) -> None:
    sheets = [a_sheet(), a_sheet(Decision(operator=Operator.MIXUP, strength=0.2))]
    index = write_contact_sheets(tmp_path / "new", sheets, title=HOSTILE)
    files = sorted(path.name for path in index.parent.iterdir())
    assert files == ["cutmix.html", "cutmix.png", "index.html", "mixup.html", "mixup.png"]
    for path in index.parent.glob("*.html"):
        document = parse(path.read_text())
        assert document.outside_references() == []
    document = parse(index.read_text())
    assert len(document.images()) == 2 * 3 * 6
    assert document.title == HOSTILE
    headings = [name for name, _ in document.elements if name in {"h1", "h2", "h3"}]
    assert headings == ["h1", "h2", "h2"]
    alone = parse((index.parent / "cutmix.html").read_text())
    assert [name for name, _ in alone.elements if name in {"h1", "h2", "h3"}] == ["h1"]
    picture = np.asarray(Image.open(index.parent / "cutmix.png"))
    np.testing.assert_array_equal(picture, contact_sheet_pixels(sheets[0]))


def test_two_sheets_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="distinct names"):
        write_contact_sheets(tmp_path, [a_sheet(), a_sheet()], title="")
    assert list(tmp_path.iterdir()) == []


def test_what_does_not_belong_together_is_refused() -> None:
    images = small_images(3, 1, 8, 8)
    mixed = half_and_half(images, [0, 1, 2], num_classes=3)
    with pytest.raises(ValueError, match="expected 3 images"):
        contact_sheet(mixed, small_originals(images[:2]), decision=CUTMIX)
    with pytest.raises(ValueError, match="expected 3 class names"):
        contact_sheet(mixed, Originals(images=images, class_names=["a"]), decision=CUTMIX)
