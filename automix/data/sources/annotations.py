"""Annotations of test images beyond their class: boxes of objects, and groups.

A file names images of a folder by their path below it (`test/cat/1.jpg`), and those of other
sources by their number in the test split. Boxes are (left, top, right, bottom) in pixels, the last
two exclusive. For folders they refer to the image file, whatever `image_size` it is scaled and cut
to; for other sources to the image as it is used.
"""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from automix.configuration.base import did_you_mean, shown
from automix.configuration.data import DataConfig, DataSource
from automix.data.folder import list_folder
from automix.data.sources.decode import read_header, refusing_bombs
from automix.data.sources.folder import files_of_test_split
from automix.errors import DataError
from automix.readers import MAX_JSON_BYTES, MAX_VALUES, parsing, read_bytes, read_json

Floats = NDArray[np.float64]

_BOX_COLUMNS = ("image", "left", "top", "right", "bottom")
_GROUP_COLUMNS = ("image", "group")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ImageBoxes:
    """The true boxes of the test images that have some."""

    positions: tuple[int, ...]  # ascending numbers of these images in the test split
    boxes: tuple[Floats, ...]  # for each of them (M, 4), in pixels of the image as it is used
    num_outside: int  # images all of whose boxes lie in the part that was cut off


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageGroups:
    """The sorted names of the groups, and the number of the group of each test image."""

    names: tuple[str, ...]
    numbers: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedImages:
    """Names of the test images in order, their files (of folders only), and their size in use."""

    names: tuple[str, ...]
    files: Mapping[str, Path]
    height: int
    width: int


def name_test_images(
    config: DataConfig, num_images: int, *, height: int, width: int
) -> NamedImages:
    """Return the names of the ``num_images`` images of the test split of ``config``."""
    if config.source is not DataSource.FOLDER:
        names = tuple(str(number) for number in range(num_images))
        return NamedImages(names=names, files={}, height=height, width=width)
    assert config.path is not None
    listing = list_folder(config.path.expanduser())
    files = {file.name: listing.root / file.name for file in files_of_test_split(config, listing)}
    return NamedImages(names=tuple(files), files=files, height=height, width=width)


def read_boxes(path: Path, images: NamedImages) -> ImageBoxes:
    """Read boxes: CSV with the columns image, left, top, right, bottom, or JSON.

    JSON is `{"test/cat/1.jpg": [[left, top, right, bottom], ...], ...}`.

    Raises:
        DataError: the file is unreadable, names an unknown image, or a box is empty or outside its
            image.
    """
    by_name: dict[str, list[Floats]] = {}
    for where, row in _rows(path, _BOX_COLUMNS):
        name = _test_image(row[0], images, where)
        by_name.setdefault(name, []).append(_box(row[1:], where))
    positions, boxes, num_outside = [], [], 0
    for position, name in enumerate(images.names):
        if name not in by_name:
            continue
        inside = _as_used(np.stack(by_name[name]), name, images, path)
        if len(inside):
            positions.append(position)
            boxes.append(inside)
        else:
            num_outside += 1
    if not positions:
        raise DataError(f"{path}: expected boxes of test images, got none")
    return ImageBoxes(positions=tuple(positions), boxes=tuple(boxes), num_outside=num_outside)


def read_groups(path: Path, images: NamedImages) -> ImageGroups:
    """Read groups: CSV with the columns image, group, or JSON `{"test/cat/1.jpg": "snow", ...}`.

    Raises:
        DataError: the file is unreadable, names an unknown image, or an image has no group or two.
    """
    groups: dict[str, str] = {}
    for where, (image, group) in _rows(path, _GROUP_COLUMNS):
        name = _test_image(image, images, where)
        if name in groups:
            raise DataError(f"{where}: expected one group for each image, got two for {name!r}")
        groups[name] = str(group)
    # Every image needs one: the worst group is a minimum, and one that is missing could be it.
    for name in images.names:
        if name not in groups:
            raise DataError(f"{path}: expected a group for each test image, got none for {name!r}")
    names = tuple(sorted(set(groups.values())))
    return ImageGroups(
        names=names, numbers=tuple(names.index(groups[name]) for name in images.names)
    )


