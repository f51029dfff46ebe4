"""A figure's size, inks and bytes: Matplotlib's object-oriented API only, no global state.

``pyplot`` keeps every figure in a global list and picks a window system, so it is never imported.
The two settings that exist only as Matplotlib's global parameters are put back after each use.
"""

import io
import re
import textwrap
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, Final, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import Collection
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from automix.escapes import html_attribute, visible
from automix.reporting.palette import Theme

WIDE: Final = 8.5
"""Width in inches of a figure for a page column or a slide."""

NARROW: Final = 3.7
"""Width in inches of a figure for a phone: 355 CSS pixels, so 10 points are 13 pixels there."""

TEXT_POINTS: Final = 10.0
SMALL_POINTS: Final = 8.5
# DejaVu Sans has a mean advance of about 0.6 of its size; other fonts of the page are narrower.
_ADVANCE: Final = 0.6

# Colors no picture uses: each is replaced by the variable of the page that holds the ink, so one
# drawing follows the page's theme.
INLINE: Final = Theme(
    ink="#0a0b01", muted="#0a0b02", grid="#0a0b03", surface="#0a0b04", accent="#0a0b05"
)
_VARIABLES: Final = {color: f"var(--{name})" for name, color in asdict(INLINE).items()}


_HINT: Final = "hint-"

FigureFunction = Callable[..., Figure]
"""Takes ``width`` in inches and ``theme``; a figure function with its data, by `partial`."""


def new_figure(*, width: float, height: float, theme: Theme, dpi: float = 100.0) -> Figure:
    """Return an empty figure of ``width`` by ``height`` inches."""
    return Figure(figsize=(width, height), dpi=dpi, layout="constrained", facecolor=theme.surface)


def new_axes(
    *,
    width: float,
    height: float,
    theme: Theme,
    grid: Literal["x", "y", "both"] | None = None,
    x: str = "",
    y: str = "",
) -> tuple[Figure, Axes]:
    """Return a figure with one pair of axes, styled and labeled."""
    figure = new_figure(width=width, height=height, theme=theme)
    axes = figure.add_subplot()
    style_axes(axes, theme, grid=grid)
    label_axes(axes, theme, x=x, y=y)
    return figure, axes


def style_axes(axes: Axes, theme: Theme, *, grid: Literal["x", "y", "both"] | None = None) -> None:
    """Give ``axes`` the style of all figures: two spines, muted ticks, a grid where asked for."""
    # The figure's own background shows through; the left and lower spine suffice.
    axes.set_facecolor("none")
    for side, spine in axes.spines.items():
        spine.set_visible(side in {"left", "bottom"})
        spine.set_color(theme.grid)
        spine.set_linewidth(0.8)
    axes.tick_params(
        colors=theme.muted, labelcolor=theme.muted, labelsize=SMALL_POINTS, length=3, width=0.8
    )
    axes.set_axisbelow(True)
    if grid:
        axes.grid(visible=True, axis=grid, color=theme.grid, linewidth=0.8)


def label_axes(
    axes: Axes, theme: Theme, *, x: str = "", y: str = "", title: str = "", pad: float = 6.0
) -> None:
    """Write the axis labels (with units) and a left-aligned title ``pad`` points above."""
    axes.set_xlabel(plain(x), color=theme.muted, fontsize=SMALL_POINTS + 0.5)
    axes.set_ylabel(plain(y), color=theme.muted, fontsize=SMALL_POINTS + 0.5)
    if title:
        style: dict[str, Any] = {"fontsize": TEXT_POINTS, "fontweight": "bold", "pad": pad}
        axes.set_title(plain(title), loc="left", color=theme.ink, **style)


def hint(artist: Artist, text: str, *, link: str = "") -> None:
    """Let a page show ``text`` where the pointer is on ``artist``, and follow ``link`` on a click.

    In other files than the SVG of a page both have no effect.
    """
    # Matplotlib carries an identifier to its SVG, and no text; `_page_tag` makes a title of it.
    artist.set_gid(_HINT + text.encode().hex())
    if isinstance(artist, Collection):
        artist.set_urls([link or None])
    elif link:
        artist.set_url(link)


def percent_axis(axis: Axis) -> None:
    """Show fractions in [0, 1] as percentages."""
    axis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))
    axis.set_ticks([0, 0.25, 0.5, 0.75, 1])


def write_beside(
    axes: Axes, text: str, point: tuple[float, float], offset: tuple[float, float], **style: Any
) -> None:
    """Write small text ``offset`` points away from ``point``; ``style`` goes to Matplotlib."""
    style = {"fontsize": SMALL_POINTS, **style}
    axes.annotate(text, point, xytext=offset, textcoords="offset points", **style)


