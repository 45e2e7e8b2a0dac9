"""What a page's names and times show: whether its samples are of the site that was asked for, and raw.

Put here: how an answer is told from one that only looks like it (ace-api.md sections 5 and 8). Keep out: asking for it
again (`ace/fetch.py`), which of its rows count (`core/clean.py`).
"""

from collections.abc import Iterable, Sequence
from datetime import date

import numpy as np
from numpy.typing import NDArray

from backfill_pipeline.core.day import Window, iso
from backfill_pipeline.core.rows import NO_TIME, Chunk, Counts, Page
from backfill_pipeline.errors import ContractError

MARK_US = 300 * 1_000_000
"""Aggregated answers have every time on a multiple of this (µs): five minutes (ace-api.md section 5)."""

MARKS_TO_JUDGE = 12
"""Different times, all on five-minute marks, that show an answer to be aggregated: an hour of buckets."""

_FEW_MINUTES = 1 << 20
"""A page of no more minutes than these is counted minute by minute, which is faster than sorting."""


class SiteNames:
    """The names that are a site's for sure, and what they begin with.

    Args:
        configured: names of its configured points.
    """

    def __init__(self, configured: Iterable[str]) -> None:
        self._known = frozenset(configured)
        self._places = {_place_of(name) for name in self._known} - {None}

    def learn(self, names: Iterable[str]) -> None:
        """Take in the names of all points of the site, configured or not."""
        self._known |= frozenset(names)

    def forget(self) -> None:
        """Hold no page against the names any more: they could not all be listed."""
        self._known = frozenset()

    def are_strange_to(self, page: Page) -> bool:
        """Whether nothing about a page's names is the site's: none is a known point, none begins as its points do."""
        if not (page.names and self._known) or not self._known.isdisjoint(page.names):
            return False
        return self._places.isdisjoint(map(_place_of, page.names))


class Part:
    """What has been fetched of a window since its last piece was spooled, and what its times show.

    Attributes:
        start: Unix seconds; everything before it is spooled.
        counts: of the rows that it holds.
        on_marks: whether all of its times lie on five-minute marks.
        instants: its different times, if they do; else one of them.
    """

    def __init__(self, start: int, *, accept_marks: bool) -> None:
        self.start = start
        self.counts = Counts()
        self.on_marks = True
        self.instants: set[int] = set()
        self._chunks: list[Chunk] = []
        self._accept = accept_marks

    def add(self, page: Page, chunk: Chunk, counts: Counts) -> None:
        """Take in a page that was judged: its kept rows, and what its times show."""
        self.keep(chunk, counts)
        times = _times(page)
        self.on_marks = self.on_marks and _all_on_marks(times)
        if self.on_marks:
            self.instants.update(np.unique(times).tolist())
        elif len(times):
            self.instants = {int(times[0])}

    def keep(self, chunk: Chunk, counts: Counts) -> None:
        """Take in rows."""
        self._chunks.append(chunk)
        self.counts += counts

    def cut(self, end: int, midnight: int) -> tuple[Chunk, Chunk]:
        """The rows before `end`, and those from then on; both in Unix seconds."""
        code = np.concatenate([chunk.code for chunk in self._chunks] or [np.empty(0, np.int32)])
        ms = np.concatenate([chunk.ms for chunk in self._chunks] or [np.empty(0, np.int32)])
        value = np.concatenate([chunk.value for chunk in self._chunks] or [np.empty(0)])
        before = ms < (end - midnight) * 1000
        return Chunk(code[before], ms[before], value[before]), Chunk(code[~before], ms[~before], value[~before])

    def judge(self, page: Page, window: Window, site: str, day: date) -> None:
        """Hold the page's times against what may be.

        Raises:
            ContractError: enough different times, all on the marks, to show an aggregated answer; or rows from before
                what earlier pages had reached.
        """
        times = _times(page)
        if ((times < self.start * 1_000_000) & (times >= window.start * 1_000_000)).any():
            raise ContractError(
                f"site {site!r}, {day} {window}: a page holds rows from before {iso(self.start)}, which earlier pages "
                "had passed: the API's rows are out of order"
            )
        if self.on_marks and not self._accept and _all_on_marks(times):
            instants = len(self.instants.union(np.unique(times).tolist()))
            if instants >= MARKS_TO_JUDGE:
                raise _aggregated(site, day, instants)


def judge_day(parts: Sequence[tuple[bool, int]], site: str, day: date) -> ContractError | None:
    """An error when a day as a whole shows that it was aggregated although raw samples were asked for.

    Args:
        parts: of each window whether all of its times lie on five-minute marks, and how many different ones it has.
        site: the site's name.
        day: the UTC day.
    """
    if not all(on_marks for on_marks, instants in parts if instants):
        return None
    instants = sum(instants for _, instants in parts)
    return None if instants < MARKS_TO_JUDGE else _aggregated(site, day, instants)


def lies_on_marks(page: Page) -> bool:
    """Whether the page has several times, all on five-minute marks; a single one tells nothing."""
    times = _times(page)
    return _all_on_marks(times) and len(np.unique(times)) > 1


def burst(page: Page) -> int:
    """Most rows in one minute of the page."""
    times = _times(page)
    if not len(times):
        return 0
    minutes = (times - times.min()) // 60_000_000
    if minutes.max() < _FEW_MINUTES:
        return int(np.bincount(minutes).max())
    return int(np.unique(minutes, return_counts=True)[1].max())


def of_another_site(page: Page, window: Window, site: str, day: date) -> ContractError:
    """The error of a page whose names are none of the site's, even when all of them are listed."""
    return ContractError(
        f"site {site!r}, {day} {window}: none of the {len(page.names):,} points of a page ({page.names[0]!r:.200}) is "
        "a point of this site, configured or not, so the API sent samples of another site; ask ACE, then fetch the day "
        "again"
    )


def _all_on_marks(times: NDArray[np.int64]) -> bool:
    return not ((times[:1] % MARK_US).any() or (times % MARK_US).any())


def _times(page: Page) -> NDArray[np.int64]:
    times: NDArray[np.int64] = page.time_us[page.time_us != NO_TIME]
    return times


def _place_of(name: str) -> str | None:
    """What names of one site mostly begin with, client and site; None of a name that has no such parts."""
    client, _, rest = name.partition("/")
    site, more, _ = rest.partition("/")
    return f"{client}/{site}" if more else None


def _aggregated(site: str, day: date, instants: int) -> ContractError:
    return ContractError(
        f"site {site!r}, {day}: all of {instants} different times lie on five-minute marks, so the API sent aggregated "
        "data although raw samples were asked for; if this site really samples on the marks, set "
        "ACE_ACCEPT_MARKS=true"
    )
