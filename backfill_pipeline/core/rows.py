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
    """`value` is a text: a word, a boolean, a list, an object, or a string that is not wholly a decimal number."""
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
        texts: the texts that its values have, each at least once.
        text: int32[n], index into `texts` where `fault` is `NOT_NUMERIC`; None for a page without texts.
    """

    names: Sequence[str]
    code: NDArray[np.int32]
    time_us: NDArray[np.int64]
    value: NDArray[np.float64]
    fault: NDArray[np.uint8]
    next_cursor: str | None
    has_more: bool
    unreadable: Example | None = None
    texts: Sequence[str] = ()
    text: NDArray[np.int32] | None = None

    def __len__(self) -> int:
        return len(self.code)

    @property
    def readable(self) -> int:
        """How many rows have a point and a time; their values may be words or null."""
        return int((~np.isin(self.fault, UNREADABLE)).sum())


@dataclass(frozen=True, slots=True)
class TextRows:
    """Rows of one window whose values are texts: m rows sorted by (`code`, `ms`), one per pair.

    Attributes:
        code: int32[m], index into the day's points, which are sorted by name.
        ms: int32[m], milliseconds since the day's midnight UTC, 0 <= ms < 86,400,000.
        text: int32[m], index into `texts`.
        texts: the texts, each at least once.
    """

    code: NDArray[np.int32]
    ms: NDArray[np.int32]
    text: NDArray[np.int32]
    texts: Sequence[str]

    def __len__(self) -> int:
        return len(self.code)


@dataclass(frozen=True, slots=True)
class Chunk:
    """The kept rows of one window: n rows sorted by (`code`, `ms`), one per pair.

    Attributes:
        code: int32[n], index into the day's points, which are sorted by name.
        ms: int32[n], milliseconds since the day's midnight UTC, 0 <= ms < 86,400,000.
        value: float64[n], all finite.
        texts: the rows whose values are texts, which are counted in no other field; None if there are none.
    """

    code: NDArray[np.int32]
    ms: NDArray[np.int32]
    value: NDArray[np.float64]
    texts: TextRows | None = None

    def __len__(self) -> int:
        return len(self.code)


@dataclass(frozen=True, slots=True)
class Counts:
    """What happened to a day's rows: `fetched` = `kept` + the sum of `dropped`.

    Attributes:
        fetched: rows that arrived.
        kept: rows that are in the object.
        dropped: rows left out, by reason (`no_name`, `bad_time`, `null_value`, `not_numeric`, `not_finite`,
            `not_configured`, `outside_window`, `duplicate`); reasons that did not occur are absent. Of these rows, the
            texts are all in `not_numeric`, also those that the object of texts contains.
        conflicts: how many of the duplicates carried another value than the row that was kept.
        texts: rows that are in the object of texts.
        texts_dropped: texts left out, by reason (`not_configured`, `outside_window`, `duplicate`).
    """

    fetched: int = 0
    kept: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)
    conflicts: int = 0
    texts: int = 0
    texts_dropped: Mapping[str, int] = field(default_factory=dict)

    @property
    def left_out(self) -> dict[str, int]:
        """The rows that neither object contains, each in one reason: `fetched` = `kept` + `texts` + their sum.

        `not_numeric` is then what was counted by a version that stored no texts; otherwise it is absent.
        """
        reasons = dict(self.dropped)
        for reason, rows in self.texts_dropped.items():
            reasons[reason] = reasons.get(reason, 0) + rows
        texts = self.texts + sum(self.texts_dropped.values())
        if texts:
            reasons["not_numeric"] = reasons.get("not_numeric", 0) - texts
        return {reason: rows for reason, rows in reasons.items() if rows}

    @property
    def unaccounted(self) -> int:
        """Rows that arrived and are in no other figure; 0 unless rows are lost or counted twice."""
        return self.fetched - self.kept - self.texts - sum(self.left_out.values())

    @property
    def unreadable(self) -> int:
        """How many rows have no point or no time that can be read."""
        return sum(self.dropped.get(fault.name.lower(), 0) for fault in UNREADABLE)

    def __add__(self, other: "Counts") -> "Counts":
        """Add two sets of counts, reason by reason."""
        return Counts(
            self.fetched + other.fetched,
            self.kept + other.kept,
            _summed(self.dropped, other.dropped),
            self.conflicts + other.conflicts,
            self.texts + other.texts,
            _summed(self.texts_dropped, other.texts_dropped),
        )


@dataclass(frozen=True, slots=True)
class DayRows:
    """One site-day, whole.

    Attributes:
        site: the site's name as ACE spells it.
        day: the UTC day.
        points: the configured, collect-enabled point names, sorted, distinct.
        chunks: the day's windows in time order; their time ranges do not overlap.
        counts: what arrived and what became of it.
        texts: the rows whose values are texts, of the windows that have any, in time order.
    """

    site: str
    day: date
    points: Sequence[str]
    chunks: Sequence[Chunk]
    counts: Counts
    texts: Sequence[TextRows] = ()

    @property
    def is_empty(self) -> bool:
        """Whether the day has no rows; `counts.fetched` shows whether the API returned any."""
        return not any(map(len, self.chunks))


def _summed(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    total = dict(one)
    for reason, rows in other.items():
        total[reason] = total.get(reason, 0) + rows
    return total
