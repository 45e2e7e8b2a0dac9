"""Reading for analysts: samples of a site between two instants, and what its points are, of the objects alone.

    from backfill_pipeline import read
    read.points("my_site", words="zone temp")  # names, units, descriptions, tags, devices
    june = read.samples("my_site", start, end, points=["a/b/c"])
    june.pandas(); june.polars(); june.arrow(); june.resampled(timedelta(hours=1))
    read.texts("my_site", start, end)  # values such as "active"; read.states(...) as categories and numbers

Put here: what is asked for in instants and names. Keep out: encodings and stores (`storage/`), and Dagster.
"""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from difflib import get_close_matches
from functools import lru_cache
from itertools import groupby
from typing import TYPE_CHECKING, Any, Literal
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.compute as pc

from backfill_pipeline.core.day import DAY_MS, day_window, days_between
from backfill_pipeline.core.hourly_values import HOUR_MS
from backfill_pipeline.core.local_time import Unit, interval_starts
from backfill_pipeline.core.object_keys import TEXT_ROOT, object_key, text_key
from backfill_pipeline.core.point_catalogue import PointSpan, at_instant, matches, to_table
from backfill_pipeline.core.point_states import StateNumbers
from backfill_pipeline.core.point_summaries import PointDays
from backfill_pipeline.dataset.chart import FIGURES, Chart, Figures, Series, Source, column_span, columns
from backfill_pipeline.dataset.point_catalogue import read_catalogue
from backfill_pipeline.dataset.rollup import current_days, read_hours, rollup_sources
from backfill_pipeline.errors import DamagedObjectError, SettingError, StoreRefusedError, UsageError, quoted
from backfill_pipeline.settings import Settings
from backfill_pipeline.storage.comparison import list_days
from backfill_pipeline.storage.day_index import current as current_rows
from backfill_pipeline.storage.day_index import read_indexes
from backfill_pipeline.storage.days import damaged, get_day, scan_days, settings_store, stored_footers
from backfill_pipeline.storage.store import Stat, Store
from backfill_pipeline.storage.texts import get_texts

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SQL = {"mean": "avg(value)", "min": "min(value)", "max": "max(value)", "last": "arg_max(value, ms)"}

_TEXTS = pa.schema([("timestamp", pa.timestamp("ms", "UTC")), ("point_name", pa.string()), ("text", pa.string())])
"""Columns of `texts`."""

_DESCRIBED = ("unit", "description", "object_name", "device_name")
"""Columns of the points' catalogue that `Samples.described` adds."""

_LOCAL: dict[int, Unit] = {HOUR_MS: "hour", DAY_MS: "day"}
"""Lengths that local time is divided by, in milliseconds."""

_FOOTERS = 32
"""Footers that are read side by side to find a point that the newest day does not know."""

How = Literal["mean", "min", "max", "last"]
_MEAN: tuple[How, ...] = ("mean",)

SITE_ZONE = "site"
"""The `tz` that stands for the time zone of the site."""


