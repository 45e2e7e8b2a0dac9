"""What an operator asks for: start, status, cancel, errors. The command and the HTTP API are thin skins over it.

::

    cli/, http.py -> Control -> dagster_instance.py -> the Dagster instance

Nothing is remembered here: what was asked stands in Dagster's backfill, what came of it in Dagster's events. Put here:
what a request means, and how events become figures. Keep out: Dagster's API (`dagster_instance.py`), and words for one
skin.
"""

import math
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from threading import Lock
from typing import Any, Literal

from backfill_pipeline.control.dagster_instance import Backfill, DayEvent, FailedRun, Gateway, State
from backfill_pipeline.control.day_ranges import checked_days, checked_sites
from backfill_pipeline.core.command_lines import named_days, repair_command, start_command
from backfill_pipeline.core.day import days_between
from backfill_pipeline.core.quality import no_rows
from backfill_pipeline.errors import (
    AlreadyRunningError,
    DaemonDownError,
    NothingThereError,
    StoreBusyError,
    StoreRefusedError,
    quoted,
    sentences,
)
from backfill_pipeline.orchestration.adopt import Adopted
from backfill_pipeline.orchestration.build import sites_of
from backfill_pipeline.settings import Settings
from backfill_pipeline.storage.comparison import Comparison, Recorded, SiteDay

Word = Literal["not_started", "in_progress", "completed", "cancelled", "failed"]

ENDING_S = 90.0
"""How long a start waits for a backfill that was cancelled to end, on top of what days at work may take."""


def open_control(settings: Settings) -> "Control":
    """The operator's requests to the installation of these settings.

    Raises:
        SettingError: `DAGSTER_HOME` holds no `dagster.yaml`.
    """
    return Control(Gateway(settings), settings, all_sites=lambda: sites_of(settings))


_SLACK_S = 1.0
"""Events are told to Dagster a moment after the clock was read for them."""

_KEPT_COMPARISONS = 16
"""Backfills whose comparison with the store is kept for the next poll."""

_STEADY = 3
"""Days that have to be stored before their distance says more than the time since the start."""


@dataclass(frozen=True, slots=True)
class Started:
    """A backfill that was launched.

    Attributes:
        backfill_id: Dagster's.
        first: first day.
        last: last day, included.
        sites: site names.
        days: days of the range.
        todo: site-days that will be fetched.
        skipped: site-days that are stored already.
        lost: site-days to fetch that are recorded, but whose object is missing or was changed.
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
        """What was done, in one line."""
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
    """How far a backfill has come. A day counts once it is stored for every site that was asked for.

    Attributes:
        word: the contract's word for its state.
        backfill_id: Dagster's; None when there was no backfill.
        sites: site names.
        first: first day.
        last: last day, included.
        current: the oldest day that is neither stored nor failed. Days of failed runs are left out, so that it never
            goes back. When no such day is left, the last day.
        days_done: days of the range that are stored for all sites, those stored before included.
        days: days of the range.
        parts_done: site-days that are stored.
        parts: site-days of the range.
        failed: site-days that failed and were not stored since.
        rows: rows of the site-days that are stored.
        started: Unix seconds.
        updated: Unix seconds: when something was last heard of it.
        estimated_end: Unix seconds; None when nothing can be said.
        ending: whether it was cancelled, and days at work still complete.
        requests: requests that its stored days have taken.
        bytes: bytes of the objects it has stored.
        own_rows: rows of the site-days that it has stored itself.
        own_parts: site-days that it has stored itself.
        own_todo: site-days that it was to fetch.
        forecast: what was foreseen, as JSON.
        samples: samples that the API returned for the site-days that are stored.
        texts: how many of them are stored as texts.
        without_rows: site-days that are stored without a row.
        lost: site-days of `failed` that were not stored because their run's process ended.
        missing: site-days that were stored, and whose object is now missing or changed.
        notes: what an operator should know, a sentence or two each.
        api_down_since: Unix seconds since when the API has not answered a run that waits for it; None: no run waits.
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
        """Whether nothing more will come of it."""
        return self.word != "in_progress" and not self.ending

    def facts(self) -> dict[str, Any]:
        """The answer of `GET /backfill/status`; instants are UTC, ISO 8601."""
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
            "started_at": _iso(self.started),
            "last_updated": _iso(self.updated),
            "estimated_completion": _iso(self.estimated_end),
            "message": self.message,
            "api_down_since": _iso(self.api_down_since),
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
    """One error of a backfill; `site` and `day` are None when it was the run's and no day's."""

    backfill_id: str
    at: float
    error: str
    site: str | None
    day: date | None

    def facts(self) -> dict[str, Any]:
        """One entry of `GET /backfill/errors`."""
        return {
            "backfill_id": self.backfill_id,
            "timestamp": _iso(self.at),
            "error": self.error,
            "context": {"site": self.site, "date": self.day.isoformat() if self.day else None},
        }


