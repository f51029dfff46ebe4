"""Text of others, escaped for the place where it is shown: terminal, CSV, Markdown, HTML.

Names of files, keys of schedules and words of commands come from anywhere. In pages, the
templates escape it (`automix.reporting.html`), after `visible`.
"""

import html
import re
import unicodedata

# Control and format characters (among them escape sequences, marks of direction, zero-width
# letters), halves of pairs, separators of lines and paragraphs.
_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
# Bytes of a file name that are no text: Python reads byte 0xNN as the character U+DCNN.
_BYTES = range(0xDC80, 0xDD00)
_MARKDOWN = frozenset(r"\`*_{}[]<>()#|!~&$@")
# At the beginning of a cell, spreadsheets take them for a formula (CWE-1236).
_FORMULA = tuple("=+-@\t\r\uff1d\uff0b\uff0d\uff20")


def visible(text: str) -> str:
    r"""Return text whose only invisible characters are line breaks and tabs.

    >>> visible("\x1b[31mred\nnext")
    '\\x1b[31mred\nnext'
    """
    return "".join(map(_shown, text))


def one_line(value: object) -> str:
    r"""Return text for one line of a terminal: nothing in it moves the cursor or reorders.

    >>> one_line("a\r\nfake: line\u202e")
    'a\\r\\nfake: line\\u202e'
    """
    return "".join(_WHITE.get(letter) or _shown(letter) for letter in str(value))


def csv_cell(text: str) -> str:
    """Return text for a cell of a CSV file that no spreadsheet takes for a formula.

    >>> csv_cell("=cmd|' /C calc'!A0")
    "'=cmd|' /C calc'!A0"
    """
    shown = one_line(text)
    return f"'{shown}" if shown.lstrip().startswith(_FORMULA) else shown


def markdown(text: str) -> str:
    r"""Return text that Markdown shows as it is, in one line.

    >>> markdown("a | b\n# c")
    'a \\| b \\# c'
    """
    flat = one_line(" ".join(text.split()))
    escaped = "".join(f"\\{letter}" if letter in _MARKDOWN else letter for letter in flat)
    # Elsewhere, a name such as "mix-up" stays readable in the source.
    return f"\\{escaped}" if escaped.startswith(("-", "+", "=")) else escaped


def markdown_code(text: str) -> str:
    """Return text as a line of indented code: whatever is in it, it cannot end the block.

    >>> markdown_code("automix search `x`")
    '    automix search `x`'
    """
    return f"    {one_line(text)}"


def markdown_span(text: str) -> str:
    """Return text as code within a line, in more backticks than it has side by side.

    >>> markdown_span("a`b")
    '``a`b``'
    """
    flat = one_line(text)
    fence = "`" * (max(map(len, re.findall("`*", flat))) + 1)
    # A space inside the fence is not shown.
    inner = f" {flat} " if flat[:1] in ("`", "") or flat.endswith("`") else flat
    return f"{fence}{inner}{fence}"


def html_attribute(text: str) -> str:
    """Return text for a quoted attribute that no template writes.

    >>> html_attribute('a "b" <c>')
    'a &quot;b&quot; &lt;c&gt;'
    """
    return html.escape(one_line(text))


_WHITE = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}


def _shown(letter: str) -> str:
    if letter in "\n\t" or unicodedata.category(letter) not in _INVISIBLE:
        return letter
    number = ord(letter)
    if number in _BYTES:
        return f"\\x{number - 0xDC00:02x}"
    if number < 0x100:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"
