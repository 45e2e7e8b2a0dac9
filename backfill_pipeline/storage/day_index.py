"""The index of stored days: `index/<site>/YYYY.parquet`, one row for each stored day of a site and year.

One request returns what the footers of a year's objects contain. Runs write the index after days are verified. It can
be rebuilt from the objects alone. A row counts only while a listing shows the same object: `current`.

Put here: the columns, and how rows are written, read, compared with a listing and removed. Keep out: the listing
(`comparison.py`), footers (`parquet.py`, `days.py`) and who rebuilds the index (`coverage/footers.py`).
"""

import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date, datetime
from itertools import groupby
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from backfill_pipeline.core.object_keys import INDEX_ROOT, SUFFIX, day_prefix, file_name, index_key, object_key
from backfill_pipeline.errors import BackfillError, DamagedObjectError
from backfill_pipeline.settings import Settings
from backfill_pipeline.storage.index_cache import IndexCache
from backfill_pipeline.storage.parquet import Footer
from backfill_pipeline.storage.shared_object import update
from backfill_pipeline.storage.store import Stat, Store

AT_ONCE = 32
"""Index objects that are read side by side."""

LISTED_FROM = 8
"""From this number of index objects on, they are listed, so that copies of unchanged ones need no request."""

_BATCH = 1_000

VERSION = 1
"""Version of the format. Columns may be added without a new version; a later version is not read and not written."""

EVERY_S = 5.0
"""Seconds between two writes of one site's index by a run, at least."""

SCHEMA = pa.schema(
    [
        pa.field("day", pa.date32(), nullable=False),
        pa.field("state", pa.string(), nullable=False),
        pa.field("rows", pa.int64(), nullable=False),
        pa.field("bytes", pa.int64(), nullable=False),
        pa.field("etag", pa.string()),
        pa.field("sha256", pa.string()),
        pa.field("fetched", pa.int64()),
        pa.field("points_seen", pa.int64()),
        pa.field("points_configured", pa.int64()),
        pa.field("longest_gap_min", pa.int64()),
        pa.field("interval_s", pa.float64()),
        pa.field("fetched_at", pa.timestamp("ms", "UTC")),
    ]
)
"""The columns of an index, in their order. Rows are sorted by `day`."""

_FIGURES = ("fetched", "points_seen", "points_configured", "longest_gap_min")


def same_object(size: int, etag: str | None, other: "Stat | IndexedDay") -> bool:
    """Whether a size and an ETag are those of another description of the object; an unknown ETag is never the same."""
    return etag is not None and etag == other.etag and size == other.bytes


class NewerIndexError(BackfillError):
    """A later version of this program wrote the index."""


@dataclass(frozen=True, slots=True)
class IndexedDay:
    """A stored day as the index describes it. A figure that is not known is None.

    Attributes:
        day: the UTC day.
        state: `stored`, or `empty` when the object has no rows.
        rows: rows of the object.
        bytes: the size of the object.
        etag: the store's ETag of the object, as a listing reports it.
        sha256: SHA-256 of the object's bytes; None in a row that was made from the footer alone.
        fetched: rows that the API returned.
        points_seen: points with a row.
        points_configured: points that were configured when the day was fetched.
        longest_gap_min: the longest time in which no point has a row, in whole minutes.
        interval_s: median time between two rows of a point, in seconds.
        fetched_at: when the day was stored, aware; None in a row that was made from the footer alone.
    """

    day: date
    state: str
    rows: int
    bytes: int
    etag: str | None = None
    sha256: str | None = None
    fetched: int | None = None
    points_seen: int | None = None
    points_configured: int | None = None
    longest_gap_min: int | None = None
    interval_s: float | None = None
    fetched_at: datetime | None = None

    def matches(self, other: "Stat | IndexedDay") -> bool:
        """Whether a listing, or another row, describes the object of this row."""
        return same_object(self.bytes, self.etag, other)

    @property
    def share(self) -> float | None:
        """Points seen of points configured, from 0 to 1; None when it is not known."""
        if self.points_seen is None or not self.points_configured:
            return None
        return self.points_seen / self.points_configured

    def footer(self, site: str) -> Footer:
        """The footer of the object as far as the index contains it: without the figures of each point."""
        about = {"site": site, "day": self.day.isoformat(), "state": self.state}
        about |= {name: str(value) for name in _FIGURES if (value := getattr(self, name)) is not None}
        if self.interval_s is not None:
            about["interval_s"] = repr(self.interval_s)
        return Footer(self.rows, about, columns_right=True, least_bytes=self.bytes)


