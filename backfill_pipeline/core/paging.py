"""The cursor walk: one window's pages in sequence, as a state machine without any I/O.

The server counts an outgoing cursor's offset from the current page alone. A page inside one timestamp therefore has a
cursor that never advances (docs/ace-api.md section 2). `Walk` computes the position from the rows that it received.
Where the server's cursor names that position, `Walk` sends the server's text verbatim, unknown fields included. Where
the two disagree, or the server sends no cursor, it sends its own.

Put here: the position of a walk, the next cursor, when the walk is finished, which answers contradict the contract.
Keep out: requests, retries (`ace/retry.py`) and which rows are kept (`core/clean.py`).
"""

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backfill_pipeline.core.day import Window
from backfill_pipeline.core.rows import NO_TIME, Page
from backfill_pipeline.errors import ContractError, PageFailedError

MOST_IDLE_PAGES = 8
"""Pages in a row without a new row although `has_more` is true; each further one contradicts the contract."""

BELIEVED = 3
"""A contradicting answer is believed when it arrives this often at one place: then it is not chance."""

LONGEST_CURSOR = 1_500
"""Characters; a longer cursor of the server's is not read and not sent back, since it has to fit into a URL."""

QUIET_END_US = 2 * 3_600_000_000
"""A window whose last sample lies this far before its end (µs) is asked once more before its end is believed."""

_HINT = "report this to ACE, then fetch the day again"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Cursor:
    """A position: `offset` rows of the timestamp `time_us` have been received.

    Attributes:
        time_us: Unix microseconds UTC.
        offset: rows, at least 0.
        text: the timestamp as the server spells it, or as we do; it goes back to the server verbatim.
        others: further fields of the server's cursor, whatever they mean; they go back to the server as well.
    """

    time_us: int
    offset: int
    text: str
    others: Mapping[str, Any] = field(default_factory=dict)

    def encode(self) -> str:
        """The cursor as the server takes it: base64 of spaced JSON (docs/ace-api.md section 2)."""
        fields = {"offset": self.offset, "timestamp": self.text, **self.others}
        return base64.b64encode(json.dumps(fields).encode()).decode()

    @classmethod
    def at(cls, time_us: int, offset: int) -> "Cursor":
        """A cursor of our own making, its timestamp naive UTC with six digits."""
        instant = _EPOCH + timedelta(microseconds=time_us)
        return cls(time_us, offset, instant.strftime("%Y-%m-%dT%H:%M:%S.%f"))

    @classmethod
    def decode(cls, text: str | None) -> "Cursor | None":
        """The position that a server's cursor names; None when it is missing, too long or of an unknown form."""
        if text is None or len(text) > LONGEST_CURSOR:
            return None
        try:
            fields = json.loads(base64.b64decode(text, validate=True))
            stamp, offset = str(fields.pop("timestamp")), int(fields.pop("offset"))
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
        return cls(time_us, offset, stamp, fields) if offset >= 0 else None


