"""Records of stored days: read from Dagster's events, and removed on purpose.

Put here: queries about recorded days, each by index and bounded by the range. Keep out: how records are compared with
the store (`storage/comparison.py`).
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import dagster as dg
import sqlalchemy as sa

from backfill_pipeline.core.day import parse_day, partition_key
from backfill_pipeline.orchestration.dagster_internals import (
    AssetCheckExecutionsTable,
    AssetEventTagsTable,
    SqlEventLogStorageTable,
)
from backfill_pipeline.orchestration.partitions import asset_key, site_of
from backfill_pipeline.storage.comparison import (
    LISTED_DAYS,
    Comparison,
    Recorded,
    SiteDay,
    compare,
    compare_range,
    list_days,
)
from backfill_pipeline.storage.day_index import verified_days
from backfill_pipeline.storage.index_cache import IndexCache
from backfill_pipeline.storage.store import Store

_BATCH = 500

REMOVED = "removed"
"""State in the observation of a day that was removed on purpose."""

_SITE_DAYS = 200_000
"""Records in memory at once: some 100 MB."""


@dataclass(frozen=True, slots=True)
class ComparedPart:
    """Some days of a range, compared with the store.

    Attributes:
        days: the days.
        records: what was recorded of them, by site and day.
        lost: the recorded days that the store does not have as they were recorded.
    """

    days: Sequence[date]
    records: Mapping[SiteDay, Recorded]
    lost: Comparison


def read_records(instance: dg.DagsterInstance, site_days: Iterable[SiteDay]) -> dict[SiteDay, Recorded]:
    """The latest record of each of some site-days; a site-day without a record is left out.

    One event is read for each recorded day, 500 at a time, whatever else Dagster knows of the site.
    """
    days: dict[str, set[str]] = {}
    for site, day in site_days:
        days.setdefault(site, set()).add(partition_key(day))
    found: dict[SiteDay, Recorded] = {}
    for site, keys in days.items():
        latest = instance.event_log_storage.get_latest_storage_id_by_partition(
            asset_key(site), dg.DagsterEventType.ASSET_MATERIALIZATION, keys
        )
        numbers = sorted(latest.values())
        for at in range(0, len(numbers), _BATCH):
            part = numbers[at : at + _BATCH]
            filters = dg.AssetRecordsFilter(asset_key=asset_key(site), storage_ids=part)
            for record in instance.fetch_materializations(filters, limit=len(part)).records:
                made = record.asset_materialization
                if made is not None and made.partition is not None:
                    found[site, parse_day(made.partition)] = recorded(made, record.timestamp)
    return found


def newest_record(instance: dg.DagsterInstance, site: str, day: date) -> dg.EventLogRecord | None:
    """The latest materialisation of a site-day; None when there is none."""
    filters = dg.AssetRecordsFilter(asset_key=asset_key(site), asset_partitions=[partition_key(day)])
    found = instance.fetch_materializations(filters, limit=1).records
    return found[0] if found else None


def compare_records(
    instance: dg.DagsterInstance, store: Store, sites: Sequence[str], days: Sequence[date]
) -> Iterator[ComparedPart]:
    """Read the records of a range and compare them with the store, some days at a time, so that memory is bounded.

    A day that is recorded again meanwhile is right: its object was read back a moment ago.

    Args:
        instance: where the records are.
        store: where the objects are.
        sites: site names.
        days: UTC days, ascending.

    Raises:
        StoreRefusedError, StoreBusyError: the store cannot be read.
    """
    for part in _parts(sites, days):
        records = read_records(instance, [(site, day) for site in sites for day in part])
        lost = compare_range(store, records)
        _forget_recorded_again(instance, records, lost)
        yield ComparedPart(part, records, lost)


def _parts(sites: Sequence[str], days: Sequence[date]) -> Iterator[Sequence[date]]:
    """Days of a range at a time, so that the records of all sites fit into memory."""
    many = max(1, min(LISTED_DAYS, _SITE_DAYS // max(1, len(sites))))
    return (days[at : at + many] for at in range(0, len(days), many))


def _forget_recorded_again(instance: dg.DagsterInstance, records: Mapping[SiteDay, Recorded], lost: Comparison) -> None:
    """Forget the lost days that were recorded again meanwhile: their object was read back a moment ago."""
    for one, record in read_records(instance, list(lost)).items():
        if record != records[one]:
            lost.forget(one)


def stored_days(
    instance: dg.DagsterInstance,
    store: Store,
    sites: Sequence[str],
    days: Sequence[date],
    cache: IndexCache | None = None,
) -> tuple[dict[str, set[date]], Comparison]:
    """Find the days that are recorded and in the store, by site, and the recorded days that are not in the store.

    No event is read of a day whose row in the index a run wrote and whose object a listing shows unchanged. The others
    are compared with their records.

    Args:
        instance: where the records are.
        store: where the objects are.
        sites: site names.
        days: UTC days, ascending.
        cache: copies of index objects.

    Raises:
        StoreRefusedError, StoreBusyError: the store cannot be read.
    """
    kept: dict[str, set[date]] = {site: set() for site in sites}
    lost, wanted = Comparison(), set(days)
    known = {site: recorded_days(instance, site) & wanted for site in sites}
    for part in _parts(sites, days):
        if not any(known[site].intersection(part) for site in sites):
            continue
        listed = list_days(store, part[0], part[-1])
        verified = verified_days(store, sites, part, listed, cache)
        for site in sites:
            kept[site] |= verified[site] & known[site]
        others = [(site, day) for site in sites for day in sorted(known[site].intersection(part) - verified[site])]
        records = read_records(instance, others)
        differs = compare(store, records, listed.values())
        _forget_recorded_again(instance, records, differs)
        for site, day in records:
            if (site, day) not in differs:
                kept[site].add(day)
        lost.missing |= differs.missing
        lost.different |= differs.different
    return kept, lost


def recorded_days(instance: dg.DagsterInstance, site: str) -> set[date]:
    """The days of a site that are recorded as stored: one query, no event is read."""
    return {parse_day(key) for key in instance.get_materialized_partitions(asset_key(site))}


def recorded(made: dg.AssetMaterialization, at: float) -> Recorded:
    """The description of an object in its materialisation."""
    names = ("bytes", "etag", "sha256", "dagster/row_count", "samples_text")
    about = {name: made.metadata[name].value for name in names if name in made.metadata}
    size, rows, texts = (about.get(name) for name in ("bytes", "dagster/row_count", "samples_text"))
    return Recorded(
        size if isinstance(size, int) else None,
        _text(about.get("etag")),
        _text(about.get("sha256")),
        at,
        rows if isinstance(rows, int) else 0,
        texts if isinstance(texts, int) else None,
    )


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def remove_records(instance: dg.DagsterInstance, site: str, days: Collection[date]) -> None:
    """Remove the records of some days of a site, as if the days had never been stored.

    Dagster's own storages cannot remove the records of single partitions (`wipe_asset_partitions` raises
    NotImplementedError in SQLite and Postgres alike), so the rows of their index are deleted here. The log of each run
    keeps its lines. An observation of each day reports the removal, also to a process that has read the events before.

    Args:
        instance: where the records are.
        site: whose days.
        days: the days.
    """
    storage: Any = instance.event_log_storage
    key = asset_key(site)
    keys = sorted(map(partition_key, days))
    for day in keys:
        instance.report_runless_asset_event(
            dg.AssetObservation(key, partition=day, description="removed on purpose", metadata={"state": REMOVED})
        )
    made = [dg.DagsterEventType.ASSET_MATERIALIZATION.value, dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED.value]
    events, checks, tags = SqlEventLogStorageTable, AssetCheckExecutionsTable, AssetEventTagsTable
    with storage.index_connection() as index:
        for at in range(0, len(keys), _BATCH):
            part = keys[at : at + _BATCH]
            wanted = sa.and_(
                events.c.asset_key == key.to_string(),
                events.c.partition.in_(part),
                events.c.dagster_event_type.in_(made),
            )
            index.execute(tags.delete().where(tags.c.event_id.in_(sa.select(events.c.id).where(wanted))))
            index.execute(events.delete().where(wanted))
            index.execute(checks.delete().where(checks.c.asset_key == key.to_string(), checks.c.partition.in_(part)))
    storage.wipe_asset_cached_status(key)


def removed_day(observation: dg.AssetObservation | None) -> SiteDay | None:
    """The site-day whose removal an observation reports; None when it reports something else."""
    state = observation.metadata.get("state") if observation is not None else None
    if observation is None or state is None or state.value != REMOVED or observation.partition is None:
        return None
    return site_of(observation.asset_key.path[-1]), parse_day(observation.partition)
