"""Image files made byte by byte, and EXIF blocks that are odd or damaged."""

import io
import struct
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Entry = tuple[int, int, int, bytes]
ORIENTATION = 0x0112


def photograph(mode: str = "RGB", *, height: int = 15, width: int = 21) -> Image.Image:
    """Return an image of few smooth colors, no two of whose eight orientations are equal."""
    small = np.random.default_rng(0).integers(256, size=(5, 7, 3), dtype=np.uint8)
    image = Image.fromarray(small).resize((width, height))
    if mode == "I;16":
        return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    return image.convert(mode)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    """Return an image as the content of a file."""
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def turned(pixels_CHW: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Return stored pixels as they are upright; slow reference of the EXIF orientations."""
    mirrored = pixels_CHW[:, :, ::-1]
    quarter_turns = {1: 0, 2: 0, 3: 2, 4: 2, 5: 1, 6: 3, 7: 3, 8: 1}[orientation]
    source = mirrored if orientation in (2, 4, 5, 7) else pixels_CHW
    return np.ascontiguousarray(np.rot90(source, quarter_turns, axes=(1, 2)))


def exif_block(entries: Sequence[Entry], orientation: int | None, *, order: str = "<") -> bytes:
    """Return an EXIF block with ``entries`` (tag, type, count, 4 bytes) and an orientation."""
    if orientation is not None:
        entries = [*entries, (ORIENTATION, 3, 1, struct.pack(f"{order}HH", orientation, 0))]
    table = b"".join(
        struct.pack(f"{order}HHI", tag, kind, count) + value
        for tag, kind, count, value in sorted(entries)
    )
    mark = b"II*\0" if order == "<" else b"MM\0*"
    return mark + struct.pack(f"{order}IH", 8, len(entries)) + table + bytes(4)


def with_exif(content: bytes, block: bytes) -> bytes:
    """Put an EXIF block into a JPEG, PNG or simple WebP file of at most 256 pixels per side."""
    if content.startswith(b"\xff\xd8"):
        body = b"Exif\0\0" + block
        segment = b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body
        return content[:2] + segment + content[2:]
    if content.startswith(b"\x89PNG"):
        return content[:33] + png_chunk(b"eXIf", block) + content[33:]
    with Image.open(io.BytesIO(content)) as image:
        sides = bytes([image.width - 1, 0, 0, image.height - 1, 0, 0])
    extended = _riff(b"VP8X", bytes([8, 0, 0, 0]) + sides)
    return _riff(b"RIFF", b"WEBP" + extended + content[12:] + _riff(b"EXIF", block))


def with_tiff_tags(content: bytes, entries: Sequence[Entry]) -> bytes:
    """Add entries to the tags of a TIFF file, in its byte order."""
    order = "<" if content.startswith(b"II") else ">"
    (start,) = struct.unpack(f"{order}I", content[4:8])
    (count,) = struct.unpack(f"{order}H", content[start : start + 2])
    table = content[start + 2 : start + 2 + 12 * count]
    items = {struct.unpack(f"{order}H", table[at : at + 2])[0]: table[at : at + 12]
             for at in range(0, len(table), 12)}  # fmt: skip
    for tag, kind, number, value in entries:
        items[tag] = struct.pack(f"{order}HHI", tag, kind, number) + value
    end = len(content) + len(content) % 2
    joined = struct.pack(f"{order}H", len(items)) + b"".join(items[tag] for tag in sorted(items))
    head = content[:4] + struct.pack(f"{order}I", end) + content[8:].ljust(end - 8, b"\0")
    return head + joined + bytes(4)


def png_chunk(kind: bytes, body: bytes) -> bytes:
    """Return a chunk of a PNG file."""
    checksum = zlib.crc32(kind + body)
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checksum)


def gray_tiff(rows: Sequence[bytes], *, width: int, bits: int, photometric: int = 1) -> bytes:
    """Return a little-endian gray TIFF file of packed rows."""
    data = b"".join(rows)
    fields = {256: width, 257: len(rows), 258: bits, 259: 1, 262: photometric, 273: 8, 277: 1,
              278: len(rows), 279: len(data)}  # fmt: skip
    end = 8 + len(data) + len(data) % 2
    table = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in fields.items())
    head = b"II*\0" + struct.pack("<I", end) + data.ljust(end - 8, b"\0")
    return head + struct.pack("<H", len(fields)) + table + bytes(4)


def _riff(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("<I", len(body)) + body + bytes(len(body) % 2)
