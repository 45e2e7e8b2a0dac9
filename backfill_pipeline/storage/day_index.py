"""The index of stored days: `index/<site>/YYYY.parquet`, one row for each stored day of a site and year.

One request returns what the footers of a year's objects contain. Runs write the index after days are verified. It can
be rebuilt from the objects alone. A row counts only while a listing shows the same object: `current`.

Put here: the columns, and how rows are written, read, compared with a listing and removed. Keep out: the listing
(`comparison.py`), footers (`parquet.py`, `days.py`) and who rebuilds the index (`coverage/footers.py`).
"""

import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from datetime import date, datetime
from itertools import groupby

import pyarrow as pa
import pyarrow.parquet as pq

from backfill_pipeline.core.object_keys import index_key, object_key
from backfill_pipeline.errors import BackfillError, DamagedObjectError
from backfill_pipeline.storage.parquet import Footer
from backfill_pipeline.storage.shared_object import update
from backfill_pipeline.storage.store import Stat, Store

AT_ONCE = 32
"""Index objects that are read side by side."""

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

    def matches(self, listed: Stat) -> bool:
        """Whether a listing shows the object that this row describes: same size and same ETag."""
        return self.bytes == listed.bytes and self.etag is not None and self.etag == listed.etag

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


def read_indexes(store: Store, sites: Sequence[str], years: Iterable[int]) -> dict[str, dict[date, IndexedDay]]:
    """Read the rows of some sites and years, by site and day: one request for each site and year.

    An index that does not exist or is damaged has no rows: the footers have the same figures.

    Raises:
        StoreRefusedError, StoreBusyError: the store cannot be read.
    """
    wanted = [(site, year) for site in sites for year in sorted(set(years))]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        read = pool.map(lambda one: store.read(index_key(*one)), wanted)
        found: dict[str, dict[date, IndexedDay]] = {site: {} for site in sites}
        for (site, _), part in zip(wanted, read, strict=True):
            found[site].update((row.day, row) for row in _readable(part.data if part else None))
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


def record_days(store: Store, site: str, rows: Iterable[IndexedDay]) -> None:
    """Write rows of verified days; a new row replaces the row that the day has.

    Raises:
        StoreRefusedError, StoreBusyError: the store cannot be written.
    """
    new = {row.day: row for row in rows}
    _change(store, site, new, lambda known: known | new)


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
            known = {row.day: row for row in _readable(data)}
            rows = {day: row for day, row in change(dict(known)).items() if day.year == year}
            return None if rows == known else encode(rows.values())

        update(store, index_key(site, year), changed)


def encode(rows: Iterable[IndexedDay]) -> bytes:
    """Encode the index of a year as a Parquet file; the same rows give the same bytes."""
    each = sorted(rows, key=lambda row: row.day)
    table = pa.table({name: [getattr(row, name) for row in each] for name in SCHEMA.names}, schema=SCHEMA)
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    data: bytes = sink.getvalue().to_pybytes()
    return data


def decode(data: bytes) -> list[IndexedDay]:
    """Decode the rows of an index; columns that it lacks are not known.

    Raises:
        DamagedObjectError: the bytes are not an index.
    """
    try:
        table = pq.read_table(pa.BufferReader(data))
        known = [column.name for column in fields(IndexedDay) if column.name in table.column_names]
        return [IndexedDay(**row) for row in table.select(known).to_pylist()]
    except (pa.ArrowException, OSError, ValueError, TypeError) as error:
        raise DamagedObjectError(f"not an index of days ({str(error).splitlines()[0][:120]})") from error


def _readable(data: bytes | None) -> list[IndexedDay]:
    try:
        return decode(data) if data else []
    except BackfillError:
        return []
