"""How many requests days would take: the window plan run over days of which only the density is known.

Put here: what `ace/fetch.py` does with `DayPlan` and `SitePace`, counted instead of asked. Keep out: where a density
comes from (`control/planning.py`).
"""

from collections import deque
from collections.abc import Sequence
from datetime import date

import numpy as np
from numpy.typing import NDArray

from backfill_pipeline.core.day import DAY_MS, Window
from backfill_pipeline.core.windows import SHORTEST_S, DayPlan, SitePace

DAY_S = DAY_MS // 1000

_ANY_DAY = date(1970, 1, 1)
"""Its windows are seconds of the day."""

Profile = NDArray[np.int64]
"""A day's rows before each second of it, and all of them at the end: 86,401 numbers, the first 0."""

EMPTY: Profile = np.zeros(DAY_S + 1, np.int64)
"""A day without any row."""


def profile(counts: NDArray[np.int64], start: int) -> Profile:
    """The profile of a day that goes on as in one part of it.

    Args:
        counts: rows in each second of the part.
        start: the second of the day at which it begins.
    """
    whole = counts[(np.arange(DAY_S) - start) % len(counts)]
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(whole, dtype=np.int64)])


def rehearsed(days: Sequence[Profile], pace: SitePace, *, expected_rows: int, ahead: int = 2) -> list[int]:
    """The sample requests of each day, when they are fetched in this order by one fetcher to which nothing is known.

    Windows are handed out as a fetch does it: several at once, so that what one of them teaches comes too late for the
    others.

    Args:
        days: what each day holds.
        pace: what is known of the site; it learns on.
        expected_rows: rows a day as the points are configured.
        ahead: days that are under way at once.
    """
    asked = [0] * len(days)
    plans = [DayPlan(_ANY_DAY, expected_rows=expected_rows) for _ in days]
    flying: deque[tuple[int, Window]] = deque()
    under_way = range(0)

    def handed_out() -> tuple[int, Window] | None:
        nonlocal under_way
        for day in under_way:
            if pace.seconds or not any(other == day for other, _ in flying):
                window = plans[day].next_window(pace)
                if window is not None:
                    return day, window
        if len(under_way) < ahead and under_way.stop < len(days) and (pace.seconds or not under_way):
            under_way = range(under_way.start, under_way.stop + 1)
            return handed_out()
        return None

    while True:
        while len(flying) < max(1, int(pace.at_once)) and (found := handed_out()) is not None:
            flying.append(found)
        if not flying:
            return asked
        day, window = flying.popleft()
        pages, seen = _walked(days[day], window, plans[day], pace)
        asked[day] += pages
        if not seen:  # nothing at all is asked for twice
            pace.learn_density(0, window.seconds, 0)
            asked[day] += pages
        while under_way and plans[under_way.start].exhausted and all(other != under_way.start for other, _ in flying):
            under_way = range(under_way.start + 1, under_way.stop)


def _walked(rows: Profile, window: Window, plan: DayPlan, pace: SitePace) -> tuple[int, int]:
    """The pages of one window, and its rows; what is too much for it goes back to the plan."""
    size = pace.size
    planned = max(1, round(pace.density * window.seconds / size))
    start, end = window.start, window.end
    first = seen = int(rows[start])
    pages = 0
    while True:
        last = min(int(rows[end]), seen + size)
        pages += 1
        pace.page_came(size, last - seen, 0.0)
        begun = start if seen == first else _second(rows, seen + 1)
        finished = last - seen < size
        reached = end if finished else _second(rows, last)
        if reached > start:
            pace.learn_density(last - first, reached - start, _burst(rows, begun, reached, seen, last))
        seen = last
        if finished:
            return pages, seen - first
        fitting = pace.fitting_s(planned)
        if end - reached > 1.5 * fitting:
            nearer = reached + max(SHORTEST_S, int(fitting))
            if nearer < end:
                plan.give_back(Window(nearer, end))
                end = nearer


def _second(rows: Profile, count: int) -> int:
    """The second in which the row of this number, counted from 1, lies."""
    return int(np.searchsorted(rows, count)) - 1


def _burst(rows: Profile, begun: int, reached: int, seen: int, last: int) -> int:
    """Most rows in one minute of a page."""
    marks = np.append(rows[begun : reached + 1 : 60], last).clip(seen, last)
    return int(np.diff(marks).max()) if len(marks) > 1 else 0
