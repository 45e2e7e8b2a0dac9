"""The sensors that ask for days: `new_days` for those that nobody asked for, `healing` again for thin and failed ones.

What became of a day is read from Dagster's own events and runs at each tick, so that nothing is asked for twice whoever
asked first; a cursor holds a date, or a site and an instant. Put here: how an ask becomes a run, and how much a tick
looks at. Keep out: what is due (`core/`), how a day's past is read (`history.py`).
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta

import dagster as dg

from backfill_pipeline.core.day import parse_day, partition_key
from backfill_pipeline.core.day_retries import SHARE, Retry, most_at_once, pause, plan_retries
from backfill_pipeline.core.new_days import NewDays, PlannedRun, newest_ready, plan_new_days
from backfill_pipeline.errors import UsageError
from backfill_pipeline.orchestration.dagster_internals import ASSET_PARTITION_RANGE_END_TAG as RANGE_END_TAG
from backfill_pipeline.orchestration.dagster_internals import ASSET_PARTITION_RANGE_START_TAG as RANGE_START_TAG
from backfill_pipeline.orchestration.dagster_internals import PARTITION_NAME_TAG, PRIORITY_TAG
from backfill_pipeline.orchestration.history import ATTEMPT_TAG, REMEMBERED, read_asked, read_asks, read_due
from backfill_pipeline.orchestration.partitions import asset_key
from backfill_pipeline.settings import Settings

SENSOR = "new_days"
HEALING = "healing"
EVERY_S = 300
"""Seconds between two ticks: days become ready once a day."""

MOST_RUNS = 4
"""Runs of each sensor that may be queued or at work at once."""

EVENTS_A_TICK = 4000
"""Events that a tick of `healing` reads before it leaves the other sites to the next one: about two seconds."""


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
        default_status=_status(settings),
        description=f"Asks for each site's days {settings.raw_lag_hours:g} hours after they end.",
    )
    def new_days(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        plan = _planned(context, settings, sites, now())
        context.update_cursor(plan.since.isoformat())
        said = f"all days before {plan.since} were asked for; {plan.in_progress} site-days at work"
        return _result(context, plan.runs, said, priority=2)  # a day does not wait for a year's backfill

    return new_days


def healing_sensor(
    settings: Settings, sites: Sequence[str], job_name: str, *, now: Callable[[], datetime]
) -> dg.SensorDefinition:
    """The sensor that asks again; on by default unless `BACKFILL_NEW_DAYS` is 0. Arguments as of `new_days_sensor`."""

    @dg.sensor(
        name=HEALING,
        job_name=job_name,
        minimum_interval_seconds=EVERY_S,
        default_status=_status(settings),
        description="Asks again, at growing distances and for at most "
        f"{SHARE:.0%} of the budget, for days that failed or came back empty or thin, whoever asked for them first.",
    )
    def healing(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        at, per_minute = now(), settings.requests_per_minute
        begin, not_before = _healed_until(context.cursor)
        if at < not_before:
            return dg.SensorResult(skip_reason=dg.SkipReason(f"has had its share of the budget until {not_before}"))
        asks = read_asks(context.instance, sites, context.repository_def, at - REMEMBERED)
        if asks.again >= MOST_RUNS:
            return dg.SensorResult(skip_reason=dg.SkipReason(f"{asks.again} runs are to end first"))
        most, events, looked = most_at_once(per_minute), 0, 0
        due: list[tuple[datetime, Retry]] = []
        order = _from(sites, begin)
        for site in order:
            found, read = read_due(context.instance, site, asks, at)
            due += [one for one in found if one[1].day >= settings.first_day and settings.ready_at(one[1].day) <= at]
            events, looked = events + read, looked + 1
            if events >= EVENTS_A_TICK or sum(one.requests for _, one in due) >= most:
                break
        waiting = [one for _, one in sorted(due, key=lambda found: found[0])]
        plan, cost = plan_retries(waiting, most=most, days_per_run=settings.days_per_run, room=MOST_RUNS - asks.again)
        goes_on = order[looked % len(order)] if order else ""
        not_before = at + pause(cost, per_minute)
        context.update_cursor(json.dumps({"site": goes_on, "not_before": not_before.isoformat()}))
        said = (
            f"looked at {looked} of {len(sites)} sites: {len(due)} site-days due, about {cost} requests asked for now"
        )
        return _result(context, plan, said, priority=1)  # neither: its share is bounded, and small

    return healing


def _status(settings: Settings) -> dg.DefaultSensorStatus:
    return dg.DefaultSensorStatus.RUNNING if settings.new_days else dg.DefaultSensorStatus.STOPPED


def _planned(context: dg.SensorEvaluationContext, settings: Settings, sites: Sequence[str], now: datetime) -> NewDays:
    newest = newest_ready(now, settings.raw_lag_hours)
    since = _since(context.cursor) or newest - timedelta(days=max(settings.new_days, 1) - 1)
    since = max(settings.first_day, min(since, newest + timedelta(days=1)))
    earliest = datetime(since.year, since.month, since.day, tzinfo=UTC)
    asks = read_asks(context.instance, sites, context.repository_def, earliest)
    asked = read_asked(context.instance, sites, since, newest)
    for site, days in asks.ended.items():
        asked.setdefault(site, set()).update(days)
    return plan_new_days(
        asked, asks.flying, sites, since, newest, days_per_run=settings.days_per_run, room=MOST_RUNS - asks.new
    )


def _since(cursor: str | None) -> date | None:
    """A cursor that cannot be read counts as none: the sensor begins again, and asks for nothing that is there."""
    try:
        return parse_day(cursor) if cursor else None
    except UsageError:
        return None


def _healed_until(cursor: str | None) -> tuple[str, datetime]:
    """The site to go on with, and from when; a cursor that cannot be read counts as none."""
    try:
        kept = json.loads(cursor or "")
        return str(kept["site"]), datetime.fromisoformat(kept["not_before"]).astimezone(UTC)
    except (ValueError, TypeError, KeyError):
        return "", datetime.min.replace(tzinfo=UTC)


def _from(sites: Sequence[str], begin: str) -> list[str]:
    """All sites, `begin` first; from the first one on when there is none of that name any more."""
    at = sites.index(begin) if begin in sites else 0
    return [*sites[at:], *sites[:at]]


def _result(
    context: dg.SensorEvaluationContext, runs: Sequence[PlannedRun], said: str, *, priority: int
) -> dg.SensorResult:
    context.log.info(said)
    requests = list(_requests(runs, priority))
    return dg.SensorResult(run_requests=requests, skip_reason=None if requests else dg.SkipReason(said))


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
