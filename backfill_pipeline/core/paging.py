"""The cursor walk: one window's pages in sequence, as a state machine without any I/O.

The server counts an outgoing cursor's offset from the current page alone, so that a page inside one timestamp gives
a cursor that stands still for ever (ace-api.md section 2). `Walk` therefore computes its own cursor from the rows it
saw, needs no cursor of the server's while rows arrive, and proves progress on every page.

Put here: where a walk stands, what to ask next, when it is finished, what is no answer at all. Keep out: requests,
retries (`ace/retry.py`) and which rows are kept (`core/clean.py`).
"""

import base64
import binascii
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from backfill_pipeline.core.day import Window
from backfill_pipeline.core.rows import NO_TIME, Page
from backfill_pipeline.errors import PageFailedError

MOST_IDLE_PAGES = 8
"""Pages in a row that bring no new row although more are promised, before the walk counts as broken."""

BELIEVED = 3
"""An answer that contradicts what came before is believed when it came this often: then it was not chance."""

QUIET_END_US = 2 * 3_600_000_000
"""A window whose last sample lies this far before its end (µs) is asked once more before its end is believed."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Cursor:
    """A position: `offset` rows of the timestamp `time_us` have been received.

    Attributes:
        time_us: Unix microseconds UTC.
        offset: rows, at least 0.
        text: the timestamp as the server spells it, or as we do; it goes back to the server verbatim.
    """

    time_us: int
    offset: int
    text: str

    def encode(self) -> str:
        """The cursor as the server takes it: base64 of spaced JSON (ace-api.md section 2)."""
        return base64.b64encode(json.dumps({"offset": self.offset, "timestamp": self.text}).encode()).decode()

    @classmethod
    def at(cls, time_us: int, offset: int) -> "Cursor":
        """A cursor of our own making, its timestamp naive UTC with six digits."""
        instant = _EPOCH + timedelta(microseconds=time_us)
        return cls(time_us, offset, instant.strftime("%Y-%m-%dT%H:%M:%S.%f"))

    @classmethod
    def decode(cls, text: str | None) -> "Cursor | None":
        """The position that a server's cursor names; None when it names none that we understand."""
        try:
            fields = json.loads(base64.b64decode(text or "", validate=True))
            stamp, offset = str(fields["timestamp"]), int(fields["offset"])
            instant = datetime.fromisoformat(stamp)
            if instant.tzinfo is None:
                instant = instant.replace(tzinfo=UTC)
            time_us = (instant - _EPOCH) // timedelta(microseconds=1)
        except (
            ValueError,
            TypeError,
            KeyError,
            AttributeError,
            OverflowError,
            RecursionError,
            binascii.Error,
        ):
            return None
        return cls(time_us, offset, stamp) if offset >= 0 else None


