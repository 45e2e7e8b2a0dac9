"""The results of the operator's actions: a started backfill, its status, its errors.

Put here: the figures of a result, its sentences, and its fields as JSON. Keep out: how the figures are computed
(`backfill_state.py`), and how a result is shown.
"""

import math
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal

from backfill_pipeline.core.quality import no_rows
from backfill_pipeline.errors import sentences

Word = Literal["not_started", "in_progress", "completed", "cancelled", "failed"]


@dataclass(frozen=True, slots=True)
class Started:
    """A backfill that was launched.

    Attributes:
        backfill_id: Dagster's id.
        first: first day.
        last: last day, included.
        sites: site names.
        days: number of days in the range.
        todo: site-days that will be fetched.
        skipped: site-days that are stored already.
        lost: site-days to fetch that are recorded as stored, but whose object is missing or was changed.
    """

    backfill_id: str
    first: date
    last: date
    sites: tuple[str, ...]
    days: int
    todo: int
    skipped: int
    lost: int = 0

    @property
    def message(self) -> str:
        """One line for the user."""
        kept = f"; {self.skipped} are stored already" if self.skipped else ""
        if not self.todo:
            return f"nothing to do: all {self.skipped} site-days are stored already"
        sites = "1 site" if len(self.sites) == 1 else f"{len(self.sites)} sites"
        lost = f"; {self.lost} of them were stored, and their objects are missing or were changed" if self.lost else ""
        return f"{self.todo} site-days of {sites} will be fetched{lost}{kept}"

    def facts(self) -> dict[str, Any]:
        """The answer of `POST /backfill/start`."""
        return {
            "status": "started",
            "backfill_id": self.backfill_id,
            "start_date": self.first.isoformat(),
            "end_date": self.last.isoformat(),
            "estimated_days": self.days,
            "message": self.message,
        }


@dataclass(frozen=True, slots=True)
class Status:
    """The status of a backfill. A day is completed once it is stored for every requested site.

    Attributes:
        word: the state, in the word of the HTTP API.
        backfill_id: Dagster's id; None when there was no backfill.
        sites: site names.
        first: first day.
        last: last day, included.
        current: the oldest day that is neither stored nor failed, without the days of failed runs, so that it never
            goes back. The last day when no such day is left.
        days_done: days of the range that are stored for all sites, those stored before included.
        days: days of the range.
        parts_done: site-days that are stored.
        parts: site-days of the range.
        failed: site-days that failed and were not stored since.
        rows: rows of the site-days that are stored.
        started: Unix seconds.
        updated: Unix seconds of its latest event.
        estimated_end: Unix seconds; None without an estimate.
        ending: whether it was cancelled and its running days still complete.
        requests: requests that were sent for the days that it stored.
        bytes: bytes of the objects it has stored.
        own_rows: rows of the site-days that it has stored itself.
        own_parts: site-days that it has stored itself.
        own_todo: site-days that it was to fetch.
        forecast: the forecast of `backfill plan`, as JSON.
        samples: samples that the API returned for the site-days that are stored.
        texts: samples that are stored as texts.
        without_rows: stored site-days whose object has no rows.
        lost: site-days of `failed` that were not stored because their run's process ended.
        missing: site-days that were stored, and whose object is now missing or changed.
        notes: notes for the operator, one or two sentences each.
        api_down_since: start of an outage of the API for which a run waits, Unix seconds; None: no run waits.
    """

    word: Word
    backfill_id: str | None = None
    sites: tuple[str, ...] = ()
    first: date | None = None
    last: date | None = None
    current: date | None = None
    days_done: int = 0
    days: int = 0
    parts_done: int = 0
    parts: int = 0
    failed: int = 0
    rows: int = 0
    started: float | None = None
    updated: float | None = None
    estimated_end: float | None = None
    ending: bool = False
    requests: int = 0
    bytes: int = 0
    own_rows: int = 0
    own_parts: int = 0
    own_todo: int = 0
    forecast: str | None = None
    samples: int = 0
    texts: int = 0
    without_rows: int = 0
    lost: int = 0
    missing: int = 0
    notes: tuple[str, ...] = ()
    api_down_since: float | None = None

    @property
    def message(self) -> str | None:
        """The outcome and the notes in one line; None while it runs without notes."""
        outcome = f"{self.outcome}." if self.outcome and self.notes else self.outcome
        return " ".join(part for part in (outcome, *self.notes) if part) or None

    @property
    def outcome(self) -> str | None:
        """The outcome in one line; None while the backfill runs."""
        if self.word == "in_progress":
            return None
        if self.word == "not_started":
            return "no backfill was started yet"
        if self.word == "completed" and not self.rows:
            return no_rows(self.samples, texts=self.texts)
        without = f" ({self.without_rows:,} of them without rows)" if self.without_rows else ""
        stored = f"{self.rows:,} rows: {self.parts_done:,} of {self.parts:,} site-days are stored{without}"
        return f"{stored}, {self.failed:,} failed" if self.failed else stored

    @property
    def percent(self) -> float:
        """Share of the site-days that are stored, 0 to 100, two decimals, 100 only when all are."""
        return math.floor(self.parts_done / self.parts * 10_000) / 100 if self.parts else 0.0

    @property
    def is_over(self) -> bool:
        """Whether the backfill has ended and no day is running."""
        return self.word != "in_progress" and not self.ending

    def facts(self) -> dict[str, Any]:
        """The answer of `GET /backfill/status`; times are UTC, ISO 8601."""
        return {
            "status": self.word,
            "backfill_id": self.backfill_id,
            "start_date": self.first.isoformat() if self.first else None,
            "end_date": self.last.isoformat() if self.last else None,
            "current_date": self.current.isoformat() if self.current else None,
            "days_completed": self.days_done,
            "days_total": self.days,
            "progress_percent": self.percent,
            "records_processed": self.rows,
            "started_at": iso(self.started),
            "last_updated": iso(self.updated),
            "estimated_completion": iso(self.estimated_end),
            "message": self.message,
            "api_down_since": iso(self.api_down_since),
        }


