"""Figures of all stored days of many sites: from the index, compared with a listing of the days at intervals.

Put here: when the index is compared, and how rows become the figures of a site. Keep out: how the index is read
(`storage/day_index.py`) and completed (`footers.py`), and which days are thin (`core/quality.py`).
"""

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from threading import Lock, Thread
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backfill_pipeline.core.object_keys import INDEX_ROOT, file_name, index_key
from backfill_pipeline.core.quality import thin_days
from backfill_pipeline.coverage.footers import index_days
from backfill_pipeline.errors import BackfillError
from backfill_pipeline.storage.comparison import list_days
from backfill_pipeline.storage.day_index import (
    IndexedDay,
    index_prefix,
    read_index_objects,
    readable_table,
    same_object,
)
from backfill_pipeline.storage.index_cache import IndexCache
from backfill_pipeline.storage.store import Stat, Store

COMPARED_S, COMPARED_TIMES = 5.0, 20.0
"""A comparison is used again for this many seconds, and for this many times its own duration."""

MOST_FOOTERS = 1_000
"""Footers that one comparison reads of days that the index lacks: about two seconds from a bucket."""

FIRST_WAIT_S, WAIT_S = 4.0, 1.0
"""Seconds that figures wait for the first comparison of a site when it starts, and for any other one."""

_FEW_SITES = 8

_COMPARED = ("bytes", "etag")
_COUNTED = ("rows", "bytes", "longest_gap_min", "points_seen", "points_configured")
"""Columns of the index that are compared with a listing, and that figures are made of."""


@dataclass(frozen=True, slots=True)
class SiteFigures:
    """What the store contains of a site.

    Attributes:
        stored: days with rows that are not thin.
        thin: thin days.
        empty: days without rows.
        damaged: the days whose object is damaged.
        unread: days with an object whose figures are not read yet.
        rows: rows of the days.
        bytes: bytes of the objects of these days.
        present: for each day of the range, whether there is an object that is not damaged.
        is_compared: whether the index was compared with a listing of the days.
    """

    stored: int
    thin: int
    empty: int
    damaged: frozenset[date]
    unread: int
    rows: int
    bytes: int
    present: NDArray[np.bool_]
    is_compared: bool


@dataclass
class _Differences:
    """Days of a site on which the index and the listing differ, as ordinals."""

    until: float = 0.0
    gone: set[int] = field(default_factory=set)
    unread: set[int] = field(default_factory=set)
    damaged: set[int] = field(default_factory=set)
    read: dict[int, IndexedDay] = field(default_factory=dict)

    @property
    def mark(self) -> object:
        """The differences without the time, to see whether they have changed."""
        return frozenset(self.gone), frozenset(self.unread), frozenset(self.damaged), frozenset(self.read.items())


