"""The history of each site's days: runs, backfills, stored days and failures, read from Dagster's storage.

This module keeps no state, so that it does not matter which sensor, command or user launched a run. Put here: the
queries of Dagster's storage, each indexed and bounded. Keep out: the decisions about days (`core/new_days.py`,
`core/day_retries.py`).
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
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


def read_due(
    instance: dg.DagsterInstance, site: str, launched: Launched, now: datetime
) -> tuple[list[tuple[datetime, Retry]], int]:
    """Read a site's days whose retry is due, each with the time since when; and the number of events read.

    It reads the events of the latest month, and all events of the days that are empty, thin or failed in these events.

    Args:
        instance: where events are.
        site: the site.
        launched: the runs and backfills.
        now: the present time, aware.
    """
    after, in_progress = (now - REMEMBERED).timestamp(), launched.in_progress.get(site, set())
    filters = dg.AssetRecordsFilter(asset_key=asset_key(site), after_timestamp=after)
    made = instance.fetch_materializations(filters, limit=_MOST_EVENTS).records
    seen = instance.fetch_observations(filters, limit=_MOST_EVENTS).records
    newest = _newest(made)
    rows = {day: _number(one, "dagster/row_count") or 0 for day, one in newest.items()}
    thin = {day for day, one in newest.items() if _is_thin(one, usual_rows(rows, day))}
    ended: dict[date, ByRun] = {day: dict(runs) for day, runs in launched.ended.get(site, {}).items()}
    removed = {one[1] for record in seen if (one := removed_day(record.asset_observation)) is not None}
    for record in seen:
        failure = observed_error(record.asset_observation) if record.asset_observation else None
        if failure is not None:
            ended.setdefault(parse_day(failure.day), {})[record.run_id] = record.timestamp
    gone = removed - set(newest)  # removed on purpose and not stored since: only an operator starts them again
    open_days = sorted(({*ended, *thin} - (set(newest) - thin)) - in_progress - gone)
    before = list(_materializations(instance, site, open_days))
    for record in before:
        day = _day(record)
        newest.setdefault(day, record.asset_materialization)
        ended.setdefault(day, {})[record.run_id] = record.timestamp
    costs = [cost for one in newest.values() if (cost := _number(one, "requests"))]
    usual_cost = round(median(costs)) if costs else UNKNOWN_REQUESTS
    due = []
    for day in open_days:
        stored, runs = newest.get(day), ended[day]
        attempts = Attempts(
            len(runs),
            datetime.fromtimestamp(max(runs.values()), UTC),
            stored is not None,
            day in thin or (stored is not None and _is_thin(stored, None)),
        )
        when = attempts.due()
        if when is not None and when <= now:
            cost = (_number(stored, "requests") if stored is not None else None) or usual_cost
            due.append((when, Retry(site, day, attempts.number + 1, cost)))
    return due, len(made) + len(seen) + len(before)


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


def _is_thin(made: dg.AssetMaterialization, usual: float | None) -> bool:
    """Whether a stored day is empty or thin: compared with the days before and after it, as in the report.

    Without these days, the result recorded with the day is used: some of them may have been stored later.
    """
    if not _number(made, "dagster/row_count"):
        return True
    if usual is None:
        return _number(made, "thin") is True
    gap, share = _number(made, "longest_gap_min"), _number(made, "coverage")
    return is_thin(_number(made, "dagster/row_count") or 0, usual, gap, share)


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
