"""Image files of every kind become one format, or one line that names the file."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from automix.configuration.data import DataConfig
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
from tests.resident import resident

COLOR = ImageFormat(channels=3, height=4, width=6, resize=False)


GRAY = ImageFormat(channels=1, height=4, width=6, resize=False)


def message_of(config: DataConfig) -> str:
    with pytest.raises(DataError) as caught:
        load_data(config)
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize(
    ("mode", "channels"), [("L", 1), ("1", 1), ("LA", 1), ("I;16", 1), ("RGB", 3), ("P", 3)]
)
def test_gray_only_where_all_images_are(
    mode: str, channels: int, write_folder: WriteFolder, folder_config: Configure
) -> None:
    data = load_data(folder_config(write_folder(mode=mode)))
    assert data.seen.image_shape == (channels, 4, 6)


def test_one_color_image_in_test_makes_all_color(
    write_folder: WriteFolder, folder_config: Configure
) -> None:
    root = write_folder(mode="L")
    Image.new("RGB", (6, 4), (255, 0, 0)).save(root / "test/cat/0.png")
    data = load_data(folder_config(root))
    assert data.seen.image_shape == (3, 4, 6)
    red, green, blue = resident(data.train).images.unbind(dim=1)
    assert red.equal(green)
    assert red.equal(blue)


def test_modes_are_converted(tmp_path: Path) -> None:
    file = tmp_path / "image.png"
    deep = np.arange(24, dtype=np.uint16).reshape(4, 6) * 2700
    Image.fromarray(deep).save(file)
    assert read_header(file).is_gray
    assert read_image(file, GRAY)[0].tolist() == (deep // 256).tolist()
    Image.new("RGBA", (6, 4), (10, 20, 30, 0)).save(file)
    assert read_image(file, COLOR)[:, 0, 0].tolist() == [10, 20, 30]
    palette = Image.new("P", (6, 4), 1)
    palette.putpalette([0, 0, 0, 40, 50, 60])
    palette.save(file, transparency=bytes([0, 128]))
    assert read_image(file, COLOR)[:, 0, 0].tolist() == [40, 50, 60]
    Image.new("CMYK", (6, 4), (0, 255, 0, 0)).save(tmp_path / "image.tiff")
    assert read_image(tmp_path / "image.tiff", COLOR)[:, 0, 0].tolist() == [255, 0, 255]


def test_floating_point_pixels_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "image.tiff"
    Image.new("F", (6, 4)).save(file)
    with pytest.raises(DataError, match="got: floating-point pixels"):
        read_image(file, GRAY)


def test_a_photograph_taken_sideways_is_turned_upright(tmp_path: Path) -> None:
    pixels = np.arange(24, dtype=np.uint8).reshape(4, 6)
    exif = Image.Exif()
    exif[0x0112] = 6
    file = tmp_path / "image.png"
    Image.fromarray(pixels).save(file, exif=exif)
    header = read_header(file)
    assert (header.height, header.width) == (6, 4)
    target = ImageFormat(channels=1, height=6, width=4, resize=False)
    assert read_image(file, target)[0].tolist() == np.rot90(pixels, k=-1).tolist()


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize("size", [(40, 40), (80, 40), (40, 90), (7, 5)])
def test_resizing_covers_and_cuts_at_the_center(
    suffix: str, size: tuple[int, int], tmp_path: Path
) -> None:
    width, height = size
    file = tmp_path / f"image{suffix}"
    # A disc in the middle stays a disc in the middle whatever the aspect ratio.
    rows, columns = np.ogrid[:height, :width]
    radius = min(height, width) / 4
    disc = (rows - (height - 1) / 2) ** 2 + (columns - (width - 1) / 2) ** 2 < radius**2
    Image.fromarray((disc * 255).astype(np.uint8)).save(file)
    target = ImageFormat(channels=1, height=16, width=16, resize=True)
    image = read_image(file, target)[0] / 255
    assert image.shape == (16, 16)
    assert image.mean() == pytest.approx(np.pi / 16, abs=0.06)
    assert np.abs(image - image[::-1]).max() < 0.2
    assert np.abs(image - image[:, ::-1]).max() < 0.2


def test_mixed_sizes_need_a_size(write_folder: WriteFolder, folder_config: Configure) -> None:
    root = write_folder()
    Image.new("RGB", (9, 5)).save(root / "train/dog/3.png")
    assert message_of(folder_config(root)) == (
        f"{root}/train/dog/3.png: expected 4 x 6 pixels as {root}/train/cat/0.png has, "
        "got 5 x 9; data.image_size brings all to one size"
    )
    assert load_data(folder_config(root, image_size=[5, 7])).seen.image_shape == (3, 5, 7)
    assert load_data(folder_config(root, image_size=8)).seen.image_shape == (3, 8, 8)


def test_something_else_is_not_an_image(
    write_folder: WriteFolder, folder_config: Configure
) -> None:
    root = write_folder()
    config = folder_config(root)
    file = root / "train/dog/5.png"
    file.write_text("not an image")
    assert message_of(config) == f"{file}: expected an image, got something else"
    file.write_bytes(b"")
    assert message_of(config) == f"{file}: expected an image, got something else"
    file.unlink()
    file.mkdir()
    (file / "inner.png").write_text("nor this")
    assert message_of(config) == f"{file}/inner.png: expected an image, got something else"


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tiff", ".webp", ".ppm"])
def test_a_truncated_image_names_the_file(
    suffix: str, write_folder: WriteFolder, folder_config: Configure
) -> None:
    root = write_folder(suffix=suffix)
    file = root / f"train/dog/5{suffix}"
    Image.effect_noise((60, 40), 100).convert("RGB").save(file)
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * 0.8)])
    message = message_of(folder_config(root, image_size=8))
    assert message.startswith(f"{file}: expected ")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tiff", ".webp", ".ppm"])
def test_damage_of_any_kind_is_one_line_or_other_pixels(
    suffix: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.mktemp("damage") / f"image{suffix}"
    Image.effect_noise((6, 4), 100).convert("RGB").save(file)
    content = file.read_bytes()

    @settings(deadline=None)
    @given(data=st.data())
    def damaged(data: st.DataObject) -> None:
        broken = bytearray(content[: data.draw(st.integers(1, len(content)))])
        for _ in range(data.draw(st.integers(0, 3))):
            broken[data.draw(st.integers(0, len(broken) - 1))] = data.draw(st.integers(0, 255))
        file.write_bytes(broken)
        with refusing_bombs():
            message = f"{file}: expected "
            try:
                read_header(file)
                assert read_image(file, COLOR).shape == (3, 4, 6)
            except DataError as error:
                message = str(error)
        assert message.startswith(f"{file}: expected ")
        assert "\n" not in message

    damaged()


def test_an_enormous_image_is_refused_before_it_is_decoded(
    write_folder: WriteFolder, folder_config: Configure
) -> None:
    root = write_folder()
    config = folder_config(root, image_size=8)
    file = root / "train/dog/5.png"
    for side in (10_000, 60_000):
        file.write_bytes(_png_header_of(side, side))
        assert message_of(config) == (
            f"{file}: expected at most {Image.MAX_IMAGE_PIXELS} pixels, got more"
        )


def _png_header_of(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def smooth_image(width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(0).integers(256, size=(6, 8, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)


def test_crops_are_taken_of_the_upright_image(tmp_path: Path) -> None:
    image = smooth_image(64, 32)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    image.save(tmp_path / "turned.png", exif=exif)
    upright = np.array(image.rotate(-90, expand=True)).transpose(2, 0, 1)
    target = ImageFormat(channels=3, height=20, width=10, resize=True)

    def box_in(height: int, width: int) -> PixelBox:
        assert (height, width) == (64, 32)
        return PixelBox(5, 7, 20, 10)

    crop = read_crop(tmp_path / "turned.png", target, box_in)
    np.testing.assert_array_equal(crop, upright[:, 5:25, 7:17])
    deep = np.arange(24, dtype=np.uint16).reshape(4, 6) * 2700
    Image.fromarray(deep).save(tmp_path / "deep.png")
    whole = ImageFormat(channels=3, height=4, width=6, resize=True)
    crop = read_crop(tmp_path / "deep.png", whole, lambda h, w: PixelBox(0, 0, h, w))
    np.testing.assert_array_equal(crop, np.stack([(deep >> 8).astype(np.uint8)] * 3))


@pytest.mark.parametrize("orientation", [1, 8])
def test_a_large_photograph_is_decoded_at_a_smaller_size(tmp_path: Path, orientation: int) -> None:
    """Decoding at 1/4 gives what decoding in full gives, within what JPEG loses."""
    image = smooth_image(1003, 701)
    exif = Image.Exif()
    exif[0x0112] = orientation
    for suffix in ("png", "jpg"):
        image.save(tmp_path / f"photograph.{suffix}", exif=exif, quality=95)
    target = ImageFormat(channels=3, height=40, width=40, resize=True)
    box = PixelBox(100, 50, 500, 401)
    full, quick = (
        read_crop(tmp_path / f"photograph.{suffix}", target, lambda *_: box).astype(int)
        for suffix in ("png", "jpg")
    )
    assert np.abs(full - quick).mean() < 1.5
    shifted = read_crop(tmp_path / "photograph.png", target, lambda *_: PixelBox(112, 50, 500, 401))
    assert np.abs(full - shifted.astype(int)).mean() > 3.0
