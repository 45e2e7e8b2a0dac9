"""How many requests days would take: the window plan run over days of which only the density is known.

Put here: what `ace/fetch.py` does with `DayPlan` and `SitePace`, counted instead of asked. Keep out: where a density
comes from (`control/estimate.py`).
"""

import math
from collections import deque
from collections.abc import Iterable, Sequence
from datetime import date

import numpy as np
from numpy.typing import NDArray

from backfill_pipeline.core.day import DAY_S, Window
from backfill_pipeline.core.windows import FEW, DayPlan, SitePace

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


def rehearsed(days: Sequence[Profile], pace: SitePace, *, page_s: float = 0.0, ahead: int = 2) -> list[int]:
    """The sample requests of each day, when they are fetched in this order by one fetcher to which nothing is known.

    Windows are walked side by side, a page of each in turn.

    Args:
        days: what each day holds.
        pace: what is known of the site; it learns on.
        page_s: seconds that a page takes.
        ahead: days that are under way at once.
    """
    asked = [0] * len(days)
    plans = [DayPlan(_ANY_DAY) for _ in days]
    flying: deque[_Walk] = deque()
    under_way = range(0)

    def free() -> int:
        return max(0, pace.side_by_side() - len(flying))

    def may_begin() -> bool:
        return len(under_way) < ahead and under_way.stop < len(days)

    def handed_out() -> _Walk | None:
        nonlocal under_way
        for day in under_way:
            if pace.begun or not any(walk.day == day for walk in flying):
                window = plans[day].next_window(pace, free())
                if window is not None:
                    return _Walk(day, days[day], window)
        if may_begin() and (pace.begun or not under_way) and not _will_share(pace, flying):
            under_way = range(under_way.start, under_way.stop + 1)
            return handed_out()
        return None

    while True:
        while free() and (found := handed_out()) is not None:
            flying.append(found)
        if not flying:
            return asked
        walk = flying.popleft()
        finished = walk.step(pace, page_s)
        asked[walk.day] += 2 if finished and not walk.seen else 1  # nothing at all is asked for twice
        if not finished:
            others = 0 if may_begin() and pace.side_by_side() <= FEW else free() - 1
            rest = walk.shared(pace, math.ceil(others / (len(flying) + 1)))
            if rest is not None:
                plans[walk.day].give_back(rest)
            flying.append(walk)
        while under_way and plans[under_way.start].exhausted and all(one.day != under_way.start for one in flying):
            under_way = range(under_way.start + 1, under_way.stop)


def _will_share(pace: SitePace, flying: "Iterable[_Walk]") -> bool:
    return pace.side_by_side() > FEW and any(walk.length(pace, 1) for walk in flying)


class _Walk:
    """A window being walked."""

    def __init__(self, day: int, rows: Profile, window: Window) -> None:
        self.day = day
        self.rows = rows
        self.start, self.reached, self.end = window.start, window.start, window.end
        self._first = self._at = int(rows[window.start])

    @property
    def seen(self) -> int:
        """Rows so far."""
        return self._at - self._first

    def step(self, pace: SitePace, page_s: float) -> bool:
        """Take the next page; whether it was the last."""
        size, rows = pace.size, self.rows
        last = min(int(rows[self.end]), self._at + size)
        page = last - self._at
        pace.page_came(size, page, page_s)
        begun = self.start if self._at == self._first else _second(rows, self._at + 1)
        finished = page < size
        self.reached = self.end if finished else _second(rows, last)
        if self.reached > self.start:
            burst = _burst(rows, begun, self.reached, self._at, last)
            pace.learn_density(last - self._first, self.reached - self.start, burst, page)
        self._at = last
        return finished

    def length(self, pace: SitePace, free: int) -> int:
        """Seconds that it would keep; 0: all."""
        return pace.share_s(self.end - self.reached, free + 1)

    def shared(self, pace: SitePace, free: int) -> Window | None:
        """Give away what so many others may ask for at the same time."""
        length = self.length(pace, free)
        nearer = self.reached + length
        if not length or not self.reached + 1 < nearer < self.end:
            return None
        rest, self.end = Window(nearer, self.end), nearer
        return rest


def _second(rows: Profile, count: int) -> int:
    """The second in which the row of this number, counted from 1, lies."""
    return int(np.searchsorted(rows, count)) - 1


def _burst(rows: Profile, begun: int, reached: int, seen: int, last: int) -> int:
    """Most rows in one minute of a page."""
    marks = np.append(rows[begun : reached + 1 : 60], last).clip(seen, last)
    return int(np.diff(marks).max()) if len(marks) > 1 else 0
