"""No metadata fails a good picture: its pixels are those of its orientation alone."""

import random
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from automix.data.load import load_data
from automix.data.sources.decode import (
    Header,
    ImageFormat,
    PixelBox,
    read_crop,
    read_header,
    read_image,
    refusing_bombs,
)
from automix.data.sources.metadata import without_metadata
from tests.data.conftest import Configure, WriteFolder
from tests.data.sources.image_bytes import (
    ORIENTATION,
    Entry,
    encoded,
    exif_block,
    photograph,
    png_chunk,
    turned,
    with_exif,
    with_tiff_tags,
)

Pixels = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]
STORED = ImageFormat(channels=3, height=15, width=21, resize=False)
# Resolution as text, a type that does not exist, four gigabytes of a name, sub-tables nowhere.
ODD: tuple[Entry, ...] = (
    (0x011A, 2, 2, b"5\0\0\0"),
    (0x0128, 77, 1, b"\1\0\0\0"),
    (0x010F, 2, 2**32 - 1, b"\xff\xff\xff\xff"),
    (0x8769, 4, 1, b"\xff\xff\xff\x7f"),
    (0x8825, 2, 3, b"\5\0\0\0"),
)
KINDS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95},
    "PNG": {},
    "WEBP": {"lossless": True},
    "TIFF": {"compression": None},
}


def reads(file: Path, content: bytes) -> tuple[Header, Pixels, Pixels]:
    """Return header, pixels and a crop of everything."""
    file.write_bytes(content)
    with refusing_bombs():
        header = read_header(file)
        size: dict[str, Any] = {"channels": 3, "height": header.height, "width": header.width}
        whole = read_image(file, ImageFormat(**size, resize=False))
        crop = read_crop(
            file, ImageFormat(**size, resize=True), lambda rows, cols: PixelBox(0, 0, rows, cols)
        )
    return header, whole, crop


def check_upright(file: Path, content: bytes, stored: Pixels, orientation: int) -> None:
    header, whole, crop = reads(file, content)
    expected = turned(stored, orientation)
    assert (header.height, header.width) == expected.shape[1:]
    np.testing.assert_array_equal(whole, expected)
    np.testing.assert_array_equal(crop, expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("odd", [(), *((entry,) for entry in ODD), ODD])
def test_odd_exif_leaves_the_pixels_and_the_orientation(
    kind: str, odd: tuple[Entry, ...], tmp_path: Path
) -> None:
    content = encoded(photograph(), kind, **KINDS[kind])
    file = tmp_path / "image.bin"
    _, stored, _ = reads(file, content)
    for orientation in range(1, 9):
        number = struct.pack("<HH", orientation, 0)
        if kind == "TIFF":
            tags = (*odd, (ORIENTATION, 3, 1, number))
            check_upright(file, with_tiff_tags(content, tags), stored, orientation)
            continue
        for order in "<>":
            block = exif_block(odd, orientation, order=order)
            check_upright(file, with_exif(content, block), stored, orientation)


@pytest.mark.parametrize("kind", KINDS)
def test_random_entries_leave_the_pixels_and_the_orientation(kind: str, tmp_path: Path) -> None:
    content = encoded(photograph(), kind, **KINDS[kind])
    file = tmp_path / "image.bin"
    _, stored, _ = reads(file, content)
    draw = random.Random(0)
    for _ in range(20):
        orientation = draw.randint(1, 8)
        # Not the tags of a TIFF file's pixels, which are below 0x0150 or so.
        entries = [
            (draw.choice((0x010E, 0x0131, draw.randint(0x8000, 0xFFFF))), draw.randint(0, 20),
             draw.choice((0, 1, 2, 9, 2**31)), draw.randbytes(4))
            for _ in range(draw.randint(1, 6))
        ]  # fmt: skip
        if kind == "TIFF":
            entries.append((ORIENTATION, 3, 1, struct.pack("<HH", orientation, 0)))
            check_upright(file, with_tiff_tags(content, entries), stored, orientation)
        else:
            block = exif_block(entries, orientation)
            check_upright(file, with_exif(content, block), stored, orientation)


@pytest.mark.parametrize(
    "orientation",
    [(3, 1, b"\0\0\0\0"), (3, 1, b"\x09\0\0\0"), (2, 2, b"6\0\0\0"),
     (5, 1, b"\1\0\0\0"), (12, 1, b"\xff\xff\xff\xff")],
)  # fmt: skip
def test_what_is_no_orientation_turns_nothing(
    orientation: tuple[int, int, bytes], tmp_path: Path
) -> None:
    file, content = tmp_path / "image.bin", encoded(photograph(), "PNG")
    _, stored, _ = reads(file, content)
    block = exif_block([(ORIENTATION, *orientation)], None)
    check_upright(file, with_exif(content, block), stored, 1)


def test_a_cut_exif_block_is_none(tmp_path: Path) -> None:
    file, content = tmp_path / "image.bin", encoded(photograph(), "JPEG")
    _, stored, _ = reads(file, content)
    block = exif_block([], 6)
    for length in range(len(block) - 4):
        # The table of tags ends four bytes before the block.
        check_upright(file, with_exif(content, block[:length]), stored, 1)


def test_damaged_chunks_of_a_png_file(tmp_path: Path) -> None:
    file, content = tmp_path / "image.bin", encoded(photograph(), "PNG")
    _, stored, _ = reads(file, content)
    end = content.index(b"IEND") - 4
    exif = png_chunk(b"eXIf", exif_block(ODD, 8))
    too_long = png_chunk(b"zTXt", b"key\0\0" + zlib.compress(bytes(2_000_000)))
    wrong_sum = png_chunk(b"tIME", bytes(7))[:-1] + b"?"
    for chunk in (png_chunk(b"cHRM", b"1"), png_chunk(b"acTL", b""), too_long, wrong_sum):
        for at in (33, end):
            header, whole, _ = reads(file, content[:at] + chunk + exif + content[at:])
            # What follows damage behind the pixels is not read.
            orientation = 8 if at == 33 or header.height == 21 else 1
            np.testing.assert_array_equal(whole, turned(stored, orientation))


def test_only_metadata_is_left_out() -> None:
    for mode, kind in (("RGB", "JPEG"), ("CMYK", "JPEG"), ("P", "PNG"), ("RGB", "TIFF")):
        content = encoded(photograph(mode), kind)
        bare = without_metadata(content)
        assert bare is not None
        assert bare == content or len(bare) <= len(content)
    assert without_metadata(b"GIF89a") is None
    assert without_metadata(b"II*\0") is None


@pytest.mark.parametrize("loading", ["resident", "streaming"])
def test_one_odd_photograph_does_not_end_a_training_run(
    loading: str, write_folder: WriteFolder, folder_config: Configure
) -> None:
    """As cameras and editors write it: sideways, its resolution stored as text."""
    root = write_folder(suffix=".jpg")
    file = root / "train/cat/3.jpg"
    file.write_bytes(with_exif(file.read_bytes(), exif_block([ODD[0]], 6)))
    data = load_data(folder_config(root, loading=loading, image_size=[6, 4]))
    images, _ = data.train.take(torch.arange(len(data.train)))
    assert images.shape[1:] == (3, 6, 4)
