"""Checks of every day, as Dagster asset checks.

Put here: what is judged of a stored day, and its figures. Keep out: what makes a day fail to be stored at all.
"""

from collections.abc import Iterator

import dagster as dg

from backfill_pipeline.ace.fetch import FetchedDay
from backfill_pipeline.orchestration.partitions import asset_key
from backfill_pipeline.storage.days import StoredDay

HAS_SAMPLES = "has_samples"


def check_specs(site: str) -> list[dg.AssetCheckSpec]:
    """The checks of a site's asset."""
    return [
        dg.AssetCheckSpec(
            HAS_SAMPLES,
            asset=asset_key(site),
            description="The day has samples: the API, asked twice, did not come back empty.",
        )
    ]


def checked(context: dg.AssetExecutionContext, day: FetchedDay, stored: StoredDay) -> Iterator[dg.AssetCheckEvaluation]:
    """Judge a stored day."""
    key = dg.AssetCheckKey(asset_key(day.site), HAS_SAMPLES)
    if key in context.selected_asset_check_keys:
        yield dg.AssetCheckEvaluation(
            check_name=HAS_SAMPLES,
            asset_key=key.asset_key,
            passed=stored.rows > 0,
            severity=dg.AssetCheckSeverity.WARN,
            metadata={"rows": stored.rows, "day": day.day.isoformat(), "state": stored.state},
        )
