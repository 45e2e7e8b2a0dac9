"""Days: a UTC day as partition key, as half-open window and as a range, both ways.

Put here: arithmetic on days, always on dates and never on instants of another zone. Keep out: when a day is ready
(`Settings.ready_at`), and how a day is cut for fetching (`core/windows.py`).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from backfill_pipeline.errors import UsageError, quoted

DAY_S = 86_400
"""Seconds in a UTC day: Unix time knows no leap second."""

DAY_MS = DAY_S * 1000
"""The same in milliseconds."""


@dataclass(frozen=True, slots=True, order=True)
class Window:
    """A half-open span of time, `start <= t < end`, in whole seconds.

    Attributes:
        start: Unix seconds UTC, inclusive.
        end: Unix seconds UTC, exclusive; later than `start`.

    Raises:
        UsageError: the window would be empty or reversed (`docs/guards.md`, row 21).
    """

    start: int
    end: int

    def __post_init__(self) -> None:
        if self.start >= self.end:
            raise UsageError(f"a window must end after it starts: {self.start} .. {self.end}")

    @property
    def seconds(self) -> int:
        """Its length."""
        return self.end - self.start

    def __str__(self) -> str:
        end = iso(self.end)[11:19] if self.end % DAY_S else "24:00:00"
        return f"{iso(self.start)[11:19]}-{end}"


def iso(seconds: int) -> str:
    """Unix seconds as ACE takes them for a bound: `2025-10-12T00:00:00Z`."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def day_window(day: date) -> Window:
    """The window of a UTC day, midnight to midnight."""
    start = int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())
    return Window(start, start + DAY_S)


def partition_key(day: date) -> str:
    """The day as Dagster's partition key, `YYYY-MM-DD`."""
    return day.isoformat()


def parse_day(text: str) -> date:
    """The day of `YYYY-MM-DD`, and of nothing else.

    Raises:
        UsageError: the text is of another form, or no day of the calendar.
    """
    try:
        day = date.fromisoformat(text)
    except ValueError:
        day = None
    if day is None or day.isoformat() != text:
        raise UsageError(f"{quoted(text)} is not a day: write YYYY-MM-DD, such as 2025-03-01")
    return day


def days_between(first: date, last: date) -> Iterator[date]:
    """Every day from `first` to `last`, both included; none when `last` is earlier."""
    for number in range((last - first).days + 1):
        yield first + timedelta(days=number)