def _rows(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[str, tuple[object, ...]]]:
    """Yield the place of each row, for messages, and its values in the order of ``columns``."""
    if path.suffix.lower() == ".json":
        yield from _json_rows(path, columns)
        return
    content = io.BytesIO(read_bytes(path, limit=MAX_JSON_BYTES, error=DataError))
    with parsing(str(path), "CSV in UTF-8", error=DataError):
        # Row by row: as one text with a single rare letter, a file takes four times its size.
        # Spreadsheets save UTF-8 with a byte order mark, which would be part of the first column.
        yield from _csv_rows(path, io.TextIOWrapper(content, "utf-8-sig", newline=""), columns)


def _csv_rows(
    path: Path, lines: Iterable[str], columns: tuple[str, ...]
) -> Iterator[tuple[str, tuple[object, ...]]]:
    reader = csv.reader(lines)
    header = tuple(cell.strip() for cell in next(reader, []))
    if header != columns:
        raise DataError(
            f"{path}: expected the header {','.join(columns)}, got {shown(','.join(header))}"
        )
    for number, row in enumerate(filter(None, reader)):
        if number * len(columns) >= MAX_VALUES:
            raise DataError(f"{path}: expected at most {MAX_VALUES} values, got more")
        where = f"{path}:{reader.line_num}"
        if len(row) != len(columns):
            raise DataError(f"{where}: expected {len(columns)} values, got {len(row)}")
        yield where, tuple(cell.strip() for cell in row)


def _json_rows(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[str, tuple[object, ...]]]:
    for name, value in read_json(path, error=DataError).items():
        where = f"{path}: {name}"
        if columns == _GROUP_COLUMNS:
            if not isinstance(value, str):
                raise DataError(f"{where}: expected the name of a group, got {shown(value)}")
            yield where, (name, value)
            continue
        if not isinstance(value, list):
            raise DataError(f"{where}: expected a list of boxes, got {shown(value)}")
        for box in value:
            if not isinstance(box, list) or len(box) != len(columns) - 1:
                raise DataError(f"{where}: expected [left, top, right, bottom], got {shown(box)}")
            yield where, (name, *box)


def _test_image(name: object, images: NamedImages, where: str) -> str:
    if name not in images.files and name not in images.names:
        expected = "the path of a test image below the data folder, such as"
        if not images.files:
            expected = f"the number of a test image, 0 to {len(images.names) - 1}, such as"
        # A comparison with every name of a large test split would take minutes.
        hint = did_you_mean(name, images.names[:10_000])
        raise DataError(
            f"{where}: expected {expected} {images.names[0]!r}, got {shown(name)}{hint}"
        )
    return str(name)


def _box(values: tuple[object, ...], where: str) -> Floats:
    try:
        # float(True) is 1.0: JSON's true is no coordinate.
        if any(isinstance(value, bool) for value in values):
            raise ValueError
        box = np.array([float(str(value)) for value in values])
    except ValueError:
        raise DataError(f"{where}: expected four numbers, got {shown(values)}") from None
    left, top, right, bottom = box
    if not (np.isfinite(box).all() and 0 <= left < right and 0 <= top < bottom):
        raise DataError(
            f"{where}: expected 0 <= left < right and 0 <= top < bottom, "
            f"got {', '.join(f'{value:g}' for value in box)}"
        )
    return box


def _as_used(boxes_M4: Floats, name: str, images: NamedImages, path: Path) -> Floats:
    """Return the boxes in pixels of the image as it is used, without those that are cut off."""
    height, width = images.height, images.width
    if name in images.files:
        with refusing_bombs():
            header = read_header(images.files[name])
        height, width = header.height, header.width
    if (boxes_M4[:, 2:] > (width, height)).any():
        raise DataError(
            f"{path}: {name}: expected boxes inside {width} x {height} pixels (width x height), "
            f"got one that reaches to {boxes_M4[:, 2].max():g} x {boxes_M4[:, 3].max():g}"
        )
    # As `to_format` does: scaled by s to cover the target, then cut at the center, so a coordinate
    # x of the file is at s x - (s width - target width) / 2.
    scale = max(images.width / width, images.height / height)
    size = np.array([images.width, images.height], dtype=np.float64)
    offset = (np.array([width, height]) * scale - size) / 2
    moved = boxes_M4.reshape(-1, 2, 2) * scale - offset
    inside = np.clip(moved, 0, size).reshape(-1, 4)
    return np.asarray(inside[(inside[:, 2:] > inside[:, :2]).all(axis=1)])
