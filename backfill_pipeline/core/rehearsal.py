"""How many requests days would take: the window plan run over days of which only the density is known.

Put here: what `ace/fetch.py` does with `DayPlan` and `SitePace`, counted instead of asked. Keep out: where a density
comes from (`control/planning.py`).
"""

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


def rehearsed(days: Sequence[Profile], pace: SitePace, *, expected_rows: int) -> list[int]:
    """The sample requests of each day, when they are fetched in this order by one fetcher to which nothing is known.

    Args:
        days: what each day holds.
        pace: what is known of the site; it learns on.
        expected_rows: rows a day as the points are configured.
    """
    requests = []
    for rows in days:
        plan, asked = DayPlan(_ANY_DAY, expected_rows=expected_rows), 0
        while (window := plan.next_window(pace)) is not None:
            pages, seen = _walked(rows, window, plan, pace)
            asked += pages
            if not seen:  # nothing at all is asked for twice
                pace.learn_density(0, window.seconds, 0)
                asked += pages
        requests.append(asked)
    return requests


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
