"""Atomic files, and checkpoint files that are verified before they are read."""

import contextlib
import hashlib
import io
import json
import logging
import os
import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any

from automix.errors import CheckpointError
from automix.readers import open_regular, parsing
from automix.tensor_files import MAX_TENSOR_BYTES, Payload, read_archive

_TEMPORARY = ".tmp"
# A checkpoint: magic number, SHA-256 of the rest, then what `torch.save` writes. The digest is
# checked first: a damaged zip archive may still unpickle, to wrong weights.
_MAGIC = b"AUTOMIX1"
_HEADER = len(_MAGIC) + hashlib.sha256().digest_size
_STEP_NAME = re.compile(r"step-(\d{9,})\.ckpt")
_BYTES_AT_ONCE = 1_000_000
_LOG = logging.getLogger(__name__)


@contextlib.contextmanager
def atomic_writer(path: Path) -> Iterator[IO[bytes]]:
    """Open a temporary file beside ``path``; on success fsync it and rename it to ``path``.

    When the body raises, nothing is left behind and an existing file stays as it was. Missing
    folders are created.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{_TEMPORARY}")
    try:
        # Not tempfile, whose files only their owner may read: the umask decides, as anywhere.
        with temporary.open("xb") as stream:
            yield stream
            # First the content, then the name: a name never stands for half of a file.
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
        _synchronize_folder(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and str(error.filename) in ("None", str(temporary)):
            # A full disk has no name, and users do not know the temporary one.
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def remove_temporaries(folder: Path) -> None:
    """Remove the temporary files of killed processes; nobody else may be writing."""
    for path in folder.glob(f".*{_TEMPORARY}"):
        path.unlink(missing_ok=True)


def _synchronize_folder(path: Path) -> None:
    """Make a rename in ``path`` survive a power cut, where the system can."""
    with contextlib.suppress(OSError):
        folder = os.open(path, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def write_bytes(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` atomically."""
    with atomic_writer(path) as stream:
        stream.write(content)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` atomically, as UTF-8."""
    write_bytes(path, text.encode())


def write_json(path: Path, content: Any) -> None:
    """Write ``content`` to ``path`` atomically as indented JSON; NaN and infinity are refused."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def sha256_of(*parts: bytes) -> str:
    """Return the SHA-256 of the parts, each preceded by its length, as 64 hex digits."""
    digest = hashlib.sha256()
    for part in parts:
        # Without the length, ("ab", "c") and ("a", "bc") would be equal.
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()


def sha256_of_file(path: Path, *, limit: int) -> str:
    """Return `sha256_of` the content of a regular file of at most ``limit`` bytes.

    Raises:
        CheckpointError: it cannot be read, or is larger.
    """
    with open_regular(path, limit=limit) as stream:
        digest = hashlib.sha256(os.fstat(stream.fileno()).st_size.to_bytes(8, "little"))
        while part := stream.read(_BYTES_AT_ONCE):
            digest.update(part)
    return digest.hexdigest()


Fields = Mapping[str, tuple[type, ...]]
"""Types that a value may have, by its name."""


class CheckpointFolder:
    """The newest checkpoints of one run, each in a file named after the step it was taken at."""

    def __init__(self, path: Path, *, keep: int, fields: Fields = MappingProxyType({})) -> None:
        """Use the folder ``path``, which need not be there yet, for ``keep`` files (at least 1).

        ``fields``: what every state holds, see `check_fields`.
        """
        self.path = path
        self._keep = keep
        self._fields = fields

    def file_of(self, step: int) -> Path:
        """Return the path of the checkpoint after ``step`` steps."""
        return self.path / f"step-{step:09d}.ckpt"

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Write ``state``; only then remove the files that it replaces."""
        write_checkpoint(self.file_of(step), state)
        # Files of later steps are damaged ones: this run was resumed from before them.
        files = self.files()
        not_later = [file for file in files if _step_of(file) <= step]
        for file in set(files) - set(not_later[: self._keep]):
            file.unlink()

    def load_newest(
        self, *, check: Callable[[dict[str, Any]], None] = lambda state: None
    ) -> dict[str, Any] | None:
        """Return the newest readable state that passes ``check``, or None if there never was one.

        Raises:
            CheckpointError: there are files, but none can be read, or ``check`` refused all.
        """
        remove_temporaries(self.path)
        damaged: CheckpointError | None = None
        for file in self.files():
            # A damaged file costs the steps since the one before it, not the run.
            if damaged is not None:
                _LOG.warning("%s; trying the checkpoint before it", damaged)
            try:
                state = read_checkpoint(file)
                check_fields(state, self._fields, source=str(file))
                check(state)
            except CheckpointError as error:
                damaged = error
            else:
                return state
        if damaged is not None:
            raise CheckpointError(f"{damaged}; without the folder {self.path}, it is begun anew")
        return None

    def files(self) -> list[Path]:
        """Return the files, newest step first."""
        if not self.path.is_dir():
            return []
        named = (file for file in self.path.iterdir() if _STEP_NAME.fullmatch(file.name))
        return sorted(named, key=_step_of, reverse=True)


def write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write ``state`` (tensors, numbers, text, lists, dicts) to ``path`` atomically."""
    import torch  # noqa: PLC0415 - configuration and help load this module, but not torch

    stream = io.BytesIO()
    torch.save(state, stream)
    with stream.getbuffer() as payload, atomic_writer(path) as file:
        # In parts, because a copy of a large state is as large again.
        file.write(_MAGIC)
        file.write(hashlib.sha256(payload).digest())
        file.write(payload)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read what `write_checkpoint` wrote, tensors on the CPU.

    Raises:
        CheckpointError: the file is missing or damaged, or is no checkpoint.
    """
    with open_regular(path, limit=MAX_TENSOR_BYTES) as stream:
        magic, digest = stream.read(len(_MAGIC)), stream.read(_HEADER - len(_MAGIC))
        # Read twice rather than kept: a state may be as large as the memory.
        if magic != _MAGIC or hashlib.file_digest(stream, "sha256").digest() != digest:
            raise CheckpointError(f"{path}: expected an undamaged checkpoint, got damaged bytes")
        with parsing(str(path), "tensors and values"):
            state = read_archive(Payload(stream, _HEADER))  # type: ignore[arg-type]
    if not isinstance(state, dict):
        raise CheckpointError(f"{path}: expected a dict, got {type(state).__name__}")
    return state


def check_fields(state: Mapping[str, Any], fields: Fields, *, source: str) -> None:
    """Check that each of ``fields`` is in ``state`` and has one of its types.

    Raises:
        CheckpointError: one is missing, or of another type; the line begins with ``source``.
    """
    for name, kinds in fields.items():
        got = type(state[name]).__name__ if name in state else "nothing"
        if name not in state or not isinstance(state[name], kinds):
            expected = " or ".join(kind.__name__ for kind in kinds)
            raise CheckpointError(f"{source}: {name}: expected {expected}, got {got}")


def _step_of(file: Path) -> int:
    return int(file.stem.removeprefix("step-"))
