"""UTC days: their partition keys, their windows of time, and ranges of days.

Put here: arithmetic on dates. Keep out: when a day is ready (`Settings.ready_at`), and how a day is split into windows
for fetching (`core/windows.py`).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from backfill_pipeline.errors import UsageError, quoted

DAY_S = 86_400
"""Seconds in a UTC day; Unix time has no leap seconds."""

DAY_MS = DAY_S * 1000
"""Milliseconds in a UTC day."""


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
        """The length of the window, in seconds."""
        return self.end - self.start

    def __str__(self) -> str:
        end = iso(self.end)[11:19] if self.end % DAY_S else "24:00:00"
        return f"{iso(self.start)[11:19]}-{end}"


def iso(seconds: int) -> str:
    """Format Unix seconds as the API expects a start or end time: `2025-10-12T00:00:00Z`."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def day_window(day: date) -> Window:
    """The window of a UTC day, midnight to midnight."""
    start = int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())
    return Window(start, start + DAY_S)


def partition_key(day: date) -> str:
    """The day as Dagster's partition key, `YYYY-MM-DD`."""
    return day.isoformat()


def parse_day(text: str) -> date:
    """Parse a day in the form `YYYY-MM-DD`; no other form is accepted.

    Raises:
        UsageError: the text has another form, or is not a day of the calendar.
    """
    try:
        day = date.fromisoformat(text)
    except ValueError:
        day = None
    if day is None or day.isoformat() != text:
        raise UsageError(f"{quoted(text)} is not a day: write YYYY-MM-DD, such as 2025-03-01")
    return day


def days_between(first: date, last: date) -> Iterator[date]:
    """Yield every day from `first` to `last`, both included; no day when `last` is before `first`."""
    for number in range((last - first).days + 1):
        yield first + timedelta(days=number)
