"""Hourly values in the store: `rollup/hour/YYYY/MM/<site>.parquet`, one object a site and month.

They are derived data. For each day, the footer has the hash of the rows that the hourly values were computed from. The
hourly values of a day that was stored again with other rows are not used. Put here: encoding, building and reading.
Keep out: how the values are computed (`core/hourly_values.py`) and when they are built (`orchestration/rollup.py`).
"""

import json
from calendar import monthrange
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from backfill_pipeline.core.day import DAY_MS, day_window
from backfill_pipeline.core.hourly_values import HOUR_MS, group_figures
from backfill_pipeline.core.object_keys import object_key, rollup_key
from backfill_pipeline.errors import DamagedObjectError
from backfill_pipeline.storage.comparison import list_days
from backfill_pipeline.storage.days import checked_footer, get_samples, put_verified
from backfill_pipeline.storage.parquet import read_footer
from backfill_pipeline.storage.store import Stat, Store
from backfill_pipeline.storage.texts import object_end

SCHEMA = pa.schema(
    [
        pa.field("timestamp", pa.int64(), nullable=False),
        pa.field("point_name", pa.string(), nullable=False),
        *(pa.field(name, pa.float64(), nullable=False) for name in ("mean", "min", "max", "last")),
        pa.field("count", pa.int64(), nullable=False),
        pa.field("site_name", pa.string(), nullable=False),
    ]
)
"""Columns of an object of hourly values; `timestamp` is the start of the UTC hour in Unix milliseconds."""

ROW_GROUP_ROWS = 16_384
"""Rows of a row group: about 22 points of a month, so that reading a few points reads little."""

_READS_AT_ONCE = 16

_DAYS_AT_ONCE = 2
"""Days that are in memory at once while hourly values are computed."""


@dataclass(frozen=True, slots=True)
class RollupDay:
    """A day that hourly values were computed from.

    Attributes:
        bytes: the size of its object.
        etag: the store's mark of the object, as a listing reported it; None where it reports none.
        data_sha256: the hash of its rows, from its footer.
    """

    bytes: int
    etag: str | None
    data_sha256: str


@dataclass(frozen=True, slots=True)
class Rollup:
    """A month of hourly values that was built.

    Attributes:
        key: its object key.
        rows: its rows, one for each point and hour with samples.
        bytes: its size.
        days: the days that it was computed from.
        changed: whether the object differs from the one that was there before.
    """

    key: str
    rows: int
    bytes: int
    days: tuple[date, ...]
    changed: bool


def build_rollup(
    store: Store, site: str, month: date, *, progress: Callable[[int, int], None] | None = None
) -> Rollup | None:
    """Compute the hourly values of a month from its stored days, and store them.

    Args:
        store: where the days are.
        site: the site.
        month: any day of the month.
        progress: called with the number of days read and of all days, after each day.

    Returns:
        The object; None when no day of the month is stored. Hourly values of days that were removed are then deleted.

    Raises:
        DamagedObjectError: a day is damaged.
        StoreRefusedError, StoreBusyError: the store cannot be read or written.
    """
    first = month.replace(day=1)
    key = rollup_key(site, first)
    listed = list_days(store, first, month_end(first))
    days = [day for day in month_days(first) if object_key(site, day) in listed]
    if not days:
        store.delete(key)
        return None
    sources, tables = {}, []

    def of_day(day: date) -> tuple[Any, str] | None:
        try:
            rows, footer = get_samples(store, site, day)
        except FileNotFoundError:  # removed since it was listed
            return None
        return hourly_table(rows, site), footer.about.get("data_sha256", "")

    with ThreadPoolExecutor(_DAYS_AT_ONCE) as pool:
        for number, (day, found) in enumerate(zip(days, pool.map(of_day, days), strict=True), 1):
            if found is not None:
                table, digest = found
                stat = listed[object_key(site, day)]
                sources[day] = RollupDay(stat.bytes, stat.etag, digest)
                tables.append(table)
            if progress:
                progress(number, len(days))
    table = pa.concat_tables([SCHEMA.empty_table(), *tables]).sort_by(
        [("point_name", "ascending"), ("timestamp", "ascending")]
    )
    data = encode(table, site, first, sources)
    put = put_verified(store, key, data)
    if not put.is_whole:
        raise DamagedObjectError(
            f"{store.url(key)} does not match what was written: its size or its hash differs",
            hint="materialize the asset of the hourly values of this month again",
            site=site,
        )
    return Rollup(key, len(table), len(data), tuple(sources), put.changed)


def hourly_table(rows: Any, site: str) -> Any:
    """The hourly values of a day's rows, as a table of `SCHEMA`.

    Args:
        rows: the samples of a day, sorted by point and time, as `get_samples` returns them.
        site: the site.
    """
    names = rows["point_name"].combine_chunks()
    hour = rows["timestamp"].to_numpy() // HOUR_MS
    code = names.indices.to_numpy()
    found = group_figures(code, hour, rows["value"].to_numpy())
    columns = [
        pa.array(hour[found.begin] * HOUR_MS, pa.int64()),
        names.dictionary.take(pa.array(code[found.begin])),
        *(pa.array(values, pa.float64()) for values in (found.mean, found.min, found.max, found.last)),
        pa.array(found.count, pa.int64()),
        pa.repeat(pa.scalar(site, pa.string()), len(found.begin)),
    ]
    return pa.table(columns, schema=SCHEMA)


