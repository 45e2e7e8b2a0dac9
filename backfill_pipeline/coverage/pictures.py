"""Pictures of coverage: a calendar of each site, and a map of one site's points by day.

The colours differ for colour-blind readers too (Okabe and Ito's palette, and steps of one blue), and every state except
`stored` has its own mark. Put here: what is drawn where. Keep out: how a shape becomes a file
(`canvas.py`), what the page around it says (`report.py`).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import date
from itertools import takewhile

import numpy as np
from numpy.typing import NDArray

from backfill_pipeline.core.point_summaries import PointDays
from backfill_pipeline.core.text import natural_key
from backfill_pipeline.coverage.canvas import INK, Canvas, shortened
from backfill_pipeline.coverage.table import SiteDay, State

BLUES = ("#c6dbef", "#9ecae1", "#6baed6", "#3182bd", "#08519c")
"""Stored, by the share of the configured points that have a row: under 20 %, 40 %, 60 %, 80 %, and above."""

FILLS = {
    State.THIN: "#e69f00",
    State.EMPTY: "#ffffff",
    State.FAILED: "#d55e00",
    State.NOT_READY: "#f4f4f4",
    State.NEVER_ASKED: "#d9d9d9",
}
UNKNOWN = "#3182bd"
"""Stored by an older version, which did not count the points."""

SILENT = (255, 255, 255)
NO_DAY = (217, 217, 217)
NOT_CONFIGURED = (220, 199, 156)
FLAT = (230, 159, 0)

NOT_SHOWN = "#f0f0f0"
"""The frame of a day outside the range."""

GREY = "#5c5c5c"
_CELL, _GAP = 13, 2
_STEP = _CELL + _GAP
_LEFT = 44
_WIDTH = _LEFT + 54 * _STEP + 12
_MAP_LEFT = 268
_MAP_HEIGHT = 900
_NAME = 40


def calendar(site: str, table: Sequence[SiteDay]) -> Canvas:
    """Draw a site's days as a calendar: one band for each year, latest first; one column for each week, Monday on top.

    Other days of these years are faint frames. Years without a requested day have no band, if any year has one.

    Args:
        site: the site.
        table: its days, ascending, one or more.
    """
    quiet = (State.NEVER_ASKED, State.NOT_READY)
    requested = {one.day.year for one in table if one.state not in quiet}
    years = sorted(requested or {one.day.year for one in table}, reverse=True)
    band = 7 * _STEP + 42
    canvas = Canvas(_WIDTH, 50 + band * len(years) + 34)
    canvas.text(8, 22, shortened(site, 80), size=16, bold=True)
    canvas.text(8, 40, _summary(table), colour=GREY)
    for number, year in enumerate(years):
        top = 76 + number * band
        canvas.text(8, top - 8, str(year), size=12, bold=True)
        for row, name in ((0, "Mon"), (2, "Wed"), (4, "Fri"), (6, "Sun")):
            canvas.text(_LEFT - 6, top + row * _STEP + 10, name, size=9, anchor="end", colour=GREY)
        first = date(year, 1, 1)
        offset = first.weekday()
        for month in range(1, 13):
            begins = (date(year, month, 1) - first).days + offset
            column = begins // 7 + (begins % 7 > 0)  # the first whole week, so that names are above their own days
            canvas.text(_LEFT + column * _STEP, top - 8, f"{date(year, month, 1):%b}", size=10, colour=GREY)
        of_year = {(one.day - first).days: one for one in table if one.day.year == year}
        for number_of_day in range((date(year, 12, 31) - first).days + 1):
            place = number_of_day + offset
            x, y = _LEFT + place // 7 * _STEP, top + place % 7 * _STEP
            if number_of_day in of_year:
                _day(canvas, x, y, of_year[number_of_day])
            else:
                canvas.box(x, y, _CELL, _CELL, "none", edge=NOT_SHOWN)
    _legend(canvas, canvas.height - 30)
    return canvas


def _summary(table: Sequence[SiteDay]) -> str:
    states = Counter(one.state for one in table)
    said = ", ".join(f"{states[state]:,} {state}" for state in State if states[state])
    span = f"{table[0].day}" if len(table) == 1 else f"{table[0].day} to {table[-1].day}, {len(table):,} days"
    return f"{span} (UTC): {said}; {sum(one.rows or 0 for one in table):,} rows"


def fill_of(one: SiteDay) -> str:
    """A day's colour."""
    if one.state is not State.STORED:
        return FILLS[one.state]
    return UNKNOWN if one.share is None else BLUES[min(4, int(one.share * 5))]


