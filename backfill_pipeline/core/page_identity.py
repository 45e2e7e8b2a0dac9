"""What a page's names and times show: whether its samples are of the site that was asked for, and raw.

Put here: how an answer is told from one that only looks like it (docs/ace-api.md sections 5 and 8). Keep out: asking
for it again (`ace/fetch.py`), which of its rows count (`core/clean.py`).
"""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import date

import numpy as np
from numpy.typing import NDArray

from backfill_pipeline.core.clean import compact, joined
from backfill_pipeline.core.day import Window, iso
from backfill_pipeline.core.rows import NO_TIME, Chunk, Counts, Example, Page
from backfill_pipeline.errors import ContractError, quoted

MARK_US = 300 * 1_000_000
"""Aggregated answers have every time on a multiple of this (µs): five minutes (docs/ace-api.md section 5)."""

MARKS_TO_JUDGE = 12
"""Different times, all on five-minute marks, that show an answer to be aggregated: an hour of buckets."""

MAX_UNREADABLE = 0.01
"""Share of a day's rows that may have no point or no time that can be read."""

_SHOWN = 60
"""Characters of an example that a message shows."""

_FEW_MINUTES = 1 << 20
"""A page of no more minutes than these is counted minute by minute, which is faster than sorting."""


class SiteNames:
    """The names of a site's points, and which of its configured points a row's name belongs to.

    A row belongs to the point with exactly its name. If no point has that name, spaces around it and the Unicode form
    do not count, provided that the list of all points was read and leaves only one point that can be meant.

    Args:
        configured: names of its configured points, in the order of their codes.

    Attributes:
        lists: how often the list of all points was read, or was not available.
    """

    def __init__(self, configured: Iterable[str]) -> None:
        self._codes = {name: code for code, name in enumerate(configured)}
        self._known = frozenset(self._codes)
        self._forms = Counter(map(_form, self._known))
        self._alike: Mapping[str, int] = {}
        self._places = {_place_of(name) for name in self._known} - {None}
        self._is_available = True
        self.lists = 0

    def learn(self, names: Iterable[str]) -> None:
        """Take in the names of all points of the site, configured or not."""
        known = self._known | frozenset(names)
        points = Counter(map(_form, known))
        self._alike = {form: code for name, code in self._codes.items() if points[form := _form(name)] == 1}
        self._forms = points
        self._known = known
        self.lists += 1

    def forget(self) -> None:
        """Accept any names from now on: the list of all points is not available."""
        self._is_available = False
        self.lists += 1

    def codes(self, names: Iterable[str]) -> dict[str, int]:
        """The code of the configured point that each name belongs to; -1 if there is none."""
        codes = self._codes
        return {name: codes[name] if name in codes else self._code(name) for name in names}

    def _code(self, name: str) -> int:
        return -1 if name in self._known else self._alike.get(_form(name), -1)

    def need_list(self, page: Page) -> bool:
        """Whether a page cannot be taken without the list of all points, and that list was not read yet."""
        if self.lists or not page.names:
            return False
        unknown = [name for name in page.names if name not in self._known]
        return len(unknown) == len(page.names) or any(_form(name) in self._forms for name in unknown)

    def have(self, page: Page) -> bool:
        """Whether a page has a row of any point of the site, configured or not; True if that cannot be known.

        A name that may be of two points belongs to neither: a day of such names alone fails, since none is stored.
        """
        if not (self._is_available and page.names) or not self._known.isdisjoint(page.names):
            return True
        return any(self._forms[_form(name)] == 1 for name in page.names)

    def are_strange_to(self, page: Page) -> bool:
        """Whether a page has no point of the site, and none whose name begins as the names of the site do."""
        if self.have(page) or any(_form(name) in self._forms for name in page.names):
            return False
        return self._places.isdisjoint(map(_place_of, page.names))

    def example(self) -> str | None:
        """The name of a configured point; None if there is none."""
        return next(iter(self._codes), None)