@dataclass(frozen=True)
class Samples:
    """Samples that were asked for; nothing is read before one of its methods is called.

    Columns: `timestamp` (milliseconds, in `tz`), `point_name`, `value` (float64). Rows come day by day, within a day by
    point and time; those of one point are in the order of time.

    Attributes:
        site: the site.
        start: first instant, aware.
        end: the instant after the last, aware.
        points: the points' names; None: all.
        days: the stored days that the span touches.
        missing: the days that it touches and that are not stored.
        tz: the IANA name of the time zone of the timestamps.
    """

    site: str
    start: datetime
    end: datetime
    points: tuple[str, ...] | None
    days: tuple[date, ...]
    missing: tuple[date, ...]
    _store: Store
    tz: str = "UTC"

    def polars(self) -> "pl.LazyFrame":
        """A lazy frame: of each day only the row groups, columns and pages are read that a query needs."""
        import polars as pl  # noqa: PLC0415 - takes long to import, and not every reader asks for it

        if not self.days:
            empty = pl.LazyFrame(schema={"timestamp": pl.Int64, "point_name": pl.String, "value": pl.Float64})
            return empty.with_columns(pl.col("timestamp").cast(pl.Datetime("ms", self.tz)))
        ms = pl.col("timestamp")
        wanted = (ms >= _first_ms(self.start)) & (ms < _first_ms(self.end))
        if self.points is not None:
            name = pl.col("point_name")
            wanted &= name == self.points[0] if len(self.points) == 1 else name.is_in(list(self.points))
        frame: pl.LazyFrame = scan_days(self._store, self.site, self.days).filter(wanted)
        return frame.select(ms.cast(pl.Datetime("ms", self.tz)), "point_name", "value")

    def described(self) -> "pl.LazyFrame":
        """As `polars`, with `unit`, `description`, `object_name` and `device_name` of each sample's point.

        They are those that were valid at the sample's own instant, as `points` gives them; null for a point that the
        site's catalogue does not name.
        """
        import polars as pl  # noqa: PLC0415 - as above

        instant = pl.Datetime("ms", "UTC")
        schema: dict[str, Any] = {"point_name": pl.String, "begin": instant, "end": instant}
        schema |= dict.fromkeys(_DESCRIBED, pl.String)
        rows = list(_whole_time(read_catalogue(self._store, self.site)))
        joined = self.polars().join(
            pl.LazyFrame(rows, schema=schema), on="point_name", how="left", maintain_order="left"
        )
        time, begin, end = pl.col("timestamp").dt.convert_time_zone("UTC"), pl.col("begin"), pl.col("end")
        valid = begin.is_null() | ((begin <= time) & (end.is_null() | (time < end)))
        return joined.filter(valid).select("timestamp", "point_name", "value", *_DESCRIBED)

    def arrow(self) -> Any:
        """A `pyarrow.Table`."""
        try:
            table = self.polars().collect().to_arrow()
        except Exception as error:
            found = self._damaged()
            if found is None:
                raise
            raise found from error
        return table.cast(
            pa.schema(
                [("timestamp", pa.timestamp("ms", self.tz)), ("point_name", pa.string()), ("value", pa.float64())]
            )
        )

    def _damaged(self) -> DamagedObjectError | None:
        """The first day whose object is damaged, found by reading all of it after a query failed; None: no day."""
        for day in self.days:
            try:
                get_day(self._store, self.site, day)
            except DamagedObjectError as error:
                return error
            except FileNotFoundError:
                return damaged(self._store, self.site, day, ["it was deleted while it was read"])
        return None

    def pandas(self) -> "pd.DataFrame":
        """A pandas frame."""
        frame: pd.DataFrame = self.arrow().to_pandas()
        return frame

    def resampled(self, every: timedelta | Unit, how: Collection[How] = _MEAN) -> Any:
        """One row for each point and interval that has a sample, computed by DuckDB.

        Intervals are half-open. The first and the last contain only samples between `start` and `end`.

        Args:
            every: `hour`, `day` or `month`, which are those of the time zone `tz`; or an interval's length in whole
                milliseconds, counted from 1970-01-01 00:00 UTC. With another time zone than UTC, a length of one hour
                or of one day is the local hour or day, and no other length is allowed.
            how: of `mean`, `min`, `max` and `last`; a column each, in this order.

        Returns:
            A `pyarrow.Table`: `timestamp` (the interval's start), `point_name`, `samples` and one column for each
            figure, sorted by point and time.

        Raises:
            UsageError: the interval or a figure is not valid.
        """
        import duckdb  # noqa: PLC0415 - takes long to import

        interval = self._interval(every)
        unknown = sorted(set(how) - set(_SQL))
        if unknown or not how:
            raise UsageError(f"cannot resample to {', '.join(unknown) or 'nothing'}: one or more of {', '.join(_SQL)}")
        figures = ", ".join(f"{_SQL[name]} AS {name}" for name in how)
        rows = self.arrow()
        rows = rows.set_column(0, "ms", rows["timestamp"].cast(pa.int64()))
        ms = rows["ms"].to_numpy()
        if isinstance(interval, int):
            begin = ms // interval * interval
        else:
            begin = interval_starts(ms, interval, ZoneInfo(self.tz))
        rows = rows.append_column("interval_start", pa.array(begin, pa.int64()))
        with duckdb.connect() as database:
            database.register("samples_read", rows)
            found = database.sql(
                f"SELECT interval_start AS timestamp, point_name, count(*) AS samples, {figures} "  # noqa: S608 - our own words
                "FROM samples_read GROUP BY ALL ORDER BY point_name, timestamp"
            ).to_arrow_table()
        return found.set_column(0, "timestamp", found["timestamp"].cast(pa.timestamp("ms", self.tz)))

    def _interval(self, every: timedelta | Unit) -> int | Unit:
        """An interval as milliseconds from 1970 UTC, or as a unit of local time.

        Raises:
            UsageError: the interval is not valid.
        """
        if isinstance(every, str):
            if every not in ("hour", "day", "month"):
                raise UsageError(
                    f"cannot resample by {every!r}", hint="write a timedelta, or one of hour, day and month"
                )
            return every
        step, rest = divmod(every, timedelta(milliseconds=1))
        if step < 1 or rest:
            raise UsageError(f"cannot resample by {every}: an interval is one or more whole milliseconds")
        if self.tz == "UTC":
            return step
        if step not in _LOCAL:
            raise UsageError(
                f"cannot resample by {every} in the time zone {self.tz}",
                hint="use hour, day or month, or read the samples without tz",
            )
        return _LOCAL[step]