class Walk:
    """The position of one window's walk.

    Request `window` with `cursor`, pass each answer to `accept`, until `finished`. The window's end may be moved
    nearer between two pages (`shorten`): a cursor does not hold its window.

    Attributes:
        window: the window to request.
        cursor: the cursor to send with the next request, or None.
        rows: rows received so far, repeated ones included.
        finished: whether every row of the window has been received.
        idle: answers in a row that brought no new row.
        more_at_end: whether the walk ended although the server's last answers said that more rows follow.
    """

    def __init__(self, window: Window) -> None:
        self.window = window
        self.cursor: str | None = None
        self.rows = 0
        self.finished = False
        self.idle = 0
        self.more_at_end = False
        self._at: Cursor | None = None
        self._seen: frozenset[str] = frozenset()  # names received at the timestamp that `_at` names
        self._unsure: frozenset[str] = frozenset()  # names received at its millisecond, maybe at it
        self._promised = False  # whether the last page said that more rows follow
        self._unkept = 0  # answers at this place since then that held no new row and no cursor
        self._doubting = False
        self._before: list[str | None] = []  # the cursor before one of an unknown form

    @property
    def reached(self) -> int:
        """Unix seconds inside the window: everything before this instant has been received."""
        if self._at is None:
            return self.window.start
        return min(max(self._at.time_us // 1_000_000, self.window.start), self.window.end - 1)

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

    def step_back(self) -> bool:
        """Return to the last known position after a cursor of an unknown form failed; whether there was one."""
        if not self._before:
            return False
        self.cursor = self._before.pop()
        return True

    def accept(self, page: Page, page_size: int) -> None:
        """Take one answer and move on to the position that its rows show.

        Args:
            page: the answer to `window` and `cursor`.
            page_size: the page size of its request.

        Raises:
            PageFailedError: the page is empty where rows were promised, goes back in time, or belongs to another
                window; request it again.
            ContractError: too many pages in a row brought no new row.
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
                f"the page goes back in time: it ends before {self._at.text}, which earlier pages had reached",
                size_related=False,
            )
        self.rows += len(page)
        if page.has_more and page.next_cursor is None and len(page) < page_size and self._repeats(page, inside, last):
            self._doubt_promise()  # an empty page, but for rows of the page before that the server repeats
            return
        new = self._advance(page, inside, last)
        self._promised, self._unkept = page.has_more, 0
        self.idle = 0 if new else self.idle + 1
        if page.has_more:
            if self.idle > MOST_IDLE_PAGES:
                raise ContractError(
                    f"{self.idle} pages in a row contained only rows received before, at {self._at_text()}", hint=_HINT
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
            self.idle += 1
            self._unkept += 1
            return
        if beyond or (not page.has_more and (self._doubting or page.next_cursor is None or not len(page))):
            self.finished = True
            return
        self._promised = True
        if page.next_cursor is None and not len(page):
            self._doubt_promise()
            return
        self.idle += 1
        if self._follow(page.next_cursor):
            self._unkept = self._unkept if self._before else 0
        if self.idle > MOST_IDLE_PAGES:
            raise ContractError(
                f"{self.idle} pages in a row contained no new rows, but `has_more` is true, at {self._at_text()}",
                hint=_HINT,
            )

    def _doubt_promise(self) -> None:
        """Take a page with `has_more` true but no new rows and no cursor: the end when it persists."""
        self.idle += 1
        self._unkept += 1
        if self._unkept < BELIEVED:
            raise PageFailedError("the page has no new rows and no cursor, but `has_more` is true", size_related=False)
        self.finished = self.more_at_end = True

    def _repeats(self, page: Page, inside: NDArray[np.bool_], last: int) -> bool:
        """Whether a page holds nothing but rows that were received before at the walk's position."""
        return self._at is not None and last <= self._at.time_us and _names(page, inside) <= self._seen | self._unsure

    def _follow(self, text: str | None) -> bool:
        """Move to the position of an empty page's cursor; whether the next request then differs from the last.

        A cursor behind the position only passes on its unknown fields. One of an unknown form is all that is known
        before the first row; later it is followed from the second answer in a row without a row.
        """
        before, theirs = self.cursor, Cursor.decode(text)
        if theirs is None:
            if text is not None and len(text) <= LONGEST_CURSOR and (self._at is None or self.idle > 1):
                self._before, self.cursor = self._before or [before], text
        elif self._at is not None and (theirs.time_us, theirs.offset) < (self._at.time_us, self._at.offset):
            self._at = replace(self._at, others=theirs.others)
            self.cursor, self._before = self._at.encode(), []
        else:
            if self._at is None or theirs.time_us != self._at.time_us:
                self._seen = self._unsure = frozenset()
            self._at, self.cursor, self._before = theirs, text, []
        return self.cursor != before

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
            self._at = Cursor(theirs.time_us, offset, theirs.text, theirs.others)
        else:
            known = theirs or at
            text = at.text if at is not None and at.time_us == last else Cursor.at(last, offset).text
            self._at = Cursor(last, offset, text, known.others if known else {})
        self.cursor, self._before = page.next_cursor if theirs == self._at else self._at.encode(), []
        return new

    def _ends_early(self, times: NDArray[np.int64]) -> bool:
        quiet = self.window.end * 1_000_000 - int(times.max())
        if quiet <= QUIET_END_US:
            return False
        distinct = np.unique(times)
        usual = int(np.diff(distinct).max()) if len(distinct) > 1 else 0
        return quiet > 3 * usual

    def _at_text(self) -> str:
        return self._at.text if self._at else "the window's start"


def _names(page: Page, rows: NDArray[np.bool_]) -> frozenset[str]:
    return frozenset(page.names[code] if code >= 0 else "" for code in page.code[rows].tolist())