class FigureReader:
    """Reads the figures of sites, and keeps them until an index object or the comparison changes.

    Args:
        store: where the objects are.
        cache: copies of index objects; None: none.
        clock: seconds that never go back.
        first_wait_s: seconds that figures wait for the first comparison of a site when it starts.
        wait_s: seconds that they wait for any other one.
    """

    def __init__(
        self,
        store: Store,
        cache: IndexCache | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        first_wait_s: float = FIRST_WAIT_S,
        wait_s: float = WAIT_S,
    ) -> None:
        self._store, self._cache, self._clock = store, cache, clock
        self._first_wait_s, self._wait_s = first_wait_s, wait_s
        self._lock, self._publishing = Lock(), Lock()
        self._differences: dict[str, _Differences] = {}
        self._kept: dict[str, tuple[object, SiteFigures]] = {}
        self._comparison: Thread | None = None
        self._error: BackfillError | None = None

    def read(self, sites: Sequence[str], first: date, last: date) -> dict[str, SiteFigures]:
        """Read the figures of sites from `first` to `last`: a listing of the index, and the index objects that changed.

        When the last comparison of a site is too old, a thread lists the days. Days that the index lacks or describes
        wrongly are then read from their objects, `MOST_FOOTERS` at most, the latest first; the others are `unread`.
        Figures wait for the thread for a bounded time: until it ends they are based on the last comparison.

        Raises:
            StoreRefusedError, StoreBusyError: the store cannot be read.
        """
        with self._lock:
            self._refresh(sites, first, last)
            if self._compare_old(sites, first, last):
                self._refresh(sites, first, last)
            return {site: replace(self._kept[site][1], is_compared=site in self._differences) for site in sites}

    def _refresh(self, sites: Sequence[str], first: date, last: date) -> None:
        """Make the figures of the sites whose index objects or differences have changed."""
        years = range(first.year, last.year + 1)
        listed = self._listed_index(sites)
        with self._publishing:
            known = {site: self._differences.get(site, _Differences()) for site in sites}
        marks: dict[str, object] = {}
        for site in sites:
            etags = tuple(stat.etag if (stat := listed.get(index_key(site, year))) else None for year in years)
            marks[site] = (first, last, etags, known[site].mark)
        changed = [site for site in sites if self._kept.get(site, (None,))[0] != marks[site]]
        for site, tables in self._tables(changed, years, listed):
            self._kept[site] = (marks[site], _figures(known[site], tables, first, last))

    def _compare_old(self, sites: Sequence[str], first: date, last: date) -> bool:
        """Start the comparison of the sites whose last one is too old, wait a while; return whether one has ended."""
        now, known = self._clock(), self._differences
        is_first = self._comparison is None and not all(site in known for site in sites)
        if self._comparison is None:
            old = [site for site in sites if site not in known or known[site].until <= now]
            if not old or first > last:
                return False
            self._comparison = Thread(target=self._compare, args=(old, first, last), daemon=True)
            self._comparison.start()
        self._comparison.join(self._first_wait_s if is_first else self._wait_s)
        if self._comparison.is_alive():
            return False
        self._comparison = None
        error, self._error = self._error, None
        if error is not None:
            raise error
        return True

    def _listed_index(self, sites: Sequence[str]) -> dict[str, Stat]:
        prefixes = [index_prefix(site) for site in sites] if len(sites) <= _FEW_SITES else [f"{INDEX_ROOT}/"]
        return {stat.key: stat for prefix in prefixes for stat in self._store.list(prefix)}

    def _tables(
        self, sites: Sequence[str], years: Sequence[int], listed: Mapping[str, Stat]
    ) -> Iterator[tuple[str, list[Any]]]:
        """The tables of each site's index."""
        tables: list[Any] = []
        for site, year, _, data in read_index_objects(self._store, sites, years, self._cache, listed):
            table = readable_table(data, site, year, _COUNTED)
            tables += [] if table is None else [table]
            if year == years[-1]:
                yield site, tables
                tables = []

    def _compare(self, sites: Sequence[str], first: date, last: date) -> None:
        """Compare the index of sites with a listing of the days, a year at a time so that memory is bounded."""
        try:
            began, index = self._clock(), self._listed_index(sites)
            found = {site: _Differences() for site in sites}
            left = MOST_FOOTERS
            for year in range(last.year, first.year - 1, -1):
                start, end = max(first, date(year, 1, 1)), min(last, date(year, 12, 31))
                listed = list_days(self._store, start, end)
                for site, days in self._compare_year(found, year, start, end, listed, index).items():
                    some, others = days[max(0, len(days) - left) :], days[: max(0, len(days) - left)]
                    left -= len(some)
                    found[site].unread.update(day.toordinal() for day in others)
                    if some:
                        self._read_days(site, some, listed, found[site])
            if left < MOST_FOOTERS:
                _forget_written(found, index, self._listed_index(sites))
            ended = self._clock()
            for one in found.values():
                one.until = ended + max(COMPARED_S, COMPARED_TIMES * (ended - began))
            with self._publishing:
                self._differences |= found
        except BackfillError as error:
            self._error = error

    def _compare_year(
        self,
        found: Mapping[str, _Differences],
        year: int,
        start: date,
        end: date,
        listed: Mapping[str, Stat],
        index: Mapping[str, Stat],
    ) -> dict[str, list[date]]:
        """Add the days without an object to `gone`; return the days whose objects must be read, by site."""
        names = {file_name(site): site for site in found}
        objects: dict[str, dict[int, Stat]] = {site: {} for site in found}
        of_day: dict[str, int] = {}
        for key, stat in listed.items():
            prefix, _, name = key.rpartition("/")
            if name in names:
                if prefix not in of_day:
                    of_day[prefix] = _ordinal(prefix)
                objects[names[name]][of_day[prefix]] = stat
        stale = {}
        for site, _, _, data in read_index_objects(self._store, list(found), [year], self._cache, index):
            table, of_site = readable_table(data, site, year, _COMPARED), objects[site]
            right = set()
            if table is not None:
                columns = [table[name].to_pylist() for name in ("bytes", "etag")]
                for ordinal, size, etag in zip(_ordinals(table).tolist(), *columns, strict=True):
                    object_ = of_site.get(ordinal)
                    if object_ is None:
                        found[site].gone.add(ordinal)
                    elif same_object(size, etag, object_):
                        right.add(ordinal)
            lacking = [date.fromordinal(day) for day in sorted(of_site.keys() - right) if day]
            stale[site] = [day for day in lacking if start <= day <= end]
        return stale

    def _read_days(self, site: str, days: Sequence[date], listed: Mapping[str, Stat], found: _Differences) -> None:
        rows, damaged = index_days(self._store, site, days, listed)
        found.read |= {day.toordinal(): row for day, row in rows.items()}
        found.damaged |= {day.toordinal() for day in damaged}
        found.gone |= {day.toordinal() for day in days if day not in rows and day not in damaged}  # deleted meanwhile


