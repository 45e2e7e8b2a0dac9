"""The Dagster instance: the calls of Dagster's API that commands need.

Put here: calls of Dagster's API. Keep out: what commands decide (`service.py`) or print.

Only Dagster keeps state: the backfill's tags and target contain what was requested, asset events contain the results.
"""

import hashlib
import json
import logging
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime
from functools import cached_property
from threading import Lock

import dagster as dg
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from yaml import YAMLError  # type: ignore[import-untyped]  # its error alone; Dagster reads the file

from backfill_pipeline.control.backfill_records import PROCESS_ENDED, Backfill, DayEvent, FailedRun, RunError, State
from backfill_pipeline.control.day_events import SiteEvents
from backfill_pipeline.control.site_counters import SiteCounters
from backfill_pipeline.core.day import days_between, parse_day, partition_key
from backfill_pipeline.core.object_keys import object_key, rollup_key, text_key
from backfill_pipeline.coverage.site_figures import FigureReader
from backfill_pipeline.errors import AlreadyRunningError, SettingError
from backfill_pipeline.orchestration.adopt import Adopted, adopt
from backfill_pipeline.orchestration.dagster_internals import (
    BACKFILL_ID_TAG,
    NOT_FINISHED_STATUSES,
    WILL_RETRY_TAG,
    AssetBackfillData,
    AssetGraphSubset,
    BackfillDaemon,
    BulkActionsFilter,
    BulkActionStatus,
    PartitionBackfill,
    cancel_backfill_runs_and_cancellation_complete,
)
from backfill_pipeline.orchestration.failures import STOPPED_BY
from backfill_pipeline.orchestration.history import covered
from backfill_pipeline.orchestration.instance_storages import check_postgres
from backfill_pipeline.orchestration.partitions import (
    API_DOWN_TAG,
    OTHER_JOBS,
    PREFIX,
    asset_key,
    day_partitions,
    site_of,
)
from backfill_pipeline.orchestration.stored_records import read_records, recorded_days, remove_records, stored_days
from backfill_pipeline.settings import Settings
from backfill_pipeline.storage.comparison import Comparison, Recorded, SiteDay, compare_range
from backfill_pipeline.storage.day_index import forget_days, settings_cache
from backfill_pipeline.storage.days import settings_store
from backfill_pipeline.storage.store import Store

ALIVE_S = 75.0
"""A daemon whose latest heartbeat is older than this, in seconds, does not run; it sends one every 30 s."""

CANCEL_SETTLES_S = 2.0
"""Seconds for which a cancelled backfill has to stay cancelled while the daemon runs."""


FROM_TAG, TO_TAG, SITES_TAG = "backfill/from", "backfill/to", "backfill/sites"
"""Tags of a backfill and its runs: the requested days and sites, with those that were stored already."""

OLD_ASKED_TAG, OLD_FORECAST_TAG = "backfill/asked", "backfill/forecast"
"""Tags of earlier versions, as JSON: they are read, and not written any more."""

_FORECAST_KEY = "backfill/forecast/{}"
"""The key under which Dagster's run storage keeps the forecast of a backfill."""


_DELETED_AT_ONCE = 16


_LINE, _SAID = 500, 200


_STATES = {
    BulkActionStatus.REQUESTED: State.ASKED,
    BulkActionStatus.CANCELING: State.ENDING,
    BulkActionStatus.CANCELED: State.CANCELLED,
    BulkActionStatus.COMPLETED: State.SUCCEEDED,
    BulkActionStatus.COMPLETED_SUCCESS: State.SUCCEEDED,
    BulkActionStatus.COMPLETED_FAILED: State.FAILED,
    BulkActionStatus.FAILED: State.FAILED,
    BulkActionStatus.FAILING: State.FAILED,
}


