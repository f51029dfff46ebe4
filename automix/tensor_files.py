"""Tensors of files that may come from anybody: safetensors, and archives of `torch.save`.

Nothing in them is executed, and what they would need in memory is known before it is allocated.
"""

import io
import os
import pickletools
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from automix.errors import CheckpointError
from automix.readers import open_regular, parsing

if TYPE_CHECKING:
    from torch import Tensor

# A network of 800 million weights with the state of its optimizer. A sparse file may claim more.
MAX_TENSOR_BYTES = 10_000_000_000
# A tensor takes about 100 bytes of a header, 80 of a zip directory, and 25 operations of a pickle.
_MAX_HEADER_BYTES = 8_000_000
_MAX_DIRECTORY_BYTES = 4_000_000
_MAX_PICKLE_BYTES = 16_000_000
_MAX_OPERATIONS = 500_000
# End of a zip archive without a comment, as `torch.save` writes it: three records, of which small
# archives may lack the first two. Each begins with its signature.
_DIRECTORY_64, _LOCATOR_64, _DIRECTORY = b"PK\x06\x06", b"PK\x06\x07", b"PK\x05\x06"
_LENGTH_64, _LENGTH_LOCATOR, _LENGTH = 56, 20, 22
# What tensors are built of. torch's restricted unpickler calls others as well, such as bytearray
# and UntypedStorage, which make of 1 kB as many bytes as it says.
_DTYPES = frozenset(
    {"bfloat16", "bool", "complex64", "complex128", "float16", "float32", "float64"}
    | {"int8", "int16", "int32", "int64", "uint8"}
)
_PLAIN_NAMES = frozenset(
    {
        "collections OrderedDict",
        "torch Size",
        "torch._utils _rebuild_parameter",
        "torch._utils _rebuild_tensor",
        "torch._utils _rebuild_tensor_v2",
    }
)


def read_weights(
    path: Path, expected: Mapping[str, "Tensor"], *, limit: int = MAX_TENSOR_BYTES
) -> dict[str, "Tensor"]:
    """Read a safetensors file of the tensors of a network onto the CPU.

    Args:
        path: of at most ``limit`` bytes.
        expected: name, shape and dtype of every tensor; on the meta device they take no memory.
        limit: in bytes.

    Raises:
        CheckpointError: the file cannot be read, or holds other tensors; then none was read.
    """
    import safetensors  # noqa: PLC0415 - with torch, as below

    with open_regular(path, limit=limit) as stream, parsing(str(path), "safetensors"):
        _check_header(stream)
    with parsing(str(path), "safetensors"), safetensors.safe_open(path, framework="pt") as file:
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        check_shapes(path, shapes, expected)
        weights = {name: file.get_tensor(name) for name in shapes}
    for name, tensor in expected.items():
        if weights[name].dtype != tensor.dtype:
            raise CheckpointError(
                f"{path}: expected {name} of {tensor.dtype}, got {weights[name].dtype}"
            )
    return weights


def check_shapes(
    path: Path, shapes: Mapping[str, tuple[int, ...]], expected: Mapping[str, "Tensor"]
) -> None:
    """Refuse tensors that are not those of a network.

    Raises:
        CheckpointError: one is missing, unknown, or of another shape.
    """
    fitting = f"{path}: expected weights that fit, got"
    if missing := next((name for name in expected if name not in shapes), None):
        raise CheckpointError(f"{fitting} none for {missing!r}")
    if unknown := next((name for name in shapes if name not in expected), None):
        raise CheckpointError(f"{fitting} the unknown {unknown!r}")
    for name, tensor in expected.items():
        if shapes[name] != tuple(tensor.shape):
            raise CheckpointError(
                f"{fitting} {name} of shape {shapes[name]}, not {tuple(tensor.shape)}"
            )


def read_any_weights(path: Path) -> object:
    """Read a safetensors file, or what `torch.save` wrote, onto the CPU; see `read_archive`."""
    expected = "a safetensors file or a PyTorch file of tensors"
    with open_regular(path, limit=MAX_TENSOR_BYTES) as stream, parsing(str(path), expected):
        if path.suffix != ".safetensors":
            return read_archive(stream)
        _check_header(stream)
        import safetensors.torch  # noqa: PLC0415 - it imports torch

        return safetensors.torch.load_file(path)


