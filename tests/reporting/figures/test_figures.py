import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from automix.reporting.canvas import NARROW, WIDE
from automix.reporting.palette import LIGHT
from tests.reporting.examples import (
    FIGURES,
)


@pytest.mark.parametrize("width", [WIDE, NARROW])
@pytest.mark.parametrize("name", FIGURES)
def test_every_text_lies_inside_the_picture(name: str, width: float) -> None:
    figure = FIGURES[name](width=width, theme=LIGHT)
    FigureCanvasAgg(figure).draw()  # type: ignore[no-untyped-call]
    page = figure.bbox
    texts = [text for text in figure.findobj(Text) if isinstance(text, Text)]
    shown = [text for text in texts if text.get_visible() and text.get_text().strip()]
    assert len(shown) > 5
    axes = [axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)]
    ticks = [label for axis in axes for label in axis.get_ticklabels()]
    for text in shown:
        box = text.get_window_extent()
        inside = (
            box.x0 >= page.x0 - 2
            and box.x1 <= page.x1 + 2
            and box.y0 >= page.y0 - 2
            and box.y1 <= page.y1 + 2
        )
        # Ticks beyond the limits exist but are not drawn.
        assert inside or text in ticks, text.get_text()


@pytest.mark.parametrize("name", FIGURES)
def test_axes_are_labeled(name: str) -> None:
    figure = FIGURES[name](width=WIDE, theme=LIGHT)
    assert any(axes.get_xlabel() for axes in figure.axes)
    assert figure.get_figwidth() == WIDE