def describe_day(
    day: date, rows: int, about: Mapping[str, str], stat: Stat, fetched_at: datetime | None = None
) -> IndexedDay:
    """Make the row of a stored day.

    Args:
        day: the UTC day.
        rows: rows of the object.
        about: the metadata of the object's footer.
        stat: the object's size, hash and ETag.
        fetched_at: when the day was stored, aware.
    """
    figures = {name: int(about[name]) if about.get(name, "").isdecimal() else None for name in _FIGURES}
    interval = about.get("interval_s")
    return IndexedDay(
        day,
        about.get("state", "stored"),
        rows,
        stat.bytes,
        stat.etag,
        stat.sha256,
        **figures,
        interval_s=float(interval) if interval else None,
        fetched_at=fetched_at,
    )


def settings_cache(settings: Settings, store: Store) -> IndexCache:
    """The copies of this installation's index objects: a folder below the private one, which may be deleted."""
    return IndexCache(settings.private / "index_cache", store.url(""))


def index_prefix(site: str) -> str:
    """The prefix of the keys of a site's index objects, `index/<site>/`."""
    return f"{INDEX_ROOT}/{file_name(site).removesuffix(SUFFIX)}/"


def read_index_objects(
    store: Store,
    sites: Sequence[str],
    years: Iterable[int],
    cache: IndexCache | None = None,
    listed: Mapping[str, Stat] | None = None,
) -> Iterator[tuple[str, int, str | None, bytes | None]]:
    """Yield site, year, ETag and bytes of each index object; sites in their order, then years.

    Without `cache`, each is one request. With it, one listing of all index objects (a request for each 1,000) shows
    which copies are current, and only the other objects are requested. An object that does not exist has None.

    Args:
        store: where the index is.
        sites: site names.
        years: the years.
        cache: copies on this machine.
        listed: a listing of the index objects, by key; None: it is made here when it saves requests.

    Raises:
        StoreRefusedError, StoreBusyError: the store cannot be read.
    """
    wanted = [(site, year) for site in sites for year in sorted(set(years))]
    if listed is None and cache is not None and len(wanted) >= LISTED_FROM:
        listed = {stat.key: stat for stat in store.list(f"{INDEX_ROOT}/")}

    def read(one: tuple[str, int]) -> tuple[str | None, bytes | None]:
        key = index_key(*one)
        stat = listed.get(key) if listed is not None else None
        if stat is None and listed is not None:
            return None, None
        etag = stat.etag if stat else None
        if cache and etag and (kept := cache.get(key, etag)) is not None:
            return etag, kept
        found = store.read(key)
        if found and cache and etag:
            cache.put(key, etag, found.data)
        return etag, found.data if found else None

    with ThreadPoolExecutor(AT_ONCE) as pool:
        for at in range(0, len(wanted), _BATCH):  # few at once in memory
            part = wanted[at : at + _BATCH]
            for (site, year), (etag, data) in zip(part, pool.map(read, part), strict=True):
                yield site, year, etag, data


def read_indexes(
    store: Store, sites: Sequence[str], years: Iterable[int], cache: IndexCache | None = None
) -> dict[str, dict[date, IndexedDay]]:
    """Read the rows of some sites and years, by site and day.

    An index that does not exist, is damaged or is of another site, year or later version has no rows: the footers have
    the same figures.

    Raises:
        StoreRefusedError, StoreBusyError: the store cannot be read.
    """
    found: dict[str, dict[date, IndexedDay]] = {site: {} for site in sites}
    for site, year, _, data in read_index_objects(store, sites, years, cache):
        found[site].update((row.day, row) for row in _readable(data, site, year))
    return found


