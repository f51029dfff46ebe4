"""Checkpoint files: verified before they are read, never executed, with one to fall back to.

A file is a magic word, the SHA-256 of the rest, and what `torch.save` wrote. It is loaded with
``weights_only=True``: tensors and plain values, no code.
"""

import hashlib
import io
import logging
import pickle
from pathlib import Path
from typing import Any

import torch

from automix.errors import CheckpointError
from automix.files import write_bytes

_MAGIC = b"AUTOMIX1"
_HEADER = len(_MAGIC) + hashlib.sha256().digest_size
_LOG = logging.getLogger(__name__)


def previous_path(path: Path) -> Path:
    """Return where the checkpoint before the one at ``path`` is kept."""
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write ``state`` (tensors, numbers, text, lists, dicts); keep the file before it."""
    stream = io.BytesIO()
    torch.save(state, stream)
    payload = stream.getvalue()
    if path.exists():
        path.replace(previous_path(path))
    write_bytes(path, _MAGIC + hashlib.sha256(payload).digest() + payload)


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """Return the newest readable state, or None if there never was one.

    A damaged file is reported in the log and the one before it is used.

    Raises:
        CheckpointError: there are files, but none can be read.
    """
    damaged: CheckpointError | None = None
    for candidate in (path, previous_path(path)):
        if not candidate.exists():
            continue
        try:
            return _read(candidate)
        except CheckpointError as error:
            damaged = error
            _LOG.warning("%s; trying the checkpoint before it", error)
    if damaged is not None:
        raise damaged
    return None


def _read(path: Path) -> dict[str, Any]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: expected a readable file, got: {error.strerror}") from None
    magic, digest = content[: len(_MAGIC)], content[len(_MAGIC) : _HEADER]
    payload = content[_HEADER:]
    if magic != _MAGIC or hashlib.sha256(payload).digest() != digest:
        raise CheckpointError(f"{path}: expected an undamaged checkpoint, got damaged bytes")
    try:
        state = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{path}: expected tensors and values, got: {reason}") from None
    if not isinstance(state, dict):
        raise CheckpointError(f"{path}: expected a dict, got {type(state).__name__}")
    return state
