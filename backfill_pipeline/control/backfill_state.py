"""The state of a backfill, from Dagster's records of its days and runs, compared with the store.

Put here: how events become figures and errors. Keep out: Dagster's API (`dagster_instance.py`), and what the service
does with a state (`service.py`).
"""

import math
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from itertools import pairwise
from threading import Lock

from backfill_pipeline.control.answers import DayFailure, Status, Word
from backfill_pipeline.control.backfill_records import Backfill, DayEvent, FailedRun, State
from backfill_pipeline.control.dagster_instance import Gateway
from backfill_pipeline.core.command_lines import named_days, repair_command, start_command
from backfill_pipeline.errors import (
    StoreBusyError,
    StoreRefusedError,
    quoted,
    sentences,
)
from backfill_pipeline.settings import Settings
from backfill_pipeline.storage.comparison import Comparison, Recorded, SiteDay

_SLACK_S = 1.0
"""Seconds of tolerance: Dagster records an event a moment after its time was taken."""


_ENDED = "its run's process ended: it was killed, out of memory, or the machine stopped"


_KEPT_COMPARISONS = 16
"""The number of backfills whose comparison with the store is kept for the next poll."""


_STEADY = 3
"""From this number of stored days on, the estimate uses the time between them, not the time since the start."""


class BackfillStates:
    """Reads the state of backfills.

    Args:
        gateway: the Dagster instance.
        settings: the sites, the first day, and how long an outage of the API may last.
        clock: Unix seconds.
    """

    def __init__(self, gateway: Gateway, settings: Settings, clock: Callable[[], float]) -> None:
        self.gateway = gateway
        self.settings = settings
        self._clock = clock
        self._comparing = Lock()
        self._compared_lately: dict[str, tuple[float, object, Comparison]] = {}

    def status(self, backfill: Backfill) -> Status:
        """The status by Dagster's records alone."""
        return self._look(backfill).status

    def compared_status(self, backfill: Backfill) -> Status:
        """The status; once the backfill is over, its stored days are compared with the store."""
        look = self._look(backfill)
        return self._compared(backfill, look) if look.status.is_over else look.status

    def errors(self, backfill: Backfill) -> list[DayFailure]:
        """The errors of a backfill, latest first: its days, and runs that failed without naming a day."""
        failures, named, look = [], set(), self._look(backfill)
        for site, days in backfill.todo.items():
            for event in self._events(backfill, site):
                if event.error is not None and event.day in days:
                    found = event.error
                    failures.append(
                        DayFailure(backfill.id, event.at, found.error, site, event.day, found.hint, found.kind)
                    )
                    named.add(event.run_id)
        for run in look.failed_runs:
            lost = sorted(one for one, by in look.lost.items() if by == run.id)
            if not lost and run.id in named:
                continue
            why = self.gateway.why_failed(run.id)
            text = why.message
            if why.process_ended:
                text = sentences(_ENDED, f"Dagster reports: {why.message}" if why.message else "")
            text, hint = (f"not stored: {text}", self._go_on(backfill, lost)) if lost else (text, "")
            about: list[tuple[str | None, date | None]] = [*lost] or [(None, None)]
            failures += [DayFailure(backfill.id, run.at, text, site, day, hint, why.kind) for site, day in about]
        if look.status.is_over:
            failures += self._vanished(backfill, look)
        if (stuck := self._stuck(backfill)) is not None:
            failures.append(DayFailure(backfill.id, stuck.at, stuck.error, None, None, stuck.hint, "backfill"))
        return sorted(failures, key=lambda failure: failure.at, reverse=True)

    def _events(self, backfill: Backfill, site: str) -> Iterator[DayEvent]:
        """Yield a site's events between the start and the end of the backfill."""
        end = math.inf if backfill.ended is None else backfill.ended + _SLACK_S
        return (event for event in self.gateway.events(site) if backfill.started <= event.at <= end)

    def _stuck(self, backfill: Backfill) -> "_Stuck | None":
        """Return why Dagster's daemon stopped a backfill, other than for a failed day; None while it continues."""
        changed, hint = self._changed(backfill)
        if backfill.error:
            text = f"Dagster ended the backfill: {backfill.error}"
            return _Stuck(backfill.ended or backfill.started, sentences(text, changed), hint)
        error = self.gateway.daemon_error() if backfill.state is State.ASKED and backfill.ended is None else None
        if error is None:
            return None
        at, why = error
        return _Stuck(at, sentences(f"Dagster's daemon cannot continue the backfill: {why}", changed), hint)

    def _changed(self, backfill: Backfill) -> tuple[str, str]:
        """Describe changed settings that exclude days of the backfill, and what to do; empty without a change."""
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
            return "", ""
        todo = "Restore the setting and restart the daemon, or start another backfill without these days"
        return " and ".join(said), todo

    def _go_on(self, backfill: Backfill, lost: Iterable[SiteDay]) -> str:
        command = start_command(lost, self.settings.sites)
        when = "To fetch them, run" if backfill.ended else "When this backfill has ended, run"
        return f"{when}: {command}"

    def _vanished(self, backfill: Backfill, look: "_Look") -> list[DayFailure]:
        """List stored days whose object is missing or was changed since."""
        try:
            missing = self._missing(backfill, look)
        except (StoreRefusedError, StoreBusyError):
            return []  # the status has a note about it
        return [
            DayFailure(
                backfill.id,
                self._clock(),
                f"it was stored, but {missing.found(one)}",
                *one,
                f"To fetch it again, run: {repair_command([one])}",
                "lost_object",
            )
            for one in missing
        ]

    def _missing(self, backfill: Backfill, look: "_Look") -> Comparison:
        """Find stored days of a backfill whose object is missing or was changed; a recent result is reused.

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
            died = all(self.gateway.why_failed(run_id).process_ended for run_id in set(lost.values()))
            why = "the process of their run ended" if died else "their run ended with an error before it fetched them"
            notes.append(
                f"{len(lost)} site-days were not stored because {why}: {named_days(lost)}. "
                f"{self._go_on(backfill, lost)}"
            )
        if (stuck := self._stuck(backfill)) is not None:
            notes.append(sentences(stuck.error, stuck.hint))
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
class _Stuck:
    """Why Dagster's daemon stopped a backfill, since when (Unix seconds), and what to do."""

    at: float
    error: str
    hint: str


@dataclass(frozen=True, slots=True)
class _Look:
    """A backfill by Dagster's records, without a look at the store.

    Attributes:
        status: its status.
        done: the latest record of each of its stored site-days.
        left: its site-days that are not stored.
        failed_runs: its runs that failed, newest first.
        lost: site-days that were not stored because their run failed, without an own error; by them the id of that run.
    """

    status: Status
    done: Mapping[SiteDay, DayEvent]
    left: Collection[SiteDay]
    failed_runs: Sequence[FailedRun]
    lost: Mapping[SiteDay, str]


def _word(backfill: Backfill, *, left: int, waiting: int) -> tuple[Word, bool]:
    """Return the state in the word of the HTTP API, and whether running days still complete.

    Dagster ends a backfill up to half a minute after its last day. So the records of the days decide first.
    """
    if backfill.state in (State.CANCELLED, State.ENDING):
        return "cancelled", backfill.state is State.ENDING
    if not left:
        return "completed", False
    if backfill.state is State.ASKED and waiting:
        return "in_progress", False
    return "failed", False


def _estimate(backfill: Backfill, word: Word, at: Sequence[float], waiting: int, now: float) -> float | None:
    """Estimate when the backfill will end, Unix seconds, from the time between its stored days."""
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
