"""Changes of points over time: began, ended, became silent or flat, or changed the interval, and when.

Found in each day's summary of its points, so that the user of a chart knows why a line starts in March. Put here: what
counts as a change. Keep out: the summaries (`core/point_summaries.py`), and how changes are shown (`report.py`).
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from enum import StrEnum
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from backfill_pipeline.core.point_summaries import PointDays

LASTING = 2
"""Stored days that a silence, a flat line or another interval has to last: one unusual day is not a change."""

OTHER_INTERVAL = 1.5
"""How many times longer, or shorter, another interval is."""


class Change(StrEnum):
    """What happened to a point."""

    APPEARED = "appeared"
    VANISHED = "vanished"
    """No further rows, and still configured when the latest day was fetched."""
    SWITCHED_OFF = "switched off"
    """No further rows, and no longer configured, or not collect-enabled, when the latest day was fetched."""
    RENAMED = "renamed"
    """Ended on the day on which exactly one similar point began: same last part of the name, same interval."""
    SILENT = "silent"
    FLAT = "flat"
    INTERVAL = "interval"


@dataclass(frozen=True, slots=True)
class PointChange:
    """One change of one point.

    Attributes:
        day: the first day that shows it; of a point that ended, the first stored day without it.
        point: the point's name.
        change: what happened.
        until: the last day of a silence or a flat line that ended; None of one that lasts, and of other changes.
        note: the new name, or the interval before and after.
    """

    day: date
    point: str
    change: Change
    until: date | None = None
    note: str = ""


def changes(each: Mapping[date, PointDays]) -> list[PointChange]:
    """List all changes of a site's points, by day and name.

    A change has the date of the first stored day that shows it. Days that are not stored, and days whose object has no
    summary of its points, are skipped.

    Args:
        each: the summaries of the points, by day.
    """
    days = sorted(day for day, points in each.items() if np.any(points.rows))  # a silent site is not a change of points
    if not days:
        return []
    names = sorted({name for day in days for name in each[day].names})
    index = {name: number for number, name in enumerate(names)}
    shape = (len(names), len(days))
    rows, step, flat = np.zeros(shape, np.int64), np.zeros(shape, np.int64), np.zeros(shape, bool)
    for column, day in enumerate(days):
        points = each[day]
        at = [index[name] for name in points.names]
        rows[at, column], step[at, column], flat[at, column] = points.rows, points.step_s, points.flat
    configured = set(each[days[-1]].names)
    found: list[PointChange] = []
    for number, name in enumerate(names):
        reports = np.flatnonzero(rows[number])
        if not len(reports):
            continue
        first, last = int(reports[0]), int(reports[-1])
        if first:
            found.append(PointChange(days[first], name, Change.APPEARED))
        if last < len(days) - 1:
            ended = Change.VANISHED if name in configured else Change.SWITCHED_OFF
            found.append(PointChange(days[last + 1], name, ended))
        inside = range(first, last + 1)
        found += _lasting(name, days, inside, rows[number] == 0, Change.SILENT)
        if not flat[number, reports].all():  # a point that never moves, such as a setpoint, has not gone flat
            found += _lasting(name, days, [int(at) for at in reports], flat[number], Change.FLAT)
        found += _intervals(name, days, step[number])
    usual = {name: _usual(step[number]) for name, number in index.items()}
    return sorted(_renamed(found, usual), key=lambda one: (one.day, one.point, one.change))


def _lasting(
    name: str, days: Sequence[date], places: Sequence[int] | range, holds: NDArray[np.bool_], change: Change
) -> Iterator[PointChange]:
    """Yield a change for each run of `places` where `holds` is true, if it is long enough."""
    for does, group in groupby(places, key=lambda place: bool(holds[place])):
        run = list(group)
        if does and len(run) >= LASTING:
            lasts = run[-1] == places[-1]
            yield PointChange(days[run[0]], name, change, None if lasts else days[run[-1]])


def _intervals(name: str, days: Sequence[date], step: NDArray[np.int64]) -> Iterator[PointChange]:
    """Yield a change for each day from which the median interval differs for at least `LASTING` days."""
    known = np.flatnonzero(step)
    if not len(known):
        return
    now, others = int(step[known[0]]), 0
    for number, place in enumerate(known):
        ratio = step[place] / now
        others = others + 1 if ratio >= OTHER_INTERVAL or ratio <= 1 / OTHER_INTERVAL else 0
        if others == LASTING:
            begin, was, now, others = known[number - LASTING + 1], now, int(step[place]), 0
            yield PointChange(days[begin], name, Change.INTERVAL, note=f"{was} s before, {now} s now")


def _usual(step: NDArray[np.int64]) -> float:
    known = step[step > 0]
    return float(np.median(known)) if len(known) else 0.0


def _renamed(found: Sequence[PointChange], usual: Mapping[str, float]) -> Iterator[PointChange]:
    """Combine an end and a beginning on one day into a renaming where exactly one pair is similar."""
    ends, begins = defaultdict(list), defaultdict(list)
    for one in found:
        kind = (one.day, _last_part(one.point))
        if one.change is Change.SWITCHED_OFF:
            ends[kind].append(one)
        elif one.change is Change.APPEARED:
            begins[kind].append(one)
    gone: set[PointChange] = set()
    for kind, old in ends.items():
        new = begins.get(kind, [])
        if len(old) == len(new) == 1 and _alike(usual[old[0].point], usual[new[0].point]):
            gone |= {old[0], new[0]}
            yield replace(old[0], change=Change.RENAMED, note=f"to {new[0].point}")
    yield from (one for one in found if one not in gone)


def _last_part(name: str) -> str:
    return name.rpartition("/")[2].casefold()


def _alike(one: float, other: float) -> bool:
    return bool(one and other) and 1 / OTHER_INTERVAL < one / other < OTHER_INTERVAL
