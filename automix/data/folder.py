"""Content of a folder of images: its parts, classes and files, listed without opening one.

Links are followed at every depth, and a folder that is reached twice is refused: loops end, and no
image counts twice.
"""

import functools
import logging
import multiprocessing
import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from automix.data.sources.decode import SUFFIXES
from automix.errors import DataError

if TYPE_CHECKING:
    from automix.data.pools import ClassLabels

_LOG = logging.getLogger(__name__)
_MIN_CLASSES = 2
PARTS = ("train", "val", "test")
# Roboflow and many a download have valid/.
_VALIDATION_NAMES = ("val", "valid", "validation")
# Parts under another name, or classes that look like parts.
_NAMES_OF_PARTS = frozenset({*PARTS, *_VALIDATION_NAMES, "training", "testing"})
# A folder with both is a run of ours, `automix search .` writes them beside the classes. Its
# figures are no images to learn from.
_RUN_FILES = frozenset({"config.yaml", "environment.json"})
_NAMES_LISTED = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class LabeledFile:
    """An image file: its path below the root, class, length in bytes and time of change in ns.

    The path need not be valid text: bytes that are none are surrogates, as everywhere in Python.
    """

    name: str
    label: int
    size: int
    modified: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderListing:
    """Sorted class names and files of a folder.

    Parts are "train", "test" and perhaps "val"; a plain folder has the part "train" alone.
    """

    root: Path
    class_names: tuple[str, ...]
    parts: Mapping[str, tuple[LabeledFile, ...]]
    folders: Mapping[str, str]  # name of the folder of each part; empty for a plain folder

    def labels(self, part: str) -> "ClassLabels":
        """Return the labels of "train" or "val"."""
        # Here, because a folder is listed, and refused, before anything takes seconds.
        import torch  # noqa: PLC0415

        from automix.data.pools import ClassLabels  # noqa: PLC0415

        return ClassLabels(
            labels=torch.tensor([file.label for file in self.parts[part]], dtype=torch.int64),
            class_names=self.class_names,
            where=self.where(part),
            pool=int(part == "val"),
        )

    @property
    def has_test(self) -> bool:
        """Whether there are test images; else a test split is cut from the others."""
        return "test" in self.parts

    def where(self, part: str) -> str:
        """Return the folder of a part, for messages."""
        return str(self.root / self.folders[part])


def list_folder(root: Path) -> FolderListing:
    """List the images of a folder without opening them.

    With train/ and test/ in it, these and val/ (valid/, validation/) are its parts, and other
    folders are skipped with a warning. Without anything that is named like a part, every folder in
    it is a class. Hidden files and folders and the folders of runs are skipped, class folders are
    searched at any depth, through links, too, and what is no image by its suffix or no regular
    file is counted in a warning.

    Raises:
        DataError: a folder is missing, empty, unreadable or reached twice, the parts do not have
            the same classes, or it cannot be told whether folders are parts or classes.
    """
    _check_folder(root)
    folders = _part_folders(root)
    parts = {part: _classes(root, name) for part, name in folders.items()}
    class_names = tuple(parts["train"])
    for part, contents in parts.items():
        _check_classes(root / folders[part], contents, class_names)
    files = {
        part: tuple(
            LabeledFile(name=name, label=label, size=facts.st_size, modified=facts.st_mtime_ns)
            for label, class_name in enumerate(class_names)
            for name, facts in _images(root / folders[part] / class_name, contents[class_name])
        )
        for part, contents in parts.items()
    }
    return FolderListing(root=root, class_names=class_names, parts=files, folders=folders)


class _Entry(NamedTuple):
    """A visible file or folder, and the facts about what it leads to if it is a link."""

    base: str
    name: str  # path below the root
    path: str
    facts: os.stat_result

    @property
    def is_folder(self) -> bool:
        return stat.S_ISDIR(self.facts.st_mode)

    @property
    def is_image(self) -> bool:
        # A pipe or device would be waited for.
        has_suffix = self.base[self.base.rfind(".") :].lower() in SUFFIXES
        return has_suffix and stat.S_ISREG(self.facts.st_mode)


@dataclass(slots=True)
class _Content:
    """Images and other files below the folder of a class."""

    images: list[tuple[str, os.stat_result]] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    num_runs: int = 0


def _part_folders(root: Path) -> dict[str, str]:
    """Return the folder names of the parts, train first; the empty name for a plain folder."""
    entries = {entry.base: entry for entry in _entries(root, "")}
    if not {"train", "test"}.issubset(entries):
        # Else classes "Train" and "Test" would be learned, or half of the images.
        if alike := sorted(name for name in entries if name.lower() in _NAMES_OF_PARTS):
            rest = len(entries) - len(alike)
            raise DataError(
                f"{root}: expected both train/ and test/, or one folder per class under other "
                f"names, got {', '.join(alike)}{f' beside {rest} others' if rest else ''}"
            )
        return {"train": ""}
    validation = [name for name in _VALIDATION_NAMES if name in entries]
    if len(validation) > 1:
        raise DataError(
            f"{root}: expected one folder of validation images, got {' and '.join(validation)}"
        )
    used = {"train": "train", "test": "test"}
    if validation:
        used = {"train": "train", "val": validation[0], "test": "test"}
        if validation[0] != "val":
            say_once(logging.INFO, f"{root}: {validation[0]}/ is used as val/")
    others = [name for name in entries if entries[name].is_folder and name not in used.values()]
    if others:
        listed = _listed(others)
        say_once(logging.WARNING, f"{root}: skipped folders beside train/ and test/: {listed}")
    _name_loose_images(root, entries.values())
    return used