def samples(
    site: str,
    start: datetime,
    end: datetime,
    *,
    points: str | Collection[str] | None = None,
    tz: str | None = None,
    settings: Settings | None = None,
) -> Samples:
    """Samples of a site with `start <= timestamp < end`.

    Finds the days by a listing of the store and the site's index of stored days. Reads the footer only of a day whose
    object differs from the index: the footer shows whether the object is whole and of this site and day. Days that are
    not stored are left out, and named in `missing`: all of them, for a site that is not in the store.

    Args:
        site: the site, as ACE spells it.
        start: first instant, aware, of any time zone.
        end: the instant after the last, aware.
        points: a point's name, or several; None: all points.
        tz: the IANA name of the time zone of the timestamps and of `resampled`, such as `Europe/Berlin`; `site`: the
            site's own, as `BACKFILL_TIME_ZONES` says; None: UTC.
        settings: they name the store; the environment's and `.env`'s when None.

    Raises:
        UsageError: an instant is not valid or has no time zone, `end` is not later than `start`, `tz` is not a time
            zone, `points` is empty, or no stored day of the span knows a point.
        DamagedObjectError: the object of a day is cut, or of another site or day; the error names both.
        SettingError, StoreRefusedError, StoreBusyError: the store cannot be read.
    """
    names, settings = _asked(start, end, points), settings or Settings.load()
    return _samples(settings_store(settings), site, start, end, names, _zone(tz, site, settings))


def _samples(
    store: Store, site: str, start: datetime, end: datetime, names: tuple[str, ...] | None, zone: str = "UTC"
) -> Samples:
    days = _days(start, end)
    stored = _stored(store, site, days, list_days(store, days[0], days[-1]))
    missing = tuple(day for day in days if day not in stored)
    if names is not None:
        _known(store, site, stored, names)
    return Samples(site, start, end, names, stored, missing, store, zone)


