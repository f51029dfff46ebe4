"""Hypothesis strategies for the bytes of a file: those of the corpus, mutated a few times."""

from collections.abc import Sequence

from hypothesis import strategies as st

# What parsers stumble over: nesting, numbers without end, halves of characters, other types.
_TOKENS = (
    b"", b"\0", b"\xff", b"\n", b"[" * 3000, b'{"a":' * 3000, b"1" * 5000, b"1e999", b"-1", b"0",
    b"NaN", b"Infinity", b"null", b"true", b'""', b"[]", b"{}", b'"\\ud800"', b'"\\u0000"',
    b'"\\UFFFFFFFF"', b"&a [*a]", b"!!python/object:x", b"<<: *a", b"? ", b"- ", b"x" * 5000,
    b"\xf0\x9f\x98\x80", b"\xed\xa0\x80", b"9" * 400, b"2147483648", b"18446744073709551616",
    b"../../etc/passwd", b"\x1b[2J", b"=1", b"c\n_\n.", b"PK\x03\x04",
)  # fmt: skip


@st.composite
def mutated(draw: st.DrawFn, corpus: Sequence[bytes]) -> bytes:
    """Return a file of the corpus after up to four mutations."""
    content = draw(st.sampled_from(corpus))
    for _ in range(draw(st.integers(0, 4))):
        first = draw(st.integers(0, len(content)))
        last = draw(st.integers(first, min(len(content), first + 64)))
        kind = draw(st.sampled_from(("flip", "token", "bytes", "cut", "copy", "delete", "value")))
        if kind == "flip" and first < len(content):
            byte = content[first] ^ (1 << draw(st.integers(0, 7)))
            content = content[:first] + bytes([byte]) + content[first + 1 :]
        elif kind == "token":
            content = content[:first] + draw(st.sampled_from(_TOKENS)) + content[last:]
        elif kind == "bytes":
            content = content[:first] + draw(st.binary(max_size=8)) + content[last:]
        elif kind == "cut":
            content = content[:first]
        elif kind == "copy":
            content = content[:last] + content[first:last] + content[last:]
        elif kind == "delete":
            content = content[:first] + content[last:]
        elif kind == "value":
            content = _other_value(content, first, draw(st.sampled_from(_TOKENS)))
    return content


def _other_value(content: bytes, start: int, token: bytes) -> bytes:
    """Return JSON or YAML whose next value after ``start`` is another one."""
    colon = content.find(b":", start)
    if colon < 0:
        return content
    ends = [end for mark in b",\n}]" if (end := content.find(bytes([mark]), colon)) > 0]
    return content[: colon + 1] + b" " + token + content[min(ends, default=len(content)) :]
