"""The history of each site's days: runs, backfills, stored days and failures, read from Dagster's storage.

This module keeps no state, so that it does not matter which sensor, command or user launched a run. Put here: the
queries of Dagster's storage, each indexed and bounded. Keep out: the decisions about days (`core/new_days.py`,
`core/day_retries.py`).
"""

import sys
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from statistics import median
from typing import Any

import dagster as dg

from backfill_pipeline.core.day import days_between, parse_day, partition_key
from backfill_pipeline.core.day_retries import Attempts, Retry
from backfill_pipeline.core.quality import is_thin, usual_rows
from backfill_pipeline.errors import UsageError
from backfill_pipeline.orchestration.dagster_internals import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    FINISHED_STATUSES,
    IN_PROGRESS_RUN_STATUSES,
    PARTITION_NAME_TAG,
    BulkActionsFilter,
    BulkActionStatus,
)
from backfill_pipeline.orchestration.failures import observed_error
from backfill_pipeline.orchestration.partitions import OTHER_JOBS, asset_key
from backfill_pipeline.orchestration.stored_records import removed_day
from backfill_pipeline.storage.day_index import IndexedDay

ATTEMPT_TAG = "backfill/attempt"
"""Tag of every run that a sensor launched: the attempt number, from 1."""

REMEMBERED = timedelta(days=30)
"""A day whose latest attempt is older is not retried: twice the back-off, so a month without a daemon ends it."""

UNKNOWN_REQUESTS = 10
"""Assumed requests of a day where nothing of the site is stored."""

_UNDER_WAY = [dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.QUEUED, *IN_PROGRESS_RUN_STATUSES]
_PARTITIONS = 100
_EVENTS_A_DAY = 20
_MOST_EVENTS = 10_000
_MOST_RUNS = 1000
_COSTS = 20

ByRun = dict[str, float]
"""When each attempt ended, in Unix seconds, by run id."""


@dataclass
class Launched:
    """Attempts to fetch days, from the runs and backfills of the instance.

    Attributes:
        in_progress: by site, the days that a run or backfill will fetch or is fetching.
        ended: by site and day, failed runs, and ended runs of our sensors with any result.
        new_runs: queued or started runs for new days.
        retry_runs: queued or started runs of the sensor `healing`.
    """

    in_progress: Mapping[str, set[date]] = field(default_factory=lambda: defaultdict(set))
    ended: Mapping[str, dict[date, ByRun]] = field(default_factory=lambda: defaultdict(dict))
    new_runs: int = 0
    retry_runs: int = 0


def read_launched(instance: dg.DagsterInstance, sites: Sequence[str], repository: Any, after: datetime) -> Launched:
    """Read the runs and backfills in progress, and the runs that ended since `after`.

    Ended runs are included because a killed run may have left no event of its days.

    Args:
        instance: where runs and backfills are.
        sites: site names.
        repository: its asset graph has the days of a backfill; None: backfills are not read.
        after: aware; older runs are not read.
    """
    launched, keys = Launched(), {asset_key(site): site for site in sites}
    if repository is not None:
        for site, days in _in_backfills(instance, keys, repository):
            launched.in_progress[site].update(days)
    for run in instance.get_runs(dg.RunsFilter(statuses=_UNDER_WAY)):
        launched.new_runs += run.tags.get(ATTEMPT_TAG) == "1"
        launched.retry_runs += run.tags.get(ATTEMPT_TAG, "1") != "1"
        for site, days in covered(run, keys):
            launched.in_progress[site].update(days)
    failed = dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE], created_after=after)
    own = dg.RunsFilter(
        tags={ATTEMPT_TAG: [str(n) for n in range(1, 10)]}, statuses=FINISHED_STATUSES, created_after=after
    )
    for filters in (failed, own):
        for kept in instance.get_run_records(filters, limit=_MOST_RUNS):
            at_end = kept.end_time or kept.update_timestamp.timestamp()
            for site, days in covered(kept.dagster_run, keys):
                for day in days:
                    launched.ended[site].setdefault(day, {})[kept.dagster_run.run_id] = at_end
    return launched


def read_attempted(instance: dg.DagsterInstance, sites: Sequence[str], first: date, last: date) -> dict[str, set[date]]:
    """Read the days of a range that are stored, failed or removed on purpose, by site.

    Costs one indexed query for each site.

    Args:
        instance: where events are.
        sites: site names.
        first: first day.
        last: last day, included.
    """
    days = list(days_between(first, last))
    attempted: dict[str, set[date]] = defaultdict(set)
    if not days:
        return attempted
    wanted, log = set(map(partition_key, days)), instance.event_log_storage
    for site in sites:
        stored = log.get_latest_storage_id_by_partition(
            asset_key(site), dg.DagsterEventType.ASSET_MATERIALIZATION, wanted
        )
        attempted[site] = {parse_day(key) for key in stored}
    for at in range(0, len(days), _PARTITIONS):  # few days fail, so one query reads all sites
        part = days[at : at + _PARTITIONS]
        began = datetime(part[0].year, part[0].month, part[0].day, tzinfo=UTC).timestamp()
        filters = dg.EventRecordsFilter(
            dg.DagsterEventType.ASSET_OBSERVATION,
            asset_partitions=list(map(partition_key, part)),
            after_timestamp=began,
        )
        for record in log.get_event_records(filters):
            failure = observed_error(record.asset_observation) if record.asset_observation else None
            if failure is not None:
                attempted[failure.site].add(parse_day(failure.day))
            gone = removed_day(record.asset_observation)
            if gone is not None:
                attempted[gone[0]].add(gone[1])
    return attempted


