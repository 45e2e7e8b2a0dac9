"""The operator's actions: start, status, cancel, errors. The command and the HTTP API both call this module.

::

    cli/, http.py -> Control -> dagster_instance.py -> the Dagster instance

This module keeps no state: Dagster's backfill contains what was requested, and Dagster's events contain the results.

Put here: the actions and their conditions. Keep out: Dagster's API (`dagster_instance.py`), how events become figures
(`backfill_state.py`), and texts for the command or the HTTP API alone.
"""

import math
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import UTC, date, datetime

from backfill_pipeline.control.answers import Cancelled, DayFailure, Started, Status
from backfill_pipeline.control.backfill_records import Backfill, State
from backfill_pipeline.control.backfill_state import BackfillStates
from backfill_pipeline.control.dagster_instance import Gateway
from backfill_pipeline.control.day_ranges import checked_days, checked_sites
from backfill_pipeline.core.day import days_between
from backfill_pipeline.errors import (
    AlreadyRunningError,
    DaemonDownError,
    NotFoundError,
    quoted,
)
from backfill_pipeline.orchestration.adopt import Adopted
from backfill_pipeline.orchestration.build import sites_of
from backfill_pipeline.settings import Settings
from backfill_pipeline.storage.comparison import Comparison, SiteDay

ENDING_S = 90.0
"""Seconds that a start waits for a cancelled backfill to end, in addition to BACKFILL_GRACE_SECONDS."""


def open_control(settings: Settings) -> "Control":
    """Open the installation of these settings.

    Raises:
        SettingError: the folder `DAGSTER_HOME` has no `dagster.yaml`.
    """
    return Control(Gateway(settings), settings, all_sites=lambda: sites_of(settings))