class Part:
    """What has been fetched of a window since its last piece was spooled, and what its times show.

    Attributes:
        start: Unix seconds; everything before it is spooled.
        counts: of the rows that it holds.
        on_marks: whether all of its times lie on five-minute marks.
        instants: its different times, if they do; else one of them.
        named: whether it has a row of a point of the site.
        stranger: a name of its rows that belongs to no point of the site; None if there is none.
        unreadable: an example of its unreadable rows.
    """

    def __init__(self, start: int, *, accept_marks: bool) -> None:
        self.start = start
        self.counts = Counts()
        self.on_marks = True
        self.instants: set[int] = set()
        self.named = False
        self.stranger: str | None = None
        self.unreadable: Example | None = None
        self._chunks: list[Chunk] = []
        self._accept = accept_marks

    def add(self, page: Page, chunk: Chunk, counts: Counts, *, named: bool) -> None:
        """Take in a page that was judged: its kept rows, and what its names and times show."""
        self.keep(chunk, counts)
        if named:
            self.named = True
        elif self.stranger is None:
            self.stranger = _stranger(page)
        self.unreadable = self.unreadable or page.unreadable
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
        self.named = self.named or bool(len(chunk)) or chunk.texts is not None

    def cut(self, end: int, midnight: int) -> tuple[Chunk, Chunk]:
        """The rows before `end`, and those from then on; both in Unix seconds."""
        texts = joined([chunk.texts for chunk in self._chunks if chunk.texts is not None])
        code = np.concatenate([chunk.code for chunk in self._chunks] or [np.empty(0, np.int32)])
        ms = np.concatenate([chunk.ms for chunk in self._chunks] or [np.empty(0, np.int32)])
        value = np.concatenate([chunk.value for chunk in self._chunks] or [np.empty(0)])
        before = ms < (end - midnight) * 1000
        ends = [Chunk(code[part], ms[part], value[part]) for part in (before, ~before)]
        if texts is not None:
            before = texts.ms < (end - midnight) * 1000
            ends = [
                replace(chunk, texts=compact(texts.code[part], texts.ms[part], texts.text[part], texts.texts))
                for chunk, part in zip(ends, (before, ~before), strict=True)
            ]
        return ends[0], ends[1]

    def judge(self, page: Page, window: Window, site: str, day: date) -> None:
        """Hold the page's times against what may be.

        Raises:
            ContractError: enough different times, all on the marks, to show an aggregated answer; or rows from before
                what earlier pages had reached.
        """
        times = _times(page)
        if ((times < self.start * 1_000_000) & (times >= window.start * 1_000_000)).any():
            raise ContractError(
                f"{window}: a page holds rows from before {iso(self.start)}, which earlier pages "
                "had passed: the API's rows are out of order",
                site=site,
                day=day,
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


def of_another_site(page: Page, window: Window, site: str, day: date, configured: str | None) -> ContractError:
    """The error of a page whose names are not the site's, although all points of the site were listed."""
    return ContractError(
        f"{window}: none of the {len(page.names):,} points of a page "
        f"({quoted(_stranger(page) or '')}) is a point of this site, {_points(configured)}, so the API sent samples of "
        "another site",
        hint="Ask ACE, then fetch the day again",
        site=site,
        day=day,
    )


def of_no_point(stranger: str, site: str, day: date, configured: str | None) -> ContractError:
    """The error of a day whose rows all have names that belong to no point of the site."""
    return ContractError(
        f"no row has the name of a point of this site, {_points(configured)}. One row is of {quoted(stranger)}",
        hint="Compare the names with the site's points (`backfill points`), and ask ACE",
        site=site,
        day=day,
    )


def unreadable_page(page: Page, window: Window, site: str, day: date) -> ContractError:
    """The error of a page that has rows, none of them with a name and a time that can be read."""
    return ContractError(
        f"{window}: none of the {len(page):,} rows of a page can be read{_such_as(page.unreadable)}",
        hint=_SHOW_ACE,
        site=site,
        day=day,
    )


def judge_rows(counts: Counts, example: Example | None, site: str, day: date) -> ContractError | None:
    """An error when more of a day's rows are unreadable than may be."""
    if counts.unreadable <= MAX_UNREADABLE * counts.fetched:
        return None
    return ContractError(
        f"{unreadable_rows(counts, example)}, more than {MAX_UNREADABLE:.0%} of the day",
        hint=_SHOW_ACE,
        site=site,
        day=day,
    )


def unreadable_rows(counts: Counts, example: Example | None) -> str:
    """How many of a day's rows cannot be read, as one line with an example."""
    return f"{counts.unreadable:,} of {counts.fetched:,} rows cannot be read{_such_as(example)}"


_SHOW_ACE = "Report this example to ACE. `backfill probe-api` shows whether other answers of the API differ too"


def _such_as(example: Example | None) -> str:
    if example is None:
        return ""
    member, text = example
    return f": the `{member}` of one is {text if len(text) <= _SHOWN else f'{text[:_SHOWN]}...'}"


def _points(configured: str | None) -> str:
    return "configured or not" if configured is None else f"configured (such as {quoted(configured)}) or not"


def _stranger(page: Page) -> str | None:
    return next((name for name in page.names if name.strip()), None)


def _form(name: str) -> str:
    """A name without spaces around it, in Unicode's normal form C."""
    return (name if name.isascii() else unicodedata.normalize("NFC", name)).strip()


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
        f"all of {instants} different times lie on five-minute marks, so the API sent aggregated data although raw "
        "samples were requested",
        hint="if this site really samples on the marks, set ACE_ACCEPT_MARKS=true",
        site=site,
        day=day,
    )