def first_event_since(instance: dg.DagsterInstance, after: datetime) -> int:
    """Return the number of the first event of a stored day since an instant; without one, more than any number.

    Args:
        instance: where events are.
        after: aware.
    """
    filters = dg.EventRecordsFilter(dg.DagsterEventType.ASSET_MATERIALIZATION, after_timestamp=after.timestamp())
    found = list(instance.event_log_storage.get_event_records(filters, limit=1, ascending=True))
    return found[0].storage_id if found else sys.maxsize


def read_due(
    instance: dg.DagsterInstance,
    site: str,
    launched: Launched,
    now: datetime,
    *,
    rows_of: Callable[[str, Collection[date]], Mapping[date, IndexedDay]] = lambda _site, _days: {},
    since: int | None = None,
) -> tuple[list[tuple[datetime, Retry]], int]:
    """Read a site's days whose retry is due, each with the time since when; and the number of events read.

    The days that were stored in the latest month are taken from the index where a listing confirms it, and from their
    events otherwise. Then it reads all events of the days that are empty, thin or failed.

    Args:
        instance: where events are.
        site: the site.
        launched: the runs and backfills.
        now: the present time, aware.
        rows_of: returns rows of the index whose object a listing shows unchanged.
        since: the result of `first_event_since` for the latest month; None: it is read here.
    """
    after, in_progress = now - REMEMBERED, launched.in_progress.get(site, set())
    filters = dg.AssetRecordsFilter(asset_key=asset_key(site), after_timestamp=after.timestamp())
    facts, newest = _stored_lately(
        instance, site, first_event_since(instance, after) if since is None else since, rows_of
    )
    seen = instance.fetch_observations(filters, limit=_MOST_EVENTS).records
    events = len(newest) + len(seen)
    rows = {day: one.rows for day, one in facts.items()}
    thin = {day for day, one in facts.items() if one.is_thin(usual_rows(rows, day))}
    ended: dict[date, ByRun] = {day: dict(runs) for day, runs in launched.ended.get(site, {}).items()}
    removed = {one[1] for record in seen if (one := removed_day(record.asset_observation)) is not None}
    for record in seen:
        failure = observed_error(record.asset_observation) if record.asset_observation else None
        if failure is not None:
            ended.setdefault(parse_day(failure.day), {})[record.run_id] = record.timestamp
    gone = removed - set(facts)  # removed on purpose and not stored since: only an operator starts them again
    open_days = sorted(({*ended, *thin} - (set(facts) - thin)) - in_progress - gone)
    before = list(_materializations(instance, site, open_days))
    for record in before:
        day = _day(record)
        newest.setdefault(day, record.asset_materialization)
        ended.setdefault(day, {})[record.run_id] = record.timestamp
    usual_cost = _usual_cost(instance, site, newest) if open_days else UNKNOWN_REQUESTS
    due = []
    for day in open_days:
        stored, runs = newest.get(day), ended.get(day)
        if not runs:
            continue  # it is in the index, and its events are removed
        attempts = Attempts(
            len(runs),
            datetime.fromtimestamp(max(runs.values()), UTC),
            stored is not None,
            day in thin or (stored is not None and _was_thin(stored)),
        )
        when = attempts.due()
        if when is not None and when <= now:
            cost = (_number(stored, "requests") if stored is not None else None) or usual_cost
            due.append((when, Retry(site, day, attempts.number + 1, cost)))
    return due, events + len(before)


@dataclass(frozen=True, slots=True)
class _Facts:
    """The figures of a stored day that decide whether it is thin."""

    rows: int
    gap: int | None
    share: float | None

    def is_thin(self, usual: float | None) -> bool:
        """Whether the day is empty or thin, by the median rows of the days around it."""
        return not self.rows or is_thin(self.rows, usual, self.gap, self.share)


