import itertools
import re
from importlib import resources

import numpy as np
import pytest
from numpy.typing import NDArray

from automix.operator_info import OPERATOR_FACTS, Operator
from automix.reporting.palette import (
    LIGHT,
    OWN_COLOR,
    PARTNER_COLOR,
    Theme,
    contrast_ratio,
    ink_on,
)

Floats = NDArray[np.float64]

# Only the style sheet has a dark theme.
DARK = Theme(ink="#e8eaed", muted="#a0a8b2", grid="#343b44", surface="#15181d", accent="#56b4e9")

# Machado, Oliveira and Fernandes (2009), severity 1, on linear RGB.
VISION = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
}


def oklab(color: str, vision: Floats) -> Floats:
    """Ottosson's OKLab of a color as seen by someone."""
    srgb = np.array([int(color[start : start + 2], 16) for start in (1, 3, 5)]) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(vision @ linear, 0, 1)
    to_cones = np.array(
        [
            [0.4122214708, 0.5363325363, 0.0514459929],
            [0.2119034982, 0.6806995451, 0.1073969566],
            [0.0883024619, 0.2817188376, 0.6299787005],
        ]
    )
    to_lab = np.array(
        [
            [0.2104542553, 0.7936177850, -0.0040720468],
            [1.9779984951, -2.4285922050, 0.4505937099],
            [0.0259040371, 0.7827717662, -0.8086757660],
        ]
    )
    lab: Floats = to_lab @ np.cbrt(to_cones @ seen)
    return lab


def test_every_operator_has_one_color_and_one_name() -> None:
    colors = {facts.color for facts in OPERATOR_FACTS.values()}
    assert len(colors) == len({facts.label for facts in OPERATOR_FACTS.values()}) == len(Operator)
    assert all(re.fullmatch("#[0-9a-f]{6}", color) for color in colors)


@pytest.mark.parametrize("vision", VISION)
def test_any_two_operators_differ_for_every_vision(vision: str) -> None:
    seen = {key: oklab(facts.color, VISION[vision]) for key, facts in OPERATOR_FACTS.items()}
    distances = {
        pair: float(np.linalg.norm(seen[pair[0]] - seen[pair[1]]))
        for pair in itertools.combinations(Operator, 2)
    }
    closest = min(distances, key=distances.__getitem__)
    # The two closest of Okabe and Ito's own colors are 0.076 apart.
    assert distances[closest] > 0.075, closest


@pytest.mark.parametrize("vision", VISION)
def test_the_two_parents_are_far_apart(vision: str) -> None:
    first, second = (oklab(color, VISION[vision]) for color in (OWN_COLOR, PARTNER_COLOR))
    assert np.linalg.norm(first - second) > 0.2


def test_contrast_of_black_and_white() -> None:
    assert contrast_ratio("#000000", "#ffffff") == pytest.approx(21)
    assert contrast_ratio("#777777", "#777777") == 1


@pytest.mark.parametrize("operator", Operator)
def test_names_are_readable_on_their_colors(operator: Operator) -> None:
    color = OPERATOR_FACTS[operator].color
    # 4.5 is WCAG's level AA for text.
    assert contrast_ratio(ink_on(color), color) > 4.5


@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_inks_are_readable_on_the_surface(theme: Theme) -> None:
    assert contrast_ratio(theme.ink, theme.surface) > 7
    assert contrast_ratio(theme.muted, theme.surface) > 4.5
    assert contrast_ratio(theme.accent, theme.surface) > 4.5


def test_the_style_sheet_has_the_same_colors() -> None:
    style = resources.files("automix.reporting").joinpath("assets/page.css").read_text("utf-8")
    blocks = re.findall(r"\{([^{}]*--ink:[^{}]*)\}", style)
    assert len(blocks) == 3
    for block, theme in zip(blocks, (LIGHT, DARK, DARK), strict=True):
        values = dict(re.findall(r"--(\w+): (#\w+)", block))
        for ink in ("ink", "muted", "grid", "surface", "accent"):
            assert values[ink] == getattr(theme, ink)
    assert f"--own: {OWN_COLOR}" in blocks[0]
    assert f"--partner: {PARTNER_COLOR}" in blocks[0]
