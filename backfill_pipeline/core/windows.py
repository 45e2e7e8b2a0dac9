"""Which windows of a day to ask for next, how large a page, and how many at once: pure planning.

Cursors are sequential inside a window, and the last page of a window is not full. So a day is cut into no more windows
than have to be asked for at once to keep the budget used: one, if answers come as fast as the budget lets requests
leave. Where the budget is no brake, windows get shorter towards the day's end, so that all who walk end together
(guided self-scheduling, Polychronopoulos and Kuck 1987). A cut lies a little before a page would be full, as far as the
site's density tells. What a site's answers teach (`SitePace`) carries over from day to day; `DayPlan` says what of one
day is still to be asked for.

Put here: sizes, lengths, numbers at once, and how they grow and shrink on what came back. Keep out: threads, clocks,
requests (`ace/fetch.py`).
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date

from backfill_pipeline.core.day import DAY_S, Window, day_window

SHORTEST_S = 60
"""The shortest window of our own choosing, in seconds."""

FIRST_AT_ONCE = 3
"""Windows at once before anything is known of a site: with the first page that comes, the four that the API was seen to
bear (docs/ace-api.md section 4); with a page of each, eight. A budget that lets more leave in a second says it bears
more."""

TRIES_AT_ONE_SIZE = 2
"""Failures in a row at one page size before a smaller one is tried: one failure is chance, two are a reason."""

SMALLEST = 500
"""Rows; a page this small that fails does not fail for its size."""

SLOW = 3.0
"""A page this many times slower than the site's best, for its size, counts as a server under strain."""

BUSY = 0.9
"""Share of one processor that this process uses while a page arrives.

From this share on, the interpreter limits the rows a second, and a further window does not increase them. This does not
apply where the wait for the first byte is at least half of a page's time: then further windows wait side by side."""

SPARE = 1.25
"""Windows at once, by what keeps the budget used: a failed page waits, and answers differ. Also rows of a window, by
one burst: densities are estimates."""

SHORTEST_SHARE = 3
"""Pages that must be left of a window before others take a part of it; one, where the budget is no brake."""

PARTS = 2
"""Where the budget is no brake, a window is so small a part of what one of those who walk would have of the rest."""

HANDS = 3
"""Windows at once more, whose newest page is being worked on while those of others are asked for."""

FEW = 2
"""Windows at once, up to which another day is begun before a day's own windows are cut."""

MEMORY = 0.9
"""How much of the density learnt so far outlives the next window."""

_LEARNT = ("rows", "seconds", "burst", "page_s", "at_once", "size", "patience")
"""Fields of `SitePace` that outlive a process."""