def read_archive(stream: IO[bytes]) -> object:
    """Read what `torch.save` wrote, tensors on the CPU, by the restricted unpickler.

    Raises:
        Exception: of any kind; it is no such archive, or would be larger in memory than in the
            file.
    """
    import torch  # noqa: PLC0415 - configuration and help load this module, but not torch

    _check_archive(stream)
    stream.seek(0)
    return torch.load(stream, map_location="cpu", weights_only=True)


class Payload(io.RawIOBase):
    """The rest of a file from ``start`` on, as a file that begins there."""

    def __init__(self, stream: io.BufferedReader, start: int) -> None:
        """Begin at ``start`` of a seekable ``stream``, which the caller closes."""
        self._stream, self._start = stream, start
        self.seek(0)

    def readable(self) -> bool:
        """Return true."""
        return True

    def seekable(self) -> bool:
        """Return true."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill ``buffer`` as far as the file goes; return how many bytes that were."""
        return self._stream.readinto(buffer)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to ``offset``; return the new position."""
        moved = offset + self._start if whence == os.SEEK_SET else offset
        return self._stream.seek(moved, whence) - self._start

    def tell(self) -> int:
        """Return the position."""
        return self._stream.tell() - self._start


def _check_header(stream: io.BufferedReader) -> None:
    # The reader of the library takes up to 100 MB, and several times that in memory.
    length = int.from_bytes(stream.read(8), "little")
    if length > _MAX_HEADER_BYTES:
        raise ValueError(f"a header of {length} bytes, more than {_MAX_HEADER_BYTES}")


def _check_archive(stream: IO[bytes]) -> None:
    """Refuse an archive that is larger in memory than in the file."""
    size = stream.seek(0, os.SEEK_END)
    if (length := _directory_bytes(stream, size)) > _MAX_DIRECTORY_BYTES:
        raise ValueError(f"a directory of {length} bytes, more than {_MAX_DIRECTORY_BYTES}")
    with zipfile.ZipFile(stream) as archive:
        members = archive.infolist()
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise ValueError("a compressed archive, which torch.save does not write")
        # Members may share their bytes.
        if (total := sum(member.file_size for member in members)) > size:
            raise ValueError(f"{total} bytes in an archive of {size}")
        for member in members:
            if member.filename.endswith("data.pkl"):
                _check_pickle(archive, member)


def _directory_bytes(stream: IO[bytes], size: int) -> int:
    """Return the length of the directory of a zip archive; it is parsed as a whole."""
    longest = _LENGTH_64 + _LENGTH_LOCATOR + _LENGTH
    stream.seek(max(size - longest, 0))
    end = stream.read(longest).rjust(longest)
    if not end[-_LENGTH:].startswith(_DIRECTORY):
        raise ValueError("a file that does not end as an archive of torch.save")
    if not end[_LENGTH_64:].startswith(_LOCATOR_64):
        return int(struct.unpack_from("<L", end, longest - _LENGTH + 12)[0])
    if not end.startswith(_DIRECTORY_64):
        raise ValueError("an archive whose directory is not where torch.save writes it")
    return int(struct.unpack_from("<Q", end, 40)[0])


def _check_pickle(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    """Refuse a pickle that calls for more than tensors, or has too many operations; unexecuted."""
    if member.file_size > _MAX_PICKLE_BYTES:
        raise ValueError(f"a pickle of {member.file_size} bytes, more than {_MAX_PICKLE_BYTES}")
    operations = pickletools.genops(archive.read(member))
    for number, (operation, argument, _) in enumerate(operations):
        if number == _MAX_OPERATIONS:
            raise ValueError(f"a pickle of more than {_MAX_OPERATIONS} operations")
        if operation.name in ("GLOBAL", "INST") and not _is_plain(str(argument)):
            raise ValueError(f"a pickle that calls {argument}")


def _is_plain(name: str) -> bool:
    # Names of types and of storages, such as "torch float16" and "torch FloatStorage", are only
    # looked up.
    module, _, attribute = name.partition(" ")
    is_type = module == "torch" and (attribute.endswith("Storage") or attribute in _DTYPES)
    return is_type or name in _PLAIN_NAMES
