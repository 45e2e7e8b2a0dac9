"""When the asset `coverage` is refreshed, and which of its runs are kept.

Put here: the sensor, and the removal of old runs. Keep out: what the asset shows (`coverage.py`).
"""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime

import dagster as dg

from backfill_pipeline.core.text import printable
from backfill_pipeline.orchestration.dagster_internals import (
    FINISHED_STATUSES,
    IN_PROGRESS_RUN_STATUSES,
    PRIORITY_TAG,
)
from backfill_pipeline.orchestration.partitions import COVERAGE, COVERAGE_JOB, OTHER_JOBS, asset_key

LOOK_S = 30
"""Seconds between two ticks of the sensor."""

EVERY_S = 900
"""Seconds between two refreshes while days are being fetched; the end of the last run is shown at the next tick."""

KEPT_RUNS = 10
"""Finished runs of the asset that are kept: each has a few kilobytes of events and a SQLite file."""

_RUNNING = [dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.QUEUED, *IN_PROGRESS_RUN_STATUSES]
_MOST_RUNNING = 50


def coverage_sensor(sites: Sequence[str], *, now: Callable[[], datetime]) -> dg.SensorDefinition:
    """Define the sensor that refreshes the asset when days were stored.

    The first stored day is shown at the next tick. While further days are fetched, the asset is refreshed every quarter
    of an hour, and once more when no run fetches days. A tick costs two queries of Dagster's storage. The refresh sends
    no request to the API.

    Args:
        sites: site names.
        now: the instant, aware.
    """

    @dg.sensor(
        name=COVERAGE,
        job_name=COVERAGE_JOB,
        minimum_interval_seconds=LOOK_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Refreshes the asset `coverage` when days were stored.",
    )
    def look(context: dg.SensorEvaluationContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
        records = context.instance.get_asset_records([asset_key(site) for site in sites])
        newest = max((r.asset_entry.last_materialization_storage_id or 0 for r in records), default=0)
        shown, _, at = (context.cursor or "0").partition(" ")
        if str(newest) == shown:
            yield dg.SkipReason("no day was stored since the latest refresh")
            return
        running = context.instance.get_run_records(dg.RunsFilter(statuses=_RUNNING), limit=_MOST_RUNNING)
        jobs = {record.dagster_run.job_name for record in running}
        age_s = now().timestamp() - float(at or 0)
        if COVERAGE_JOB in jobs:
            yield dg.SkipReason("a refresh is running")
        elif jobs.difference(OTHER_JOBS) and age_s < EVERY_S:
            yield dg.SkipReason(f"runs are fetching days, and the latest refresh is less than {EVERY_S} s old")
        else:
            context.update_cursor(f"{newest} {now().timestamp():.0f}")
            yield dg.RunRequest(run_key=str(newest), tags={PRIORITY_TAG: "1"})

    return look


def delete_old_runs(context: dg.AssetExecutionContext) -> None:
    """Delete all but the latest finished runs of the asset, with their events."""
    try:
        finished = dg.RunsFilter(job_name=COVERAGE_JOB, statuses=list(FINISHED_STATUSES))
        for record in context.instance.get_run_records(finished)[KEPT_RUNS:]:  # latest first
            context.instance.delete_run(record.dagster_run.run_id)
    except Exception as error:  # noqa: BLE001 - the coverage is right nevertheless, and the next run tries again
        context.log.warning(printable(f"old runs of {COVERAGE_JOB} could not be deleted: {error}"))
