"""The asset `tables`: the tables of a catalogue, and the sensor that keeps them in step with the store.

Put here: the asset, what it shows, and when it is materialised. Keep out: how a table follows the store
(`dataset/iceberg.py`), and which catalogue is opened (`dataset/table_catalogue.py`).
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg

from backfill_pipeline.core.text import printable
from backfill_pipeline.dataset.table_catalogue import follow_store, shown_url
from backfill_pipeline.errors import BackfillError, TransientError
from backfill_pipeline.orchestration.checks import severity
from backfill_pipeline.orchestration.dagster_internals import NOT_FINISHED_STATUSES, PRIORITY_TAG
from backfill_pipeline.orchestration.partitions import asset_key
from backfill_pipeline.orchestration.point_catalogues import points_asset_key
from backfill_pipeline.orchestration.rollup import rollup_asset_key
from backfill_pipeline.settings import Settings

if TYPE_CHECKING:
    from backfill_pipeline.dataset.iceberg import TableChange

KEY = "tables"
TABLES_JOB = "tables_job"
CHECK = "every_object_is_registered"

EVERY_S = 120
"""Seconds between two evaluations of the sensor."""

RETRY = timedelta(minutes=10)
"""After a failed run, the sensor launches the next one this long after it."""

AT_LEAST = timedelta(hours=1)
"""The sensor launches a run this long after the last one, also without an event: an object may change without one."""

_RETRIES = dg.RetryPolicy(max_retries=3, delay=5, backoff=dg.Backoff.EXPONENTIAL)


def tables_asset(settings: Settings, sites: Sequence[str]) -> dg.AssetsDefinition:
    """The asset: all tables of the configured catalogue, for all objects of the store.

    Args:
        settings: they name the store and the catalogue.
        sites: site names, distinct: the assets that are upstream.
    """
    upstream = [key(site) for site in sites for key in (asset_key, points_asset_key, rollup_asset_key)]

    @dg.asset(
        name=KEY,
        group_name=KEY,
        deps=upstream,
        kinds={"iceberg"},
        check_specs=[
            dg.AssetCheckSpec(CHECK, asset=KEY, description="Each object of the store is in its table, if it has rows.")
        ],
        retry_policy=_RETRIES,
        description="Iceberg tables over the stored objects, for DuckDB, polars, Spark, Trino and other readers of a "
        "catalogue. No byte is copied. The sensor `tables` materialises the asset after a day is stored or replaced.",
        metadata={"store": settings.store, "catalogue": shown_url(settings.table_catalog or "")},
    )
    def tables_(context: dg.AssetExecutionContext) -> dg.MaterializeResult:  # type: ignore[type-arg]  # Dagster knows only the bare one
        try:
            changes = follow_store(settings)
        except BackfillError as error:
            raise dg.Failure(printable(str(error)), allow_retries=isinstance(error, TransientError)) from None
        for one in changes:
            context.log.info(
                printable(f"{one.table}: {one.added} added, {one.replaced} replaced, {one.removed} removed")
            )
        failed = {printable(key): printable(why) for one in changes for key, why in one.failed.items()}
        check = dg.AssetCheckResult(
            passed=not failed,
            check_name=CHECK,
            severity=severity(settings),
            description="; ".join(f"{key}: {why}" for key, why in sorted(failed.items())[:3]) or None,
            metadata={"failed": len(failed)},
        )
        return dg.MaterializeResult(metadata=_metadata(changes), check_results=[check])

    return tables_


def _metadata(changes: "Sequence[TableChange]") -> dict[str, dg.MetadataValue]:
    """The rows of the samples, and the figures of each table."""
    columns = ("added", "replaced", "removed", "unchanged", "empty", "rows")
    names = ("table", *columns, "waiting", "failed")
    records = []
    for one in changes:
        figures: dict[str, Any] = {name: getattr(one, name) for name in columns}
        figures |= {"table": one.table, "waiting": len(one.waiting), "failed": len(one.failed)}
        records.append(dg.TableRecord(figures))
    schema = dg.TableSchema([dg.TableColumn(name, "string" if name == "table" else "int") for name in names])
    rows = sum(one.rows for one in changes if one.table.endswith(".samples"))
    return {"dagster/row_count": dg.MetadataValue.int(rows), "tables": dg.MetadataValue.table(records, schema)}


def tables_sensor(sites: Sequence[str], *, now: Callable[[], datetime]) -> dg.SensorDefinition:
    """The sensor that materialises the asset after an object was stored, replaced or removed.

    It launches one run at a time. A run reads a listing, so events during a run lead to one more run.

    Args:
        sites: site names.
        now: the instant, aware.
    """

    @dg.sensor(
        name=KEY,
        job_name=TABLES_JOB,
        minimum_interval_seconds=EVERY_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Materialises the asset `tables` after a day is stored, replaced or removed, and once an hour.",
    )
    def look(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        latest = str(_latest_event(context.instance, sites))
        last = next(iter(context.instance.get_run_records(dg.RunsFilter(job_name=TABLES_JOB), limit=1)), None)
        if last is not None and last.dagster_run.status in NOT_FINISHED_STATUSES:
            return dg.SensorResult(skip_reason="a run is in progress", cursor=context.cursor)
        if latest == context.cursor and last is not None:
            failed = last.dagster_run.status != dg.DagsterRunStatus.SUCCESS
            due = datetime.fromtimestamp(last.end_time or 0, UTC) + (RETRY if failed else AT_LEAST)
            if now() < due:
                return dg.SensorResult(skip_reason="no event since the last run", cursor=latest)
        run_key = f"{latest} {last.dagster_run.run_id if last else ''}"
        return dg.SensorResult(run_requests=[dg.RunRequest(run_key=run_key, tags={PRIORITY_TAG: "1"})], cursor=latest)

    return look


def _latest_event(instance: dg.DagsterInstance, sites: Sequence[str]) -> int:
    """The number of the latest event that stores, replaces or removes an object; 0 without one."""
    days = [asset_key(site) for site in sites]
    derived = [key(site) for site in sites for key in (points_asset_key, rollup_asset_key)]
    found = [one.asset_entry.last_materialization_storage_id or 0 for one in instance.get_asset_records(days + derived)]
    for key in days:  # a removal is an observation, and so is the failure of a day
        found += [one.storage_id for one in instance.fetch_observations(key, limit=1).records]
    return max(found, default=0)