def encode(table: Any, site: str, month: date, days: Mapping[date, RollupDay]) -> bytes:
    """Hourly values as the bytes of a Parquet file; the same values give the same bytes."""
    sources = {day.isoformat(): [one.bytes, one.etag, one.data_sha256] for day, one in sorted(days.items())}
    about = {"site": site, "month": f"{month:%Y-%m}", "days": json.dumps(sources, separators=(",", ":"))}
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(
        sink,
        SCHEMA,
        compression="zstd",
        use_dictionary=["point_name", "min", "max", "last", "count", "site_name"],
        column_encoding={"timestamp": "DELTA_BINARY_PACKED", "mean": "BYTE_STREAM_SPLIT"},
        store_schema=False,
        write_page_index=True,
        sorting_columns=[pq.SortingColumn(1), pq.SortingColumn(0)],
    ) as writer:
        writer.write_table(table, row_group_size=ROW_GROUP_ROWS)
        writer.add_key_value_metadata({key: value.encode("utf-8", "surrogatepass") for key, value in about.items()})
    data: bytes = sink.getvalue().to_pybytes()
    return data


def rollup_days(store: Store, site: str, month: date) -> dict[date, RollupDay]:
    """The days that a month of hourly values was computed from; empty when there is no readable object.

    Raises:
        StoreRefusedError, StoreBusyError: the store cannot be read.
    """
    try:
        footer = read_footer(object_end(store, rollup_key(site, month)), SCHEMA)
        if (
            not footer.columns_right
            or footer.about.get("site") != site
            or footer.about.get("month") != f"{month:%Y-%m}"
        ):
            return {}
        days = json.loads(footer.about["days"])
        return {date.fromisoformat(day): RollupDay(*one) for day, one in days.items()}
    except (FileNotFoundError, DamagedObjectError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def rollup_sources(store: Store, site: str, days: Collection[date]) -> dict[date, RollupDay]:
    """What the stored hourly values of the months of some days were computed from, by day.

    Raises:
        StoreRefusedError, StoreBusyError: the store cannot be read.
    """
    months = sorted({day.replace(day=1) for day in days})
    with ThreadPoolExecutor(_READS_AT_ONCE) as pool:
        parts = pool.map(lambda month: rollup_days(store, site, month), months)
        return {day: one for part in parts for day, one in part.items()}


def current_days(
    store: Store, site: str, days: Collection[date], listed: Mapping[str, Stat], sources: Mapping[date, RollupDay]
) -> list[date]:
    """Those days whose stored hourly values were computed from the rows that are stored now.

    A day whose object has the same size and mark (ETag) as then is current. For any other day, the footer is read and
    the hashes of the rows are compared.

    Args:
        store: where the objects are.
        site: the site.
        days: stored days.
        listed: the listed objects of these days, by key.
        sources: what the hourly values were computed from, as `rollup_sources` returns it.

    Raises:
        DamagedObjectError: a day is damaged.
        StoreRefusedError, StoreBusyError: the store cannot be read.
    """

    def is_current(day: date) -> bool:
        stat, source = listed[object_key(site, day)], sources[day]
        if stat.etag is not None and (stat.bytes, stat.etag) == (source.bytes, source.etag):
            return True
        try:
            digest = checked_footer(store, site, day).about.get("data_sha256")
        except FileNotFoundError:
            return False
        return bool(digest) and digest == source.data_sha256

    candidates = sorted(sources.keys() & set(days))
    with ThreadPoolExecutor(_READS_AT_ONCE) as pool:
        return [day for day, current in zip(candidates, pool.map(is_current, candidates), strict=True) if current]


def read_hours(store: Store, site: str, days: Sequence[date], points: Sequence[str]) -> Any:
    """The stored hourly values of some points on some days, in any order.

    Args:
        store: where they are.
        site: the site.
        days: days, one or more, that `current_days` returned.
        points: names of points.

    Returns:
        A `pyarrow.Table` with the columns of `SCHEMA` but `site_name`.
    """
    import polars as pl  # noqa: PLC0415 - takes long to import

    months = sorted({day.replace(day=1) for day in days})
    frame = pl.scan_parquet(
        [store.url(rollup_key(site, month)) for month in months],
        glob=False,
        hive_partitioning=False,
        storage_options=store.reader_options(),
    )
    table = frame.filter(pl.col("point_name").is_in(list(points))).select(SCHEMA.names[:-1]).collect().to_arrow()
    wanted = np.array([day_window(day).start * 1000 // DAY_MS for day in days])
    return table.filter(pa.array(np.isin(table["timestamp"].to_numpy() // DAY_MS, wanted)))


def month_end(month: date) -> date:
    """The last day of a month."""
    return month.replace(day=monthrange(month.year, month.month)[1])


def month_days(month: date) -> list[date]:
    """All days of a month."""
    return [month.replace(day=1) + timedelta(days=n) for n in range(month_end(month).day)]