class Control:
    """The operator's requests.

    Args:
        gateway: the Dagster instance.
        settings: first day, lag, sites.
        all_sites: asks for the sites that may be backfilled.
        clock: Unix seconds.
        sleep: waits.
    """

    def __init__(
        self,
        gateway: Gateway,
        settings: Settings,
        *,
        all_sites: Callable[[], Sequence[str]],
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.gateway = gateway
        self.settings = settings
        self._all_sites = all_sites
        self._clock = clock
        self._sleep = sleep
        self._comparing = Lock()
        self._compared_lately: dict[str, tuple[float, object, Comparison]] = {}

    def start(
        self,
        first: date,
        last: date,
        sites: Sequence[str] = (),
        *,
        force: bool = False,
        forecast: Callable[[Sequence[str]], str | None] | None = None,
    ) -> Started:
        """Launch a backfill of the days that are not stored yet.

        Args:
            first: first day.
            last: last day, included.
            sites: site names; none: all.
            force: fetch stored days as well; a backfill that runs is cancelled first.
            forecast: gives what was foreseen for these sites, as JSON, to be held against what comes.

        Raises:
            UsageError: the range or a site cannot be backfilled.
            AlreadyRunningError: a backfill runs, and `force` is false; or another start was faster.
            DaemonDownError: the work would not be done.
            StoreRefusedError, StoreBusyError: the store cannot be listed.
        """
        days = checked_days(self.settings, first, last, datetime.fromtimestamp(self._clock(), UTC))
        wanted = self._known(sites)
        self.require_daemon()
        newest = self._made_way(force=force)
        skip, lost = ({}, Comparison()) if force else self.gateway.stored(wanted, days)
        skipped = sum(map(len, skip.values()))
        backfill_id = self.gateway.launch(
            wanted, days, skip=skip, after=newest or "the first", forecast=forecast(wanted) if forecast else None
        )
        todo = len(days) * len(wanted) - skipped
        return Started(backfill_id, first, last, wanted, len(days), todo, skipped, lost=len(lost))

    def repair(self, site_days: Collection[SiteDay]) -> Started:
        """Launch a backfill of exactly these site-days, at least one.

        Raises:
            UsageError: a day or a site cannot be backfilled.
            AlreadyRunningError: a backfill runs.
            DaemonDownError: the daemon, which launches the runs, does not run.
        """
        wanted: dict[str, set[date]] = {}
        for site, day in site_days:
            wanted.setdefault(site, set()).add(day)
        sites, days = self._known(sorted(wanted)), sorted({day for _, day in site_days})
        checked_days(self.settings, days[0], days[-1], datetime.fromtimestamp(self._clock(), UTC))
        self.require_daemon()
        newest = self._made_way(force=False)
        skip = {site: set(days) - wanted[site] for site in sites}
        backfill_id = self.gateway.launch(sites, days, skip=skip, after=newest or "the first", is_repair=True)
        return Started(backfill_id, days[0], days[-1], sites, len(days), len(site_days), 0)

    def require_daemon(self) -> None:
        """Check that Dagster's daemon runs.

        Raises:
            DaemonDownError: it does not.
        """
        if not self.gateway.daemon_is_alive():
            raise DaemonDownError(
                "Dagster's daemon does not run, so that no day would be fetched",
                hint="start it with `backfill up` (or `dagster dev`), then start the backfill again",
            )

    def status(self, backfill_id: str | None = None, *, compare: bool = True) -> Status:
        """How far a backfill has come; the newest one when no id is given.

        Once a backfill is over, its objects are compared with a listing of the store, one request for 1,000 objects: a
        day counts as stored while its object is there as it was recorded. The outcome is kept for 5 s, and for 20 times
        as long as the listing took, so that a poll takes no more than a twentieth of its time to list.

        Args:
            backfill_id: the id of the backfill; None: the latest one.
            compare: whether the stored days are compared with the store.

        Raises:
            NothingThereError: no backfill has this id.
        """
        backfill = self._found(backfill_id) if backfill_id is not None else self.gateway.newest()
        if backfill is None:
            return Status("not_started")
        look = self._look(backfill)
        return self._compared(backfill, look) if look.status.is_over and compare else look.status

    def cancel(self, backfill_id: str | None = None) -> Cancelled:
        """Cancel a backfill: the days at work complete, nothing that is stored is lost.

        Raises:
            NothingThereError: no backfill has this id, or it is over, or none runs.
        """
        if backfill_id is None:
            running = self.gateway.running()
            newest = self.gateway.newest()
            backfill = running[0] if running else newest
            if backfill is None:
                raise NothingThereError("no backfill was ever started, so there is none to cancel")
        else:
            backfill = self._found(backfill_id)
        before = self._status(backfill)
        if before.is_over and before.word != "cancelled":
            raise NothingThereError(f"backfill {backfill.id} is over ({before.word}), so there is nothing to cancel")
        self.gateway.cancel(backfill.id)
        done = self.status(backfill.id, compare=False).days_done
        if backfill.state is State.ASKED:
            message = "no further day begins; days at work may still complete, and all that is stored stays"
        else:
            message = "it was cancelled before; all that is stored stays"
        return Cancelled(backfill.id, done, message)

    def errors(self, backfill_id: str | None = None) -> list[DayFailure]:
        """What failed in a backfill, newest first: its days, and runs that failed without naming a day.

        Raises:
            NothingThereError: no backfill has this id.
        """
        backfill = self._found(backfill_id) if backfill_id is not None else self.gateway.newest()
        if backfill is None:
            return []
        failures, named, look = [], set(), self._look(backfill)
        for site, days in backfill.todo.items():
            for event in self._events(backfill, site):
                if event.error is not None and event.day in days:
                    failures.append(DayFailure(backfill.id, event.at, event.error, site, event.day))
                    named.add(event.run_id)
        for run in look.failed_runs:
            lost = sorted(one for one, by in look.lost.items() if by == run.id)
            if not lost and run.id in named:
                continue
            why, died = self.gateway.why_failed(run.id)
            if died:
                why = f"its run's process ended: {why or 'killed, out of memory, or the machine stopped'}"
            text = f"not stored: {why}. {self._go_on(backfill, lost)}" if lost else why
            about: list[tuple[str | None, date | None]] = [*lost] or [(None, None)]
            failures += [DayFailure(backfill.id, run.at, text, site, day) for site, day in about]
        if look.status.is_over:
            failures += self._vanished(backfill, look)
        if (stuck := self._stuck(backfill)) is not None:
            failures.append(DayFailure(backfill.id, stuck[0], stuck[1], None, None))
        return sorted(failures, key=lambda failure: failure.at, reverse=True)

    def adopt(self, first: date, last: date, sites: Sequence[str] = (), *, deep: bool = False) -> Iterator[Adopted]:
        """Record days that the store holds and Dagster knows nothing of; see `orchestration.adopt`."""
        yield from self.gateway.adopt(self._known(sites), list(days_between(first, last)), deep=deep)

    def _known(self, sites: Sequence[str]) -> tuple[str, ...]:
        return checked_sites(sites, list(self._all_sites()))

    def _found(self, backfill_id: str) -> Backfill:
        backfill = self.gateway.backfill(backfill_id)
        if backfill is None:
            raise NothingThereError(f"there is no backfill {quoted(backfill_id)}")
        return backfill

    def _made_way(self, *, force: bool) -> str | None:
        """See that no backfill runs; the id of the newest one, None when there was none."""
        deadline = self._clock() + self.settings.grace_seconds + ENDING_S
        while True:
            newest = self.gateway.newest()
            running = [one for one in self.gateway.running() if not self._status(one).is_over]
            if not running:
                return newest.id if newest else None
            if force:
                for one in running:
                    self.gateway.cancel(one.id)
                return newest.id if newest else None
            busy = next((one for one in running if one.state is State.ASKED), None)
            if busy is not None:
                raise AlreadyRunningError(
                    f"backfill {busy.id} ({busy.first} to {busy.last}) is running: wait for it, cancel it, or force a "
                    "restart"
                )
            # Cancelled a moment ago: the days that it still completes need not be fetched again.
            if self._clock() > deadline:
                raise AlreadyRunningError(f"backfill {running[0].id} was cancelled and is still ending: try again soon")
            self._sleep(0.5)

    def _events(self, backfill: Backfill, site: str) -> Iterator[DayEvent]:
        """A site's events while the backfill lasted."""
        end = math.inf if backfill.ended is None else backfill.ended + _SLACK_S
        return (event for event in self.gateway.events(site) if backfill.started <= event.at <= end)

    def _stuck(self, backfill: Backfill) -> tuple[float, str] | None:
        """When and why Dagster's daemon stopped a backfill, other than for a failed day: Unix seconds, and text."""
        if backfill.error:
            text = f"Dagster ended the backfill: {backfill.error}"
            return backfill.ended or backfill.started, sentences(text, self._changed(backfill))
        error = self.gateway.daemon_error() if backfill.state is State.ASKED and backfill.ended is None else None
        if error is None:
            return None
        at, why = error
        return at, sentences(f"Dagster's daemon cannot continue the backfill: {why}", self._changed(backfill))

    def _changed(self, backfill: Backfill) -> str:
        """Changed settings that make days of the backfill no longer partitions, and what to do."""
        wanted = {site for site, days in backfill.todo.items() if days}
        gone = sorted(wanted - set(self.settings.sites)) if self.settings.sites else []
        first = min((day for days in backfill.todo.values() for day in days), default=None)
        said = []
        if gone:
            said.append(
                f"ACE_SITES no longer contains {', '.join(map(quoted, gone[:3]))}{' and more' if gone[3:] else ''}"
            )
        if first is not None and first < self.settings.first_day:
            said.append(f"BACKFILL_FIRST_DAY is now {self.settings.first_day}, later than {first}")
        if not said:
            return ""
        todo = "Restore the setting and restart the daemon, or start another backfill without these days"
        return f"{' and '.join(said)}. {todo}"

    def _go_on(self, backfill: Backfill, lost: Iterable[SiteDay]) -> str:
        command = start_command(lost, self.settings.sites)
        when = "To fetch them, run" if backfill.ended else "When this backfill has ended, run"
        return f"{when}: {command}"

    def _vanished(self, backfill: Backfill, look: "_Look") -> list[DayFailure]:
        """Stored days whose object is not in the store now as it was recorded."""
        try:
            missing = self._missing(backfill, look)
        except (StoreRefusedError, StoreBusyError):
            return []  # the status has a note about it
        return [
            DayFailure(
                backfill.id,
                self._clock(),
                f"it was stored, but {missing.found(one)}. To fetch it again, run: {repair_command([one])}",
                *one,
            )
            for one in missing
        ]

    def _missing(self, backfill: Backfill, look: "_Look") -> Comparison:
        """Stored days of a backfill that the store does not have now; a recent result is reused.

        Raises:
            StoreRefusedError, StoreBusyError: the store cannot be listed.
        """
        with self._comparing:
            until, known, missing = self._compared_lately.get(backfill.id, (0.0, None, Comparison()))
            newest = (len(look.done), max((event.at for event in look.done.values()), default=0.0))
            began = time.monotonic()
            if known != newest or began >= until:
                records = {
                    one: Recorded(event.number("bytes") or None, event.text("etag"), None, event.at)
                    for one, event in look.done.items()
                }
                missing = self.gateway.lost(records)
                ended = time.monotonic()
                if len(self._compared_lately) >= _KEPT_COMPARISONS:
                    self._compared_lately.clear()
                self._compared_lately[backfill.id] = (ended + max(5.0, 20 * (ended - began)), newest, missing)
            return missing

    def _compared(self, backfill: Backfill, look: "_Look") -> Status:
        """The status of a backfill that is over, its stored days compared with the store."""
        status = look.status
        try:
            missing = self._missing(backfill, look)
        except (StoreRefusedError, StoreBusyError) as error:
            return replace(status, notes=(*status.notes, f"The objects were not compared with the store: {error}"))
        if not missing:
            return status
        what = (
            "1 site-day was stored, and is" if len(missing) == 1 else f"{len(missing)} site-days were stored, and are"
        )
        note = (
            f"{what} now missing from the store or changed: "
            f"{named_days(missing)}. To fetch them again, run: {repair_command(missing, self.settings.sites)}"
        )
        undone = {day for _, day in [*missing, *look.left]}
        days = {day for asked in backfill.asked.values() for day in asked}
        return replace(
            status,
            word="failed" if status.word == "completed" else status.word,
            days_done=len(days - undone),
            parts_done=status.parts_done - len(missing),
            rows=status.rows - sum(look.done[one].rows for one in missing),
            missing=len(missing),
            notes=(*status.notes, note),
        )

    def _status(self, backfill: Backfill) -> Status:
        return self._look(backfill).status

    def _look(self, backfill: Backfill) -> "_Look":
        now = self._clock()
        asked = {(site, day) for site, days in backfill.asked.items() for day in days}
        own: dict[tuple[str, date], DayEvent] = {}
        before: dict[tuple[str, date], DayEvent] = {}
        newest: dict[tuple[str, date], DayEvent] = {}
        failed: dict[tuple[str, date], DayEvent] = {}
        for site in backfill.asked:
            todo = backfill.todo.get(site, frozenset())
            for event in self.gateway.events(site):
                if event.error is None:
                    newest[site, event.day] = event
                if event.at < backfill.started and event.error is None and event.day not in todo:
                    before[site, event.day] = event
            for event in self._events(backfill, site):
                if event.day in todo:
                    (own if event.error is None else failed).setdefault((site, event.day), event)
        for one in own:
            failed.pop(one, None)
        left = {(site, day) for site, todo in backfill.todo.items() for day in todo} - own.keys()
        days, undone = {day for _, day in asked}, {day for _, day in left}
        runs = self.gateway.failed_runs(backfill) if left else []
        lost = {
            one: run.id
            for run in runs
            for site, covered in run.left.items()
            for one in ((site, day) for day in covered)
            if one in left and one not in failed
        }
        waiting = sorted(day for _, day in left - failed.keys() - lost.keys())
        of_failed_runs = {(site, day) for run in runs for site, covered in run.days.items() for day in covered}
        ahead = [day for _, day in left - failed.keys() - of_failed_runs]
        word, ending = _word(backfill, left=len(left), waiting=len(waiting))
        stored = [event for one, event in {**before, **own}.items() if one in asked]
        at = [event.at for event in [*own.values(), *failed.values()]]
        notes = []
        down = self.gateway.api_down_since(backfill.id) if word == "in_progress" or ending else None
        if down is not None:
            notes.append(
                f"The API has not answered since {down:%Y-%m-%d %H:%M:%S} UTC. The run waits for at most "
                f"{self.settings.outage_minutes:g} minutes (ACE_OUTAGE_MINUTES) and continues when the API answers."
            )
        if lost:
            died = all(self.gateway.why_failed(run_id)[1] for run_id in set(lost.values()))
            why = "the process of their run ended" if died else "their run ended with an error before it fetched them"
            notes.append(
                f"{len(lost)} site-days were not stored because {why}: {named_days(lost)}. "
                f"{self._go_on(backfill, lost)}"
            )
        if (stuck := self._stuck(backfill)) is not None:
            notes.append(stuck[1])
        status = Status(
            word,
            backfill.id,
            tuple(backfill.asked),
            backfill.first,
            backfill.last,
            min(ahead, default=backfill.last),
            days_done=len(days) - len(undone),
            days=len(days),
            parts_done=len(asked) - len(left),
            parts=len(asked),
            failed=len(failed) + len(lost),
            rows=sum(event.rows for event in stored),
            started=backfill.started,
            updated=max([backfill.started, *at, *([backfill.ended] if backfill.ended else [])]),
            estimated_end=None
            if down is not None
            else _estimate(backfill, word, sorted(event.at for event in own.values()), len(waiting), now),
            ending=ending,
            requests=sum(event.number("requests") for event in own.values()),
            bytes=sum(event.number("bytes") for event in own.values()),
            own_rows=sum(event.rows for event in own.values()),
            own_parts=len(own),
            own_todo=sum(map(len, backfill.todo.values())),
            forecast=backfill.forecast,
            samples=sum(event.number("samples_fetched") for event in stored),
            texts=sum(event.number("samples_text") for event in stored),
            without_rows=sum(not event.rows for event in stored),
            lost=len(lost),
            notes=tuple(notes),
            api_down_since=down.timestamp() if down is not None else None,
        )
        done = {one: newest[one] for one in asked - left if one in newest}
        return _Look(status, done, left, runs, lost)


@dataclass(frozen=True, slots=True)
class _Look:
    """A backfill by Dagster's record.

    Attributes:
        status: its status.
        done: the latest record of each of its stored site-days.
        left: its site-days that are not stored.
        failed_runs: its runs that failed, newest first.
        lost: site-days that were not stored because their run failed without an error of their own, with that run's id.
    """

    status: Status
    done: Mapping[SiteDay, DayEvent]
    left: Collection[SiteDay]
    failed_runs: Sequence[FailedRun]
    lost: Mapping[SiteDay, str]


def _word(backfill: Backfill, *, left: int, waiting: int) -> tuple[Word, bool]:
    """The contract's word, and whether days at work still complete.

    Dagster says that a backfill is over up to half a minute after its last day: the days themselves are believed first.
    """
    if backfill.state in (State.CANCELLED, State.ENDING):
        return "cancelled", backfill.state is State.ENDING
    if not left:
        return "completed", False
    if backfill.state is State.ASKED and waiting:
        return "in_progress", False
    return "failed", False


def _estimate(backfill: Backfill, word: Word, at: Sequence[float], waiting: int, now: float) -> float | None:
    """When it will be done, Unix seconds, by the distance of the days that it has stored."""
    if word == "completed":
        return at[-1] if at else backfill.started
    if word != "in_progress" or not at:
        return None
    if len(at) < _STEADY:
        each = (at[-1] - backfill.started) / len(at)
    else:
        gaps = [later - earlier for earlier, later in pairwise(at)]
        each = sum(gaps) / len(gaps)
    return max(now, at[-1] + each * waiting)


def _iso(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return (datetime.fromtimestamp(0, UTC) + timedelta(seconds=seconds)).isoformat(timespec="seconds")
