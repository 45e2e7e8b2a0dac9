"""The figures of many stored days: from the index, and from the footers of days that the index lacks.

Put here: how footers are read in parallel, and how the index is completed from them. Keep out: what the figures mean
(`table.py`) and the index itself (`storage/day_index.py`).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from functools import partial
from itertools import groupby

from backfill_pipeline.core.object_keys import object_key
from backfill_pipeline.coverage.table import Damaged, Found
from backfill_pipeline.errors import BackfillError, DamagedObjectError
from backfill_pipeline.storage.comparison import list_days
from backfill_pipeline.storage.day_index import (
    IndexedDay,
    current,
    describe_day,
    forget_days,
    read_indexes,
    record_days,
)
from backfill_pipeline.storage.days import day_end
from backfill_pipeline.storage.index_cache import IndexCache
from backfill_pipeline.storage.parquet import Footer, findings, read_footer
from backfill_pipeline.storage.store import Stat, Store

AT_ONCE = 32
"""Footers that are read in parallel: each is one request that waits for the store."""

_BATCH = 512
"""Ends of objects that are in memory at once, at most: 64 KB each."""


def read_footers(store: Store, sites: Sequence[str], days: Sequence[date]) -> Found:
    """Read the footers of `sites` x `days`.

    Costs one request of at most 64 KB a day, or two for a longer footer.

    A footer takes some ten kilobytes of memory: read the footers of many sites one site after the other.

    Raises:
        StoreRefusedError, StoreBusyError: the store cannot be read.
    """
    wanted = [(site, day) for site in sites for day in days]
    found: dict[tuple[str, date], Footer | Damaged] = {}

    def end(one: tuple[str, date]) -> bytes | Damaged | None:
        try:
            return day_end(store, *one)
        except FileNotFoundError:
            return None
        except DamagedObjectError as error:
            return Damaged(str(error))

    # The footers are parsed here, one after the other. Small results that many threads allocate between buffers of
    # 64 KB would leave holes in the heap, ten times the size of the results (measured).
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for at in range(0, len(wanted), _BATCH):
            part = wanted[at : at + _BATCH]
            for one, data in zip(part, pool.map(end, part), strict=True):
                if data is not None:
                    found[one] = _read(data, *one) if isinstance(data, bytes) else data
    return found


def read_figures(store: Store, sites: Sequence[str], days: Sequence[date], cache: IndexCache | None = None) -> Found:
    """Read what the store contains of `sites` x `days`, without the figures of each point.

    Costs one listing of the days, one request for each site and year, and the footers of the days whose object differs
    from the index. These days are added to the index; a store that refuses this costs only the next reader's time.

    Raises:
        StoreRefusedError, StoreBusyError: the store cannot be read.
    """
    found: dict[tuple[str, date], Footer | Damaged] = {}
    if not sites or not days:
        return found
    listed = list_days(store, min(days), max(days))
    indexes = read_indexes(store, sites, {day.year for day in days}, cache)
    for site in sites:
        right, stale = current(site, days, indexes[site], listed)
        found |= {(site, day): row.footer(site) for day, row in right.items()}
        rows, damaged = index_days(store, site, stale, listed)
        found |= {(site, day): row.footer(site) for day, row in rows.items()}
        found |= {(site, day): one for day, one in damaged.items()}
    return found


def rebuild_index(
    store: Store,
    site: str,
    days: Sequence[date],
    *,
    everything: bool = True,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
    listed: Mapping[str, Stat] | None = None,
) -> int:
    """Make the rows of a site's stored days from the objects alone; return the number of days that have a row.

    Rows of days without an object, and of damaged objects, are removed. It may be interrupted and started again.

    Args:
        store: where the objects are.
        site: the site.
        days: the UTC days.
        everything: read each object; otherwise keep the rows whose object has the same size and ETag in a listing.
        progress: called with the number of days read so far and the number of days to read.
        listed: the objects of these days, by key; None: they are listed here.

    Raises:
        StoreRefusedError, StoreBusyError: the store cannot be read or written.
    """
    if not days:
        return 0
    if listed is None:
        listed = list_days(store, min(days), max(days))
    stored = [day for day in days if object_key(site, day) in listed]
    good: list[date] = []
    if not everything:
        kept, stored = current(site, days, read_indexes(store, [site], {day.year for day in days})[site], listed)
        good += kept
    done = 0
    for part, rows, _ in _described(store, site, stored, listed):
        record_days(store, site, rows)
        good += [row.day for row in rows]
        done += len(part)
        progress(done, len(stored))
    forget_days(store, site, set(days).difference(good))
    return len(good)


@dataclass(frozen=True, slots=True)
class RebuiltYear:
    """The index of a site and year after a rebuild.

    Attributes:
        site: the site.
        year: the year.
        days: stored days that have a row.
        damaged: stored days without a row, because their object is damaged.
    """

    site: str
    year: int
    days: int
    damaged: int


def rebuild_years(
    store: Store,
    sites: Sequence[str],
    days: Sequence[date],
    *,
    everything: bool = True,
    progress: Callable[[str, int, int], None] = lambda _site, _done, _total: None,
) -> Iterator[RebuiltYear]:
    """Rebuild the index of many sites, a year after the other; each year is listed once for all sites.

    Args:
        store: where the objects are.
        sites: site names.
        days: the UTC days, ascending.
        everything: as for `rebuild_index`.
        progress: called with the site, and as for `rebuild_index`.

    Raises:
        StoreRefusedError, StoreBusyError: the store cannot be read or written.
    """
    for year, of_year in groupby(days, key=lambda day: day.year):
        some = list(of_year)
        listed = list_days(store, some[0], some[-1])
        for site in sites:
            indexed = rebuild_index(
                store, site, some, everything=everything, progress=partial(progress, site), listed=listed
            )
            stored = sum(object_key(site, day) in listed for day in some)
            yield RebuiltYear(site, year, indexed, max(0, stored - indexed))


def index_days(
    store: Store, site: str, days: Sequence[date], listed: Mapping[str, Stat]
) -> tuple[dict[date, IndexedDay], dict[date, Damaged]]:
    """Read the footers of days, and add them to the index; return the rows, and the days whose object is damaged.

    A store that refuses the index costs only the next reader's time.

    Args:
        store: where the objects are.
        site: the site.
        days: UTC days.
        listed: the objects of these days as a listing shows them, by key.

    Raises:
        StoreRefusedError, StoreBusyError: the store cannot be read.
    """
    rows: dict[date, IndexedDay] = {}
    damaged: dict[date, Damaged] = {}
    for _, new, bad in _described(store, site, days, listed):
        damaged |= bad
        rows |= {row.day: row for row in new}
        with suppress(BackfillError):
            record_days(store, site, new, keep_verified=True)
    return rows, damaged


def _described(
    store: Store, site: str, days: Sequence[date], listed: Mapping[str, Stat]
) -> Iterator[tuple[Sequence[date], list[IndexedDay], dict[date, Damaged]]]:
    """Read the footers of days in batches: the days of each batch, their rows, and the days with a damaged object."""
    for at in range(0, len(days), _BATCH):
        part = days[at : at + _BATCH]
        rows: list[IndexedDay] = []
        damaged: dict[date, Damaged] = {}
        for (_, day), footer in read_footers(store, [site], part).items():
            if isinstance(footer, Damaged):
                damaged[day] = footer
            else:
                rows.append(describe_day(day, footer.rows, footer.about, listed[object_key(site, day)]))
        yield part, rows, damaged


def _read(end: bytes, site: str, day: date) -> Footer | Damaged:
    try:
        footer = read_footer(end)
    except DamagedObjectError as error:
        return Damaged(str(error))
    wrong = findings(footer, site, day, footer.least_bytes)
    return Damaged("; ".join(wrong)) if wrong else footer