def _stored_lately(
    instance: dg.DagsterInstance,
    site: str,
    since: int,
    rows_of: Callable[[str, Collection[date]], Mapping[date, IndexedDay]],
) -> tuple[dict[date, _Facts], dict[date, Any]]:
    """The figures of the days that were stored since an event, and the events that had to be read for them."""
    if since == sys.maxsize:
        return {}, {}
    kind = dg.DagsterEventType.ASSET_MATERIALIZATION
    latest = instance.event_log_storage.get_latest_storage_id_by_partition(asset_key(site), kind)
    numbers = {parse_day(key): number for key, number in latest.items() if number >= since}
    rows = rows_of(site, numbers)
    facts = {day: _Facts(row.rows, row.longest_gap_min, row.share) for day, row in rows.items() if day in numbers}
    others = sorted((number for day, number in numbers.items() if day not in facts), reverse=True)[:_MOST_EVENTS]
    newest: dict[date, Any] = {}
    for at in range(0, len(others), _PARTITIONS):
        part = others[at : at + _PARTITIONS]
        filters = dg.AssetRecordsFilter(asset_key=asset_key(site), storage_ids=part)
        newest |= _newest(instance.fetch_materializations(filters, limit=len(part)).records)
    return facts | {day: _facts(made) for day, made in newest.items()}, newest


def _facts(made: dg.AssetMaterialization) -> _Facts:
    rows = _number(made, "dagster/row_count") or 0
    return _Facts(rows, _number(made, "longest_gap_min"), _number(made, "coverage"))


def _was_thin(made: dg.AssetMaterialization) -> bool:
    """Whether a day was empty or thin when it was stored."""
    return not _number(made, "dagster/row_count") or _number(made, "thin") is True


def _usual_cost(instance: dg.DagsterInstance, site: str, newest: Mapping[date, Any]) -> int:
    """The usual number of requests of a day: of the events that are read, or of the latest ones."""
    made = [*newest.values()]
    if not made:
        records = instance.fetch_materializations(asset_key(site), limit=_COSTS).records
        made = [one.asset_materialization for one in records]
    costs = [cost for one in made if one is not None and (cost := _number(one, "requests"))]
    return round(median(costs)) if costs else UNKNOWN_REQUESTS


def _materializations(instance: dg.DagsterInstance, site: str, days: Sequence[date]) -> Iterator[dg.EventLogRecord]:
    """Read the materialisations of some days of a site, latest first for each day."""
    for at in range(0, len(days), _PARTITIONS):
        keys = [partition_key(day) for day in days[at : at + _PARTITIONS]]
        filters = dg.AssetRecordsFilter(asset_key=asset_key(site), asset_partitions=keys)
        yield from instance.fetch_materializations(filters, limit=len(keys) * _EVENTS_A_DAY).records


def _newest(records: Iterable[dg.EventLogRecord]) -> dict[date, Any]:
    """Return the latest materialisation of each day; the records are ordered latest first."""
    latest: dict[date, Any] = {}
    for record in records:
        if record.partition_key is not None:
            latest.setdefault(_day(record), record.asset_materialization)
    return latest


def _day(record: dg.EventLogRecord) -> date:
    return parse_day(record.partition_key or "")


def _number(made: dg.AssetMaterialization, name: str) -> Any:
    kept = made.metadata.get(name)
    return kept.value if kept is not None else None


def covered(run: dg.DagsterRun, keys: Mapping[dg.AssetKey, str]) -> Iterator[tuple[str, list[date]]]:
    """Yield the days that a run fetches, by site."""
    if run.job_name in OTHER_JOBS:  # its days are not the sites' days
        return
    one = run.tags.get(PARTITION_NAME_TAG)
    first, last = run.tags.get(ASSET_PARTITION_RANGE_START_TAG, one), run.tags.get(ASSET_PARTITION_RANGE_END_TAG, one)
    if first is None or last is None:
        return
    try:
        days = list(days_between(parse_day(first), parse_day(last)))
    except UsageError:  # a run with partitions of another definition
        return
    for key in keys if run.asset_selection is None else run.asset_selection:
        if key in keys:
            yield keys[key], days


def _in_backfills(
    instance: dg.DagsterInstance, keys: Mapping[dg.AssetKey, str], repository: Any
) -> Iterator[tuple[str, Collection[date]]]:
    """Yield the days that backfills have not stored yet, by site: their runs may not exist yet."""
    under_way = [BulkActionStatus.REQUESTED, BulkActionStatus.CANCELING, BulkActionStatus.FAILING]
    for backfill in instance.get_backfills(filters=BulkActionsFilter(statuses=under_way)):
        if backfill.job_name in OTHER_JOBS:
            continue
        if not backfill.is_asset_backfill:
            days = list(map(parse_day, backfill.partition_names or ()))
            yield from ((site, days) for site in keys.values())
            continue
        data = backfill.get_asset_backfill_data(repository.asset_graph)
        left = data.target_subset - data.materialized_subset - data.failed_and_downstream_subset
        for key, subset in left.partitions_subsets_by_asset_key.items():
            if key in keys:
                yield keys[key], list(map(parse_day, subset.get_partition_keys()))