class Walk:
    """Where one window's walk stands.

    Ask for `window` with `cursor`, hand each answer to `accept`, until `finished`. The window's end may be moved
    nearer between two pages (`shorten`): a cursor does not hold its window.

    Attributes:
        window: what is asked for.
        cursor: what to send with the next request, or None.
        rows: rows received so far, repeated ones included.
        finished: whether every row of the window has been received.
    """

    def __init__(self, window: Window) -> None:
        self.window = window
        self.cursor: str | None = None
        self.rows = 0
        self.finished = False
        self._at: Cursor | None = None
        self._seen: frozenset[str] = frozenset()  # names received at the timestamp that `_at` names
        self._unsure: frozenset[str] = frozenset()  # names received at its millisecond, maybe at it
        self._idle = 0
        self._promised = False  # whether the last page with rows said that more follow
        self._unkept = 0  # answers since then that held nothing and promised nothing
        self._doubting = False

    @property
    def reached(self) -> int:
        """Unix seconds: everything before this instant has been received; the window's start at first."""
        if self._at is None:
            return self.window.start
        return min(max(self._at.time_us // 1_000_000, self.window.start), self.window.end)

    def shorten(self, end: int) -> Window | None:
        """Move the window's end to `end` (Unix seconds), if that lies between what is reached and the end now.

        Returns:
            The rest, which is no longer this walk's; None when there is none.
        """
        if not self.reached + 1 < end < self.window.end:
            return None
        rest = Window(end, self.window.end)
        self.window = Window(self.window.start, end)
        self._promised = False  # what was promised may lie in the rest
        return rest

    def accept(self, page: Page, page_size: int) -> None:
        """Take one answer, moving on by what its rows show.

        Args:
            page: the answer to `window` and `cursor`.
            page_size: the size it was asked with.

        Raises:
            PageFailedError: the page proves no progress, or does not belong to the window; ask again.
        """
        start_us, end_us = self.window.start * 1_000_000, self.window.end * 1_000_000
        times = page.time_us
        known = times != NO_TIME
        inside = known & (times >= start_us) & (times < end_us)
        if not inside.any():
            self._accept_none(page, beyond=bool(known.any()) and bool((times[known] == end_us).all()))
            return
        last = int(times[inside].max())
        if self._at is not None and last // 1000 < self._at.time_us // 1000:
            raise PageFailedError(
                f"the page goes back in time: it ends before {self._at.text}, where the walk stood",
                size_related=False,
            )
        new = self._advance(page, inside, last)
        self.rows += len(page)
        self._promised, self._unkept = page.has_more, 0
        self._idle = 0 if new else self._idle + 1
        if page.has_more:
            if self._idle > MOST_IDLE_PAGES:
                raise PageFailedError(
                    f"{self._idle} pages in a row brought rows that had been received before, at {self._at_text()}",
                    size_related=False,
                )
            self._doubting = False
        elif self._doubting and not new:
            self.finished = True
        else:
            # A true end leaves a short page, no cursor, and rows up to the window's end (section 8, row 7).
            doubtful = len(page) >= page_size or page.next_cursor is not None or self._ends_early(times[inside])
            self.finished = not doubtful
            self._doubting = doubtful

    def _accept_none(self, page: Page, *, beyond: bool) -> None:
        """Take a page without a row inside the window; `beyond`: all its rows lie exactly at the window's end."""
        self.rows += len(page)
        if len(page) and not beyond and (page.time_us != NO_TIME).any():
            raise PageFailedError("the page holds only rows of another window", size_related=False)
        if not (len(page) or page.has_more) and self._promised and self._unkept < BELIEVED - 1:
            self._unkept += 1  # nothing where rows were promised
            return
        if beyond or (not page.has_more and (self._doubting or page.next_cursor is None or not len(page))):
            self.finished = True
            return
        self._idle += 1
        if self._idle > MOST_IDLE_PAGES:
            raise PageFailedError(
                f"{self._idle} pages in a row held no rows although more were promised", size_related=False
            )
        ahead = Cursor.decode(page.next_cursor)
        if ahead is not None and (self._at is None or (ahead.time_us, ahead.offset) > self._position()):
            same = self._at is not None and ahead.time_us == self._at.time_us
            self._at = ahead
            if not same:
                self._seen = self._unsure = frozenset()
            self.cursor = page.next_cursor
        elif ahead is None and page.next_cursor is not None and self._at is None:
            self.cursor = page.next_cursor  # an unknown kind of cursor: all we have to go by

    def _advance(self, page: Page, inside: NDArray[np.bool_], last: int) -> bool:
        """Move to the page's last timestamp, `last`; whether the page held a row that is new."""
        at, theirs = self._at, Cursor.decode(page.next_cursor)
        if at is not None and last <= at.time_us:
            last = at.time_us
        exact = inside & (page.time_us == last)
        # Some shapes of time stop at milliseconds; such a row may be of this timestamp, or of one just before.
        alike = inside & (page.time_us == last // 1000 * 1000) & ~exact
        # An offset too small only repeats rows, one too large loses them: a row that the server repeats, within a page
        # or from one to the next, or whose timestamp is uncertain, is not counted.
        names, unsure = _names(page, exact), _names(page, alike)
        if at is None or last > at.time_us:
            offset, new = len(names), True
            self._seen, self._unsure = names, unsure
        else:
            fresh = len(names - self._seen)
            new = fresh > 0 or not unsure <= self._unsure
            # A page of repeats alone is stepped over by its length, less the one row that a server may have put in
            # front.
            offset = at.offset + (fresh if new else max(1, int(exact.sum()) + int(alike.sum()) - 1))
            self._seen |= names
            self._unsure |= unsure
        if (
            theirs is not None
            and theirs.time_us // 1000 == last // 1000
            and last
            in (
                theirs.time_us,
                theirs.time_us // 1000 * 1000,
            )
        ):
            self._at = Cursor(theirs.time_us, offset, theirs.text)
        elif at is not None and at.time_us == last:
            self._at = Cursor(last, offset, at.text)
        else:
            self._at = Cursor.at(last, offset)
        self.cursor = self._at.encode()
        return new

    def _ends_early(self, times: NDArray[np.int64]) -> bool:
        quiet = self.window.end * 1_000_000 - int(times.max())
        if quiet <= QUIET_END_US:
            return False
        distinct = np.unique(times)
        usual = int(np.diff(distinct).max()) if len(distinct) > 1 else 0
        return quiet > 3 * usual

    def _position(self) -> tuple[int, int]:
        return (self._at.time_us, self._at.offset) if self._at else (0, 0)

    def _at_text(self) -> str:
        return self._at.text if self._at else "the window's start"


def _names(page: Page, rows: NDArray[np.bool_]) -> frozenset[str]:
    return frozenset(page.names[code] if code >= 0 else "" for code in page.code[rows].tolist())
