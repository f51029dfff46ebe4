"""Images with several labels each: a folder of images and a CSV that says which labels they have.

The first line names the columns: ``image``, then one column for each class with cells 0 and 1, or a
single column ``labels`` whose cells name classes, divided by spaces or semicolons. Images are paths
below the folder.
"""

import csv
import dataclasses
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from automix.configuration.base import did_you_mean, shown
from automix.configuration.data import DataConfig
from automix.data.folder import FolderListing, LabeledFile
from automix.data.sources.decode import SUFFIXES
from automix.data.sources.folder import folder_images
from automix.data.sources.packed import Progress
from automix.data.splits import Dataset, SearchData, Split, configured_statistics
from automix.errors import DataError
from automix.files import sha256_of
from automix.random_streams import Stream, stream_generator
from automix.readers import read_text

_FILE, _NAMES = "image", "labels"
_MAX_BYTES = 1 << 30
_MIN_CLASSES = 2


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LabelFile:
    """Images, classes and labels of a CSV."""

    files: tuple[str, ...]  # below the folder of the images, each once
    class_names: tuple[str, ...]
    rows: Tensor  # (N, K) float32, 0 and 1


def read_label_file(path: Path) -> LabelFile:
    """Read a CSV of labels.

    Raises:
        DataError: it is missing, or a line of it is not as above; the text names the line.
    """
    text = read_text(path, limit=_MAX_BYTES, error=DataError)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    files: dict[str, list[str]] = {}
    header: list[str] | None = None
    try:
        for cells in reader:
            where = f"{path}, line {reader.line_num}"
            if header is None:
                header = [cell.strip() for cell in cells]
                _check_header(where, header)
            elif cells:
                if len(cells) != len(header):
                    raise DataError(f"{where}: expected {len(header)} cells, got {len(cells)}")
                _check_name(where, cells[0], files)
                files[cells[0]] = [cell.strip() for cell in cells[1:]]
                _check_cells(where, header, files[cells[0]])
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: expected CSV, got: {error}") from None
    if header is None or not files:
        raise DataError(f"{path}: expected a line of column names and images, got none")
    return _label_file(path, header, files)


def _check_header(where: str, header: Sequence[str]) -> None:
    if not header or header[0] != _FILE:
        got = shown(header[0]) if header else "nothing"
        raise DataError(f"{where}: expected '{_FILE}' as the name of the first column, got {got}")
    for name in header[1:]:
        if not name or header.count(name) > 1:
            raise DataError(f"{where}: expected every column under a name of its own, got '{name}'")
    if header[1:] != [_NAMES] and len(header) <= _MIN_CLASSES:
        raise DataError(
            f"{where}: expected a column '{_NAMES}', or one for each of at least {_MIN_CLASSES} "
            f"classes, got {len(header) - 1} columns beside '{_FILE}'"
        )


def _check_name(where: str, name: str, files: Mapping[str, object]) -> None:
    path = Path(name)
    if not name or path.is_absolute() or ".." in path.parts:
        raise DataError(f"{where}: expected a path below the folder of the images, got {name!r}")
    if path.suffix.lower() not in SUFFIXES:
        listed = ", ".join(sorted(SUFFIXES))
        raise DataError(f"{where}: expected an image ({listed}), got {name!r}")
    if name in files:
        raise DataError(f"{where}: expected each image once, got {name!r} again")


def _check_cells(where: str, header: Sequence[str], cells: Sequence[str]) -> None:
    if header[1:] == [_NAMES]:
        return
    for name, cell in zip(header[1:], cells, strict=True):
        if cell not in {"0", "1"}:
            raise DataError(f"{where}: expected 0 or 1 for '{name}', got {shown(cell)}")


def _label_file(path: Path, header: list[str], files: Mapping[str, list[str]]) -> LabelFile:
    if header[1:] != [_NAMES]:
        names = tuple(header[1:])
        rows = torch.tensor([[float(cell) for cell in cells] for cells in files.values()])
    else:
        labels = [cells[0].replace(";", " ").split() for cells in files.values()]
        names = tuple(sorted({name for of_image in labels for name in of_image}))
        if len(names) < _MIN_CLASSES:
            raise DataError(f"{path}: expected at least {_MIN_CLASSES} classes, got {len(names)}")
        number = {name: index for index, name in enumerate(names)}
        rows = torch.zeros(len(files), len(names))
        for row, of_image in zip(rows, labels, strict=True):
            row[[number[name] for name in of_image]] = 1
    for name, count in zip(names, rows.sum(dim=0).tolist(), strict=True):
        if not count:
            raise DataError(f"{path}: expected an image of every class, got none of '{name}'")
    return LabelFile(files=tuple(files), class_names=names, rows=rows)


