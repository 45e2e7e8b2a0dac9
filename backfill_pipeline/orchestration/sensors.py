"""The sensor for new days: asks for each site's days once they are ready, and again for those that came back thin.

What became of a day is read from Dagster's own events and runs at each tick, so that nothing is asked for twice whoever
asked first. The cursor is one date. Put here: how a day's past is read from Dagster, how an ask becomes a run.
Keep out: what is due (`core/newdays.py`).
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import dagster as dg
from dagster._core.execution.backfill import BulkActionsFilter, BulkActionStatus
from dagster._core.storage.dagster_run import FINISHED_STATUSES, IN_PROGRESS_RUN_STATUSES
from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    PARTITION_NAME_TAG,
    PRIORITY_TAG,
    SENSOR_NAME_TAG,
)

from backfill_pipeline.core.day import days_between, parse_day, partition_key
from backfill_pipeline.core.newdays import Ask, NewDays, Past, newest_ready, plan_new_days
from backfill_pipeline.errors import UsageError
from backfill_pipeline.orchestration.failures import observed_error
from backfill_pipeline.orchestration.partitions import asset_key
from backfill_pipeline.settings import Settings

SENSOR = "new_days"
EVERY_S = 300
"""Seconds between two ticks: days become ready once a day."""

MOST_RUNS = 4
"""Runs of the sensor that may be queued or at work at once."""

ATTEMPT_TAG = "backfill/attempt"

_UNDER_WAY = [dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.QUEUED, *IN_PROGRESS_RUN_STATUSES]
_ASKED = 100
_EVENTS_A_DAY = 20


def new_days_sensor(
    settings: Settings, sites: Sequence[str], job_name: str, *, now: Callable[[], datetime]
) -> dg.SensorDefinition:
    """The sensor; on by default unless `BACKFILL_NEW_DAYS` is 0.

    Args:
        settings: the settings.
        sites: site names.
        job_name: the job that fetches days.
        now: the instant, aware.
    """

    @dg.sensor(
        name=SENSOR,
        job_name=job_name,
        minimum_interval_seconds=EVERY_S,
        default_status=dg.DefaultSensorStatus.RUNNING if settings.new_days else dg.DefaultSensorStatus.STOPPED,
        description=f"Asks for each site's days {settings.raw_lag_hours:g} hours after they end, and again, at growing "
        "distances, for days that failed or came back empty or thin.",
    )
    def new_days(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        plan = _planned(context, settings, sites, now())
        context.update_cursor(plan.since.isoformat())
        requests = [_request(ask) for ask in plan.asks]
        said = (
            f"all days before {plan.since} are settled; {plan.in_flight} site-days at work, {plan.waiting} asked for "
            f"later, {plan.given_up} given up"
        )
        context.log.info(said)
        return dg.SensorResult(run_requests=requests, skip_reason=None if requests else dg.SkipReason(said))

    return new_days


def _planned(context: dg.SensorEvaluationContext, settings: Settings, sites: Sequence[str], now: datetime) -> NewDays:
    newest = newest_ready(now, settings.raw_lag_hours)
    since = _since(context.cursor) or newest - timedelta(days=max(settings.new_days, 1) - 1)
    since = max(settings.first_day, min(since, newest + timedelta(days=1)))
    past, own = read_past(context.instance, sites, since, newest, context.repository_def)
    return plan_new_days(past, sites, since, newest, now=now, days_per_ask=settings.days_per_run, room=MOST_RUNS - own)


def _since(cursor: str | None) -> date | None:
    """A cursor that cannot be read counts as none: the sensor begins again, and asks for nothing that is there."""
    try:
        return parse_day(cursor) if cursor else None
    except UsageError:
        return None


def _request(ask: Ask) -> dg.RunRequest:
    names = " ".join(ask.sites)
    which = hashlib.sha256(names.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    first, last = partition_key(ask.first), partition_key(ask.last)
    days = (
        {PARTITION_NAME_TAG: first}
        if first == last
        else {ASSET_PARTITION_RANGE_START_TAG: first, ASSET_PARTITION_RANGE_END_TAG: last}
    )
    return dg.RunRequest(
        run_key=f"{first} {last} {which} {ask.attempt}",
        asset_selection=[asset_key(site) for site in ask.sites],
        tags=days | {ATTEMPT_TAG: str(ask.attempt), PRIORITY_TAG: "1"},  # a day does not wait for a year's backfill
    )


def read_past(
    instance: dg.DagsterInstance, sites: Sequence[str], first: date, last: date, repository: Any
) -> tuple[dict[tuple[str, date], Past], int]:
    """What became of each site-day, and how many of the sensor's own runs are under way.

    Args:
        instance: where events and runs are.
        sites: site names.
        first: first day.
        last: last day, included.
        repository: its asset graph tells which days a backfill asks for; None: backfills are not looked at.
    """
    days, known = list(days_between(first, last)), set(sites)
    ended: dict[tuple[str, date], dict[str, float]] = defaultdict(dict)  # when each ask ended, by run
    stored: dict[tuple[str, date], bool] = {}
    for site in sites:
        for at in range(0, len(days), _ASKED):
            keys = [partition_key(day) for day in days[at : at + _ASKED]]
            filters = dg.AssetRecordsFilter(asset_key=asset_key(site), asset_partitions=keys)
            limit = len(keys) * _EVENTS_A_DAY
            for record in instance.fetch_materializations(filters, limit=limit).records:  # newest first
                made = record.asset_materialization
                if made is not None and made.partition is not None:
                    one = (site, parse_day(made.partition))
                    stored.setdefault(one, _is_thin(made))
                    ended[one].setdefault(record.run_id, record.timestamp)
    for site, day, record in _failures(instance, days):
        if site in known:
            ended[site, day].setdefault(record.run_id, record.timestamp)
    flying = set(_in_backfills(instance, sites, repository)) if repository is not None else set()
    own = 0
    for run in instance.get_runs(dg.RunsFilter(statuses=_UNDER_WAY)):
        own += run.tags.get(SENSOR_NAME_TAG) == SENSOR
        flying.update(_covered(run, sites))
    # An ask that left no event, since its process was killed or it was cancelled, is an ask all the same.
    earliest = datetime(first.year, first.month, first.day, tzinfo=UTC)
    asked = dg.RunsFilter(tags={SENSOR_NAME_TAG: SENSOR}, statuses=FINISHED_STATUSES, created_after=earliest)
    for kept in instance.get_run_records(asked):
        at_end = kept.end_time or kept.update_timestamp.timestamp()
        for one in _covered(kept.dagster_run, sites):
            ended[one].setdefault(kept.dagster_run.run_id, at_end)
    past = {}
    for one in {*ended, *flying}:
        times = ended.get(one, {})
        last_end = datetime.fromtimestamp(max(times.values()), UTC) if times else None
        past[one] = Past(len(times), last_end, one in stored, stored.get(one, False), one in flying)
    return past, own


def _failures(instance: dg.DagsterInstance, days: Sequence[date]) -> Iterator[tuple[str, date, dg.EventLogRecord]]:
    """The failures of these days, of whatever site, newest first: few days fail, so all sites are one question."""
    for at in range(0, len(days), _ASKED):
        keys = [partition_key(day) for day in days[at : at + _ASKED]]
        began = datetime(days[at].year, days[at].month, days[at].day, tzinfo=UTC).timestamp()
        filters = dg.EventRecordsFilter(
            dg.DagsterEventType.ASSET_OBSERVATION, asset_partitions=keys, after_timestamp=began
        )
        for record in instance.event_log_storage.get_event_records(filters):
            seen = record.asset_observation
            failure = observed_error(seen) if seen is not None else None
            if failure is not None:
                yield failure.site, parse_day(failure.day), record


def _is_thin(made: dg.AssetMaterialization) -> bool:
    about = {name: value.value for name, value in made.metadata.items()}
    return about.get("state") == "empty" or about.get("thin") is True


def _covered(run: dg.DagsterRun, sites: Iterable[str]) -> Iterator[tuple[str, date]]:
    """The site-days that a run asks for."""
    one = run.tags.get(PARTITION_NAME_TAG)
    first, last = run.tags.get(ASSET_PARTITION_RANGE_START_TAG, one), run.tags.get(ASSET_PARTITION_RANGE_END_TAG, one)
    if first is None or last is None:
        return
    try:
        days = list(days_between(parse_day(first), parse_day(last)))
    except UsageError:  # a run of somebody else's partitions
        return
    for site in sites:
        if run.asset_selection is None or asset_key(site) in run.asset_selection:
            yield from ((site, day) for day in days)


def _in_backfills(instance: dg.DagsterInstance, sites: Sequence[str], repository: Any) -> Iterator[tuple[str, date]]:
    """The site-days of backfills that are not over: their runs may not be there yet."""
    under_way = [BulkActionStatus.REQUESTED, BulkActionStatus.CANCELING, BulkActionStatus.FAILING]
    for backfill in instance.get_backfills(filters=BulkActionsFilter(statuses=under_way)):
        if not backfill.is_asset_backfill:
            for site in sites:
                yield from ((site, parse_day(key)) for key in backfill.partition_names or ())
            continue
        data = backfill.get_asset_backfill_data(repository.asset_graph)
        for site in sites:
            subset = data.get_target_partitions_subset(asset_key(site))
            yield from ((site, parse_day(key)) for key in subset.get_partition_keys())
