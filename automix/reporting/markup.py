"""HTML that is escaped by type, and the shell of a page."""

import base64
import hashlib
from collections.abc import Iterable
from html import escape
from importlib import resources
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


def page(title: str, *body: str, language: str = "en") -> str:
    """Return a complete HTML document.

    Its content security policy lets the browser load nothing, and run nothing but this module's
    script, whatever the body holds.
    """
    # Raw by purpose: both are files of this package, and neither holds "</".
    style, script = Html(_asset("page.css")), Html(_asset("page.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        # Without this some browsers ask for /favicon.ico.
        tag("link", rel="icon", href="data:,"),
        tag("style", style),
        tag("script", script),
    )
    return "<!doctype html>\n" + tag("html", head, tag("body", *body), lang=language) + "\n"


def page_header(title: str) -> Html:
    """Return the heading of a page, with the button that changes the theme.

    The button is hidden until the script runs, as it does nothing without it.
    """
    button = tag("button", "Theme", type="button", class_="theme", hidden=True)
    return tag("header", tag("h1", title), button)


def _asset(name: str) -> str:
    return resources.files("automix.reporting").joinpath("assets", name).read_text("utf-8")