def chart(
    site: str,
    points: str | Collection[str],
    start: datetime,
    end: datetime,
    *,
    width: int = 1000,
    tz: str | None = None,
    settings: Settings | None = None,
) -> Chart:
    """Series of points for a chart that is `width` pixels wide.

    Each series has at most one row for each pixel column, and one for each gap. A column keeps the extremes of all its
    samples. Columns of an hour or longer are made of stored hourly values, where these are current, and of samples for
    all other days. A gap is a pause between samples that is longer than 3 intervals of the point (the median), than 2
    hours and than 2 columns.

    Args:
        site: the site, as ACE spells it.
        points: a point's name, or several.
        start: first instant, aware, of any time zone.
        end: the instant after the last, aware.
        width: columns, 1 or more.
        tz: the time zone of the timestamps, as of `samples`.
        settings: they name the store; the environment's and `.env`'s when None.

    Raises:
        UsageError: as `samples`, or `width` or `tz` is not valid.
        SettingError, DamagedObjectError, StoreRefusedError, StoreBusyError: as `samples`.
    """
    if isinstance(width, bool) or not isinstance(width, int) or width < 1:
        raise UsageError(f"width {width!r} is not a number of columns", hint="write a whole number, 1 or more")
    settings = settings or Settings.load()
    zone = _zone(tz, site, settings)
    names = tuple(dict.fromkeys(_asked(start, end, points) or ()))
    first, last = _first_ms(start), _first_ms(end)
    column_ms = column_span(first, last, width)
    store = _open_store(_Key(settings))
    with ThreadPoolExecutor(1) as pool:
        catalogue = pool.submit(read_catalogue, store, site)
        sources: dict[date, Source]
        if column_ms % HOUR_MS:
            found = _samples(store, site, start, end, names)
            figures, sources = _sample_figures(found, names), dict.fromkeys(found.days, "raw")
        else:
            found, figures, sources = _hour_figures(store, site, start, end, names)
            first -= first % HOUR_MS
        spans = {span.name: span for span in at_instant(catalogue.result(), None)}
    silent = [name for name in names if not len(figures[name].ms) and name not in spans]
    if silent:  # hourly values do not name points without samples: footers do
        days = sorted(sources)
        _known(store, site, days, silent)
    series = []
    for name in names:
        span = spans.get(name)
        unit, description = (span.unit, span.description) if span else (None, None)
        series.append(Series(name, unit, description, columns(figures[name], first, column_ms, zone)))
    return Chart(site, start, end, column_ms, tuple(series), found.missing, sources)


