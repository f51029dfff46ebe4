"""Jinja2 templates of the pages; the Python around them holds data only.

Every string is escaped unless it is a `Markup`, which marks finished HTML.
"""

import base64
import hashlib
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from automix.escapes import visible


def render(template: str, **values: Any) -> Markup:
    """Return ``assets/<template>.html.jinja`` with its values filled in.

    Raises:
        jinja2.UndefinedError: the template uses a value that it did not get.
    """
    return Markup(_ENVIRONMENT.get_template(f"{template}.html.jinja").render(values))


def _page_values() -> dict[str, Markup]:
    """Return what every page holds: style, script, and the policy that allows nothing else."""
    assets = resources.files("automix.reporting").joinpath("assets")
    # Finished text by purpose: both are files of this package, and neither holds "</".
    files = ("page.css", "page.js")
    style, script = (Markup(assets.joinpath(name).read_text("utf-8")) for name in files)
    # The browser loads nothing and runs only the script of this digest, whatever the page holds:
    # a second barrier behind the escaping.
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    return {"style": style, "script": script, "policy": Markup(policy)}


def _finalized(value: object) -> object:
    # Before it is escaped: marks of direction in a name reorder a page as they do a terminal.
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


_ENVIRONMENT = Environment(
    loader=PackageLoader("automix.reporting", "assets"),
    autoescape=True,
    undefined=StrictUndefined,
    finalize=_finalized,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
_ENVIRONMENT.globals.update(_page_values())