@dataclass
class SitePace:
    """What the answers of one site have taught, and so how to ask next.

    Attributes:
        sizes: page sizes that the API takes, ascending, none larger than may be asked for.
        most_at_once: ceiling for windows at once.
        size: page size to ask for next.
        at_once: windows at once that the server bears (a float: it grows by parts).
        rate: requests a second that the budget lets leave.
        page_s: seconds that a page takes, without what it waits for the budget.
        rows, seconds: what the density rests on; seconds 0 means that it is unknown.
        burst: most rows seen in one minute: no window can be filled better than to within one burst.
        patience: good pages until a larger size is tried again.
        expected: rows of a day, as the site's points are configured; it counts until the first page has come.
    """

    sizes: Sequence[int]
    most_at_once: int
    size: int = 0
    at_once: float = FIRST_AT_ONCE
    rows: float = 0.0
    seconds: float = 0.0
    burst: int = 0
    rate: float = math.inf
    page_s: float = 0.0
    patience: int = 8
    expected: int = 0
    _good: int = field(default=0, repr=False)
    _trial: bool = field(default=False, repr=False)
    _best: float = field(default=0.0, repr=False)

    def __post_init__(self) -> None:
        self.sizes = sorted(self.sizes)
        self.size = self.size if self.size in self.sizes else self.sizes[-1]
        self.at_once = min(max(self.at_once, self.rate), self.most_at_once)

    @property
    def braked(self) -> bool:
        """Whether the budget keeps windows waiting, so that a page that is not full costs time."""
        return self.rate < self.most_at_once

    def expect(self, rows_a_day: int, points: int) -> None:
        """Say what the site's points are configured to send; it counts until the first page has come.

        Args:
            rows_a_day: samples of a day if each point keeps its interval.
            points: points of the site; they mostly send at the same instant.
        """
        self.expected, self.burst = rows_a_day, self.burst or points

    @property
    def begun(self) -> bool:
        """Whether enough is known for several windows to be asked for at once.

        Where the budget is the brake, the first page is waited for: a window too many costs a page. Where it is not,
        a day that should hold several pages is cut at once.
        """
        return bool(self.seconds) or (not self.braked and self.expected > 0)

    def learnt(self) -> dict[str, float]:
        """What is worth knowing at the next start: plain numbers, for `recall`."""
        return {name: getattr(self, name) for name in _LEARNT}

    def recall(self, learnt: Mapping[str, float]) -> None:
        """Start with what an earlier process has learnt; what does not fit these settings is left out.

        Raises:
            ValueError: a number is missing, or is none that `learnt` could have given.
        """
        try:
            found = {name: float(learnt[name]) for name in _LEARNT}
        except (KeyError, TypeError) as error:
            raise ValueError("not what a site's pace has learnt") from error
        if not all(0 <= number < math.inf for number in found.values()):
            raise ValueError("not what a site's pace has learnt")
        self.rows, self.seconds, self.burst = found["rows"], found["seconds"], int(found["burst"])
        self.page_s, self.at_once = found["page_s"], min(max(found["at_once"], 1.0), self.most_at_once)
        self.size = max([size for size in self.sizes if size <= found["size"]], default=self.sizes[0])
        self.patience = max(int(found["patience"]), self.patience)

    @property
    def density(self) -> float:
        """Rows a second: what came, or else what is expected; 0.0 when nothing is known, or nothing came."""
        return self.rows / self.seconds if self.seconds else self.expected / DAY_S

    def learn_density(self, rows: int, seconds: float, burst: int, page: int | None = None) -> None:
        """Take in that `rows` rows covered `seconds` seconds.

        Args:
            rows: rows received.
            seconds: the time that they cover.
            burst: most rows in one minute of the last page.
            page: rows of the last page; all of `rows` when None.
        """
        known = self.burst if self.seconds else 0  # what was expected is forgotten
        if (rows if page is None else page) < known:
            burst = max(burst, known)  # a page shorter than a burst does not show that bursts are smaller
        self.rows = self.rows * MEMORY + rows
        self.seconds = self.seconds * MEMORY + seconds
        self.burst = max(burst, int(known * MEMORY))

    def side_by_side(self, sites: int = 1) -> int:
        """Windows to walk at once: what the server bears, and no more than keeps the budget used.

        A few more than may be asked for at once, since some are being decoded while others are on their way.

        Args:
            sites: sites that share the budget.
        """
        borne = int(self.at_once) + (HANDS if self.seconds and self.at_once > HANDS else 0)
        if not self.page_s or math.isinf(self.rate):
            return max(1, borne)
        return max(1, min(borne, math.ceil(SPARE * self.rate * self.page_s / max(1, sites))))

    @property
    def _sure(self) -> float:
        """Rows that a window has to hold so that it contains a burst: one that lies between two costs two requests."""
        return SPARE * self.burst

    def fitting_s(self, pages: int = 1) -> float:
        """Seconds of this site that fit into so many pages, less one burst so that they do not overflow.

        Infinite for a site that is silent.
        """
        if not self.density:
            return float("inf")
        # What is only expected may be several times what comes: a page of that then leaves its burst as well.
        rows = pages * self.size - self.burst * (1 if self.seconds else pages)
        if rows < max(self.size / 2, self._sure):  # bursts as large as pages: as many as one burst fills, and more
            rows = 10 * max(self.size, self.burst)
        return max(rows / self.density, SHORTEST_S)

    def share_s(self, seconds: int, shares: int) -> int:
        """Seconds that one of `shares` equal shares of a span takes, in nearly full pages; 0: it is left whole."""
        pages = self.density * seconds / self.size
        if shares < 2 or pages < (SHORTEST_SHARE if self.braked else 1):  # noqa: PLR2004 - two are the fewest
            return 0
        fitting = self.fitting_s(math.ceil(pages / shares))
        return int(fitting) if fitting + self._sure / self.density < seconds else 0

    def page_came(self, size: int, rows: int, seconds: float, busy: float = 0.0, first_byte_s: float = 0.0) -> None:
        """Take in a page that arrived whole after `seconds` seconds.

        Args:
            size: the page size of its request.
            rows: its rows.
            seconds: from its request to its rows, without what it waited for the budget.
            busy: CPU seconds of this process in that time, by `seconds`; 0 where it is not known.
            first_byte_s: from its request to the first byte of the answer.
        """
        if rows:
            self.page_s = seconds if not self.page_s else 0.8 * self.page_s + 0.2 * seconds
        unit = seconds / (1 + rows / 10_000)
        self._best = unit if not self._best else min(unit, self._best * 1.01)
        if unit > SLOW * self._best and seconds > 1:
            self.at_once = max(1.0, self.at_once * 0.9)
        elif busy > BUSY and first_byte_s < seconds / 2:
            self.at_once = max(min(self.at_once, FIRST_AT_ONCE), self.at_once - 1)
        else:
            self.at_once = min(self.most_at_once, self.at_once + 1)
        if size < self.size:
            return
        self._trial = False
        self._good += 1
        if self._good >= self.patience and self.size != self.sizes[-1]:
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
        smaller = max((other for other in self.sizes if other < size), default=None)
        chance = failures % TRIES_AT_ONE_SIZE and not self._trial and size in self.sizes  # not: refused meanwhile
        if smaller is None or size <= SMALLEST or chance:
            return size
        if smaller < self.size:
            if self._trial:
                self.patience = min(self.patience * 2, 256)
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
    """

    def __init__(self, day: date, done: Iterable[Window] = ()) -> None:
        self.day = day
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

    def next_window(self, pace: SitePace, free: int = 1) -> Window | None:
        """Hand out the earliest window still open: all of it, or its share if more of them may be asked for at once.

        It is all of it until enough is known of the site (`SitePace.begun`): its first page tells how dense it is.

        Args:
            pace: what is known of the site.
            free: windows that may be asked for at once from now on, this one included.
        """
        if not self._open:
            return None
        span = self._open.pop(0)
        shares = free - len(self._open) if pace.braked else PARTS * int(pace.at_once)
        length = pace.share_s(span.seconds, shares) if pace.begun else 0
        if not length:
            return span
        self._open.insert(0, Window(span.start + length, span.end))
        return Window(span.start, span.start + length)


def _without(whole: Window, part: Window) -> list[Window]:
    if part.end <= whole.start or part.start >= whole.end:
        return [whole]
    rest = []
    if whole.start < part.start:
        rest.append(Window(whole.start, part.start))
    if part.end < whole.end:
        rest.append(Window(part.end, whole.end))
    return rest