def verified_days(
    store: Store,
    sites: Sequence[str],
    days: Collection[date],
    listed: Mapping[str, Stat],
    cache: IndexCache | None = None,
) -> dict[str, set[date]]:
    """Return the days, by site, whose object a run has read back and a listing shows unchanged.

    Args:
        store: where the index is.
        sites: site names.
        days: the UTC days to compare.
        listed: the objects of these days, by key.
        cache: copies of index objects.

    Raises:
        StoreRefusedError, StoreBusyError: the store cannot be read.
    """
    found: dict[str, set[date]] = {site: set() for site in sites}
    prefixes = {day: day_prefix(day) for day in days}
    names = {site: file_name(site) for site in sites}
    for site, year, _, data in read_index_objects(store, sites, {day.year for day in days}, cache):
        table = readable_table(data, site, year, ("bytes", "etag", "sha256", "fetched_at"))
        if table is None or not {"sha256", "fetched_at", "etag"}.issubset(table.column_names):
            continue
        by_run = table.filter(pc.and_(pc.is_valid(table["sha256"]), pc.is_valid(table["fetched_at"])))
        columns = (by_run[name].to_pylist() for name in ("day", "bytes", "etag"))
        for day, size, etag in zip(*columns, strict=True):
            stat = listed.get(f"{prefixes[day]}{names[site]}") if day in prefixes else None
            if stat is not None and same_object(size, etag, stat):
                found[site].add(day)
    return found


def current(
    site: str, days: Iterable[date], rows: Mapping[date, IndexedDay], listed: Mapping[str, Stat]
) -> tuple[dict[date, IndexedDay], list[date]]:
    """Compare the index of a site with a listing of the days' objects.

    Args:
        site: the site.
        days: the UTC days to compare.
        rows: the rows of the index, by day.
        listed: the objects in the store, by key; other keys are ignored.

    Returns:
        The rows whose object the listing shows; and the listed days without such a row, whose footer must be read.
    """
    right: dict[date, IndexedDay] = {}
    stale = []
    for day in days:
        stat = listed.get(object_key(site, day))
        if stat is None:
            continue
        row = rows.get(day)
        if row is not None and row.matches(stat):
            right[day] = row
        else:
            stale.append(day)
    return right, stale


def record_days(store: Store, site: str, rows: Iterable[IndexedDay], *, keep_verified: bool = False) -> None:
    """Write rows of verified days; a new row replaces the row that the day has.

    Args:
        store: where the index is.
        site: the site.
        rows: the rows.
        keep_verified: keep a run's row of the same object: a row that is made from a footer lacks its hash.

    Raises:
        StoreRefusedError, StoreBusyError: the store cannot be written.
    """
    new = {row.day: row for row in rows}

    def changed(known: dict[date, IndexedDay]) -> dict[date, IndexedDay]:
        kept = {day: row for day, row in known.items() if day in new and row.sha256 and row.matches(new[day])}
        return known | new | (kept if keep_verified else {})

    _change(store, site, new, changed)


def forget_days(store: Store, site: str, days: Collection[date]) -> None:
    """Remove the rows of days whose objects were removed.

    Raises:
        StoreRefusedError, StoreBusyError: the store cannot be written.
    """
    _change(store, site, days, lambda known: {day: row for day, row in known.items() if day not in days})


