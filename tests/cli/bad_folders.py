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


def plain(*classes: str, count: int = 8) -> dict[str, str | bytes | None]:
    """Return a folder of class folders without train/ and test/."""
    return {
        f"photos/{name}/{number}.png": picture(number)
        for name in classes
        for number in range(count)
    }


def bad_plain(
    name: str, files: Mapping[str, str | bytes | None], message: str, argv: str = "search photos"
) -> BadInput:
    return BadInput(name=f"folder: {name}", argv=argv, files=files, message=message)


_GOOD = plain("cat", "dog")
_BOTH = "photos: expected both train/ and test/, or one folder per class under other names, got"

FOLDERS = [
    bad_plain(
        "not there",
        {},
        "photos: expected a folder, got nothing there",
        "search photos/",
    ),
    bad_plain(
        "a word that is nothing",
        {},
        "fotos: expected a folder of images, a YAML file or one that ships (cifar10-cpu, "
        "cifar10-small, cifar10, cifar100, digits, every-operator, tiny_imagenet), "
        "got nothing there",
        "search fotos",
    ),
    bad_plain(
        "nothing in it",
        {"photos": None},
        "photos: expected one folder of images per class, got an empty folder",
    ),
    bad_plain(
        "images without classes",
        {"photos/1.png": picture()},
        "photos: expected one folder of images per class, got only files",
    ),
    bad_plain("one class", plain("cat"), "photos: expected at least 2 classes, got only 'cat'"),
    bad_plain("training images alone", plain("train"), f"{_BOTH} train"),
    bad_plain("parts in capitals", plain("Train", "Test"), f"{_BOTH} Test, Train"),
    bad_plain("a class named test", plain("cat", "dog", "test"), f"{_BOTH} test beside 2 others"),
    bad_plain(
        "a class without images",
        _GOOD | {"photos/emu": None},
        "photos/emu: expected at least one image... got none",
    ),
    bad_plain(
        "too few images",
        _GOOD | plain("emu", count=3),
        "photos: expected at least 4 images of class 'emu' (test 1, reward 1, selection 1, train "
        "1), got 3",
    ),
    bad_plain(
        "two folders",
        _GOOD | {"others": None},
        "others: expected a readable file, got: is a directory",
        "search photos others",
    ),
    bad_plain(
        "after the file",
        _GOOD | {"my.yaml": "seed: 1"},
        "automix search: expected [FOLDER] [CONFIG.yaml], got my.yaml photos",
        "search my.yaml photos",
    ),
    bad_plain(
        "and another one",
        _GOOD,
        "--task.data.path: expected nothing beside photos, got a value",
        "search photos --task.data.path others",
    ),
    bad_plain(
        "and another source",
        _GOOD,
        "--task.data.source: expected nothing beside photos, got a value",
        "replay good.json photos --task.data.source digits",
    ),
    bad_plain(
        "a flag of another type",
        _GOOD,
        "--task.trainer.epochs: expected an integer, got 'many'",
        "search photos --task.trainer.epochs many",
    ),
    bad_plain(
        "no minutes",
        _GOOD,
        "--minutes: expected greater than 0, got 0",
        "search photos --minutes 0",
    ),
    bad_plain(
        "minutes that are none",
        _GOOD,
        "--minutes: expected a number, got 'ten'",
        "search photos --minutes ten",
    ),
    bad_plain(
        "two budgets",
        _GOOD,
        "command line: expected runs or minutes, got both: 64 runs, 5 minutes",
        "search photos --minutes 5 --runs 64",
    ),
    bad_plain(
        "half a run", _GOOD, "--runs: expected an integer, got 0.5", "search photos --runs 0.5"
    ),
    bad_words(
        "too few runs", "search --runs 5", "--runs: expected at least 12 training runs, got 5"
    ),
]
