"""Kinds of pixels: right as `docs/data.md` says, or refused by name in one line."""

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from automix.data.load import load_data
from automix.data.sources.decode import (
    ImageFormat,
    PixelBox,
    read_crop,
    read_header,
    read_image,
    refusing_bombs,
)
from automix.errors import DataError
from tests.data.conftest import Configure, WriteFolder
from tests.data.sources.image_bytes import (
    ORIENTATION,
    encoded,
    gray_tiff,
    photograph,
    turned,
    with_tiff_tags,
)

COLOR = ImageFormat(channels=3, height=15, width=21, resize=False)
GRAY = ImageFormat(channels=1, height=15, width=21, resize=False)
Pixels = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]


def read(tmp_path: Path, content: bytes, image_format: ImageFormat = COLOR) -> Pixels:
    file = tmp_path / "image.png"
    file.write_bytes(content)
    header = read_header(file)
    assert (header.height, header.width) == (image_format.height, image_format.width)
    return read_image(file, image_format)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "CMYK", "P", "1", "I;16"])
@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
def test_header_decoder_and_crops_of_tiff_have_one_size(
    mode: str, compression: str | None, tmp_path: Path
) -> None:
    file = tmp_path / "image.tif"
    content = encoded(photograph(mode), "TIFF", compression=compression)
    file.write_bytes(content)
    stored = read_image(file, COLOR)
    for orientation in range(1, 9):
        tag = (ORIENTATION, 3, 1, struct.pack("<HH", orientation, 0))
        file.write_bytes(with_tiff_tags(content, [tag]))
        check_sizes(file, turned(stored, orientation))


def check_sizes(file: Path, upright: Pixels) -> None:
    _, height, width = upright.shape
    header = read_header(file)
    assert (header.height, header.width) == (height, width)
    target = ImageFormat(channels=3, height=height, width=width, resize=False)
    np.testing.assert_array_equal(read_image(file, target), upright)
    sizes: list[tuple[int, int]] = []

    def box_in(height: int, width: int) -> PixelBox:
        sizes.append((height, width))
        return PixelBox(3, 2, 9, 11)

    part = ImageFormat(channels=3, height=9, width=11, resize=True)
    np.testing.assert_array_equal(read_crop(file, part, box_in), upright[:, 3:12, 2:13])
    assert sizes == [(height, width)]


def test_images_stored_sideways_are_one_dataset(
    write_folder: WriteFolder, folder_config: Configure
) -> None:
    root = write_folder()
    for number, file in enumerate(sorted(root.rglob("*.png"))):
        sideways = Image.open(file).copy()
        if number % 2:
            sideways.save(file.with_suffix(".tif"), tiffinfo={ORIENTATION: 6})
            file.unlink()
        else:
            exif = Image.Exif()
            exif[ORIENTATION] = 6
            sideways.save(file, exif=exif)
    assert load_data(folder_config(root)).seen.image_shape == (3, 6, 4)


def test_twelve_and_sixteen_bits_keep_their_upper_eight(tmp_path: Path) -> None:
    values = np.arange(0, 4096, 300, dtype=np.uint16)  # 14 of them
    pairs = [values[:7], values[7:]]
    deep = [(row * 16 + 15).astype("<u2").tobytes() for row in pairs]
    small = ImageFormat(channels=1, height=2, width=7, resize=False)
    expected = (np.stack(pairs) // 16).tolist()
    assert read(tmp_path, gray_tiff(deep, width=7, bits=16), small)[0].tolist() == expected
    negative = gray_tiff(deep, width=7, bits=16, photometric=0)
    inverted = (255 - np.stack(pairs) // 16).tolist()
    assert read(tmp_path, negative, small)[0].tolist() == inverted
    packed = []
    for row in pairs:
        bits = "".join(f"{value:012b}" for value in row).ljust(88, "0")
        packed.append(int(bits, 2).to_bytes(11, "big"))
    assert read(tmp_path, gray_tiff(packed, width=7, bits=12), small)[0].tolist() == expected
    portable = b"P5 7 2 65535\n" + b"".join(
        (row * 16 + 15).astype(">u2").tobytes() for row in pairs
    )
    assert read(tmp_path, portable, small)[0].tolist() == expected


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "GIF"])
def test_transparency_is_dropped(kind: str, tmp_path: Path) -> None:
    image = photograph("RGBA") if kind != "GIF" else photograph("P")
    expected = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
    if kind == "GIF":
        content = encoded(image, kind, transparency=3)
    else:
        image.putalpha(Image.fromarray(np.arange(315, dtype=np.uint16).reshape(15, 21) % 256 > 99))
        content = encoded(
            image, kind, **({"lossless": True, "exact": True} if kind == "WEBP" else {})
        )
    np.testing.assert_array_equal(read(tmp_path, content), expected)


