import ast
import dataclasses
import html
import io
import re
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

import automix.reporting
from automix.reporting.canvas import (
    INLINE,
    NARROW,
    WIDE,
    hint,
    inline_svg,
    new_axes,
    new_figure,
    plain,
    png_bytes,
    rgb_array,
    text_width,
)
from automix.reporting.palette import LIGHT
from tests.reporting.examples import FIGURES, HOSTILE


@pytest.fixture(scope="module")
def svgs() -> dict[str, str]:
    return {
        f"{name}-{width}": inline_svg(
            draw(width=width, theme=INLINE),
            identifier=f"{name}-{'w' if width == WIDE else 'n'}",
            description=HOSTILE,
        )
        for name, draw in FIGURES.items()
        for width in ((NARROW,) if name == "schedule" else (WIDE, NARROW))
    }


def test_svg_refers_to_nothing_outside(svgs: dict[str, str]) -> None:
    for svg in svgs.values():
        assert "http" not in svg
        assert "@import" not in svg
        references = re.findall(r'(?:href="|url\()([^")]*)', svg)
        assert references
        assert all(reference.startswith("#") for reference in references)
        ids = re.findall(r'\bid="([^"]*)"', svg)
        assert {reference[1:] for reference in references} <= set(ids)


def test_svgs_of_one_page_have_distinct_ids(svgs: dict[str, str]) -> None:
    ids = [name for svg in svgs.values() for name in re.findall(r'\bid="([^"]*)"', svg)]
    assert ids
    assert len(ids) == len(set(ids))


def test_svg_takes_its_inks_from_the_page(svgs: dict[str, str]) -> None:
    for svg in svgs.values():
        assert "var(--ink)" in svg or "var(--muted)" in svg
        assert "#0a0b0" not in svg
        assert "<style" not in svg
        assert "font-family" not in svg


def test_description_is_escaped(svgs: dict[str, str]) -> None:
    for svg in svgs.values():
        assert "<script" not in svg
        assert "&lt;script&gt;" in svg


def test_numbers_in_texts_keep_their_digits() -> None:
    figure = new_figure(width=3, height=2, theme=INLINE)
    figure.text(0.5, 0.5, "0.123456789")
    svg = inline_svg(figure, identifier="a", description="")
    assert ">0.123456789<" in svg


@pytest.mark.parametrize("name", FIGURES)
def test_same_data_same_text(name: str, svgs: dict[str, str]) -> None:
    again = FIGURES[name](width=NARROW, theme=INLINE)
    svg = inline_svg(again, identifier=f"{name}-n", description=HOSTILE)
    assert svg == svgs[f"{name}-{NARROW}"]


def test_same_data_same_png() -> None:
    first, second = (FIGURES["comparison"](width=NARROW, theme=LIGHT) for _ in range(2))
    assert png_bytes(first, dpi=50) == png_bytes(second, dpi=50)


def test_png_holds_no_metadata() -> None:
    content = png_bytes(FIGURES["cost"](width=NARROW, theme=LIGHT), dpi=50)
    assert b"tEXt" not in content
    assert b"tIME" not in content


def test_rgb_array_is_the_picture() -> None:
    theme = dataclasses.replace(LIGHT, surface="#15181d")
    pixels = rgb_array(FIGURES["cost"](width=4.0, theme=theme))
    assert pixels.dtype == np.uint8
    assert pixels.shape[1:] == (400, 3)
    assert tuple(pixels[0, 0]) == (0x15, 0x18, 0x1D)
    content = png_bytes(FIGURES["cost"](width=4.0, theme=theme), dpi=100)
    decoded = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    np.testing.assert_array_equal(pixels, decoded)


def test_global_parameters_are_left_alone() -> None:
    before = dict(mpl.rcParams)
    figure = FIGURES["cost"](width=NARROW, theme=INLINE)
    inline_svg(figure, identifier="a", description="")
    assert dict(mpl.rcParams) == before


def test_nothing_imports_pyplot() -> None:
    folder = Path(automix.reporting.__file__).parent
    sources = list(folder.rglob("*.py"))
    assert len(sources) > 10
    for source in sources:
        for node in ast.walk(ast.parse(source.read_text())):
            names = [alias.name for alias in getattr(node, "names", []) if hasattr(alias, "name")]
            assert not any("pyplot" in name for name in names), source
            assert "pyplot" not in str(getattr(node, "module", "")), source


def test_scripts_that_the_font_lacks_are_drawn_without_a_warning() -> None:
    figure = new_figure(width=2, height=1, theme=LIGHT)
    figure.text(0.1, 0.5, "\u732b")
    assert rgb_array(figure).min() < 128
    assert "\u732b" in inline_svg(figure, identifier="a", description="")


def test_dollar_signs_are_not_mathematics() -> None:
    figure = new_figure(width=3, height=1, theme=LIGHT)
    figure.text(0.1, 0.5, plain("from $5 to $\\frac{"))
    assert "from $5 to $\\frac{" in inline_svg(figure, identifier="a", description="")


def test_text_width_is_not_below_the_true_width() -> None:
    figure = new_figure(width=6, height=1, theme=LIGHT)
    for text in ("Saliency Grafting 0.2", "mixed: quartiles", "0.0042"):
        drawn = figure.text(0, 0, text, fontsize=10)
        true_width = drawn.get_window_extent().width / figure.dpi * 72
        assert true_width <= text_width(text, 10) < 1.5 * true_width


@pytest.mark.parametrize("identifier", ["", "1a", "a b", 'a"', "a_b"])
def test_identifiers_that_a_page_cannot_hold_are_refused(identifier: str) -> None:
    figure = new_figure(width=1, height=1, theme=INLINE)
    with pytest.raises(ValueError, match="expected letters"):
        inline_svg(figure, identifier=identifier, description="")


def test_values_are_shown_on_hover_and_a_click_leads_to_the_run() -> None:
    figure, axes = new_axes(width=3, height=2, theme=INLINE)
    [point] = axes.plot([1], [2], marker="o")
    hint(point, f"{HOSTILE}: 0.5", link="./a%20run")
    hint(axes.hlines(0, 0, 1), "a line", link="./b")
    svg = inline_svg(figure, identifier="a", description="")
    assert f'<g><title>{html.escape(HOSTILE)}: 0.5</title><a href="./a%20run"' in svg
    assert "<title>a line</title>" in svg
    assert 'href="./b"' in svg
    assert "_blank" not in svg
    assert png_bytes(figure, dpi=30)


@pytest.mark.parametrize("name", ["comparison", "gain", "cost", "attacks", "occlusion", "learning"])
def test_points_and_bars_have_their_values(name: str, svgs: dict[str, str]) -> None:
    assert svgs[f"{name}-{NARROW}"].count("<title>") >= 2
