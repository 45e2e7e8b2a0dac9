"""The materialisation of a stored day: its figures, where its object is, and its versions.

Put here: what Dagster records of a stored day. Keep out: when it is recorded (`day_run.py`).
"""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from backfill_pipeline.orchestration.checks import share
from backfill_pipeline.orchestration.dagster_internals import CODE_VERSION_TAG, DATA_VERSION_TAG
from backfill_pipeline.orchestration.partitions import asset_key
from backfill_pipeline.orchestration.site_runner import Stored

CODE_VERSION = "1"
"""Version of the rule that makes an object of samples; a new one marks the stored days as made by older code."""


def materialization(
    day: Stored, *, thin: bool, rows_before: int | None, links: Mapping[str, dg.MetadataValue[Any]]
) -> dg.AssetMaterialization:
    """Make the event of a stored day.

    Args:
        day: the day, whose object is verified.
        thin: whether the day has far fewer rows than the days around it, or a long gap.
        rows_before: rows that were stored of the day before this run; None: none was stored.
        links: further links, such as to the day's chart.
    """
    fetched, stored, counts = day.fetched, day.stored, day.counts
    link = stored.url.startswith(("http://", "https://"))
    replaced: dict[str, Any] = {"replaced": stored.changed and rows_before is not None}
    if rows_before is not None:
        replaced["rows_before"] = rows_before
    return dg.AssetMaterialization(
        asset_key(fetched.site),
        partition=fetched.day.isoformat(),
        tags={CODE_VERSION_TAG: CODE_VERSION, DATA_VERSION_TAG: stored.sha256},
        metadata={
            "dagster/row_count": stored.rows,
            "dagster/partition_row_count": stored.rows,
            "dagster/uri": stored.url,
            "path": dg.MetadataValue.url(stored.url) if link else dg.MetadataValue.path(stored.url),
            "bytes": stored.bytes,
            "state": stored.state,
            "thin": thin,
            "changed": stored.changed,
            **replaced,
            "samples_fetched": counts.fetched,
            "samples_text": stored.texts,
            "text_bytes": stored.text_bytes,
            "samples_dropped": sum(counts.left_out.values()),
            "dropped": dg.MetadataValue.json(counts.left_out),
            "conflicts": counts.conflicts,
            "points_configured": fetched.points_configured,
            "points_seen": fetched.points_seen,
            "coverage": share(fetched.points_seen, fetched.points_configured),
            "longest_gap_min": day.quality.longest_gap_min,
            "requests": fetched.requests,
            "retries": fetched.retries,
            "throttled": fetched.throttled,
            "more_at_end": fetched.more_at_end,
            "put_s": round(day.put_s, 3),
            "duration_s": round(fetched.seconds, 3),
            "sha256": stored.sha256,
            **links,
            **({"etag": stored.etag} if stored.etag else {}),
        },
    )
