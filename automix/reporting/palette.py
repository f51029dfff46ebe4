"""Inks of the themes and of the two parents; the choice of the colors of `OPERATOR_FACTS`.

Seven of these are from Okabe and Ito (https://jfly.uni-koeln.de/color/); the other five were
chosen to keep, in OKLab under the protanopia and deuteranopia of Machado et al. (2009), the
smallest distance of any two at that of Okabe and Ito's own set (0.076). Families lean to a range
of hues: random ones blue to green, saliency-maximal ones red to yellow, sampled ones purple.
"""

from dataclasses import dataclass

OWN_COLOR = "#0072b2"
"""Color of the first parent, the image of the batch itself (`lam`)."""

PARTNER_COLOR = "#e69f00"
"""Color of the second parent (1 - `lam`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Theme:
    """The inks of a picture, each a CSS color."""

    ink: str  # text and important lines
    muted: str  # axes, secondary text
    grid: str  # grid lines
    surface: str  # the background; also separates areas
    accent: str  # the result that matters


LIGHT = Theme(ink="#1b1f24", muted="#59636e", grid="#d8dee4", surface="#ffffff", accent="#0072b2")


def relative_luminance(color: str) -> float:
    """Return the WCAG relative luminance of ``#rrggbb``, in [0, 1]."""
    # Undo the gamma of sRGB, then weigh the channels as the eye does (WCAG 2.2, section 4).
    channels = [int(color[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    red, green, blue = (
        value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4
        for value in channels
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast_ratio(first: str, second: str) -> float:
    """Return the WCAG contrast of two colors, in [1, 21]."""
    # 0.05 stands for the light that a screen reflects.
    darker, lighter = sorted((relative_luminance(first), relative_luminance(second)))
    return (lighter + 0.05) / (darker + 0.05)


def ink_on(background: str) -> str:
    """Return black or white, whichever is easier to read on ``background``."""
    dark, light = "#111418", "#ffffff"
    return max(dark, light, key=lambda ink: contrast_ratio(ink, background))