class _Key:
    """Settings as the key of an open store: equal when all settings are equal."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key) and self.settings == other.settings

    def __hash__(self) -> int:
        return hash(self.settings.store)


@lru_cache(maxsize=4)
def _open_store(key: _Key) -> Store:
    """The store of the settings, kept open: to open a bucket takes longer than a request."""
    return settings_store(key.settings)


def _hour_figures(
    store: Store, site: str, start: datetime, end: datetime, names: tuple[str, ...]
) -> tuple[Samples, dict[str, Figures], dict[date, Source]]:
    """Hourly figures of points: stored ones of the days for which these are current, else computed from samples.

    Returns:
        The samples of the other days; the figures by point; by day what they come from.
    """
    first, last = _first_ms(start), _first_ms(end)
    days = _days(start, end)
    with ThreadPoolExecutor(1) as pool:
        listing = pool.submit(list_days, store, days[0], days[-1])
        known = rollup_sources(store, site, days)
        listed = listing.result()
    stored = [day for day in days if object_key(site, day) in listed]
    whole = [day for day in stored if first <= (begin := day_window(day).start * 1000) and begin + DAY_MS <= last]
    current = set(current_days(store, site, whole, listed, known))
    others = _stored(store, site, [day for day in stored if day not in current], listed)
    missing = tuple(day for day in days if day not in current and day not in others)
    raw = Samples(site, start, end, names, others, missing, store)
    parts = {name: [one.hourly()] for name, one in _sample_figures(raw, names).items()}
    if current:
        hours = read_hours(store, site, sorted(current), names)
        for name, one in _by_point(hours, names).items():
            parts[name].append(Figures(*(one[column].to_numpy() for column in ("timestamp", *FIGURES, "count"))))
    figures = {name: Figures.joined(each) for name, each in parts.items()}
    sources: dict[date, Source] = {day: "rollup" if day in current else "raw" for day in stored if day not in missing}
    return raw, figures, sources


def _sample_figures(found: Samples, names: Sequence[str]) -> dict[str, Figures]:
    rows = found.arrow()
    rows = rows.set_column(0, "timestamp", rows["timestamp"].cast(pa.int64()))
    return {
        name: Figures.of_samples(one["timestamp"].to_numpy(), one["value"].to_numpy())
        for name, one in _by_point(rows, names).items()
    }


def _by_point(rows: Any, names: Sequence[str]) -> dict[str, Any]:
    return {name: rows.filter(pc.equal(rows["point_name"], name)) for name in names}


def _zone(tz: str | None, site: str, settings: Settings) -> str:
    """The name of a time zone; UTC for None.

    Raises:
        UsageError: there is no such time zone, or the site's own is not set.
    """
    if tz is None:
        return "UTC"
    if tz == SITE_ZONE:
        zone = settings.time_zone_of(site)
        if zone is None:
            raise UsageError(
                f"the time zone of site {quoted(site)} is not set",
                hint="set BACKFILL_TIME_ZONES, for example to Europe/Berlin, or write an IANA name",
                site=site,
            )
        return zone
    try:
        return ZoneInfo(tz).key
    except (KeyError, ValueError, OSError, TypeError):
        raise UsageError(
            f"tz {tz!r} is not a time zone", hint="write an IANA name such as Europe/Berlin or America/New_York"
        ) from None


def _days(start: datetime, end: datetime) -> list[date]:
    """The UTC days that a span touches."""
    last = (end.astimezone(UTC) - timedelta(microseconds=1)).date()
    return list(days_between(start.astimezone(UTC).date(), last))


def _asked(start: datetime, end: datetime, points: str | Collection[str] | None) -> tuple[str, ...] | None:
    """The names of the points that a reader asks for; None: all.

    Raises:
        UsageError: the span or the points are not valid.
    """
    for name, instant in (("start", start), ("end", end)):
        if not isinstance(instant, datetime):
            raise UsageError(f"{name} {instant!r} is no instant: write datetime(2025, 6, 1, tzinfo=UTC)")
        if instant.utcoffset() is None:
            raise UsageError(f"{name} {instant.isoformat()} has no time zone: write datetime(..., tzinfo=UTC)")
    if end <= start:
        raise UsageError(f"end {end.isoformat()} is not later than start {start.isoformat()}")
    names = (points,) if isinstance(points, str) else None if points is None else tuple(points)
    if names == ():
        raise UsageError("no point is named: name one or more, or leave `points` out for all")
    return names


def texts(
    site: str,
    start: datetime,
    end: datetime,
    *,
    points: str | Collection[str] | None = None,
    settings: Settings | None = None,
) -> Any:
    """Texts of a site with `start <= timestamp < end`: samples whose values are not numbers, such as "active".

    Args:
        site: the site, as ACE spells it.
        start: first instant, aware, of any time zone.
        end: the instant after the last, aware.
        points: a point's name, or several; None: all points.
        settings: they name the store; the environment's and `.env`'s when None.

    Returns:
        A `pyarrow.Table`: `timestamp` (milliseconds, UTC), `point_name`, `text`. Rows come day by day, within a day by
        point and time. Empty when no stored day of the span has texts.

    Raises:
        UsageError: an instant is not valid or has no time zone, or `end` is not later than `start`, or `points` is
            empty.
        DamagedObjectError: the texts of a day are damaged; the error names it.
        SettingError, StoreRefusedError, StoreBusyError: the store cannot be read.
    """
    names = _asked(start, end, points)
    store = settings_store(settings or Settings.load())
    days = _days(start, end)
    listed = list_days(store, days[0], days[-1], TEXT_ROOT)
    first, last = _first_ms(start), _first_ms(end)
    found = [_TEXTS.empty_table()]

    def of_day(day: date) -> Any:
        table = get_texts(store, site, day)
        ms = table["timestamp"]
        wanted = pc.and_(pc.greater_equal(ms, first), pc.less(ms, last))
        if names is not None:
            wanted = pc.and_(wanted, pc.is_in(table["point_name"], pa.array(names, pa.string())))
        return table.filter(wanted).select(["timestamp", "point_name", "text"]).cast(_TEXTS)

    with ThreadPoolExecutor(4) as pool:
        found += pool.map(of_day, [day for day in days if text_key(site, day) in listed])
    return pa.concat_tables(found)


def states(
    site: str,
    start: datetime,
    end: datetime,
    *,
    points: str | Collection[str] | None = None,
    numbers: Mapping[str, float | Mapping[str, float]] | None = None,
    settings: Settings | None = None,
) -> Any:
    """States of points with `start <= timestamp < end`, as categories and as numbers.

    Only points whose texts the catalogue knows as states are returned: those with few different texts.

    Args:
        site: as `texts`.
        start: as `texts`.
        end: as `texts`.
        points: as `texts`.
        numbers: the number of each state, and by point the numbers of its own states. None: those of the file that
            `BACKFILL_STATE_NUMBERS` names. BACnet's own numbers (active 1, inactive 0) are added, and those of true
            and false.
        settings: as `texts`.

    Returns:
        A `pyarrow.Table`: `timestamp` (milliseconds, UTC), `point_name`, `state` (a dictionary: pandas and polars make
        a categorical of it), `number` (float64; null for a state without a number). Order as `texts`.

    Raises:
        UsageError: as `texts`, or a number is not finite.
        SettingError, DamagedObjectError, StoreRefusedError, StoreBusyError: as `texts`; `BACKFILL_STATE_NUMBERS` names
            a file that cannot be read.
    """
    settings = settings or Settings.load()
    known = _state_numbers(settings) if numbers is None else _given_numbers(numbers)
    rows = texts(site, start, end, points=points, settings=settings)
    catalogue = read_catalogue(settings_store(settings), site)
    with_states = sorted({span.name for span in catalogue if span.states})
    rows = rows.filter(pc.is_in(rows["point_name"], pa.array(with_states, pa.string()))).combine_chunks()
    state = rows["text"].combine_chunks().dictionary_encode()
    pairs = zip(rows["point_name"].to_pylist(), rows["text"].to_pylist(), strict=True)
    cache: dict[tuple[str, str], float | None] = {}
    values = [cache[pair] if pair in cache else cache.setdefault(pair, known.number(*pair)) for pair in pairs]
    columns = [rows["timestamp"], rows["point_name"], state, pa.array(values, pa.float64())]
    return pa.table(columns, names=["timestamp", "point_name", "state", "number"])


def _given_numbers(numbers: Mapping[str, Any]) -> StateNumbers:
    try:
        return StateNumbers.from_json(json.dumps(numbers, default=dict))
    except (ValueError, TypeError) as error:
        raise UsageError(
            f"`numbers` is not valid: {error}", hint='write {"occupied": 1, "NAME OF A POINT": {"auto": 2}}'
        ) from error


def _state_numbers(settings: Settings) -> StateNumbers:
    path = settings.state_numbers
    if path is None:
        return StateNumbers()
    try:
        return StateNumbers.from_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SettingError(
            f"BACKFILL_STATE_NUMBERS holds {str(path)!r}: {error}; it should hold a JSON file such as "
            '{"occupied": 1, "NAME OF A POINT": {"auto": 2}}'
        ) from error


def points(site: str, *, at: datetime | None = None, words: str = "", settings: Settings | None = None) -> Any:
    """What the points of a site are: names, units, descriptions, tags and devices, from its catalogue.

    Args:
        site: the site, as ACE spells it.
        at: the instant at which they are to be valid, aware. Before a point's first row its first row counts. None: the
            last row of each point, of those that ACE no longer lists as well (`valid_to` says since when).
        words: only points in whose name, description, unit, type, tags or device each of these words occurs.
        settings: they name the store; the environment's and `.env`'s when None.

    Returns:
        A `pyarrow.Table` with a row for each point, sorted by name; columns as `core.catalogue.SCHEMA` has them. Empty
        when the store holds no catalogue of the site: the next run of the site writes one.

    Raises:
        UsageError: `at` is not an instant with a time zone.
        DamagedObjectError: the catalogue cannot be read.
        SettingError, StoreRefusedError, StoreBusyError: the store cannot be read.
    """
    if at is not None and (not isinstance(at, datetime) or at.utcoffset() is None):
        raise UsageError(f"at {at!r} is not an instant with a time zone", hint="write datetime(2025, 6, 1, tzinfo=UTC)")
    store = settings_store(settings or Settings.load())
    spans = at_instant(read_catalogue(store, site), at)
    return to_table(span for span in spans if matches(span, words))


def _whole_time(spans: Sequence[PointSpan]) -> Iterator[dict[str, Any]]:
    """What each point was at any time: one row for each instant, of a gap between two spans as well.

    The first row of a point begins in 1970: what the point was before is not known better.
    """
    for name, group in groupby(spans, key=lambda span: span.name):
        each = list(group)
        for span, following in zip(each, [*each[1:], None], strict=True):
            told = {column: getattr(span, column) for column in _DESCRIBED}
            begin = _EPOCH if span is each[0] else span.valid_from
            yield {"point_name": name, "begin": begin, "end": span.valid_to, **told}
            later = following.valid_from if following else None
            if span.valid_to is not None and span.valid_to != later:
                yield {"point_name": name, "begin": span.valid_to, "end": later, **dict.fromkeys(_DESCRIBED)}


def duckdb_connection(settings: Settings | None = None) -> Any:
    """Open a DuckDB connection that can read the objects of the store.

    For a bucket it loads DuckDB's extension `httpfs`, which is downloaded at first, and creates the secret
    `backfill_store` with the endpoint, credentials, proxy and CA certificates that the pipeline itself uses. Temporary
    credentials are those of this moment: open a new connection when they have expired.

    Args:
        settings: they name the store; the environment's and `.env`'s when None.

    Returns:
        A `duckdb.DuckDBPyConnection`. Objects are below the URL `settings.store`.

    Raises:
        SettingError: the settings or AWS's variables and files are wrong.
        StoreRefusedError: the credentials or the extension are not available.
    """
    import duckdb  # noqa: PLC0415 - takes long to import

    settings = settings or Settings.load()
    statements = settings_store(settings).duckdb_statements()
    connection = duckdb.connect()
    for statement in statements:
        try:
            connection.execute(statement)
        except duckdb.Error as error:
            connection.close()
            # A statement contains the secret, and so may DuckDB's message about it.
            step = " ".join(statement.split()[:2])
            raise StoreRefusedError(
                f"DuckDB cannot be prepared to read {settings.store}: {step}: {type(error).__name__}",
                hint="run INSTALL httpfs and LOAD httpfs in DuckDB, and read its error",
            ) from None
    return connection


def _stored(store: Store, site: str, days: Sequence[date], listed: Mapping[str, Stat]) -> tuple[date, ...]:
    """The days whose object is listed, and is whole and of this site and day by the index or by its footer.

    Raises:
        DamagedObjectError: an object is cut, or belongs to another site or day.
    """
    listed_days = [day for day in days if object_key(site, day) in listed]
    if not listed_days:
        return ()
    rows = read_indexes(store, [site], {day.year for day in listed_days})[site]
    right, others = current_rows(site, listed_days, rows, listed)
    checked = stored_footers(store, site, others)
    return tuple(day for day in listed_days if day in right or day in checked)


def _known(store: Store, site: str, days: Sequence[date], points: Collection[str]) -> None:
    """Refuse a point that no day knows, by the footers, newest first: one request where the newest day knows all.

    A footer without the names of points ends the search: its day may have the point.
    """
    unknown, seen = set(points), set[str]()
    parts = [days[-1:], *(days[max(0, at - _FOOTERS) : at] for at in range(len(days) - 1, 0, -_FOOTERS))]
    for part in parts:
        footers = stored_footers(store, site, part)
        for day in sorted(footers, reverse=True):
            each = PointDays.from_text(footers[day].about.get("points", ""))
            if each is None:
                return
            seen.update(each.names)
            unknown -= seen
            if not unknown:
                return
    if seen:
        wrong = min(unknown)
        like = get_close_matches(wrong, seen, 1)
        hint = f"; is {like[0]!r} meant?" if like else ""
        raise UsageError(f"no stored day from {days[0]} to {days[-1]} of site {site!r} knows a point {wrong!r}{hint}")


def _first_ms(instant: datetime) -> int:
    """The first whole millisecond of Unix time that is not before an instant."""
    micros = (instant - _EPOCH) // timedelta(microseconds=1)
    return -(-micros // 1000)
