"""The check `has_samples` executed alone: recorded days compared with a listing of the store, nothing fetched.

Put here: what a run of checks without assets evaluates. Keep out: the checks of a day that is fetched (`checks.py`).
"""

from collections.abc import Iterator
from datetime import date

import dagster as dg

from backfill_pipeline.core.command_lines import named_days, repair_command
from backfill_pipeline.core.day import parse_day
from backfill_pipeline.orchestration.checks import Verdict, severity
from backfill_pipeline.orchestration.partitions import asset_key, days_of, site_of
from backfill_pipeline.orchestration.stored_records import compare_records, newest_record
from backfill_pipeline.settings import Settings
from backfill_pipeline.storage.comparison import SiteDay
from backfill_pipeline.storage.store import Store

CHECK = "has_samples"


def stored_evaluations(
    context: dg.OpExecutionContext, settings: Settings, store: Store
) -> Iterator[dg.AssetCheckEvaluation]:
    """Evaluate `has_samples` of the run's partitions, or of all recorded days of a site at once where it has none.

    The costs are one event for each day and one list request for 1,000 objects.

    Args:
        context: of a run that selects checks and no asset.
        settings: what a check that does not pass shows.
        store: where the objects are.

    Raises:
        StoreRefusedError, StoreBusyError: the store cannot be listed.
    """
    for key in sorted(context.selected_asset_check_keys):
        if key.name != CHECK:
            continue
        site = site_of(key.asset_key.path[-1])
        by_day = context.has_partition_key or context.has_partition_key_range
        days = days_of(context) if by_day else _recorded_days(context.instance, site)
        lost: list[SiteDay] = []
        for part in compare_records(context.instance, store, [site], days):
            lost += part.lost
            for (_, day), record in sorted(part.records.items()) if by_day else ():
                found = part.lost.found((site, day)) if (site, day) in part.lost else ""
                found = found or ("" if record.rows else "the object has no rows")
                figures = {"rows": record.rows, "state": "stored" if record.rows else "empty"}
                verdict = Verdict(not record.rows, {CHECK: (not found, figures)}, {CHECK: found} if found else {})
                yield from verdict.evaluations(
                    site, day, severity(settings), of=newest_record(context.instance, site, day)
                )
        if days and not by_day:  # without a recorded day nothing was compared, so that nothing has passed
            yield dg.AssetCheckEvaluation(
                asset_key=asset_key(site),
                check_name=CHECK,
                passed=not lost,
                severity=severity(settings),
                metadata={"days": len(days), "days_lost": len(lost)},
                description=f"missing or changed: {named_days(lost)}; run: {repair_command(lost)}" if lost else None,
            )


def _recorded_days(instance: dg.DagsterInstance, site: str) -> list[date]:
    return sorted(map(parse_day, instance.get_materialized_partitions(asset_key(site))))
