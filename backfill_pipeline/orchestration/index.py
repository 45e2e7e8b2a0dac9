"""The asset `index`: the index of stored days, made from the objects, partitioned by year.

Runs that store days write the index themselves. A backfill of this asset makes it for days that an earlier version
stored. Put here: the asset and its events. Keep out: how the index is made (`coverage/footers.py`).
"""

import time
from collections.abc import Sequence
from datetime import date

import dagster as dg

from backfill_pipeline.core.day import days_between
from backfill_pipeline.core.text import printable
from backfill_pipeline.coverage.footers import rebuild_years
from backfill_pipeline.errors import BackfillError, TransientError
from backfill_pipeline.orchestration.io_manager import DayIOManager
from backfill_pipeline.settings import Settings

KEY = "index"

LOGGED_S = 10.0
"""Seconds between two lines of progress, at least."""

_RETRIES = dg.RetryPolicy(max_retries=3, delay=5, backoff=dg.Backoff.EXPONENTIAL)


def index_asset(settings: Settings, sites: Sequence[str]) -> dg.AssetsDefinition:
    """Define the asset: one partition for each year, with all sites.

    A run continues where an earlier run of the year ended, since it reads only days that the index lacks or whose
    object has changed. It has no upstream assets: it reads whatever is stored.

    Args:
        settings: the first day.
        sites: site names.
    """
    years = dg.TimeWindowPartitionsDefinition(
        start=str(settings.first_day.year), cron_schedule="0 0 1 1 *", fmt="%Y", timezone="UTC", end_offset=1
    )

    @dg.asset(
        name=KEY,
        group_name=KEY,
        partitions_def=years,
        kinds={"parquet"},
        retry_policy=_RETRIES,
        description="The index of stored days, `index/<site>/YYYY.parquet`, made from the objects. Runs that store "
        "days write it. Backfill this asset once for days that an earlier version stored. It sends no request to the "
        "API.",
        metadata={"store": settings.store},
    )
    def index(context: dg.AssetExecutionContext, objects: dg.ResourceParam[DayIOManager]) -> dg.MaterializeResult:  # type: ignore[type-arg]  # Dagster knows only the bare one
        year = int(context.partition_key)
        days = list(days_between(date(year, 1, 1), date(year, 12, 31)))
        indexed = damaged = done = 0
        logged = time.monotonic()
        try:
            for one in rebuild_years(objects.store, sites, days, everything=False):
                indexed, damaged, done = indexed + one.days, damaged + one.damaged, done + 1
                if one.damaged:
                    context.log.warning(
                        printable(
                            f"{one.site} {year}: {one.damaged:,} days have a damaged object. "
                            "Run backfill verify to list them"
                        )
                    )
                if done == len(sites) or time.monotonic() - logged >= LOGGED_S:
                    logged = time.monotonic()
                    context.log.info(f"{year}: {done:,} of {len(sites):,} sites, {indexed:,} days in the index")
        except BackfillError as error:
            raise dg.Failure(printable(str(error)), allow_retries=isinstance(error, TransientError)) from None
        return dg.MaterializeResult(
            metadata={"dagster/row_count": indexed, "sites": len(sites), "days_damaged": damaged}
        )

    return index
