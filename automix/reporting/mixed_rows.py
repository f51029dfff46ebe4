"""Rows of one small picture, which a run keeps, of what its schedule does to images."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from automix.reporting.html import render
from automix.reporting.pixels import Pixels, read_webp, webp


@dataclass(frozen=True, slots=True, kw_only=True)
class MixedRows:
    """Rows of images, such as unmixed ones and what each decision makes of them."""

    name: str  # letters, digits, hyphens and underscores: the stem of its file
    title: str
    labels: tuple[str, ...]  # of the rows, from top to bottom
    pixels: Pixels  # (H, W, 3) uint8; the rows share its height evenly
    caption: str = ""

    def __post_init__(self) -> None:
        if not self.labels or self.pixels.shape[0] % len(self.labels):
            raise ValueError(
                f"expected a height that {len(self.labels)} rows share, got {self.pixels.shape[0]}"
            )

    @classmethod
    def read(
        cls, content: bytes, *, name: str, title: str, labels: Sequence[str], caption: str
    ) -> "MixedRows":
        """Read the picture of a run.

        Raises:
            ValueError: it is no picture of so many rows.
        """
        pixels = read_webp(content)
        return cls(name=name, title=title, labels=tuple(labels), pixels=pixels, caption=caption)


def mixed_rows_html(block: MixedRows) -> Markup:
    """Return the rows as a figure; their pictures, encoded anew, are inside the text."""
    height = block.pixels.shape[0] // len(block.labels)
    pictures = [
        webp(np.ascontiguousarray(block.pixels[top : top + height]))
        for top in range(0, block.pixels.shape[0], height)
    ]
    rows = [
        (label, f"data:image/webp;base64,{base64.b64encode(picture).decode()}")
        for label, picture in zip(block.labels, pictures, strict=True)
    ]
    size = {"height": height, "width": block.pixels.shape[1]}
    return render("mixed_rows", block=block, rows=rows, **size)
