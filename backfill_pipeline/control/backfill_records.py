"""Records of backfills and their days, as Dagster keeps them, in types of this project.

Put here: what a record contains. Keep out: how it is read (`dagster_instance.py`, `day_events.py`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum


class State(StrEnum):
    """What Dagster says of a backfill."""

    ASKED = "asked"
    """Waiting, or at work."""
    ENDING = "ending"
    """Cancelled, while days at work complete."""
    CANCELLED = "cancelled"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Backfill:
    """A partition backfill, whoever launched it.

    Attributes:
        id: Dagster's.
        state: Dagster's word.
        first: first day that was asked for.
        last: last day, included.
        todo: the days that it fetches, by site.
        asked: the days that were asked for, by site: those that were stored when it began as well.
        started: Unix seconds.
        ended: Unix seconds; None while it is not over.
        error: why Dagster gave it up, in one line; None otherwise.
        forecast: what was foreseen of it, as JSON; None when nobody asked.
    """

    id: str
    state: State
    first: date
    last: date
    todo: Mapping[str, frozenset[date]]
    asked: Mapping[str, frozenset[date]]
    started: float
    ended: float | None = None
    error: str | None = None
    forecast: str | None = None


@dataclass(frozen=True, slots=True)
class FailedRun:
    """A run of a backfill that failed.

    Attributes:
        id: Dagster's.
        at: when it ended, in Unix seconds.
        days: the days that it was to fetch, by site.
        left: those of them that no other run of the backfill fetches; empty when Dagster runs it again.
    """

    id: str
    at: float
    days: Mapping[str, frozenset[date]]
    left: Mapping[str, frozenset[date]]


@dataclass(frozen=True, slots=True)
class DayEvent:
    """What became of a site-day at one time.

    Attributes:
        site: its site.
        day: its day.
        at: Unix seconds.
        run_id: of the run that told it; empty when none did.
        error: why it failed; None when it was stored.
        about: the figures of its materialisation, by name; empty for a failed one.
    """

    site: str
    day: date
    at: float
    run_id: str
    error: str | None = None
    about: Mapping[str, object] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """Rows that were stored."""
        return self.number("dagster/row_count")

    def number(self, name: str) -> int:
        """One of its whole numbers; 0 when it has none of that name."""
        value = self.about.get(name)
        return value if isinstance(value, int) else 0

    def text(self, name: str) -> str | None:
        """One of its texts; None without a text of that name."""
        value = self.about.get(name)
        return value if isinstance(value, str) and value else None