@dataclass(frozen=True, slots=True)
class Cancelled:
    """A backfill that was cancelled."""

    backfill_id: str
    days_done: int
    message: str

    def facts(self) -> dict[str, Any]:
        """The answer of `POST /backfill/cancel`."""
        return {
            "status": "cancelled",
            "backfill_id": self.backfill_id,
            "days_completed": self.days_done,
            "message": self.message,
        }


@dataclass(frozen=True, slots=True)
class DayFailure:
    """One error of a backfill.

    Attributes:
        backfill_id: Dagster's id.
        at: Unix seconds.
        error: what failed and what was found.
        site: its site; None when a run failed and no single day.
        day: its day; None as above.
        hint: what to do; empty when there is nothing to do.
        kind: `BackfillError.kind`, or what failed: `process_ended`, `run`, `backfill`, `lost_object`.
    """

    backfill_id: str
    at: float
    error: str
    site: str | None
    day: date | None
    hint: str = ""
    kind: str = ""

    @property
    def text(self) -> str:
        """The error and the hint, without site and day."""
        return sentences(self.error, self.hint)

    @property
    def line(self) -> str:
        """Site, day, error and hint, as one line."""
        where = " ".join(f"{part}" for part in (self.site, self.day) if part is not None)
        return f"{where or 'the run'}: {self.text}"

    def facts(self) -> dict[str, Any]:
        """One entry of `GET /backfill/errors`."""
        return {
            "backfill_id": self.backfill_id,
            "timestamp": iso(self.at),
            "error": self.text,
            "kind": self.kind,
            "hint": self.hint,
            "context": {"site": self.site, "date": self.day.isoformat() if self.day else None},
        }


def iso(seconds: float | None) -> str | None:
    """Format Unix seconds as UTC, ISO 8601."""
    if seconds is None:
        return None
    return (datetime.fromtimestamp(0, UTC) + timedelta(seconds=seconds)).isoformat(timespec="seconds")
