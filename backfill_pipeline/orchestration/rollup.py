"""The assets `rollup/<site>`: hourly values of each month of a site, and the sensor that builds them.

Put here: the assets, and when a month is built. Keep out: how it is built and stored (`dataset/rollup.py`).
"""

import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import dagster as dg

from backfill_pipeline.core.day import parse_day
from backfill_pipeline.core.text import printable
from backfill_pipeline.dataset.rollup import SCHEMA, Rollup, build_rollup, month_end
from backfill_pipeline.errors import BackfillError
from backfill_pipeline.orchestration.dagster_internals import NOT_FINISHED_STATUSES, PARTITION_NAME_TAG, PRIORITY_TAG
from backfill_pipeline.orchestration.history import covered
from backfill_pipeline.orchestration.io_manager import DayIOManager
from backfill_pipeline.orchestration.partitions import ROLLUP_JOB, asset_key, asset_name, output_name, site_of
from backfill_pipeline.orchestration.ui_links import explore_link
from backfill_pipeline.settings import Settings

PREFIX = "rollup"

QUIET = timedelta(minutes=15)
"""A month is built this long after its last change."""

LAST_DAY_WAIT = timedelta(hours=1)
"""A month is built this long after its last day is ready, so that this day is usually stored."""

_EVERY_S = 300
_MOST_RUNS = 10
_MOST_EVENTS = 5000


def rollup_asset_key(site: str) -> dg.AssetKey:
    """The key of the asset of a site's hourly values, `rollup/<site>`."""
    return dg.AssetKey([PREFIX, asset_name(site)])


def rollup_assets(settings: Settings, sites: Sequence[str]) -> dg.AssetsDefinition:
    """One asset for the hourly values of each site, partitioned by month, all of one op.

    Args:
        settings: the first day that there may be.
        sites: site names, distinct.
    """
    keys = {output_name(site): rollup_asset_key(site) for site in sites}
    upstream = {f"days_of_{name}": asset_key(site) for name, site in zip(keys, sites, strict=True)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)
        # The first month may begin before the first day, and the present month ends after the last one.
        mapping = dg.TimeWindowPartitionMapping(allow_nonexistent_upstream_partitions=True)
    months = dg.MonthlyPartitionsDefinition(
        start_date=settings.first_day.replace(day=1).isoformat(), timezone="UTC", end_offset=1
    )

    @dg.op(
        name=PREFIX,
        description="Compute hourly values of months from the stored days. It sends no request to the API.",
        ins={name: dg.In(dg.Nothing) for name in upstream},
        out={name: dg.Out(dg.Nothing, is_required=False) for name in keys},
    )
    def rollup(
        context: dg.OpExecutionContext, objects: dg.ResourceParam[DayIOManager]
    ) -> Iterator[dg.AssetMaterialization]:
        failed: list[str] = []
        for site in sorted(site_of(key.path[-1]) for key in context.selected_asset_keys):
            for partition in sorted(context.partition_keys):
                month = parse_day(partition)
                context.log.info(printable(f"{site}: computing hourly values of {month:%Y-%m}"))
                try:
                    built = build_rollup(objects.store, site, month)
                except BackfillError as error:
                    failed.append(f"{site} {month:%Y-%m}: {error}")
                    continue
                if built is None:
                    failed.append(f"{site} {month:%Y-%m}: no day of this month is stored. Backfill its days first")
                    continue
                about = _metadata(objects, built)
                yield dg.AssetMaterialization(rollup_asset_key(site), partition=partition, metadata=about)
        if failed:
            raise dg.Failure(printable("; ".join(failed)), allow_retries=False)

    return dg.AssetsDefinition(
        node_def=rollup,
        keys_by_input_name=upstream,
        keys_by_output_name=keys,
        specs=[_spec(site, settings, months, mapping) for site in sites],
        can_subset=True,
    )


def _spec(
    site: str, settings: Settings, months: dg.MonthlyPartitionsDefinition, mapping: dg.TimeWindowPartitionMapping
) -> dg.AssetSpec:
    return dg.AssetSpec(
        rollup_asset_key(site),
        deps=[dg.AssetDep(asset_key(site), partition_mapping=mapping)],
        skippable=True,
        group_name=PREFIX,
        kinds={"parquet"},
        partitions_def=months,
        description=f"Mean, minimum, maximum, last value and count of each point and UTC hour of site "
        f"`{printable(site)}`. The sensor `{PREFIX}` builds a month that is over, and builds it again after its days "
        "change. Backfill this asset to build earlier months.",
        metadata={
            "site": site,
            "store": settings.store,
            **explore_link(settings, site),
            "dagster/column_schema": dg.TableSchema([dg.TableColumn(one.name, str(one.type)) for one in SCHEMA]),
        },
    )


