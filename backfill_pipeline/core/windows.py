"""Which windows of a day to ask for next, how large a page, and how many at once: pure planning.

A window costs at least one request, and cursors are sequential inside a window. So the plan is windows that each fit
one page, nearly full, several at once: the fewest requests, and none waiting for another. What a site's answers teach
(`SitePace`) carries over from day to day; `DayPlan` says what of one day is still to be asked for.

Put here: sizes, lengths, numbers at once, and how they grow and shrink on what came back. Keep out: threads, clocks,
requests (`ace/fetch.py`).
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date

from backfill_pipeline.core.day import Window, day_window

SHORTEST_S = 60
"""The shortest window of our own choosing, in seconds."""

FIRST_AT_ONCE = 4
"""Windows at once before anything is known of a site: what the API was seen to bear (ace-api.md section 4)."""

TRIES_AT_ONE_SIZE = 2
"""Failures in a row at one page size before a smaller one is tried: one failure is chance, two are a reason."""

SMALLEST = 500
"""Rows; a page this small that fails does not fail for its size."""

SLOW = 3.0
"""A page this many times slower than the site's best, for its size, counts as a server under strain."""

WASTE = 0.03
"""The share of a window's pages that may stay empty, if a longer window can help it."""

MOST_PAGES = 8
"""Pages of one window at most, unless a burst alone fills more: what a death in mid-window costs."""

MEMORY = 0.9
"""How much of the density learnt so far outlives the next window."""


@dataclass
class SitePace:
    """What the answers of one site have taught, and so how to ask next.

    Attributes:
        sizes: page sizes that the API takes, ascending, none larger than may be asked for.
        most_at_once: ceiling for windows at once.
        size: page size to ask for next.
        at_once: windows at once (a float: it grows by parts).
        rows, seconds: what the density rests on; seconds 0 means that it is unknown.
        burst: most rows seen in one minute: no window can be filled better than to within one burst.
    """

    sizes: Sequence[int]
    most_at_once: int
    size: int = 0
    at_once: float = FIRST_AT_ONCE
    rows: float = 0.0
    seconds: float = 0.0
    burst: int = 0
    _good: int = field(default=0, repr=False)
    _patience: int = field(default=8, repr=False)
    _trial: bool = field(default=False, repr=False)
    _best: float = field(default=0.0, repr=False)

    def __post_init__(self) -> None:
        self.sizes = sorted(self.sizes)
        self.size = self.size if self.size in self.sizes else self.sizes[-1]
        self.at_once = min(self.at_once, self.most_at_once)

    @property
    def density(self) -> float:
        """Rows a second; 0.0 when nothing is known, or nothing came."""
        return self.rows / self.seconds if self.seconds else 0.0

    def learn_density(self, rows: int, seconds: float, burst: int) -> None:
        """Take in that `rows` rows covered `seconds` seconds, at most `burst` of them in one minute."""
        self.rows = self.rows * MEMORY + rows
        self.seconds = self.seconds * MEMORY + seconds
        self.burst = max(burst, int(self.burst * MEMORY))

    def pages(self, rows: float) -> int:
        """Pages that a window of a span with `rows` rows should hold.

        The last page of a window is not full, by up to a burst: a window of several pages wastes less. But its pages
        come one after the other, so no window holds more than its share of what can be asked for at once.
        """
        frugal = math.ceil(self.burst / (WASTE * self.size))
        share = math.ceil(rows / self.size / max(1.0, self.at_once))
        return max(1, min(frugal, share, MOST_PAGES if self.burst <= self.size else frugal))

    def fitting_s(self, pages: int = 1) -> float:
        """Seconds of this site that fit into so many pages, less one burst so that they do not overflow.

        Infinite for a site that is silent.
        """
        if not self.density:
            return float("inf")
        rows = pages * self.size - self.burst
        if rows * 2 < self.size:  # bursts as large as pages: as many as one burst fills, and more
            rows = 10 * max(self.size, self.burst)
        return max(rows / self.density, SHORTEST_S)

    def page_came(self, size: int, rows: int, seconds: float) -> None:
        """Take in a page that arrived whole after `seconds` seconds."""
        unit = seconds / (1 + rows / 10_000)
        self._best = unit if not self._best else min(unit, self._best * 1.01)
        if unit > SLOW * self._best and seconds > 1:
            self.at_once = max(1.0, self.at_once * 0.9)
        else:
            self.at_once = min(self.most_at_once, self.at_once + 1)
        if size < self.size:
            return
        self._trial = False
        self._good += 1
        if self._good >= self._patience and self.size != self.sizes[-1]:
            self.size, self._good, self._trial = self.sizes[self.sizes.index(self.size) + 1], 0, True

    def page_failed(self, size: int, failures: int) -> int:
        """Take in that a page failed for a reason that its size may have caused.

        Args:
            size: what it was asked with.
            failures: failures in a row at this place, this one included.

        Returns:
            The size to ask with next.
        """
        self.at_once = max(1.0, self.at_once * 0.7)
        self._good = 0
        index = self.sizes.index(size)
        if not index or size <= SMALLEST or (failures % TRIES_AT_ONE_SIZE and not self._trial):
            return size
        smaller = self.sizes[index - 1]
        if smaller < self.size:
            if self._trial:
                self._patience = min(self._patience * 2, 256)
            self.size, self._trial = smaller, False
        return smaller

    def size_refused(self, size: int) -> int | None:
        """Take in that the API does not take `size` at all; the next smaller one, or None if there is none."""
        smaller = [other for other in self.sizes if other < size]
        if not smaller:
            return None
        self.sizes = smaller
        self.size, self._trial = min(self.size, smaller[-1]), False
        return smaller[-1]

    def throttled(self) -> None:
        """Take in that the API asked us to slow down."""
        self.at_once = max(1.0, self.at_once / 2)