class Gateway:
    """One Dagster instance.

    Args:
        settings: the folder `home` contains `dagster.yaml`; the process's `DAGSTER_HOME` must name the same folder.

    Raises:
        SettingError: the folder cannot be used, or the database of `BACKFILL_RUN_STORAGE` does not answer.
    """

    def __init__(self, settings: Settings) -> None:
        settings.require_home()
        check_postgres(settings)
        self.settings = settings
        try:
            self.instance = dg.DagsterInstance.from_config(str(settings.home))
        except (OSError, SQLAlchemyError) as error:
            raise SettingError(
                f"DAGSTER_HOME is {str(settings.home)!r}, where Dagster's storage cannot be opened "
                f"({_line(str(getattr(error, 'orig', error)))})",
                hint="check that the disk has space, and that this user may read and write all of .dagster there",
            ) from None
        except (YAMLError, dg.DagsterInvalidConfigError) as error:
            raise SettingError(
                f"{settings.home / 'dagster.yaml'} cannot be used: {_line(str(error))[:_SAID]}",
                hint="fix it, or use the project's own dagster.yaml",
            ) from None
        self._events: dict[str, SiteEvents] = {}
        self._why: dict[str, RunError] = {}
        self._lock = Lock()

    @cached_property
    def store(self) -> Store:
        """The store that the settings name, opened when it is first needed."""
        return settings_store(self.settings)

    @cached_property
    def figures(self) -> FigureReader:
        """What the store contains of each site, from the index; kept between two readings."""
        return FigureReader(self.store, settings_cache(self.settings, self.store))

    @cached_property
    def counters(self) -> SiteCounters:
        """Counters of the days' events; kept between two readings."""
        return SiteCounters(self.instance)

    def daemon_is_alive(self) -> bool:
        """Whether the daemon, which launches and monitors all runs, sent a heartbeat lately."""
        beats = self.instance.get_daemon_heartbeats().values()
        return any(beat.timestamp > time.time() - ALIVE_S for beat in beats)

    def daemon_error(self) -> tuple[float, str] | None:
        """The daemon's last error that stopped backfills: Unix seconds, and the cause in one line."""
        beat = self.instance.get_daemon_heartbeats().get(BackfillDaemon.daemon_type())
        if beat is None or beat.timestamp <= time.time() - ALIVE_S or not beat.errors:
            return None  # the daemon forgets errors after some minutes
        error = beat.errors[0]
        while error.cause is not None:
            error = error.cause
        return beat.timestamp, _line(error.message)

    def launch(
        self,
        sites: Sequence[str],
        days: Sequence[date],
        *,
        skip: Mapping[str, Collection[date]] | None = None,
        forecast: str | None = None,
        after: str | None = None,
        is_repair: bool = False,
    ) -> str:
        """Create a partition backfill, which the daemon runs; return its id.

        Args:
            sites: site names.
            days: ascending.
            skip: by site, days to skip. When no day is left, the backfill is over at once.
            forecast: the forecast of `backfill plan`, as JSON.
            after: id of the latest backfill that the caller knows. The new id is computed from it, so that the storage
                accepts only one of two launches at the same time, on any machines. None: any id.
            is_repair: whether skipped days are not counted as days of the backfill.

        Raises:
            AlreadyRunningError: another launch with the same `after` came first.
        """
        skip = skip or {}
        definition = day_partitions(self.settings)
        subsets = {
            asset_key(site): definition.subset_with_partition_keys(
                [partition_key(day) for day in days if day not in skip.get(site, ())]
            )
            for site in sites
        }
        target = AssetGraphSubset({k: v for k, v in subsets.items() if not v.is_empty}, set())  # type: ignore[call-arg]  # it has defaults
        now = time.time()
        backfill_id = _id_after(after or str(now))
        named = f"{len(sites)} sites" if len(sites) > 1 else sites[0][:40]
        backfill = PartitionBackfill(
            backfill_id=backfill_id,
            status=BulkActionStatus.COMPLETED_SUCCESS if target.is_empty else BulkActionStatus.REQUESTED,
            from_failure=False,
            tags={} if is_repair else {FROM_TAG: f"{days[0]}", TO_TAG: f"{days[-1]}", SITES_TAG: ",".join(sites)},
            backfill_timestamp=now,
            asset_selection=[asset_key(site) for site in sites],
            asset_backfill_data=AssetBackfillData.empty(target, now, self.instance),
            title=_title(f"{days[0]} to {days[-1]} of {named}"),
            backfill_end_timestamp=now if target.is_empty else None,
        )
        if forecast:
            self.instance.run_storage.set_cursor_values({_FORECAST_KEY.format(backfill_id): forecast})
        try:
            self.instance.add_backfill(backfill)
        except IntegrityError:
            raise AlreadyRunningError("another start came first, at the same time") from None
        return backfill_id

    def backfill(self, backfill_id: str) -> Backfill | None:
        """Return the backfill with this id; None when there is no such backfill."""
        found = self.instance.get_backfill(backfill_id)
        return self._seen(found) if found else None

    def newest(self) -> Backfill | None:
        """Return the latest backfill; None when there was no backfill."""
        return next(self._of_ours(self.instance.get_backfills(limit=20)), None)

    def running(self) -> list[Backfill]:
        """List backfills that are not over, latest first."""
        wanted = [BulkActionStatus.REQUESTED, BulkActionStatus.CANCELING, BulkActionStatus.FAILING]
        found = {
            one.backfill_id: one for one in self.instance.get_backfills(filters=BulkActionsFilter(statuses=wanted))
        }
        for run in self.instance.get_runs(dg.RunsFilter(statuses=NOT_FINISHED_STATUSES)):
            backfill_id = run.tags.get(BACKFILL_ID_TAG)  # of `dagster job backfill`, which Dagster calls complete
            if backfill_id and backfill_id not in found and (one := self.instance.get_backfill(backfill_id)):
                found[backfill_id] = one
        return list(self._of_ours(sorted(found.values(), key=lambda one: one.backfill_timestamp, reverse=True)))

    def cancel(self, backfill_id: str) -> None:
        """Cancel a backfill: no further run starts, and running runs complete their current days."""
        found = self.instance.get_backfill(backfill_id)
        if found is None or (found.status is not BulkActionStatus.REQUESTED and found.is_asset_backfill):
            return
        self._cancel_once(backfill_id)
        # Dagster's daemon reads a backfill and writes it back later, without a comparison. Such a write may lie around
        # the cancel and undo it, so the cancel is written until it stays.
        settled = time.monotonic() + CANCEL_SETTLES_S
        while self.daemon_is_alive() and time.monotonic() < settled:
            found = self.instance.get_backfill(backfill_id)
            if found is None or found.status not in (BulkActionStatus.REQUESTED, BulkActionStatus.CANCELING):
                return
            if found.status is BulkActionStatus.REQUESTED:
                self._cancel_once(backfill_id)
                settled = time.monotonic() + CANCEL_SETTLES_S
            time.sleep(0.1)

    def _cancel_once(self, backfill_id: str) -> None:
        found = self.instance.get_backfill(backfill_id)
        if found is not None and found.status is BulkActionStatus.REQUESTED:
            self.instance.update_backfill(found.with_status(BulkActionStatus.CANCELING))  # type: ignore[no-untyped-call]
        # The daemon does the same in its next iteration and marks the end; done here, runs are cancelled at once.
        cancel_backfill_runs_and_cancellation_complete(self.instance, backfill_id, logging.getLogger(__name__))

    def api_down_since(self, backfill_id: str | None = None) -> datetime | None:
        """Return the start of an outage of the API for which a run waits, aware; None when no run waits.

        Args:
            backfill_id: look at the runs of this backfill; None: at every run.
        """
        tags = {BACKFILL_ID_TAG: backfill_id} if backfill_id else None
        runs = self.instance.get_runs(dg.RunsFilter(tags=tags, statuses=[dg.DagsterRunStatus.STARTED]))
        since = [text for run in runs if (text := run.tags.get(API_DOWN_TAG))]
        return min(map(datetime.fromisoformat, since), default=None)

    def failed_runs(self, backfill: Backfill) -> list[FailedRun]:
        """List the failed runs of a backfill, latest first, without days that another run of it still fetches."""
        tags, keys = {BACKFILL_ID_TAG: backfill.id}, {asset_key(site): site for site in backfill.todo}
        failed = self.instance.get_run_records(dg.RunsFilter(tags=tags, statuses=[dg.DagsterRunStatus.FAILURE]))
        if not failed:
            return []
        again: dict[str, set[date]] = {}
        for run in self.instance.get_runs(dg.RunsFilter(tags=tags, statuses=NOT_FINISHED_STATUSES)):
            for site, days in covered(run, keys):
                again.setdefault(site, set()).update(days)
        found = []
        for record in failed:
            run = record.dagster_run
            days_of_run = {site: frozenset(days) for site, days in covered(run, keys)}
            retried = run.tags.get(WILL_RETRY_TAG) == "true"
            left = {site: days - again.get(site, set()) for site, days in days_of_run.items()}
            at = record.end_time or record.update_timestamp.timestamp()
            found.append(FailedRun(run.run_id, at, days_of_run, {} if retried else left))
        return found

    def why_failed(self, run_id: str) -> RunError:
        """Return why a run failed."""
        if run_id not in self._why:
            self._why[run_id] = self._why_failed(run_id)
        return self._why[run_id]

    def _why_failed(self, run_id: str) -> RunError:
        for logged in self.instance.all_logs(run_id, of_type=dg.DagsterEventType.STEP_FAILURE):
            event = logged.dagster_event
            if event is not None:
                failure = event.step_failure_data
                ours = failure.user_failure_data
                cause = failure.error.cause or failure.error if failure.error else None
                text = (ours.description if ours else None) or (cause.message if cause else "") or logged.user_message
                stopped_by = ours.metadata.get(STOPPED_BY) if ours else None
                return RunError(_line(text), str(stopped_by.value) if stopped_by is not None else "run")
        for logged in self.instance.all_logs(run_id, of_type=dg.DagsterEventType.RUN_FAILURE):
            text = (logged.dagster_event.message if logged.dagster_event else None) or logged.user_message
            return RunError(_line(text), PROCESS_ENDED)
        return RunError("", PROCESS_ENDED)

    def records(self, site_days: Iterable[SiteDay]) -> dict[SiteDay, Recorded]:
        """Read the latest record of each site-day from Dagster's storage."""
        return read_records(self.instance, site_days)

    def days_stored(self, sites: Sequence[str]) -> dict[str, set[date]]:
        """Return the days of each site that are recorded as stored; the store is not listed."""
        return {site: recorded_days(self.instance, site) for site in sites}

    def stored(self, sites: Sequence[str], days: Sequence[date]) -> tuple[dict[str, set[date]], Comparison]:
        """Return the days that are recorded and in the store, by site, and the recorded days that are not in the store.

        Raises:
            StoreRefusedError, StoreBusyError: the store cannot be read.
        """
        cache = settings_cache(self.settings, self.store)
        return stored_days(self.instance, self.store, sites, days, cache)

    def active_run(self) -> str | None:
        """Return the id of an unfinished run; None when all runs are finished."""
        runs = self.instance.get_runs(dg.RunsFilter(statuses=NOT_FINISHED_STATUSES), limit=1)
        return runs[0].run_id if runs else None

    def remove(self, site: str, days: Collection[date]) -> None:
        """Delete the objects of some days of a site, what was made from them, then their records.

        Made from them are their rows in the index, and the hourly values of their months. Charts read the samples of a
        month's other days until `rollup_job` makes the month again.

        Raises:
            StoreRefusedError, StoreBusyError: an object cannot be deleted; the records stay.
        """
        with ThreadPoolExecutor(_DELETED_AT_ONCE) as pool:
            keys = [key for day in sorted(days) for key in (text_key(site, day), object_key(site, day))]
            keys += sorted({rollup_key(site, day) for day in days})
            list(pool.map(self.store.delete, keys))
        forget_days(self.store, site, days)
        remove_records(self.instance, site, days)

    def lost(self, recorded: Mapping[SiteDay, Recorded]) -> Comparison:
        """Find recorded days whose object is missing or differs from its record.

        Args:
            recorded: size and ETag, by site and day; the hash is read from Dagster's storage where it is needed.

        Raises:
            StoreRefusedError, StoreBusyError: the store cannot be read.
        """
        first = compare_range(self.store, recorded)
        # These are few: read their hashes, and what was recorded meanwhile.
        return compare_range(self.store, self.records(list(first))) if first else first

    def adopt(self, sites: Sequence[str], days: Sequence[date], *, deep: bool) -> Iterator[Adopted]:
        """Record days that are in the store and not in Dagster's records."""
        return adopt(self.instance, self.settings, sites, days, deep=deep)

    def sites(self) -> list[str]:
        """List the sites that have records in Dagster."""
        return sorted(site_of(key.path[-1]) for key in self.instance.get_asset_keys(prefix=[PREFIX]))

    def events(self, site: str) -> "list[DayEvent]":
        """List the results of a site's days, oldest first. Events are kept in memory; each call reads the new ones."""
        with self._lock:
            kept = self._events.setdefault(site, SiteEvents())
            kept.refresh(self.instance, site)
            return list(kept.events)

    def _seen(self, found: PartitionBackfill) -> Backfill | None:
        """Convert a backfill of Dagster; None when it is of other assets."""
        todo: dict[str, frozenset[date]] = {}
        if found.asset_backfill_data is not None:
            for key, subset in found.asset_backfill_data.target_subset.partitions_subsets_by_asset_key.items():
                if key.path[0] == PREFIX:
                    todo[site_of(key.path[-1])] = frozenset(map(parse_day, subset.get_partition_keys()))
        elif found.partition_names and found.job_name not in OTHER_JOBS:  # `dagster job backfill`: all sites
            days = frozenset(map(parse_day, found.partition_names))
            todo = dict.fromkeys(self.settings.sites or self.sites(), days)
        tags, asked = found.tags, todo
        if SITES_TAG in tags:  # launched here
            asked = _asked(tags[SITES_TAG].split(","), tags[FROM_TAG], tags[TO_TAG])
        elif OLD_ASKED_TAG in tags:
            about = json.loads(tags[OLD_ASKED_TAG])
            asked = _asked(about["sites"], about["first"], about["last"])
        if not any(asked.values()):
            return None
        days_asked = {day for days in asked.values() for day in days}
        state, ended = _STATES[found.status], found.backfill_end_timestamp
        if not found.is_asset_backfill and state is State.SUCCEEDED:
            state, ended = self._by_runs(found)
        return Backfill(
            found.backfill_id,
            state,
            min(days_asked),
            max(days_asked),
            todo,
            asked,
            found.backfill_timestamp,
            ended,
            _line(found.error.message) if found.error else None,
            self._forecast(found),
        )

    def _forecast(self, found: PartitionBackfill) -> str | None:
        key = _FORECAST_KEY.format(found.backfill_id)
        kept = self.instance.run_storage.get_cursor_values({key})
        return kept.get(key, found.tags.get(OLD_FORECAST_TAG))

    def _by_runs(self, found: PartitionBackfill) -> tuple[State, float | None]:
        """Return the state and the end of a backfill that Dagster calls complete once its runs are launched."""
        records = self.instance.get_run_records(dg.RunsFilter(tags={BACKFILL_ID_TAG: found.backfill_id}))
        statuses = {record.dagster_run.status for record in records}
        if dg.DagsterRunStatus.CANCELED in statuses or dg.DagsterRunStatus.CANCELING in statuses:
            state, over = State.ENDING, State.CANCELLED
        else:
            state, over = State.ASKED, State.FAILED if dg.DagsterRunStatus.FAILURE in statuses else State.SUCCEEDED
        if statuses & set(NOT_FINISHED_STATUSES):
            return state, None
        ends = [record.end_time or record.update_timestamp.timestamp() for record in records]
        return over, max(ends, default=found.backfill_end_timestamp)

    def _of_ours(self, backfills: Sequence[PartitionBackfill]) -> Iterator[Backfill]:
        for found in backfills:
            seen = self._seen(found)
            if seen is not None:
                yield seen


def _id_after(text: str) -> str:
    """Compute an id of eight letters, the form of Dagster's own ids."""
    number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
    letters = []
    for _ in range(8):
        number, letter = divmod(number, 26)
        letters.append(chr(ord("a") + letter))
    return "".join(letters)


def _asked(sites: Iterable[str], first: str, last: str) -> dict[str, frozenset[date]]:
    return dict.fromkeys(sites, frozenset(days_between(parse_day(first), parse_day(last))))


def _title(text: str) -> str:
    """Convert a text to a title that Dagster accepts."""
    return "".join(c for c in text if c not in '%*"')[:100]


def _line(text: str) -> str:
    """Return the first lines of a text as one line, without a stack trace, cut to a maximum."""
    return " ".join(text.split("Stack Trace:", maxsplit=1)[0].split())[:_LINE]