def _metadata(objects: DayIOManager, built: Rollup) -> dict[str, dg.MetadataValue[Any]]:
    url = objects.store.url(built.key)
    link = url.startswith(("http://", "https://"))
    return {
        "dagster/row_count": dg.MetadataValue.int(built.rows),
        "path": dg.MetadataValue.url(url) if link else dg.MetadataValue.path(url),
        "bytes": dg.MetadataValue.int(built.bytes),
        "days": dg.MetadataValue.int(len(built.days)),
        "changed": dg.MetadataValue.bool(built.changed),
    }


def rollup_sensor(settings: Settings, sites: Sequence[str], *, now: Callable[[], datetime]) -> dg.SensorDefinition:
    """The sensor that builds the months that changed, 15 minutes after their last change.

    A month is built only after its last day is ready, and while no run fetches a day of it. The first evaluation builds
    nothing: a backfill of the assets builds months that were stored before.

    Args:
        settings: when a day is ready.
        sites: site names.
        now: the instant, aware.
    """

    @dg.sensor(
        name=PREFIX,
        job_name=ROLLUP_JOB,
        minimum_interval_seconds=_EVERY_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Builds the hourly values of months that are over, 15 minutes after their last change.",
    )
    def look(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        after, changed = _state(context.cursor)
        records = {site: context.instance.get_asset_records([asset_key(site)]) for site in sites}
        latest = {
            site: max((one.asset_entry.last_materialization_storage_id or 0 for one in each), default=0)
            for site, each in records.items()
        }
        if context.cursor is None:
            return dg.SensorResult(skip_reason="first evaluation", cursor=_cursor(latest, {}))
        for site in sites:
            if latest[site] > after.get(site, 0):
                after[site] = _changes(context.instance, site, after.get(site, 0), changed)
        busy = _busy_months(context.instance, sites)
        due = sorted(
            (month, site)
            for (site, month), at in changed.items()
            if site in latest
            and now() >= max(at + QUIET, settings.ready_at(month_end(month)) + LAST_DAY_WAIT)
            and (site, month) not in busy
        )[:_MOST_RUNS]
        requests = []
        for month, site in due:
            at = changed.pop((site, month))
            requests.append(
                dg.RunRequest(
                    run_key=f"{asset_name(site)} {month} {at.isoformat()}",
                    partition_key=month.isoformat(),
                    asset_selection=[rollup_asset_key(site)],
                    tags={PRIORITY_TAG: "-1", PARTITION_NAME_TAG: month.isoformat()},
                )
            )
        reason = None if requests else f"{len(changed)} changed months are not due"
        return dg.SensorResult(run_requests=requests, skip_reason=reason, cursor=_cursor(after, changed))

    return look


def _changes(instance: dg.DagsterInstance, site: str, after: int, changed: dict[tuple[str, date], datetime]) -> int:
    """Add the months of days that were stored since an event; the number of the last event that was read."""
    filters = dg.AssetRecordsFilter(asset_key=asset_key(site), after_storage_id=after)
    for record in instance.fetch_materializations(filters, limit=_MOST_EVENTS, ascending=True).records:
        after = record.storage_id
        if record.partition_key is None:
            continue
        key = (site, parse_day(record.partition_key).replace(day=1))
        at = datetime.fromtimestamp(record.timestamp, UTC)
        changed[key] = max(at, changed.get(key, at))
    return after


def _busy_months(instance: dg.DagsterInstance, sites: Sequence[str]) -> set[tuple[str, date]]:
    """The months of which a run fetches days now, or will."""
    keys = {asset_key(site): site for site in sites}
    runs = instance.get_runs(dg.RunsFilter(statuses=NOT_FINISHED_STATUSES))
    return {(site, day.replace(day=1)) for run in runs for site, days in covered(run, keys) for day in days}


def _state(cursor: str | None) -> tuple[dict[str, int], dict[tuple[str, date], datetime]]:
    """What a cursor holds: by site the last event that was read, and when each changed month changed last."""
    kept = json.loads(cursor) if cursor else {"after": {}, "changed": []}
    changed = {(site, date.fromisoformat(m)): datetime.fromisoformat(at) for site, m, at in kept["changed"]}
    return kept["after"], changed


def _cursor(after: dict[str, int], changed: dict[tuple[str, date], datetime]) -> str:
    rows = [[site, month.isoformat(), at.isoformat()] for (site, month), at in sorted(changed.items())]
    return json.dumps({"after": after, "changed": rows})
