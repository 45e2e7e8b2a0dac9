"""One small picture for each year: a row for each site, a column for each day.

The picture is small enough for the metadata of a Dagster event. Put here: how a year of many sites is drawn. Keep out:
the calendar of one site (`pictures.py`).
"""

from collections.abc import Mapping, Sequence
from datetime import date
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from backfill_pipeline.coverage.canvas import Canvas, png_of, shortened
from backfill_pipeline.coverage.pictures import BLUES, FILLS, GREY, NOT_SHOWN, UNKNOWN, fill_of
from backfill_pipeline.coverage.table import SiteDay, State

MOST_SITES = 40
"""Sites of one picture."""

_LEFT, _DAY, _ROW, _TOP, _NAME = 150, 2, 12, 24, 24

_EMPTY = "#000000"
_PALETTE = (*BLUES, *FILLS.values(), UNKNOWN, NOT_SHOWN, _EMPTY)


def years_of(by_site: Mapping[str, Sequence[SiteDay]]) -> list[int]:
    """List the years with a day that was requested, latest first."""
    quiet = (State.NEVER_ASKED, State.NOT_READY)
    return sorted({one.day.year for days in by_site.values() for one in days if one.state not in quiet}, reverse=True)


def year_strip(year: int, by_site: Mapping[str, Sequence[SiteDay]]) -> bytes:
    """Draw one year of the first sites as a PNG of a few kilobytes.

    Args:
        year: the year.
        by_site: the coverage by site; at most `MOST_SITES` are drawn, in this order.
    """
    sites = list(by_site)[:MOST_SITES]
    first, length = date(year, 1, 1), date(year, 12, 31).timetuple().tm_yday
    pixels = np.full((2 * len(sites), length, 3), _rgb(NOT_SHOWN), np.uint8)
    pixels[1::2] = 255  # a white line below each site
    for row, site in enumerate(sites):
        for one in by_site[site]:
            if one.day.year == year:
                pixels[2 * row, (one.day - first).days] = _rgb(_colour(one))
    grid = np.repeat(pixels, np.where(np.arange(2 * len(sites)) % 2, 2, _ROW - 2), axis=0)
    height = _ROW * len(sites)
    canvas = Canvas(_LEFT + _DAY * length + 8, _TOP + height + 26)
    canvas.text(8, 15, str(year), size=13, bold=True)
    canvas.image(_LEFT, _TOP, _DAY * length, height, grid)
    starts = [(date(year, month, 1) - first).days for month in range(1, 13)]
    for month, (begin, _) in enumerate(pairwise([*starts, length]), 1):
        canvas.text(_LEFT + _DAY * begin, _TOP - 6, f"{date(year, month, 1):%b}", size=10, colour=GREY)
        canvas.line(_LEFT + _DAY * begin, _TOP - 4, _LEFT + _DAY * begin, _TOP + height, "#8c8c8c", 0.5)
    for row, site in enumerate(sites):
        canvas.text(_LEFT - 6, _TOP + row * _ROW + 9, shortened(site, _NAME), size=9, anchor="end")
    _legend(canvas, _TOP + height + 8)
    return png_of([canvas], palette=_PALETTE)


def _legend(canvas: Canvas, y: float) -> None:
    x: float = _LEFT
    for state in State:
        colour = UNKNOWN if state is State.STORED else _colour(SiteDay("", date.min, state))
        canvas.box(x, y, 10, 10, colour)
        canvas.text(x + 14, y + 9, str(state), size=10)
        x += 34 + 6 * len(state)


def _colour(one: SiteDay) -> str:
    """A day's colour; empty days are dark, since no mark fits into two pixels."""
    return _EMPTY if one.state is State.EMPTY else FILLS.get(one.state) or fill_of(one)


def _rgb(colour: str) -> NDArray[np.uint8]:
    return np.frombuffer(bytes.fromhex(colour.removeprefix("#")), np.uint8)
