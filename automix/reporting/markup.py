"""HTML that cannot be broken by what it shows: text is escaped unless it already is HTML."""

from collections.abc import Iterable
from html import escape
from typing import Final

_VOID: Final = frozenset({"br", "col", "img", "link", "meta"})


class Html(str):
    """A piece of finished HTML; whatever is a plain ``str`` is text and gets escaped."""

    __slots__ = ()


def tag(name: str, /, *children: str, **attributes: str | bool | None) -> Html:
    """Return an element.

    Args:
        name: such as "p".
        children: `Html` as it is, any other string escaped.
        attributes: a trailing underscore is dropped (``class_``), others become hyphens
            (``aria_label``); True gives an attribute without a value, False and None give none.
    """
    shown = "".join(
        f" {_attribute(key)}" if value is True else f' {_attribute(key)}="{escape(value)}"'
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    if name in _VOID:
        return Html(f"<{name}{shown}>")
    return Html(f"<{name}{shown}>{join(children)}</{name}>")


def join(children: Iterable[str]) -> Html:
    """Return the children one after the other; plain strings are escaped."""
    return Html("".join(child if isinstance(child, Html) else escape(child) for child in children))


def _attribute(key: str) -> str:
    return key.rstrip("_").replace("_", "-")
