"""The shell of a page: one file, no network, both themes, readable on a phone."""

import base64
import hashlib
from importlib import resources

from automix.reporting.markup import Html, tag


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
