"""Series for a chart: at most one row for each pixel column, with the extremes kept and gaps as gaps.

Put here: how samples and hourly values become columns of a chart. Keep out: how samples are read (`storage/`) and how
hourly values are stored (`dataset/rollup.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from backfill_pipeline.core.hourly_values import HOUR_MS, group_figures

FIGURES = ("mean", "min", "max", "last")

GAP_INTERVALS = 3
"""A gap is longer than this many intervals of the point."""

LEAST_GAP_MS = 2 * HOUR_MS
"""No shorter pause is a gap: points that report changes only are silent for an hour or two while nothing changes."""

Source = Literal["rollup", "raw"]


@dataclass(frozen=True, slots=True)
class Series:
    """One point on a chart.

    Attributes:
        point: the point's name.
        unit: its unit, from the points' catalogue; None if it is not known.
        description: its description, likewise.
        rows: a `pyarrow.Table`, sorted by `timestamp` (milliseconds, in the chart's time zone), with `mean`, `min`,
            `max`, `last` and `count`. `timestamp` is the time of the column's first sample, or of its first hour. A
            gap is one row with a count of 0 whose figures are null: a line that is drawn through the rows breaks there.
    """

    point: str
    unit: str | None
    description: str | None
    rows: Any


@dataclass(frozen=True, slots=True)
class Chart:
    """Series of several points of one site over the same span.

    Attributes:
        site: the site.
        start: first instant, aware.
        end: the instant after the last, aware.
        column_ms: the span of one column, in milliseconds.
        series: one for each point, in the caller's order; one without rows for a point without samples.
        missing: the UTC days of the span that are not stored.
        sources: by UTC day, whether its figures come from the stored hourly values or from its samples.
    """

    site: str
    start: datetime
    end: datetime
    column_ms: int
    series: tuple[Series, ...]
    missing: tuple[date, ...]
    sources: dict[date, Source]


@dataclass(frozen=True, slots=True)
class Figures:
    """Samples or hourly values of one point, sorted by time; a sample is a figure with a count of 1.

    Attributes:
        ms: int64[n], Unix milliseconds.
        mean: float64[n].
        min: float64[n].
        max: float64[n].
        last: float64[n].
        count: int64[n].
    """

    ms: NDArray[Any]
    mean: NDArray[Any]
    min: NDArray[Any]
    max: NDArray[Any]
    last: NDArray[Any]
    count: NDArray[Any]

    @classmethod
    def of_samples(cls, ms: NDArray[Any], value: NDArray[np.float64]) -> "Figures":
        """Samples as figures."""
        return cls(ms, value, value, value, value, np.ones(len(ms), np.int64))

    def hourly(self) -> "Figures":
        """Figures of whole UTC hours, of samples."""
        hour = self.ms // HOUR_MS
        found = group_figures(np.zeros(len(hour), np.int8), hour, self.mean)
        return Figures(hour[found.begin] * HOUR_MS, found.mean, found.min, found.max, found.last, found.count)

    @classmethod
    def joined(cls, parts: Sequence["Figures"]) -> "Figures":
        """Several parts as one, sorted by time."""
        names = ("ms", "mean", "min", "max", "last", "count")
        columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
        order = np.argsort(columns["ms"], kind="stable")
        return cls(**{name: column[order] for name, column in columns.items()})


def column_span(start_ms: int, end_ms: int, width: int) -> int:
    """The milliseconds of one column; whole hours where a column is an hour or longer, so that hourly values fit."""
    span = max(1, -(-(end_ms - start_ms) // width))
    return span if span < HOUR_MS else -(-span // HOUR_MS) * HOUR_MS


def columns(figures: Figures, start_ms: int, column_ms: int, tz: str) -> Any:
    """The rows of a chart's series: one for each column with samples, and one for each gap between them.

    Args:
        figures: the point's samples or hourly values.
        start_ms: where the first column begins, Unix milliseconds.
        column_ms: the milliseconds of one column.
        tz: the IANA name of the time zone of `timestamp`.

    Returns:
        A `pyarrow.Table`, as `Series.rows`.
    """
    ms = figures.ms
    column = (ms - start_ms) // column_ms
    found = group_figures(np.zeros(len(ms), np.int8), column, figures.mean)
    begin, end = found.begin, np.append(found.begin[1:], len(ms))
    rows = {"ms": ms[begin], "mean": found.mean, "min": found.min, "max": found.max, "last": found.last}
    rows["count"] = found.count
    if len(ms):
        count = np.add.reduceat(figures.count, begin)
        weighted = np.add.reduceat(figures.mean * (figures.count / np.repeat(count, end - begin)), begin)
        rows |= {
            "mean": np.where(count == found.count, found.mean, weighted),
            "min": np.minimum.reduceat(figures.min, begin),
            "max": np.maximum.reduceat(figures.max, begin),
            "last": figures.last[end - 1],
            "count": count,
        }
    at = np.flatnonzero(np.diff(ms) > _longest_pause(ms, column_ms))
    middle = ms[at] + np.diff(ms)[at] // 2
    return _table(rows, middle, tz)


def _longest_pause(ms: NDArray[Any], column_ms: int) -> float:
    """The milliseconds between two samples above which there is a gap."""
    steps = np.diff(ms)
    interval = float(np.median(steps)) if len(steps) else 0.0
    return max(GAP_INTERVALS * interval, LEAST_GAP_MS, 2 * column_ms)


def _table(rows: dict[str, NDArray[Any]], gaps: NDArray[Any], tz: str) -> Any:
    ms = np.concatenate([rows["ms"], gaps])
    order = np.argsort(ms, kind="stable")
    is_gap = (np.arange(len(ms)) >= len(rows["ms"]))[order]
    filled = {name: np.concatenate([rows[name], np.zeros(len(gaps))])[order] for name in FIGURES}
    count = np.concatenate([rows["count"], np.zeros(len(gaps), np.int64)])[order]
    return pa.table(
        {
            "timestamp": pa.array(ms[order].astype(np.int64)).cast(pa.timestamp("ms", tz)),
            **{name: pa.array(values, pa.float64(), mask=is_gap) for name, values in filled.items()},
            "count": pa.array(count.astype(np.int64)),
        }
    )