def _classes(root: Path, part: str) -> dict[str, _Content]:
    """Return what is in the folder of each class of a part, sorted by the names of the classes."""
    folder = root / part
    _check_folder(folder)
    once = _Once(folder)
    entries = _entries(folder, part)
    by_name = {entry.base: _content(entry, once) for entry in entries if entry.is_folder}
    runs = [name for name, content in by_name.items() if content.num_runs and not content.images]
    if runs:
        say_once(logging.WARNING, f"{folder}: skipped folders of runs: {_listed(runs)}")
    classes = {name: content for name, content in by_name.items() if name not in runs}
    if not classes:
        got = "only files" if entries else "an empty folder"
        raise DataError(
            f"{folder}: expected one folder of images per class, got {'runs' if runs else got}"
        )
    if len(classes) < _MIN_CLASSES:
        raise DataError(f"{folder}: expected at least 2 classes, got only '{next(iter(classes))}'")
    for name in classes:
        _check_text(folder, name)
    _name_loose_images(folder, entries)
    return classes


def _content(folder: _Entry, once: "_Once") -> _Content:
    """Return what is in the folder of a class, at any depth."""
    content = _Content()
    # A stack, because folders may be nested deeper than Python's calls. Depth first, by name: file
    # systems have no order.
    waiting = [iter([folder])]
    while waiting:
        entry = next(waiting[-1], None)
        if entry is None:
            waiting.pop()
        elif entry.is_folder:
            once.add(entry)
            entries = _entries(entry.path, entry.name)
            if _RUN_FILES.issubset(inner.base for inner in entries):
                content.num_runs += 1
            else:
                waiting.append(iter(entries))
        elif entry.is_image:
            content.images.append((entry.name, entry.facts))
        else:
            content.others.append(entry.name)
    return content


def _images(folder: Path, content: _Content) -> list[tuple[str, os.stat_result]]:
    """Return the images of a class, of which there must be some."""
    others = content.others
    if not content.images:
        got = f"only other files such as '{others[0]}'" if others else "none"
        raise DataError(
            f"{folder}: expected at least one image ({', '.join(sorted(SUFFIXES))}), got {got}"
        )
    if others:
        say_once(logging.WARNING, f"{folder}: skipped {len(others)} files such as '{others[0]}'")
    if content.num_runs:
        say_once(logging.WARNING, f"{folder}: skipped {content.num_runs} folders of runs")
    return content.images


def _entries(folder: Path | str, name: str) -> list[_Entry]:
    """Return the visible entries of a folder, sorted; ``name`` is its path below the root."""
    try:
        with os.scandir(folder) as iterator:
            visible = [entry for entry in iterator if not entry.name.startswith(".")]
        return [
            _Entry(entry.name, f"{name}/{entry.name}".lstrip("/"), entry.path, entry.stat())
            for entry in sorted(visible, key=lambda entry: entry.name)
        ]
    except OSError as error:
        where = error.filename or folder
        reason = (error.strerror or str(error)).lower()
        raise DataError(f"{where}: expected a readable file, got: {reason}") from None


class _Once:
    """The folders of a part that were listed so far, and those that the part lies in."""

    def __init__(self, part: Path) -> None:
        whole = part.resolve()
        self._paths = {_identity(path): path for path in (*whole.parents, whole)}

    def add(self, folder: _Entry) -> None:
        """Add a folder; a loop of links, or two links to one folder, come back to one.

        Raises:
            DataError: it was listed before.
        """
        first = self._paths.setdefault(_identity(folder.path), Path(folder.path))
        if first != Path(folder.path):
            raise DataError(f"{folder.path}: expected each folder once, got that of {first} again")


def _identity(path: Path | str) -> tuple[int, int]:
    facts = Path(path).stat()
    return facts.st_dev, facts.st_ino


def _check_folder(folder: Path) -> None:
    if folder.is_file():
        raise DataError(f"{folder}: expected a folder, got a file")
    if not folder.is_dir():
        got = "something else" if os.path.lexists(folder) else "nothing there"
        raise DataError(f"{folder}: expected a folder, got {got}")
    if not os.access(folder, os.R_OK | os.X_OK):
        raise DataError(f"{folder}: expected a readable folder, got: permission denied")


def _check_classes(part: Path, names: Iterable[str], class_names: tuple[str, ...]) -> None:
    expected = f"{part}: expected the classes of {part.parent / 'train'}, got"
    for name in sorted(set(names).difference(class_names)):
        raise DataError(f"{expected} the unknown class '{name}'")
    for name in sorted(set(class_names).difference(names)):
        raise DataError(f"{expected} no class '{name}'")


def _check_text(folder: Path, name: str) -> None:
    """Refuse the name of a class that results and reports, which are text, could not hold."""
    try:
        name.encode()
    except UnicodeEncodeError:
        shown = os.fsencode(folder / name).decode(errors="backslashreplace")
        raise DataError(f"{shown}: expected a class name in UTF-8, got other bytes") from None


def _name_loose_images(folder: Path, entries: Iterable[_Entry]) -> None:
    if loose := [entry.base for entry in entries if entry.is_image]:
        text = f"{folder}: skipped {len(loose)} images in no folder of a class, such as"
        say_once(logging.WARNING, f"{text} '{loose[0]}'")


def _listed(names: list[str]) -> str:
    more = len(names) - _NAMES_LISTED
    return ", ".join(names[:_NAMES_LISTED]) + (f" and {more} others" if more > 0 else "")


@functools.cache
def say_once(level: int, text: str) -> None:
    """Log a text that is found out several times by each of several processes, by the first."""
    if is_first_process():
        _LOG.log(level, "%s", text)


def is_first_process() -> bool:
    """Return whether nobody started this process to share the work of a command."""
    return multiprocessing.parent_process() is None and os.environ.get("RANK", "0") == "0"
