"""The forms that samples take on their road: `Page` as decoded, `Chunk` as kept, `DayRows` as a day.

Put here: the plain data types that rooms hand to each other, and their counts. Keep out: how bytes become a page
(`ace/decode.py`), which rows are kept (`core/clean.py`), how rows become a file (`storage/parquet.py`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

NO_TIME = np.int64(np.iinfo(np.int64).min)
"""`Page.time_us` of a row whose time is missing or cannot be read."""

Example = tuple[str, str]
"""What makes one row unreadable: the member, `time` or `name`, and its value as JSON text, `null` if it is missing."""


class Fault(IntEnum):
    """Why a decoded row can not be a sample, in the order in which it is judged; `NONE` is usable."""

    NONE = 0
    NO_NAME = 1
    """The row has no `name`, or one that is not a string, or is empty or blank."""
    BAD_TIME = 2
    """`time` is missing, null, or of no known shape."""
    NULL_VALUE = 3
    """`value` is missing, null or an empty (or blank) string."""
    NOT_NUMERIC = 4
    """`value` is a word, a boolean, a list, or a string that is not wholly a decimal number."""
    NOT_FINITE = 5
    """`value` is NaN or infinite, in any spelling, or too large for a float64."""


UNREADABLE = (Fault.NO_NAME, Fault.BAD_TIME)
"""Faults of a row that cannot be read at all: it belongs to no point, or to no time."""


@dataclass(frozen=True, slots=True)
class Page:
    """One decoded page of n rows, in the API's order.

    Attributes:
        names: the distinct point names of the page, in no order.
        code: int32[n], index into `names`; -1 where the row has no name.
        time_us: int64[n], Unix microseconds UTC; `NO_TIME` where it cannot be read.
        value: float64[n]; NaN where `fault` is not `NONE`.
        fault: uint8[n], a `Fault`.
        next_cursor: the server's cursor as sent, or None.
        has_more: whether the server says that more rows follow.
        unreadable: an example of its unreadable rows; None when it has none.
    """

    names: Sequence[str]
    code: NDArray[np.int32]
    time_us: NDArray[np.int64]
    value: NDArray[np.float64]
    fault: NDArray[np.uint8]
    next_cursor: str | None
    has_more: bool
    unreadable: Example | None = None

    def __len__(self) -> int:
        return len(self.code)

    @property
    def readable(self) -> int:
        """How many rows have a point and a time; their values may be words or null."""
        return int((~np.isin(self.fault, UNREADABLE)).sum())


@dataclass(frozen=True, slots=True)
class Chunk:
    """The kept rows of one window: n rows sorted by (`code`, `ms`), one per pair.

    Attributes:
        code: int32[n], index into the day's points, which are sorted by name.
        ms: int32[n], milliseconds since the day's midnight UTC, 0 <= ms < 86,400,000.
        value: float64[n], all finite.
    """

    code: NDArray[np.int32]
    ms: NDArray[np.int32]
    value: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.code)


@dataclass(frozen=True, slots=True)
class Counts:
    """What happened to a day's rows: `fetched` = `kept` + the sum of `dropped`.

    Attributes:
        fetched: rows that arrived.
        kept: rows that are in the object.
        dropped: rows left out, by reason (`no_name`, `bad_time`, `null_value`, `not_numeric`, `not_finite`,
            `not_configured`, `outside_window`, `duplicate`); reasons that did not occur are absent.
        conflicts: how many of the duplicates carried another value than the row that was kept.
    """

    fetched: int = 0
    kept: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)
    conflicts: int = 0

    @property
    def unreadable(self) -> int:
        """How many rows have no point or no time that can be read."""
        return sum(self.dropped.get(fault.name.lower(), 0) for fault in UNREADABLE)

    def __add__(self, other: "Counts") -> "Counts":
        """Add two sets of counts, reason by reason."""
        dropped = dict(self.dropped)
        for reason, rows in other.dropped.items():
            dropped[reason] = dropped.get(reason, 0) + rows
        return Counts(self.fetched + other.fetched, self.kept + other.kept, dropped, self.conflicts + other.conflicts)


@dataclass(frozen=True, slots=True)
class DayRows:
    """One site-day, whole.

    Attributes:
        site: the site's name as ACE spells it.
        day: the UTC day.
        points: the configured, collect-enabled point names, sorted, distinct.
        chunks: the day's windows in time order; their time ranges do not overlap.
        counts: what arrived and what became of it.
    """

    site: str
    day: date
    points: Sequence[str]
    chunks: Sequence[Chunk]
    counts: Counts

    @property
    def is_empty(self) -> bool:
        """Whether the day has no rows; `counts.fetched` shows whether the API returned any."""
        return not any(map(len, self.chunks))