def test_gray_with_transparency(tmp_path: Path) -> None:
    image = photograph("LA")
    expected = np.asarray(image.convert("L"))
    assert np.array_equal(read(tmp_path, encoded(image, "PNG"), GRAY)[0], expected)
    plain = encoded(photograph("L"), "PNG", transparency=int(expected[0, 0]))
    assert np.array_equal(read(tmp_path, plain, GRAY)[0], expected)


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_inks_become_colors(kind: str, tmp_path: Path) -> None:
    inks = Image.new("CMYK", (21, 15), (0, 255, 0, 51))
    pixels = read(tmp_path, encoded(inks, kind)).astype(int)
    assert np.abs(pixels[:, 0, 0] - [204, 0, 204]).max() <= 2


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF", "MPO"])
def test_of_several_frames_the_first_is_used(kind: str, tmp_path: Path) -> None:
    first, second = Image.new("RGB", (21, 15), (200, 0, 0)), Image.new("RGB", (21, 15))
    options = {"save_all": True, "append_images": [second]}
    pixels = read(tmp_path, encoded(first, kind, **options)).astype(int)
    assert np.abs(pixels[:, 7, 10] - [200, 0, 0]).max() <= 3


def in_mode(mode: str) -> bytes:
    return encoded(Image.new(mode, (21, 15)), "TIFF")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (in_mode("F"), "floating-point pixels"),
        (in_mode("I"), "integer pixels of 32 bits or with a sign"),
        (in_mode("LAB"), "LAB pixels"),
        (b"Pf 21 15 -1.0\n" + bytes(21 * 15 * 4), "floating-point pixels"),
        (encoded(Image.new("RGB", (21, 15)), "EPS"), "a file of the format EPS"),
        (encoded(Image.new("RGB", (21, 15)), "ICO"), "a file of the format ICO"),
    ],
    ids=["float", "int", "lab", "hdr", "eps", "ico"],
)
def test_other_kinds_are_refused_by_name(content: bytes, reason: str, tmp_path: Path) -> None:
    file = tmp_path / "image.png"
    file.write_bytes(content)
    for attempt in (lambda: read_header(file), lambda: read_image(file, COLOR)):
        with pytest.raises(DataError) as caught:
            attempt()
        assert str(caught.value) == f"{file}: expected a readable image, got: {reason}"


@pytest.mark.parametrize("kind", ["PNG", "GIF", "TIFF", "PPM", "BMP", "WEBP"])
def test_a_bomb_is_one_line(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "image.png"
    file.write_bytes(encoded(photograph(), kind))
    for limit in (200, 100):  # Pillow warns above its limit, and raises above twice of it.
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        for attempt in (lambda: read_header(file), lambda: read_image(file, COLOR)):
            with refusing_bombs(), pytest.raises(DataError) as caught:
                attempt()
            expected = f"{file}: expected at most {limit} pixels, got more"
            assert str(caught.value) == expected


def test_a_file_is_what_it_contains(tmp_path: Path) -> None:
    """Of many a photograph from the web the suffix is wrong."""
    content = encoded(photograph(), "BMP")
    expected = np.asarray(Image.open(io.BytesIO(content))).transpose(2, 0, 1)
    np.testing.assert_array_equal(read(tmp_path, content), expected)
