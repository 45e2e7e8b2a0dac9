"""The index of stored days: `index/<site>/YYYY.parquet`, a row for each stored day of a site and year.

A reader learns from one request what a year of a site holds. The index is written after a day is verified, can be
rebuilt from the objects alone, and is never believed against them: `differences` holds it against a listing.

Put here: the columns, how rows are recorded, read, compared and rebuilt. Keep out: the listing itself
(`storage/comparison.py`) and what a footer says (`storage/parquet.py`).
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from datetime import date, datetime
from itertools import groupby

import pyarrow as pa
import pyarrow.parquet as pq

from backfill_pipeline.core.layout import index_key
from backfill_pipeline.errors import DamagedObjectError
from backfill_pipeline.storage.parquet import Footer
from backfill_pipeline.storage.shared_object import update
from backfill_pipeline.storage.store import Stat, Store

AT_ONCE = 16
"""Objects of an index read side by side."""

SCHEMA = pa.schema(
    [
        pa.field("day", pa.date32(), nullable=False),
        pa.field("state", pa.string(), nullable=False),
        pa.field("rows", pa.int64(), nullable=False),
        pa.field("bytes", pa.int64(), nullable=False),
        pa.field("sha256", pa.string()),
        pa.field("etag", pa.string()),
        pa.field("fetched", pa.int64()),
        pa.field("points_seen", pa.int64()),
        pa.field("points_configured", pa.int64()),
        pa.field("longest_gap_min", pa.int64()),
        pa.field("interval_s", pa.float64()),
        pa.field("failed_checks", pa.list_(pa.string())),
        pa.field("fetched_at", pa.timestamp("ms", "UTC")),
    ]
)
"""The index's columns, in their order; rows are sorted by `day`."""


@dataclass(frozen=True, slots=True)
class IndexedDay:
    """What the index says of one stored day. What is not known is None.

    Attributes:
        day: the UTC day.
        state: `stored`, or `empty` when the object has no rows.
        rows: rows of the object.
        bytes: its size.
        sha256: of its bytes.
        etag: the store's mark of it, as a listing reports it.
        fetched: rows that the API sent.
        points_seen: points with a row.
        points_configured: points that were configured when it was fetched.
        longest_gap_min: the longest time in which no point has a row, in whole minutes.
        interval_s: median time between two rows of a point, in seconds.
        failed_checks: names of the checks that did not pass; None when the day was not checked.
        fetched_at: when it was stored, aware.
    """

    day: date
    state: str
    rows: int
    bytes: int
    sha256: str | None = None
    etag: str | None = None
    fetched: int | None = None
    points_seen: int | None = None
    points_configured: int | None = None
    longest_gap_min: int | None = None
    interval_s: float | None = None
    failed_checks: tuple[str, ...] | None = None
    fetched_at: datetime | None = None

    def agrees(self, listed: Stat) -> bool:
        """Whether a listing shows the object that this row describes."""
        same_mark = self.etag is None or listed.etag is None or self.etag == listed.etag
        return self.bytes == listed.bytes and same_mark


@dataclass(frozen=True, slots=True)
class Differences:
    """What a listing of the days shows that the index does not, by day.

    Attributes:
        unknown: objects that the index lacks.
        changed: objects of another size, or another mark, than the index says.
        gone: rows of the index whose object is not there.
    """

    unknown: frozenset[date] = field(default=frozenset())
    changed: frozenset[date] = field(default=frozenset())
    gone: frozenset[date] = field(default=frozenset())

    @property
    def stale(self) -> frozenset[date]:
        """Days whose row has to be made again, or removed."""
        return self.unknown | self.changed | self.gone


def described_day(day: date, footer: Footer, stat: Stat, fetched_at: datetime | None = None) -> IndexedDay:
    """Describe a stored day by its object's footer.

    Args:
        day: the UTC day.
        footer: the object's; figures that an older object does not have are None.
        stat: its size, hash and mark.
        fetched_at: when it was stored, aware.
    """
    interval = footer.about.get("interval_s")
    return IndexedDay(
        day,
        "empty" if footer.is_empty else "stored",
        footer.rows,
        stat.bytes,
        stat.sha256,
        stat.etag,
        _whole(footer, "fetched"),
        _whole(footer, "points_seen"),
        _whole(footer, "points_configured"),
        _whole(footer, "longest_gap_min"),
        interval_s=float(interval) if interval else None,
        fetched_at=fetched_at,
    )


def read_index(store: Store, site: str, years: Iterable[int]) -> dict[date, IndexedDay]:
    """Read what the index says of a site's days, by day; one request a year.

    A year without an index, or with one that cannot be read, says nothing: it is derived data.

    Raises:
        StoreRefusedError, StoreBusyError: the store cannot be read.
    """
    keys = [index_key(site, year) for year in sorted(set(years))]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = list(pool.map(store.read, keys))
    return {row.day: row for part in found if part is not None for row in _decoded_or_none(part.data)}


def record_days(store: Store, site: str, rows: Sequence[IndexedDay]) -> None:
    """Write rows of days that were verified just now; of a day that has a row, the new one counts.

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


def differences(known: Mapping[date, IndexedDay], listed: Mapping[date, Stat]) -> Differences:
    """Hold the index of a site against a listing of its days.

    Args:
        known: the rows of the days in question, by `read_index`.
        listed: the objects that the store lists, by day.
    """
    return Differences(
        unknown=frozenset(listed.keys() - known.keys()),
        changed=frozenset(day for day in listed.keys() & known.keys() if not known[day].agrees(listed[day])),
        gone=frozenset(known.keys() - listed.keys()),
    )


def _change(
    store: Store,
    site: str,
    days: Iterable[date],
    change: Callable[[dict[date, IndexedDay]], dict[date, IndexedDay]],
) -> None:
    """Change the objects of those years in which the days lie, each for itself."""
    for year, _ in groupby(sorted(days), key=lambda day: day.year):

        def changed(data: bytes | None, year: int = year) -> bytes | None:
            known = {row.day: row for row in _decoded_or_none(data or b"")}
            rows = {day: row for day, row in change(known).items() if day.year == year}
            return None if rows == known else encode(rows.values())

        update(store, index_key(site, year), changed)


def encode(rows: Iterable[IndexedDay]) -> bytes:
    """The index of a year as the bytes of a Parquet file; the same rows give the same bytes."""
    each = sorted(rows, key=lambda row: row.day)
    table = pa.table({name: [getattr(row, name) for row in each] for name in SCHEMA.names}, schema=SCHEMA)
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", store_schema=True)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def decode(data: bytes) -> list[IndexedDay]:
    """The rows of an index's bytes; columns that it lacks are not known.

    Raises:
        DamagedObjectError: it is not an index.
    """
    try:
        table = pq.read_table(pa.BufferReader(data))
        known = [column.name for column in fields(IndexedDay) if column.name in table.column_names]
        rows = []
        for row in table.select(known).to_pylist():
            checks = row.get("failed_checks")
            row["failed_checks"] = None if checks is None else tuple(checks)
            rows.append(IndexedDay(**row))
    except (pa.ArrowException, OSError, ValueError, TypeError) as error:
        raise DamagedObjectError(f"not an index of days ({str(error).splitlines()[0][:120]})") from error
    return rows


def _decoded_or_none(data: bytes) -> list[IndexedDay]:
    try:
        return decode(data) if data else []
    except DamagedObjectError:
        return []


def _whole(footer: Footer, name: str) -> int | None:
    text = footer.about.get(name, "")
    return int(text) if text.isdecimal() else None