class DayPlan:
    """What of one day is still to be asked for.

    Args:
        day: the UTC day.
        done: windows that need not be asked for again.
        expected_rows: how many rows the day may hold at most, judged by its points; used while the site's density
            is unknown.
    """

    def __init__(self, day: date, done: Iterable[Window] = (), *, expected_rows: int = 0) -> None:
        self.day = day
        self._expected = expected_rows
        self._open = [day_window(day)]
        for window in done:
            self._open = [part for whole in self._open for part in _without(whole, window)]

    @property
    def exhausted(self) -> bool:
        """Whether no window is left to hand out."""
        return not self._open

    def give_back(self, window: Window) -> None:
        """Take back a window that was handed out but will not be asked for as it is."""
        self._open.append(window)
        self._open.sort()
        joined = [self._open[0]]
        for part in self._open[1:]:
            if part.start == joined[-1].end:
                joined[-1] = Window(joined[-1].start, part.end)
            else:
                joined.append(part)
        self._open = joined

    def next_window(self, pace: SitePace) -> Window | None:
        """Hand out the earliest window still open, as long as one page of `pace` is expected to hold."""
        if not self._open:
            return None
        span = self._open.pop(0)
        length = self._length(span, pace)
        if length >= span.seconds:
            return span
        self._open.insert(0, Window(span.start + length, span.end))
        return Window(span.start, span.start + length)

    def _length(self, span: Window, pace: SitePace) -> int:
        if pace.seconds:
            pages = pace.pages(pace.density * sum(part.seconds for part in (span, *self._open)))
            fitting = pace.fitting_s(pages)
        elif self._expected <= pace.size:
            return span.seconds
        else:
            # Unknown ground: a probe that is well below a page even if every point reports as often as it may.
            pages, fitting = 1, max(600.0, pace.size / 2 * 86_400 / self._expected)
        if fitting >= span.seconds:
            return span.seconds
        if pages > 1:
            return max(SHORTEST_S, int(fitting))
        parts = -int(-span.seconds // fitting)  # equal shares, so that no sliver is left for a request of its own
        return max(SHORTEST_S, -(-span.seconds // parts))


def _without(whole: Window, part: Window) -> list[Window]:
    if part.end <= whole.start or part.start >= whole.end:
        return [whole]
    rest = []
    if whole.start < part.start:
        rest.append(Window(whole.start, part.start))
    if part.end < whole.end:
        rest.append(Window(part.end, whole.end))
    return rest
