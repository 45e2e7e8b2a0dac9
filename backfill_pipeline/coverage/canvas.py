"""A canvas of a few shapes: one drawing that can be written as SVG and as PNG.

Put here: shapes and their two forms. Keep out: what is drawn (`pictures.py`).
"""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from html import escape
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from backfill_pipeline.core.text import printable

INK = "#1b1b1b"
SCALE = 2
"""Pixels of the PNG for each unit of the drawing."""

_GREYS = tuple(f"#{level:02x}{level:02x}{level:02x}" for level in range(0, 256, 51))
"""Colours of the smooth edges of letters."""


def shortened(text: str, most: int) -> str:
    """Shorten a text to `most` characters: the middle is left out, since names differ at their ends."""
    text = printable(text)
    return text if len(text) <= most else f"{text[: most // 2 - 1]}\u2026{text[-(most - most // 2) :]}"


@dataclass
class Canvas:
    """A drawing of `width` x `height` units, drawn in the order of the calls."""

    width: float
    height: float
    _svg: list[str] = field(default_factory=list)
    _png: list[Any] = field(default_factory=list)

    def box(
        self, x: float, y: float, width: float, height: float, fill: str, *, edge: str | None = None, tip: str = ""
    ) -> None:
        """A rectangle; `tip` is shown under the pointer."""
        about = f"<title>{escape(printable(tip))}</title>" if tip else ""
        line = f' stroke="{edge}"' if edge else ""
        self._svg.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" fill="{fill}"{line}>{about}</rect>'
        )
        at = (x * SCALE, y * SCALE, (x + width) * SCALE - 1, (y + height) * SCALE - 1)
        self._png.append(
            lambda draw, _: draw.rectangle(at, fill=None if fill == "none" else fill, outline=edge, width=SCALE)
        )

    def line(self, x1: float, y1: float, x2: float, y2: float, colour: str = INK, width: float = 1) -> None:
        """A straight line."""
        self._svg.append(
            f'<line x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}" stroke="{colour}" stroke-width="{width:g}" '
            'pointer-events="none"/>'
        )
        ends = (x1 * SCALE, y1 * SCALE, x2 * SCALE, y2 * SCALE)
        self._png.append(lambda draw, _: draw.line(ends, fill=colour, width=round(width * SCALE)))

    def text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        size: float = 11,
        anchor: Literal["start", "middle", "end"] = "start",
        colour: str = INK,
        bold: bool = False,
    ) -> None:
        """One line of text, its baseline at `y`."""
        text = printable(text)
        weight = ' font-weight="bold"' if bold else ""
        self._svg.append(
            f'<text x="{x:g}" y="{y:g}" font-size="{size:g}" text-anchor="{anchor}" fill="{colour}"{weight}>'
            f"{escape(text)}</text>"
        )
        place = {"start": "ls", "middle": "ms", "end": "rs"}[anchor]

        def draw_text(draw: Any, _: Any) -> None:
            font = _font(size * SCALE)
            stroke = 0.4 * SCALE if bold else 0
            at = (x * SCALE, y * SCALE)
            draw.text(at, text, fill=colour, font=font, anchor=place, stroke_width=stroke)

        self._png.append(draw_text)

    def image(self, x: float, y: float, width: float, height: float, pixels: NDArray[np.uint8]) -> None:
        """A grid of colours, uint8[rows, columns, 3], stretched to a rectangle without smoothing."""
        small = Image.fromarray(pixels)
        sink = io.BytesIO()
        small.save(sink, "PNG")
        data = base64.b64encode(sink.getvalue()).decode()
        self._svg.append(
            f'<image x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" preserveAspectRatio="none" '
            f'style="image-rendering:pixelated" href="data:image/png;base64,{data}"/>'
        )
        size = (max(1, round(width * SCALE)), max(1, round(height * SCALE)))
        at = (round(x * SCALE), round(y * SCALE))
        self._png.append(lambda _, whole: whole.paste(small.resize(size, Image.Resampling.NEAREST), at))

    def to_svg(self, label: str) -> str:
        """The drawing as one `svg` element; `label` is the text for screen readers."""
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width:g} {self.height:g}" '
            f'width="{self.width:g}" height="{self.height:g}" role="img" aria-label="{escape(printable(label))}" '
            f'font-family="Helvetica, Arial, sans-serif">{"".join(self._svg)}</svg>'
        )

    def to_image(self) -> Image.Image:
        """The drawing as an image, on white."""
        whole = Image.new("RGB", (round(self.width * SCALE), round(self.height * SCALE)), "white")
        draw = ImageDraw.Draw(whole)
        for shape in self._png:
            shape(draw, whole)
        return whole


@lru_cache
def _font(size: float) -> Any:
    """The font in one size: Pillow decodes the whole font at each load."""
    return ImageFont.load_default(size)


def png_of(canvases: Sequence[Canvas], *, palette: Sequence[str] = ()) -> bytes:
    """Draw canvases below each other as one PNG.

    Args:
        canvases: the drawings.
        palette: the fills of a small PNG, with one pixel for each unit and a few greys beside them. Empty: full size.
    """
    width, height = max(one.width for one in canvases), sum(round(one.height * SCALE) for one in canvases)
    whole = Image.new("RGB", (round(width * SCALE), height), "white")
    y = 0
    for one in canvases:  # one at a time: the images of many sites would take gigabytes together
        image = one.to_image()
        whole.paste(image, (0, y))
        y += image.height
    if palette:
        colours = Image.new("P", (1, 1))
        colours.putpalette(bytes.fromhex("".join(one.removeprefix("#") for one in (*palette, *_GREYS))))
        whole = whole.reduce(SCALE).quantize(palette=colours, dither=Image.Dither.NONE)
    sink = io.BytesIO()
    whole.save(sink, "PNG", optimize=bool(palette))
    return sink.getvalue()