def _forget_written(found: Mapping[str, _Differences], before: Mapping[str, Stat], after: Mapping[str, Stat]) -> None:
    """Forget the rows that were just read and written to the index: from now on the index has them."""
    for site, one in found.items():
        for year in {date.fromordinal(ordinal).year for ordinal in one.read}:
            key = index_key(site, year)
            if before.get(key) != after.get(key):
                for ordinal in [ordinal for ordinal in one.read if date.fromordinal(ordinal).year == year]:
                    del one.read[ordinal]


def _figures(differ: _Differences, tables: Sequence[Any], first: date, last: date) -> SiteFigures:
    """The figures of a site: rows of the index without the days that differ, and the days that were read."""
    begin, length = first.toordinal(), max(0, (last - first).days + 1)
    columns = {name: np.full(length, np.nan) for name in ("rows", "bytes", "gap", "share")}
    for table in tables:
        ordinals = _ordinals(table)
        wanted = (ordinals >= begin) & (ordinals < begin + length)
        at = ordinals[wanted] - begin
        rows, size, gap, seen, configured = (_numbers(table, name)[wanted] for name in _COUNTED)
        with np.errstate(divide="ignore", invalid="ignore"):
            share = np.where(configured > 0, seen / configured, np.nan)
        for name, values in zip(columns, (rows, size, gap, share), strict=True):
            columns[name][at] = values
    for ordinal in _within((*differ.gone, *differ.unread, *differ.damaged), begin, length):
        for values in columns.values():
            values[ordinal - begin] = np.nan
    for ordinal in _within(differ.read, begin, length):
        row, day = differ.read[ordinal], ordinal - begin
        columns["rows"][day], columns["bytes"][day] = row.rows, row.bytes
        columns["gap"][day] = np.nan if row.longest_gap_min is None else row.longest_gap_min
        columns["share"][day] = np.nan if row.share is None else row.share
    known = ~np.isnan(columns["rows"])
    empty = columns["rows"] == 0
    thin = thin_days(columns["rows"], columns["gap"], columns["share"]) & known & ~empty
    present = known.copy()
    for ordinal in _within(differ.unread, begin, length):
        present[ordinal - begin] = True
    return SiteFigures(
        stored=int((known & ~empty & ~thin).sum()),
        thin=int(thin.sum()),
        empty=int(empty.sum()),
        damaged=frozenset(map(date.fromordinal, _within(differ.damaged, begin, length))),
        unread=len(_within(differ.unread, begin, length)),
        rows=int(np.nansum(columns["rows"])),
        bytes=int(np.nansum(columns["bytes"])),
        present=present,
        is_compared=False,
    )


def _within(ordinals: Collection[int], begin: int, length: int) -> list[int]:
    return [one for one in ordinals if 0 <= one - begin < length]


def _ordinal(prefix: str) -> int:
    try:
        return date.fromisoformat(prefix.partition("/")[2].replace("/", "-")).toordinal()
    except ValueError:
        return 0


def _ordinals(table: Any) -> NDArray[np.int64]:
    """The days of a table as Python's ordinals."""
    days: NDArray[np.int64] = table["day"].cast("int32").to_numpy().astype(np.int64)
    return days + date(1970, 1, 1).toordinal()


def _numbers(table: Any, name: str) -> NDArray[np.float64]:
    """A column as floats; a figure that is not known is NaN."""
    if name not in table.column_names:
        return np.full(table.num_rows, np.nan)
    values: NDArray[np.float64] = table[name].cast("float64").to_numpy()
    return values
