"""Folders of images that are wrong."""

import io
from collections.abc import Mapping

import numpy as np
from PIL import Image

from tests.cli.mistake import BadInput, bad_words


def picture(seed: int = 0, size: tuple[int, int] = (8, 8)) -> bytes:
    """Return a PNG of noise."""
    pixels = np.random.default_rng(seed).integers(256, size=(*size, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="PNG")
    return stream.getvalue()


def image_folder(**changes: str | bytes | None) -> dict[str, str | bytes | None]:
    """Return a good folder of 2 x 20 training and 2 x 2 test images, with ``changes`` to it."""
    files: dict[str, str | bytes | None] = {
        f"images/{part}/{name}/{number}.png": picture(number)
        for part, count in (("train", 20), ("test", 2))
        for name in ("cat", "dog")
        for number in range(count)
    }
    return files | changes


def without(*prefixes: str) -> dict[str, str | bytes | None]:
    return {
        path: content for path, content in image_folder().items() if not path.startswith(prefixes)
    }


def bad_data(name: str, files: Mapping[str, str | bytes | None], message: str) -> BadInput:
    return BadInput(
        name=f"data: {name}",
        argv="search --task.data.source folder --task.data.path images",
        files=files,
        message=message,
    )


DATA = [
    bad_data("no folder", {}, "images: expected a folder, got nothing there"),
    bad_data("a file", {"images": "x"}, "images: expected a folder, got a file"),
    bad_data(
        "nothing in it", {"images": None}, "images: expected one folder of images per class, got..."
    ),
    bad_data(
        "no test images",
        without("images/test"),
        "images: expected both train/ and test/, or one folder per class under..., got train",
    ),
    bad_data(
        "one class",
        without("images/train/dog", "images/test/dog"),
        "images/train: expected at least 2 classes, got only 'cat'",
    ),
    bad_data(
        "a class without test images",
        without("images/test/dog"),
        "images/test: expected at least 2 classes, got only 'cat'",
    ),
    bad_data(
        "an empty class",
        without("images/test/dog") | {"images/test/dog": None},
        "images/test/dog: expected at least one image... got none",
    ),
    bad_data(
        "text that calls itself an image",
        image_folder(**{"images/train/cat/3.png": "not an image"}),
        "images/train/cat/3.png: expected an image, got something else",
    ),
    bad_data(
        "a truncated image",
        image_folder(**{"images/train/cat/3.png": picture(3)[:100]}),
        "images/train/cat/3.png: expected a readable image, got...",
    ),
    bad_data(
        "images of two sizes",
        image_folder(**{"images/train/cat/3.png": picture(3, (9, 8))}),
        "images/train/cat/3.png: expected...",
    ),
    bad_words(
        "more labels than images",
        "search --task.data.labels-per-class 1000",
        "...expected at least... images of class...",
    ),
    bad_words(
        "a dataset that was not downloaded",
        "search --task.data.source cifar10 --task.data.path nowhere",
        "nowhere: expected...",
    ),
]