def panel_axes(
    figure: Figure, num_panels: int, *, num_columns: int, lower_ratio: float
) -> Iterator[tuple[Axes, Axes, bool]]:
    """Yield an upper and a lower pair of axes per panel, and whether its column is the first.

    The two share their horizontal axis; the lower one is ``lower_ratio`` / 4 as high.
    """
    num_rows = -(-num_panels // num_columns)
    ratios = [4, lower_ratio] * num_rows
    grid = figure.add_gridspec(2 * num_rows, num_columns, height_ratios=ratios, hspace=0.02)
    for index in range(num_panels):
        row, column = divmod(index, num_columns)
        upper = figure.add_subplot(grid[2 * row, column])
        yield upper, figure.add_subplot(grid[2 * row + 1, column], sharex=upper), column == 0


def plain(text: str) -> str:
    """Return ``text`` so that Matplotlib shows it as it is; a dollar sign is not mathematics."""
    return visible(text).replace("$", r"\$")


def wrapped(text: str, *, width: int) -> str:
    """Return ``text`` as `plain` does, in lines of at most ``width`` characters.

    A name from elsewhere may be longer than a phone is wide, and leave no room for the axes.
    """
    return plain("\n".join(textwrap.wrap(text, width)))


def text_width(text: str, points: float = TEXT_POINTS) -> float:
    """Return an estimate, a little high, of the width of ``text`` in points."""
    return _ADVANCE * points * len(text)


def rgb_array(figure: Figure) -> NDArray[np.uint8]:
    """Return the picture as pixels, (H, W, 3) uint8, at the figure's own resolution."""
    canvas: Any = FigureCanvasAgg(figure)
    with _quiet_about_glyphs():
        canvas.draw()
    return np.asarray(canvas.buffer_rgba(), dtype=np.uint8)[..., :3].copy()


def png_bytes(figure: Figure, *, dpi: float = 160.0) -> bytes:
    """Return the picture as PNG; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    # Without this the file would hold Matplotlib's version and change with it.
    with _quiet_about_glyphs():
        figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


def inline_svg(figure: Figure, *, identifier: str, description: str) -> str:
    """Return the picture as an ``<svg>`` element for a page; the same figure gives the same text.

    Its text stays text, in the page's font; inks of the `INLINE` theme become the page's CSS
    variables; nothing in it refers outside it. ``identifier``, of letters, digits and hyphens, is
    distinct for each picture of a page.
    """
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9-]*", identifier):
        raise ValueError(f"expected letters, digits and hyphens, got {identifier!r}")
    buffer = io.BytesIO()
    # A fixed salt makes Matplotlib's generated ids the same each time; text stays text.
    parameters: dict[Any, Any] = {"svg.hashsalt": identifier, "svg.fonttype": "none"}
    metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with mpl.rc_context(parameters), _quiet_about_glyphs():
        figure.savefig(buffer, format="svg", facecolor="none", metadata=metadata)
    # The XML declaration and the size in points go: the page gives the width.
    svg = buffer.getvalue().decode()
    svg = svg[svg.index("<svg") :]
    view_box = re.findall(r'viewBox="[^"]*"', svg)[0]
    opening = f'<svg {view_box} role="img" aria-label="{html_attribute(description)}">'
    body = svg[svg.index(">") + 1 :]
    # This style sheet would apply to the whole page; page.css says the same for figures only.
    body = re.sub(r"<style.*?</style>", "", body, flags=re.DOTALL)
    body = re.sub(rf'<g id="{_HINT}([0-9a-f]*)">', _titled_group, body)
    referred = set(re.findall(r'(?:href="|url\()#([^")]+)', body))
    body = re.sub(r"<[^>]*>", lambda tag: _page_tag(tag.group(), identifier, referred), body)
    return opening + re.sub(r">\s+<", "><", body).strip()


def _titled_group(match: re.Match[str]) -> str:
    """Return the opening tag of a group with the text of its hint, which browsers show."""
    text = html_attribute(bytes.fromhex(match[1]).decode())
    return f"<g><title>{text}</title>"


def _page_tag(tag: str, identifier: str, referred: set[str]) -> str:
    """Return one tag of Matplotlib's SVG as a page needs it."""
    # Ids that nothing refers to go; the others, and references to them, get a prefix, because all
    # drawings of a page have the same names.
    tag = re.sub(
        r'(?<=[\s"])id="([^"]*)"',
        lambda match: f'id="{identifier}-{match[1]}"' if match[1] in referred else "",
        tag,
    )
    tag = re.sub(r'(xlink:href="|url\()#', rf"\1#{identifier}-", tag).replace("xlink:href", "href")
    # In the window of the page, as any other link of it.
    tag = tag.replace(' target="_blank"', "")
    # The page's own font and theme, and two decimals, which is 1/7,200 of an inch.
    tag = re.sub(r"font-family: [^;\"]*;? ?", "", tag)
    for color, variable in _VARIABLES.items():
        tag = tag.replace(color, variable)
    return re.sub(r"(\.\d\d)\d+", r"\1", re.sub(r"\s+", " ", tag))


@contextmanager
def _quiet_about_glyphs() -> Iterator[None]:
    # Matplotlib's font lacks some scripts; the PNG then shows boxes, the page its own font.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from font")
        yield
