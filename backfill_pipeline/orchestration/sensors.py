"""The sensors that launch runs: `new_days` for days without an attempt, `healing` for thin, empty and failed days.

Each tick reads the state of the days from Dagster's events and runs. Therefore no day is launched twice, whether a
sensor, a command or a user launched it first. A cursor contains a date, or a site and a time. Put here: how a planned
run becomes a run request, and how much a tick reads. Keep out: which days are due (`core/`) and how the history is
read (`history.py`).
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from functools import cache

import dagster as dg

from backfill_pipeline.core.day import parse_day, partition_key
from backfill_pipeline.core.day_retries import SHARE, Retry, most_at_once, pause, plan_retries
from backfill_pipeline.core.new_days import NewDays, PlannedRun, newest_ready, plan_new_days
from backfill_pipeline.errors import BackfillError, UsageError
from backfill_pipeline.orchestration.dagster_internals import ASSET_PARTITION_RANGE_END_TAG as RANGE_END_TAG
from backfill_pipeline.orchestration.dagster_internals import ASSET_PARTITION_RANGE_START_TAG as RANGE_START_TAG
from backfill_pipeline.orchestration.dagster_internals import PARTITION_NAME_TAG, PRIORITY_TAG
from backfill_pipeline.orchestration.history import (
    ATTEMPT_TAG,
    REMEMBERED,
    first_event_since,
    read_attempted,
    read_due,
    read_launched,
)
from backfill_pipeline.orchestration.partitions import asset_key
from backfill_pipeline.settings import Settings
from backfill_pipeline.storage.current_rows import CurrentRows
from backfill_pipeline.storage.day_index import settings_cache
from backfill_pipeline.storage.days import settings_store
from backfill_pipeline.storage.store import Store

SENSOR = "new_days"
HEALING = "healing"
EVERY_S = 300
"""Seconds between two ticks: days become ready once a day."""

MOST_RUNS = 4
"""Runs of each sensor that may be queued or started at the same time."""

TICK_S = 20.0
"""Seconds after which a tick of `healing` leaves the other sites to the next tick; Dagster ends a tick after 60 s."""

EVENTS_A_TICK = 4000
"""Events that a tick of `healing` reads before it leaves the other sites to the next tick: about two seconds."""


def new_days_sensor(
    settings: Settings, sites: Sequence[str], job_name: str, *, now: Callable[[], datetime]
) -> dg.SensorDefinition:
    """Make the sensor of new days; it is on by default unless `BACKFILL_NEW_DAYS` is 0.

    Args:
        settings: the settings.
        sites: site names.
        job_name: the job that fetches days.
        now: returns the present time, aware.
    """

    @dg.sensor(
        name=SENSOR,
        job_name=job_name,
        minimum_interval_seconds=EVERY_S,
        default_status=_status(settings),
        description=f"Launches runs for each site's new days {settings.raw_lag_hours:g} hours after they end.",
    )
    def new_days(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        plan = _planned(context, settings, sites, now())
        context.update_cursor(plan.since.isoformat())
        text = f"all days before {plan.since} have a run; {plan.in_progress} site-days in progress"
        return _result(context, plan.runs, text, priority=2)  # a day does not wait for a year's backfill

    return new_days


def healing_sensor(
    settings: Settings,
    sites: Sequence[str],
    job_name: str,
    *,
    now: Callable[[], datetime],
    clock: Callable[[], float] = time.monotonic,
) -> dg.SensorDefinition:
    """Make the sensor that retries days; it is on by default unless `BACKFILL_NEW_DAYS` is 0.

    Args:
        settings: the settings.
        sites: site names.
        job_name: the job that fetches days.
        now: returns the present time, aware.
        clock: seconds that never go back.
    """

    @cache
    def store() -> Store:
        return settings_store(settings)

    @dg.sensor(
        name=HEALING,
        job_name=job_name,
        minimum_interval_seconds=EVERY_S,
        default_status=_status(settings),
        description="Retries days that failed, or are empty or thin, at increasing intervals and with at most "
        f"{SHARE:.0%} of the request budget.",
    )
    def healing(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        at, per_minute = now(), settings.requests_per_minute
        begin, not_before = _healed_until(context.cursor)
        if at < not_before:
            return dg.SensorResult(
                skip_reason=dg.SkipReason(f"the share of the request budget is used until {not_before}")
            )
        launched = read_launched(context.instance, sites, context.repository_def, at - REMEMBERED)
        if launched.retry_runs >= MOST_RUNS:
            return dg.SensorResult(skip_reason=dg.SkipReason(f"waits for the end of {launched.retry_runs} runs"))
        most, events, looked = most_at_once(per_minute), 0, 0
        due: list[tuple[datetime, Retry]] = []
        order = _from(sites, begin)

        def unreadable(error: BackfillError) -> None:
            context.log.warning(f"the index of stored days is not used, events are read instead: {error}")

        index = CurrentRows(store, order, lambda opened: settings_cache(settings, opened), unreadable)
        since, began = first_event_since(context.instance, at - REMEMBERED), clock()
        for site in order:
            found, read = read_due(context.instance, site, launched, at, rows_of=index.read, since=since)
            due += [one for one in found if one[1].day >= settings.first_day and settings.ready_at(one[1].day) <= at]
            events, looked = events + read, looked + 1
            if events >= EVENTS_A_TICK or clock() - began >= TICK_S or sum(one.requests for _, one in due) >= most:
                break
        waiting = [one for _, one in sorted(due, key=lambda found: found[0])]
        plan, cost = plan_retries(
            waiting, most=most, days_per_run=settings.days_per_run, room=MOST_RUNS - launched.retry_runs
        )
        goes_on = order[looked % len(order)] if order else ""
        not_before = at + pause(cost, per_minute)
        context.update_cursor(json.dumps({"site": goes_on, "not_before": not_before.isoformat()}))
        text = f"read {looked} of {len(sites)} sites: {len(due)} site-days due, about {cost} requests in the new runs"
        return _result(context, plan, text, priority=1)  # above a backfill's runs: its share of the budget is small

    return healing


def _status(settings: Settings) -> dg.DefaultSensorStatus:
    return dg.DefaultSensorStatus.RUNNING if settings.new_days else dg.DefaultSensorStatus.STOPPED


def _planned(context: dg.SensorEvaluationContext, settings: Settings, sites: Sequence[str], now: datetime) -> NewDays:
    newest = newest_ready(now, settings.raw_lag_hours)
    since = _since(context.cursor) or newest - timedelta(days=max(settings.new_days, 1) - 1)
    since = max(settings.first_day, min(since, newest + timedelta(days=1)))
    earliest = datetime(since.year, since.month, since.day, tzinfo=UTC)
    launched = read_launched(context.instance, sites, context.repository_def, earliest)
    attempted = read_attempted(context.instance, sites, since, newest)
    for site, days in launched.ended.items():
        attempted.setdefault(site, set()).update(days)
    return plan_new_days(
        attempted,
        launched.in_progress,
        sites,
        since,
        newest,
        days_per_run=settings.days_per_run,
        room=MOST_RUNS - launched.new_runs,
    )


def _since(cursor: str | None) -> date | None:
    """Read the cursor; an unreadable cursor is ignored, and days with an attempt are not launched again."""
    try:
        return parse_day(cursor) if cursor else None
    except UsageError:
        return None


def _healed_until(cursor: str | None) -> tuple[str, datetime]:
    """Return the site to continue with, and from when; an unreadable cursor is ignored."""
    try:
        kept = json.loads(cursor or "")
        return str(kept["site"]), datetime.fromisoformat(kept["not_before"]).astimezone(UTC)
    except (ValueError, TypeError, KeyError):
        return "", datetime.min.replace(tzinfo=UTC)


def _from(sites: Sequence[str], begin: str) -> list[str]:
    """Return all sites, `begin` first; unchanged when no site has that name any more."""
    at = sites.index(begin) if begin in sites else 0
    return [*sites[at:], *sites[:at]]


def _result(
    context: dg.SensorEvaluationContext, runs: Sequence[PlannedRun], text: str, *, priority: int
) -> dg.SensorResult:
    context.log.info(text)
    requests = list(_requests(runs, priority))
    return dg.SensorResult(run_requests=requests, skip_reason=None if requests else dg.SkipReason(text))


def _requests(runs: Sequence[PlannedRun], priority: int) -> Iterator[dg.RunRequest]:
    for run in runs:
        names = " ".join(run.sites)
        which = hashlib.sha256(names.encode("utf-8", "surrogatepass")).hexdigest()[:16]
        first, last = partition_key(run.first), partition_key(run.last)
        days = {PARTITION_NAME_TAG: first} if first == last else {RANGE_START_TAG: first, RANGE_END_TAG: last}
        yield dg.RunRequest(
            run_key=f"{first} {last} {which} {run.attempt}",
            asset_selection=[asset_key(site) for site in run.sites],
            tags=days | {ATTEMPT_TAG: str(run.attempt), PRIORITY_TAG: str(priority)},
        )