def tip_of(one: SiteDay) -> str:
    """What the pointer shows over a day."""
    said = [f"{one.day} {one.state}"]
    if one.rows is not None:
        said.append(f"{one.rows:,} rows")
    if one.points_seen is not None and one.points_configured is not None:
        said.append(f"{one.points_seen:,} of {one.points_configured:,} points")
    if one.gap_min is not None and one.rows:
        said.append(f"largest gap {one.gap_min} min")
    if one.interval_s is not None:
        said.append(f"median interval {one.interval_s:g} s")
    return ", ".join(said) + (f": {one.note}" if one.note else "")


def _day(canvas: Canvas, x: float, y: float, one: SiteDay) -> None:
    edge = {State.EMPTY: INK, State.NOT_READY: "#c8c8c8"}.get(one.state)
    canvas.box(x, y, _CELL, _CELL, fill_of(one), edge=edge, tip=tip_of(one))
    _mark(canvas, x, y, one.state)


def _mark(canvas: Canvas, x: float, y: float, state: State) -> None:
    near, far, middle = 3.5, _CELL - 3.5, _CELL / 2
    if state is State.FAILED:
        canvas.line(x + near, y + near, x + far, y + far, "#ffffff", 1.6)
        canvas.line(x + far, y + near, x + near, y + far, "#ffffff", 1.6)
    elif state is State.THIN:
        canvas.line(x + near, y + middle, x + far, y + middle, INK, 1.6)
    elif state is State.EMPTY:
        canvas.line(x + 2, y + _CELL - 2, x + _CELL - 2, y + 2, INK, 1)
    elif state is State.NOT_READY:
        canvas.box(x + middle - 1, y + middle - 1, 2, 2, "#9a9a9a")


def _legend(canvas: Canvas, y: float) -> None:
    x: float = _LEFT
    canvas.text(x, y + 10, "stored, points with rows:", size=10)
    x += 130
    for number, colour in enumerate(BLUES):
        canvas.box(x + number * _STEP, y, _CELL, _CELL, colour)
    canvas.text(x, y + 24, "0", size=9, colour=GREY)
    canvas.text(x + 5 * _STEP - _GAP, y + 24, "100 %", size=9, anchor="end", colour=GREY)
    x += 5 * _STEP + 22
    for state in State:
        if state is not State.STORED:
            _day(canvas, x, y, SiteDay("", date.min, state))
            canvas.text(x + _CELL + 5, y + 10, str(state), size=10)
            x += _CELL + 24 + 6.2 * len(state)


