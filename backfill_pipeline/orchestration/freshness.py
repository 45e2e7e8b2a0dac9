"""The check `fresh`: the newest day that should be stored by now has rows. A sensor evaluates it, and each run does.

Dagster's own check for partitions passes for a day that failed, since the failure is an observation, and for a day
without rows; this one does not. Put here: which day is expected, and when the check is evaluated. Keep out: the checks
of a day that is fetched (`checks.py`).
"""

import json
from collections.abc import Callable, Iterator, Sequence
from datetime import date, datetime, timedelta

import dagster as dg

from backfill_pipeline.core.new_days import newest_ready
from backfill_pipeline.orchestration.checks import severity
from backfill_pipeline.orchestration.dagster_internals import PRIORITY_TAG
from backfill_pipeline.orchestration.partitions import FRESHNESS_JOB, asset_key, site_of
from backfill_pipeline.orchestration.stored_records import newest_record
from backfill_pipeline.settings import Settings

CHECK = "fresh"
"""Name of the check, and of its sensor."""

GRACE_H = 6
"""Hours from the instant a day is ready to the instant it has to be stored: new days may wait in a queue."""

EVERY_S = 900
"""Seconds between two looks of the sensor. A look costs one query of Dagster's storage for each site."""


def freshness_spec(site: str, settings: Settings) -> dg.AssetCheckSpec:
    """The check of a site. It has no partition: it is about the newest day."""
    return dg.AssetCheckSpec(
        CHECK,
        asset=asset_key(site),
        description=f"The newest day that has been ready for {GRACE_H} hours is stored and has rows. A day is ready "
        f"{settings.raw_lag_hours:g} hours after it ends (ACE_RAW_LAG_HOURS).",
    )


def freshness_evaluations(
    context: dg.OpExecutionContext, settings: Settings, at: datetime
) -> Iterator[dg.AssetCheckEvaluation]:
    """Evaluate the check of each site of which the run selects it. It sends no request to the API.

    Args:
        context: of a run, with or without days.
        settings: they say when a day is ready.
        at: the instant, aware.
    """
    day = expected_day(settings, at)
    for key in sorted(context.selected_asset_check_keys):
        if key.name != CHECK:
            continue
        rows = stored_rows(context.instance, site_of(key.asset_key.path[-1]), day)
        yield dg.AssetCheckEvaluation(
            asset_key=key.asset_key,
            check_name=CHECK,
            passed=bool(rows),
            severity=severity(settings),
            description=None if rows else f"{day} {'is not stored' if rows is None else 'has no rows'}",
            metadata={"expected_day": str(day), "rows": rows or 0},
        )


def freshness_sensor(settings: Settings, sites: Sequence[str], *, now: Callable[[], datetime]) -> dg.SensorDefinition:
    """Define the sensor that evaluates the check when its result changes: a day later, or a day that arrives late.

    It is on by default unless `BACKFILL_NEW_DAYS` is 0: without the sensor of new days no day is expected.

    Args:
        settings: they say when a day is ready.
        sites: site names.
        now: the instant, aware.
    """
    on = dg.DefaultSensorStatus.RUNNING if settings.new_days else dg.DefaultSensorStatus.STOPPED

    @dg.sensor(
        name=CHECK,
        job_name=FRESHNESS_JOB,
        minimum_interval_seconds=EVERY_S,
        default_status=on,
        description="Evaluates the check `fresh` of all sites when a further day is expected, or a late day arrives.",
    )
    def look(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        day = expected_day(settings, now())
        if day < settings.first_day:
            return dg.SkipReason(f"no day is expected before {settings.first_day}")
        late = [site for site in sites if not stored_rows(context.instance, site, day)]
        found = json.dumps([str(day), late])
        if found == context.cursor:
            return dg.SkipReason(f"nothing has changed since the latest evaluation: {day} is expected")
        context.update_cursor(found)
        return dg.RunRequest(tags={PRIORITY_TAG: "1"})

    return look


def expected_day(settings: Settings, at: datetime) -> date:
    """The newest UTC day that should be stored at an instant."""
    return newest_ready(at - timedelta(hours=GRACE_H), settings.raw_lag_hours)


def stored_rows(instance: dg.DagsterInstance, site: str, day: date) -> int | None:
    """Rows of a day as recorded; None when it is not recorded."""
    record = newest_record(instance, site, day)
    event = record.asset_materialization if record else None
    count = event.metadata.get("dagster/row_count") if event else None
    return count.value if count and isinstance(count.value, int) else None