def labeled_data(config: DataConfig, *, progress: Progress | None = None) -> Dataset:
    """Return the splits of a folder whose labels are in a CSV, cut by fractions of the images.

    Every split draws its part of the images of each class, seeded by ``split_seed``; an image
    counts for its rarest class.

    Raises:
        DataError: the CSV, an image or a split is not as expected.
    """
    assert config.path is not None
    assert config.labels is not None
    root, source = config.path.expanduser(), config.labels.expanduser()
    table = read_label_file(source)
    images = folder_images(config, _listing(root, source, table), progress=progress).train
    parts = parts_of_labels(table.rows, config)
    splits: dict[str, Split] = {}
    for name, indices in parts.items():
        rows = table.rows[indices]
        if len(indices) and (missing := (rows.sum(dim=0) == 0).nonzero().flatten().tolist()):
            raise DataError(
                f"{source}: expected an image of every class in each split, got none of "
                f"'{table.class_names[missing[0]]}' in {name}; a larger split or another "
                "data.split_seed may have one"
            )
        splits[name] = dataclasses.replace(images.split.subset(indices), labels=rows)
    content = [images.checksum, *table.class_names, str(parts)]
    fingerprint = sha256_of(*(text.encode() for text in content), table.rows.numpy().tobytes())
    seen = SearchData(
        train=splits["train"],
        reward=splits["reward"],
        selection=splits["selection"],
        class_names=table.class_names,
        statistics=configured_statistics(splits["train"], config),
        fingerprint=fingerprint[:16],
    )
    return Dataset(name=config.source.value, seen=seen, test=splits["test"])


def _listing(root: Path, source: Path, table: LabelFile) -> FolderListing:
    """Return the files as those of one class: their labels are elsewhere.

    Raises:
        DataError: a file is missing.
    """
    if not root.is_dir():
        raise DataError(
            f"{root}: expected a folder, got {'a file' if root.exists() else 'nothing there'}"
        )
    files = []
    for line, name in enumerate(table.files, start=2):
        try:
            facts = (root / name).stat()
        except OSError:
            near = did_you_mean(name, [it.name for it in root.iterdir()]) if line < 1000 else ""
            raise DataError(
                f"{source}: expected {name!r} in {root}, got no such file{near}"
            ) from None
        files.append(
            LabeledFile(name=name, label=0, size=facts.st_size, modified=facts.st_mtime_ns)
        )
    return FolderListing(
        root=root,
        class_names=table.class_names,
        parts={"train": tuple(files)},
        folders={"train": ""},
    )


def parts_of_labels(rows_NK: Tensor, config: DataConfig) -> dict[str, Tensor]:
    """Return the ascending indices, int64, of the images of each split."""
    reward, selection = config.part_sizes(has_val=False)
    fractions = {"test": config.test_part_size, "reward": reward, "selection": selection}
    counts_K = rows_NK.sum(dim=0)
    # Of its classes the rarest; an image of none counts for a stratum of its own.
    rarity_NK = torch.where(rows_NK > 0, counts_K, torch.inf)
    strata_N = torch.where(rows_NK.any(dim=1), rarity_NK.argmin(dim=1), len(counts_K))
    owed = dict.fromkeys(fractions, 0.0)
    dealt: dict[str, list[Tensor]] = {name: [] for name in (*fractions, "train")}
    for stratum in sorted(set(strata_N.tolist())):
        members = (strata_N == stratum).nonzero().squeeze(1)
        generator = stream_generator(config.split_seed, Stream.SPLIT, step=stratum)
        shuffled = members[torch.randperm(len(members), generator=generator)]
        start = 0
        for name, fraction in fractions.items():
            # What rounding owes a split of one stratum it gets of the next.
            owed[name] += fraction * len(members)
            count = min(int(owed[name] + 1e-9), len(members) - start)
            owed[name] -= count
            dealt[name].append(shuffled[start : start + count])
            start += count
        dealt["train"].append(shuffled[start:])
    return {name: torch.cat(indices).sort().values for name, indices in dealt.items()}