class IndexWriter:
    """Rows of a run's days, written at most every few seconds for each site. Threads of several sites may use it.

    Args:
        store: where the index is.
        warn: called with the site and the error when rows cannot be written; the days stay stored.
        clock: seconds that never go back.
    """

    def __init__(
        self, store: Store, warn: Callable[[str, Exception], None], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._store, self._warn, self._clock = store, warn, clock
        self._lock = threading.Lock()
        self._rows: dict[str, list[IndexedDay]] = {}
        self._since: dict[str, float] = {}

    def add(self, site: str, row: IndexedDay) -> None:
        """Keep a row, and write the rows of the site when the last write is long enough ago."""
        with self._lock:
            self._rows.setdefault(site, []).append(row)
            is_due = self._clock() - self._since.setdefault(site, self._clock()) >= EVERY_S
        if is_due:
            self.flush(site)

    def flush(self, site: str) -> None:
        """Write the rows of a site that are not written yet. It raises nothing."""
        with self._lock:
            rows = self._rows.pop(site, [])
            self._since[site] = self._clock()
        try:
            if rows:
                record_days(self._store, site, rows)
        except Exception as error:  # noqa: BLE001 - derived data: readers read the footers of days without a row
            self._warn(site, error)


def _change(
    store: Store,
    site: str,
    days: Iterable[date],
    change: Callable[[dict[date, IndexedDay]], dict[date, IndexedDay]],
) -> None:
    """Change the index of each year that contains one of the days."""
    for year, _ in groupby(sorted(days), key=lambda day: day.year):

        def changed(data: bytes | None, year: int = year) -> bytes | None:
            try:
                before = decode(data, site, year) if data else []
            except NewerIndexError:
                return None  # the later version writes it; here the footers are read
            except BackfillError:
                before = []
            known = {row.day: row for row in before}
            rows = {day: row for day, row in change(dict(known)).items() if day.year == year}
            return None if rows == known else encode(rows.values(), site, year)

        update(store, index_key(site, year), changed)


def encode(rows: Iterable[IndexedDay], site: str, year: int) -> bytes:
    """Encode the index of a site and year as a Parquet file; the same rows give the same bytes."""
    each = sorted(rows, key=lambda row: row.day)
    schema = SCHEMA.with_metadata({"site": site, "year": str(year), "index_version": str(VERSION)})
    table = pa.table({name: [getattr(row, name) for row in each] for name in schema.names}, schema=schema)
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    data: bytes = sink.getvalue().to_pybytes()
    return data


def decode(data: bytes, site: str, year: int) -> list[IndexedDay]:
    """Decode the rows of an index; columns that it lacks are not known.

    Raises:
        DamagedObjectError: the bytes are not the index of this site and year.
        NewerIndexError: a later version wrote the index.
    """
    try:
        return rows_of(decode_table(data, site, year))
    except (pa.ArrowException, ValueError, TypeError) as error:
        raise _damaged(str(error)) from error


def rows_of(table: Any) -> list[IndexedDay]:
    """The rows of a decoded table."""
    return [IndexedDay(**row) for row in table.to_pylist()]


def decode_table(data: bytes, site: str, year: int, columns: Collection[str] = SCHEMA.names) -> Any:
    """Decode columns of an index as an Arrow table; `day` is always one of them, and columns that it lacks are not.

    Raises:
        DamagedObjectError, NewerIndexError: as `decode`.
    """
    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        about = {key.decode(): value.decode() for key, value in (file.schema_arrow.metadata or {}).items()}
        version = about.get("index_version", "1")
        if not version.isdecimal() or int(version) > VERSION:
            raise NewerIndexError(f"the index has version {version[:20]}, this program reads up to {VERSION}")
        if about.get("site", site) != site or about.get("year", str(year)) != str(year):
            raise _damaged(f"it is the index of {about.get('site')} and {about.get('year')}")
        there = file.schema_arrow.names
        kept = pa.schema([one for one in SCHEMA if one.name in there and (one.name == "day" or one.name in columns)])
        table = file.read(columns=kept.names, use_threads=False)  # threads take longer than so few rows
        table = table.replace_schema_metadata(None)
        table = table if table.schema.equals(kept) else table.select(kept.names).cast(kept)
    except (pa.ArrowException, OSError, ValueError, TypeError) as error:
        raise _damaged(str(error)) from error
    if table.num_rows:
        ends = pc.min_max(table["day"]).as_py()
        if ends["min"] is None or ends["min"].year != year or ends["max"].year != year:
            raise _damaged("it has days of other years")
    return table


def readable_table(data: bytes | None, site: str, year: int, columns: Collection[str] = SCHEMA.names) -> Any:
    """As `decode_table`; None for an index that does not exist or cannot be used."""
    try:
        return decode_table(data, site, year, columns) if data else None
    except BackfillError:
        return None


def _damaged(why: str) -> DamagedObjectError:
    return DamagedObjectError(f"not an index of days ({(why.splitlines() or [''])[0][:120]})")


def _readable(data: bytes | None, site: str, year: int) -> list[IndexedDay]:
    try:
        return decode(data, site, year) if data else []
    except BackfillError:
        return []
