"""Records of backfills and their days, as Dagster keeps them, in types of this project.

Put here: what a record contains. Keep out: how it is read (`dagster_instance.py`, `day_events.py`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum

from backfill_pipeline.orchestration.failures import DayError


class State(StrEnum):
    """The state of a backfill in Dagster."""

    ASKED = "asked"
    """Waiting or running."""
    ENDING = "ending"
    """Cancelled, while running days complete."""
    CANCELLED = "cancelled"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Backfill:
    """A partition backfill, launched here or in Dagster.

    Attributes:
        id: Dagster's id.
        state: its state in Dagster.
        first: first requested day.
        last: last day, included.
        todo: the days that it fetches, by site.
        asked: the requested days, by site, with those that were stored already when it began.
        started: Unix seconds.
        ended: Unix seconds; None while it is not over.
        error: the error with which Dagster ended it, in one line; None without an error.
        forecast: the forecast of `backfill plan`, as JSON; None without a forecast.
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
        id: Dagster's id.
        at: when it ended, in Unix seconds.
        days: the days that it was to fetch, by site.
        left: the days among them that no other run of the backfill fetches; empty when Dagster retries the run.
    """

    id: str
    at: float
    days: Mapping[str, frozenset[date]]
    left: Mapping[str, frozenset[date]]


@dataclass(frozen=True, slots=True)
class RunError:
    """Why a run failed.

    Attributes:
        message: what Dagster recorded, in one line.
        kind: the kind of the error that stopped everything; `process_ended` when the run's process ended before it
            could report an error; else `run`.
    """

    message: str
    kind: str

    @property
    def process_ended(self) -> bool:
        """Whether the run's process ended before it could report an error."""
        return self.kind == PROCESS_ENDED


PROCESS_ENDED = "process_ended"


@dataclass(frozen=True, slots=True)
class DayEvent:
    """One result of a site-day: stored, or failed.

    Attributes:
        site: its site.
        day: its day.
        at: Unix seconds.
        run_id: id of the run that recorded it; empty when no run did.
        error: the error with which it failed; None when it was stored.
        about: the metadata of its materialisation, by name; empty for a failed day.
    """

    site: str
    day: date
    at: float
    run_id: str
    error: DayError | None = None
    about: Mapping[str, object] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """The number of stored rows."""
        return self.number("dagster/row_count")

    def number(self, name: str) -> int:
        """Return a whole number of the metadata; 0 when there is no such number."""
        value = self.about.get(name)
        return value if isinstance(value, int) else 0

    def text(self, name: str) -> str | None:
        """Return a text of the metadata; None when there is no such text."""
        value = self.about.get(name)
        return value if isinstance(value, str) and value else None