def points_map(site: str, days: Sequence[date], each: Mapping[date, PointDays]) -> Canvas:
    """A site's points by day: a row a point, a column a day.

    Args:
        site: the site.
        days: UTC days, ascending, one or more.
        each: what each point did, of the days that have such figures.
    """
    names = sorted({name for points in each.values() for name in points.names}, key=natural_key)
    share, flat, known = grid(names, days, each)
    together = max(1, -(-len(names) // _MAP_HEIGHT))
    pixels = _pixels(share, flat, known, [day in each for day in days], together)
    row = max(1.0, min(14.0, _MAP_HEIGHT / max(1, len(pixels))))
    wide = max(1.0, min(14.0, (_WIDTH - _MAP_LEFT - 24) / len(days)))
    width, height = wide * len(days), row * max(1, len(pixels))
    canvas = Canvas(max(_WIDTH, _MAP_LEFT + width + 24), 84 + height + 60)
    canvas.text(8, 22, f"{shortened(site, 70)}: points by day", size=16, bold=True)
    span = f"{days[0]}" if len(days) == 1 else f"{days[0]} to {days[-1]}"
    alike = shared_folder(names)
    said = f"{span} (UTC), {len(names):,} points" + (f"; a row is {together} points" if together > 1 else "")
    canvas.text(8, 40, said + (f"; their names begin with {shortened(alike, 60)}" if alike else ""), colour=GREY)
    top = 72
    if not names:
        canvas.text(8, top + 10, "No stored day of this range has figures of its points.", colour=GREY)
        return canvas
    canvas.image(_MAP_LEFT, top, width, height, pixels)
    canvas.box(_MAP_LEFT, top, width, height, "none", edge="#9a9a9a")
    _month_axis(canvas, days, wide, top, height)
    every = max(1, -(-12 // max(1, int(row))))
    for number in range(0, len(pixels), every):
        name = names[min(number * together, len(names) - 1)]
        name = shortened(name.removeprefix(alike), _NAME)
        canvas.text(_MAP_LEFT - 6, top + number * row + min(row / 2 + 3.5, 10), name, size=9, anchor="end")
    _map_legend(canvas, top + height + 30)
    return canvas


def shared_folder(names: Sequence[str]) -> str:
    """The whole folders that all names begin with, the last slash included; empty for fewer than two names."""
    if len(names) < 2:  # noqa: PLR2004 - one name is not cut
        return ""
    alike = takewhile(lambda parts: len(set(parts)) == 1, zip(*(name.split("/")[:-1] for name in names), strict=False))
    return "".join(f"{parts[0]}/" for parts in alike)


def grid(
    names: Sequence[str], days: Sequence[date], each: Mapping[date, PointDays]
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_]]:
    """By point and day: rows against the point's own busiest day (0 to 1), flat or not, configured or not."""
    index = {name: number for number, name in enumerate(names)}
    rows = np.zeros((len(names), len(days)))
    flat, known = np.zeros(rows.shape, bool), np.zeros(rows.shape, bool)
    for column, day in enumerate(days):
        if points := each.get(day):
            at = [index[name] for name in points.names]
            rows[at, column], flat[at, column], known[at, column] = points.rows, points.flat, True
    most = rows.max(axis=1, initial=0, keepdims=True)
    return np.divide(rows, most, out=np.zeros_like(rows), where=most > 0), flat, known


def _pixels(
    share: NDArray[np.float64],
    flat: NDArray[np.bool_],
    known: NDArray[np.bool_],
    there: Sequence[bool],
    together: int,
) -> NDArray[np.uint8]:
    """The map's colours, `together` points in one row."""
    begins = np.arange(0, len(share), together)
    if not len(begins):
        return np.full((1, len(there), 3), NO_DAY, np.uint8)
    counted = np.maximum(1, np.add.reduceat(known.astype(float), begins))
    mean = np.add.reduceat(share, begins) / counted
    mostly_flat = np.add.reduceat(flat.astype(float), begins) / counted > 0.5  # noqa: PLR2004 - more than half
    some = np.add.reduceat(known.astype(int), begins) > 0
    blues = np.array([[int(colour[at : at + 2], 16) for at in (1, 3, 5)] for colour in BLUES], np.uint8)
    pixels: NDArray[np.uint8] = blues[np.clip((mean * 5).astype(int), 0, 4)]
    pixels[mean == 0] = SILENT
    pixels[mostly_flat] = FLAT
    pixels[~some] = NOT_CONFIGURED
    pixels[:, ~np.array(there, bool)] = NO_DAY
    return pixels


def _month_axis(canvas: Canvas, days: Sequence[date], wide: float, top: float, height: float) -> None:
    """Month names over their first days; the first day, when no month begins near it, by its date."""
    starts = [number for number, day in enumerate(days) if day.day == 1]
    every = max(1, round(34 / (30 * wide)))
    shown = [number for number in starts if days[number].month % every == 1 % every]
    for number in shown:
        x = _MAP_LEFT + number * wide
        canvas.line(x, top - 4, x, top + height, "#8c8c8c", 0.5)
        day = days[number]
        canvas.text(x + 2, top - 6, f"{day:%b %Y}" if day.month == 1 else f"{day:%b}", size=10, colour=GREY)
    if not shown or shown[0] * wide > 60:  # noqa: PLR2004 - room for a date
        canvas.text(_MAP_LEFT, top - 6, f"{days[0]:%d %b %Y}", size=10, colour=GREY)


def _map_legend(canvas: Canvas, y: float) -> None:
    x: float = _MAP_LEFT
    canvas.text(x - 6, y + 10, "rows, of the point's own busiest day:", size=10, anchor="end")
    for number, colour in enumerate(BLUES):
        canvas.box(x + number * _STEP, y, _CELL, _CELL, colour)
    canvas.text(x, y + 24, "0", size=9, colour=GREY)
    canvas.text(x + 5 * _STEP - _GAP, y + 24, "100 %", size=9, anchor="end", colour=GREY)
    x += 5 * _STEP + 20
    meanings = {"silent": SILENT, "flat all day": FLAT, "not configured": NOT_CONFIGURED, "no stored day": NO_DAY}
    for said, rgb in meanings.items():
        canvas.box(x, y, _CELL, _CELL, "#{:02x}{:02x}{:02x}".format(*rgb), edge="#9a9a9a")
        canvas.text(x + _CELL + 5, y + 10, said, size=10)
        x += _CELL + 24 + 6 * len(said)