class Control:
    """The actions of an operator on one installation.

    Args:
        gateway: the Dagster instance.
        settings: first day, lag, sites.
        all_sites: returns the sites that may be backfilled.
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
        self._states = BackfillStates(gateway, settings, clock)

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
            force: fetch stored days as well; a running backfill is cancelled first.
            forecast: returns the latest forecast for these sites as JSON, to be compared with the result.

        Raises:
            UsageError: the range or a site cannot be backfilled.
            AlreadyRunningError: a backfill runs, and `force` is false; or another start came first.
            DaemonDownError: the daemon, which launches the runs, does not run.
            StoreRefusedError, StoreBusyError: the store cannot be listed.
        """
        days = checked_days(self.settings, first, last, datetime.fromtimestamp(self._clock(), UTC))
        wanted = self._known(sites)
        self.require_daemon()
        newest = self._require_no_backfill(force=force)
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
        newest = self._require_no_backfill(force=False)
        skip = {site: set(days) - wanted[site] for site in sites}
        backfill_id = self.gateway.launch(sites, days, skip=skip, after=newest or "the first", is_repair=True)
        return Started(backfill_id, days[0], days[-1], sites, len(days), len(site_days), 0)

    def require_daemon(self) -> None:
        """Check that Dagster's daemon runs.

        Raises:
            DaemonDownError: the daemon does not run.
        """
        if not self.gateway.daemon_is_alive():
            raise DaemonDownError(
                "Dagster's daemon does not run, so that no day would be fetched",
                hint="start it with `backfill up` (or `dagster dev`), then start the backfill again",
            )

    def status(self, backfill_id: str | None = None, *, compare: bool = True) -> Status:
        """Return the status of a backfill; of the latest one when no id is given.

        Once a backfill is over, its objects are compared with a listing of the store, one request for 1,000 objects. A
        day is stored only while the store has the object that was recorded. The result is reused for 5 s, and for 20
        times the duration of the listing, so that frequent polls do not list the store each time.

        Args:
            backfill_id: the id of the backfill; None: the latest one.
            compare: whether the stored days are compared with the store.

        Raises:
            NotFoundError: no backfill has this id.
        """
        backfill = self._found(backfill_id) if backfill_id is not None else self.gateway.newest()
        if backfill is None:
            return Status("not_started")
        return self._states.compared_status(backfill) if compare else self._states.status(backfill)

    def progress(self) -> tuple[bool, float]:
        """Return whether the latest backfill runs, and the share of its site-days that are stored, 0 to 100.

        It counts new events alone, where `status` reads every event of the backfill's sites.
        """
        backfill = self.gateway.newest()
        if backfill is None:
            return False, 0.0
        parts = sum(map(len, backfill.asked.values()))
        left = sum(map(len, backfill.todo.values())) - self.gateway.counters.stored_of(backfill)
        running = backfill.state is State.ASKED and left > 0
        return running, math.floor((parts - left) / parts * 10_000) / 100

    def cancel(self, backfill_id: str | None = None) -> Cancelled:
        """Cancel a backfill: the running days complete, and stored days stay.

        Raises:
            NotFoundError: no backfill has this id, the backfill is over, or no backfill runs.
        """
        if backfill_id is None:
            running = self.gateway.running()
            newest = self.gateway.newest()
            backfill = running[0] if running else newest
            if backfill is None:
                raise NotFoundError("no backfill was ever started, so there is nothing to cancel")
        else:
            backfill = self._found(backfill_id)
        before = self._states.status(backfill)
        if before.is_over and before.word != "cancelled":
            raise NotFoundError(f"backfill {backfill.id} is over ({before.word}), so there is nothing to cancel")
        self.gateway.cancel(backfill.id)
        done = self.status(backfill.id, compare=False).days_done
        if backfill.state is State.ASKED:
            message = "no further day begins; days at work may still complete, and all that is stored stays"
        else:
            message = "it was cancelled before; all that is stored stays"
        return Cancelled(backfill.id, done, message)

    def errors(self, backfill_id: str | None = None) -> list[DayFailure]:
        """List the errors of a backfill, latest first: of its days, and of runs that failed without naming a day.

        Raises:
            NotFoundError: no backfill has this id.
        """
        backfill = self._found(backfill_id) if backfill_id is not None else self.gateway.newest()
        if backfill is None:
            return []
        return self._states.errors(backfill)

    def adopt(self, first: date, last: date, sites: Sequence[str] = (), *, deep: bool = False) -> Iterator[Adopted]:
        """Record days that are in the store and not in Dagster's records; see `orchestration.adopt`."""
        yield from self.gateway.adopt(self._known(sites), list(days_between(first, last)), deep=deep)

    def _known(self, sites: Sequence[str]) -> tuple[str, ...]:
        return checked_sites(sites, list(self._all_sites()))

    def _found(self, backfill_id: str) -> Backfill:
        backfill = self.gateway.backfill(backfill_id)
        if backfill is None:
            raise NotFoundError(f"there is no backfill {quoted(backfill_id)}")
        return backfill

    def _require_no_backfill(self, *, force: bool) -> str | None:
        """Check that no backfill runs; return the id of the latest one, None when there was none."""
        deadline = self._clock() + self.settings.grace_seconds + ENDING_S
        while True:
            newest = self.gateway.newest()
            running = [one for one in self.gateway.running() if not self._states.status(one).is_over]
            if not running:
                return newest.id if newest else None
            if force:
                for one in running:
                    self.gateway.cancel(one.id)
                return newest.id if newest else None
            busy = next((one for one in running if one.state is State.ASKED), None)
            if busy is not None:
                raise AlreadyRunningError(
                    f"backfill {busy.id} ({busy.first} to {busy.last}) is running",
                    hint="wait for it, cancel it, or force a restart",
                )
            # Cancelled a moment ago: wait, since the days that it still completes need no second fetch.
            if self._clock() > deadline:
                raise AlreadyRunningError(
                    f"backfill {running[0].id} was cancelled and is still ending", hint="try again soon"
                )
            self._sleep(0.5)
