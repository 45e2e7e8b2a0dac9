"""Partitions and asset keys: a day and a site in Dagster's words, both ways.

Put here: which days exist for Dagster, and how a site's name becomes an asset key. Keep out: what a day's window or
object key is (`core/`).
"""

import re
from datetime import date

import dagster as dg

from backfill_pipeline.core.day import parse_day
from backfill_pipeline.errors import UsageError
from backfill_pipeline.settings import Settings

PREFIX = "timeseries"

SOURCE = "ace"
"""First part of the keys of the external assets, and their group."""

SNAPSHOTS_JOB = "snapshots_job"
"""The job of the snapshots."""

ROLLUP_JOB = "rollup_job"
"""The job of the hourly values."""

COVERAGE = "coverage"
"""The asset that shows what arrived, its group and its sensor."""

COVERAGE_JOB = "coverage_job"
"""The job of that asset."""

INDEX_JOB = "index_job"
"""The job that rebuilds the index of stored days."""

FRESHNESS_JOB = "freshness_job"
"""The job that evaluates the check `fresh`."""

OTHER_JOBS = (SNAPSHOTS_JOB, ROLLUP_JOB, INDEX_JOB, FRESHNESS_JOB)
"""Jobs whose partitions are not days of the sites."""

DAYS_TAG = "backfill/days"
"""Tag of a run: the days that it fetches."""

API_DOWN_TAG = "backfill/api_down_since"
"""Tag of a run that waits for the API: since when it has not answered, in UTC; empty once it answers again."""

_FORBIDDEN = re.compile(r"^\.|__|[^A-Za-z0-9_.-]")
_ESCAPED = re.compile(r"__([0-9a-f]+)_")


def day_partitions(settings: Settings) -> dg.DailyPartitionsDefinition:
    """Define the partitions: every UTC day from the first one to the last one that may be ready.

    Dagster can only leave out whole days at the end, and a day becomes ready at any hour. So a day that is not ready
    yet is a partition for less than a day, and its materialisation fails with the time at which it will be ready.
    Without this partition, ready days could not be fetched. Partitions that are shifted by the lag would give
    downstream assets windows that are not UTC days.
    """
    return dg.DailyPartitionsDefinition(
        start_date=settings.first_day.isoformat(), timezone="UTC", end_offset=-int(settings.raw_lag_hours // 24)
    )


def asset_name(site: str) -> str:
    """A site's name as Dagster's keys, selections and URLs take it.

    ASCII letters, digits, underscores, hyphens and dots stay as they are. Any other character, a dot at the beginning
    (a browser would take `.` for a folder), and a double underscore, which begins an escape, is written `__hex_`.

    Raises:
        UsageError: the site has no name.
    """
    if not site:
        raise UsageError("a site without a name has no asset", hint="check ACE_SITES")
    return _FORBIDDEN.sub(lambda found: "".join(f"__{ord(c):x}_" for c in found.group()), site)


def site_of(name: str) -> str:
    """The site whose `asset_name` is `name`.

    Raises:
        UsageError: no site has this asset name.
    """
    try:
        site = _ESCAPED.sub(lambda found: chr(int(found.group(1), 16)), name)
        if asset_name(site) == name:
            return site
    except (ValueError, OverflowError):
        pass
    raise UsageError(f"{name!r} is not the name of a site's asset", hint="see `dagster asset list`")


def output_name(site: str) -> str:
    """The name of a site's output within its op, where Dagster takes letters, digits and underscores alone.

    Dagster's own choice would give `a-b`, `a.b` and `a_b` the same one.
    """
    return re.sub(r"[^A-Za-z0-9]", lambda c: {"_": "__", "-": "_h", ".": "_d"}[c.group()], f"site-{asset_name(site)}")


def asset_key(site: str) -> dg.AssetKey:
    """The key of a site's asset, `timeseries/<site>`."""
    return dg.AssetKey([PREFIX, asset_name(site)])


def source_key(site: str) -> dg.AssetKey:
    """The key of a site's external asset, `ace/<site>`."""
    return dg.AssetKey([SOURCE, asset_name(site)])


def days_of(context: dg.OpExecutionContext) -> list[date]:
    """The days that a run is to materialise, oldest first.

    Raises:
        UsageError: the run names none.
    """
    if not (context.has_partition_key or context.has_partition_key_range):
        raise UsageError(
            "the run names no day: choose partitions in the UI, or give the run the tag dagster/partition, or "
            "dagster/asset_partition_range_start and dagster/asset_partition_range_end, as 2025-03-01"
        )
    return sorted(parse_day(key) for key in context.partition_keys)
