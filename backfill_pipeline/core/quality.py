"""Figures of a day's rows: first and last row, sampling interval, and the longest gap.

Put here: figures that are computed from a day's rows alone, and which days are thin. Keep out: limits of the other
figures (`orchestration/checks.py`), and what is counted while rows are cleaned (`Counts` in `core/rows.py`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from statistics import median

import numpy as np
from numpy.typing import NDArray

from backfill_pipeline.core.day import DAY_MS
from backfill_pipeline.core.rows import Chunk, DayRows

MIN_COVERAGE = 0.5
"""Least share of the configured points that have a row: a day on which one of two controllers is silent has less."""

MAX_GAP_MIN = 120
"""Longest gap of a complete day, in minutes: the restart of a gateway takes less, its failure takes more."""

MIN_ROWS_SHARE = 0.5
"""Least rows of a complete day, as a share of the median of the days around it."""

DAYS_AROUND = 7
"""Number of days before a day, and of days after it, that it is compared with."""

_MINUTE_MS = 60_000

_DIGITS = 4
"""Decimals of a share of rows."""

_LEAST_SHARE = next(
    float(share)
    for share in (MIN_ROWS_SHARE - 0.5 / 10**_DIGITS, np.nextafter(MIN_ROWS_SHARE - 0.5 / 10**_DIGITS, 1))
    if round(float(share), _DIGITS) >= MIN_ROWS_SHARE
)
"""The least share that is rounded up to `MIN_ROWS_SHARE`."""


@dataclass(frozen=True, slots=True)
class Quality:
    """Figures of one day.

    Attributes:
        rows: rows of the day.
        first_ms: milliseconds since midnight of its first row; None when there is none.
        last_ms: the same of its last row.
        interval_s: median time between two rows of one point, in seconds; None when no point has two.
        longest_gap_min: the longest time, in whole minutes, in which no point has a row.
    """

    rows: int
    first_ms: int | None
    last_ms: int | None
    interval_s: float | None
    longest_gap_min: int


def quality(day: DayRows) -> Quality:
    """Compute the figures of a day."""
    chunks = [chunk for chunk in day.chunks if len(chunk)]
    minutes = np.zeros(DAY_MS // _MINUTE_MS, np.int64)
    for chunk in chunks:
        minutes += np.bincount(chunk.ms // _MINUTE_MS, minlength=len(minutes))
    between = _steps_ms(chunks, len(day.points))
    with_rows = np.flatnonzero(minutes)
    return Quality(
        rows=sum(map(len, chunks)),
        first_ms=min((int(chunk.ms.min()) for chunk in chunks), default=None),
        last_ms=max((int(chunk.ms.max()) for chunk in chunks), default=None),
        interval_s=float(np.median(between)) / 1000 if len(between) else None,
        longest_gap_min=int(np.diff(with_rows, prepend=-1, append=len(minutes)).max()) - 1,
    )


def _steps_ms(chunks: Sequence[Chunk], points: int) -> NDArray[np.int32]:
    """Milliseconds from each row to the next row of its point. How the day is cut into chunks makes no difference.

    Args:
        chunks: in time order, none empty, each sorted by point and time.
        points: how many points there are.
    """
    steps: list[NDArray[np.int32]] = [np.empty(0, np.int32)]
    last = np.full(points, -1, np.int32)  # time of each point's last row in the earlier chunks
    for chunk in chunks:
        new = np.diff(chunk.code, prepend=-1) != 0
        first = np.flatnonzero(new)
        at, code = chunk.ms[first], chunk.code[first]
        before = last[code]
        steps += [np.diff(chunk.ms)[~new[1:]], (at - before)[before >= 0]]
        last[code] = chunk.ms[np.append(first[1:], len(chunk)) - 1]
    return np.concatenate(steps)


def no_rows(samples: int, day: date | None = None, texts: int = 0) -> str:
    """The message for a day, or for several days, without a stored row.

    Args:
        samples: the number of samples that the API returned.
        day: the day; None for several days.
        texts: the number of these samples that are stored as texts.
    """
    if samples:
        days = "these days" if day is None else str(day)
        if texts:
            return f"0 rows: the API returned {samples:,} samples for {days}, {texts:,} texts and no number for a row"
        return f"0 rows: none of the {samples:,} samples that the API returned for {days} can be stored"
    return f"0 rows: the API returned no samples for {'any of these days' if day is None else day}"


def usual_rows(rows: Mapping[date, int], day: date) -> float | None:
    """The median rows of the days around a day; days without rows are left out."""
    around = (rows.get(day + timedelta(days=n)) for n in range(-DAYS_AROUND, DAYS_AROUND + 1) if n)
    known = [count for count in around if count]
    return median(known) if known else None


def is_thin(rows: int, usual: float | None, longest_gap_min: int | None, points_share: float | None) -> bool:
    """Whether a stored day is thin, so that a later fetch may return more rows.

    A day is thin with a long gap, or with few rows. Without days around it, a day with few points is thin.

    Args:
        rows: rows of the day.
        usual: median rows of the days around it; None if no such day has rows.
        longest_gap_min: the longest gap, in minutes; None if it is not known.
        points_share: share of the configured points that have a row; None if it is not known.
    """
    if longest_gap_min is not None and longest_gap_min > MAX_GAP_MIN:
        return True
    if usual is None:
        return points_share is not None and points_share < MIN_COVERAGE
    return rows / usual < _LEAST_SHARE


def thin_days(
    rows: NDArray[np.float64], longest_gap_min: NDArray[np.float64], points_share: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Whether each of consecutive days is thin, as `usual_rows` and `is_thin` find it; a hundred times as fast.

    Args:
        rows: rows of each day; NaN for a day that is not stored.
        longest_gap_min: the longest gap of each day, in minutes; NaN if it is not known.
        points_share: share of the configured points that have a row; NaN if it is not known.
    """
    if not len(rows):
        return np.zeros(0, bool)
    known = np.where(rows > 0, rows, np.nan)
    padded = np.pad(known, DAYS_AROUND, constant_values=np.nan)
    around = np.delete(np.lib.stride_tricks.sliding_window_view(padded, 2 * DAYS_AROUND + 1), DAYS_AROUND, axis=1)
    around.sort(axis=1)  # NaN comes last
    count = (~np.isnan(around)).sum(axis=1)
    at, last = np.arange(len(rows)), np.maximum(count - 1, 0)
    usual = (around[at, last // 2] + around[at, (last + 1) // 2]) / 2
    few_rows = rows / usual < _LEAST_SHARE
    few_points = (count == 0) & (points_share < MIN_COVERAGE)
    thin: NDArray[np.bool_] = ~np.isnan(rows) & ((longest_gap_min > MAX_GAP_MIN) | few_rows | few_points)
    return thin
