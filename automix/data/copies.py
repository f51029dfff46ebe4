"""Copies of one file among training and held-out images, on which results are too good."""

import contextlib
import hashlib
import json
import logging
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable
from math import ceil
from pathlib import Path
from typing import TypeAlias

from automix.data.folder import FolderListing, LabeledFile, say_once
from automix.data.sources.decode import in_order
from automix.data.sources.folder import files_key
from automix.files import write_json

# Held-out part, and the part that must not have the same images.
_PAIRS = (("test", "train"), ("val", "train"), ("test", "val"))
_NAMES = {"train": "training", "val": "validation", "test": "test"}
# Beyond this number of files a sample is opened: it shows whether there are copies.
_MOST_OPENED = 100_000
_BYTES_AT_FIRST = 4096

_PartFile: TypeAlias = tuple[str, LabeledFile]
_Groups: TypeAlias = list[list[_PartFile]]


def say_copies(listing: FolderListing, cache: Path) -> None:
    """Warn of held-out images that are copies of others, file by file.

    The sentences are kept in the ``cache`` folder until a file is added or changed.
    """
    files = [file for part in sorted(listing.parts) for file in listing.parts[part]]
    kept = cache / f"copies-{files_key(files, 'copies')}.json"
    sentences: object = None
    with contextlib.suppress(OSError, ValueError):
        sentences = json.loads(kept.read_bytes())
    if not isinstance(sentences, list):
        sentences = copies_in_words(listing)
        # A cache that cannot be written is said where images are decoded into it.
        with contextlib.suppress(OSError):
            write_json(kept, sentences)
    for sentence in sentences:
        say_once(logging.WARNING, f"{listing.root}: {sentence}")


def copies_in_words(listing: FolderListing) -> list[str]:
    """Return a sentence for each two parts that have images in common, with an example.

    Files of one length are compared, by a few bytes and then by all. Of more than 100,000 of them a
    sample is, and the sentence says "at least".
    """
    groups, is_sample = _of_one_size(listing)
    at_least = "at least " if is_sample else ""
    groups = _split(groups, lambda item: _digest(listing.root / item[1].name, whole=False), listing)
    groups = _split(groups, lambda item: _digest(listing.root / item[1].name, whole=True), listing)
    if not listing.has_test:
        copies = [(item, group[0]) for group in groups for item in group[1:]]
        end = "splits are cut at random, so that the same image may be in training and test"
        return [f"{at_least}{_counted(copies)} others{_example(copies)}: {end}"] if copies else []
    sentences = []
    for part, of in _PAIRS:
        copies = []
        for group in groups:
            originals = [item for item in group if item[0] == of]
            copies += [(item, originals[0]) for item in group if item[0] == part and originals]
        if copies:
            text = f"{_counted(copies, _NAMES[part])} {_NAMES[of]} images{_example(copies)}"
            sentences.append(f"{at_least}{text}: results on them are too good")
    return sentences


def _counted(copies: list[tuple[_PartFile, _PartFile]], name: str = "") -> str:
    one = len(copies) == 1
    kind = f"{name} image{'' if one else 's'}".lstrip()
    return f"{len(copies)} {kind} {'is a copy' if one else 'are copies'} of"


def _example(copies: list[tuple[_PartFile, _PartFile]]) -> str:
    (_, copy), (_, original) = copies[0]
    return f", such as '{copy.name}' of '{original.name}'"


def _of_one_size(listing: FolderListing) -> tuple[_Groups, bool]:
    """Return the files of each length that can be copies, and whether lengths were left out."""
    by_size: defaultdict[Hashable, list[_PartFile]] = defaultdict(list)
    for part, files in listing.parts.items():
        for file in files:
            by_size[file.size].append((part, file))
    groups = [group for group in by_size.values() if _has_pair(group, listing)]
    stride = max(1, ceil(sum(map(len, groups)) / _MOST_OPENED))
    if stride == 1:
        return groups, False
    # Of few lengths, as uncompressed images have, files are left out instead of lengths.
    if len(groups) >= stride:
        return groups[::stride], True
    return [group[::stride] for group in groups], True


def _has_pair(group: list[_PartFile], listing: FolderListing) -> bool:
    return len({part for part, _ in group}) > 1 if listing.has_test else len(group) > 1


def _split(
    groups: _Groups, key: Callable[[_PartFile], str | None], listing: FolderListing
) -> _Groups:
    """Split groups by the keys of their files; keep those that still hold two of one."""
    items = [(number, item) for number, group in enumerate(groups) for item in group]
    split: defaultdict[Hashable, list[_PartFile]] = defaultdict(list)
    digests: Iterable[str | None] = in_order(key, [item for _, item in items])
    for (number, item), digest in zip(items, digests, strict=True):
        if digest is not None:
            split[number, digest].append(item)
    return [group for group in split.values() if _has_pair(group, listing)]


def _digest(file: Path, *, whole: bool) -> str | None:
    """Return a hash of a file, or of what is in its middle; None if it cannot be read."""
    with contextlib.suppress(OSError), file.open("rb") as stream:
        if whole:
            return hashlib.file_digest(stream, "sha256").hexdigest()
        # Files of one kind begin and often end alike.
        stream.seek(max(0, (file.stat().st_size - _BYTES_AT_FIRST) // 2))
        return hashlib.sha256(stream.read(_BYTES_AT_FIRST)).hexdigest()
    return None
