"""Adopting: days that the store holds and Dagster knows nothing of become materialisations, without fetching them.

For a Dagster storage that was lost, or a bucket that another installation filled. Put here: what an object has to show
before it is believed, and what is recorded of it. Keep out: the command around it (`control/`).
"""

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from typing import Literal

import dagster as dg

from backfill_pipeline.core.day import partition_key
from backfill_pipeline.core.layout import object_key
from backfill_pipeline.errors import DamagedObjectError
from backfill_pipeline.orchestration.partitions import asset_key
from backfill_pipeline.settings import Settings
from backfill_pipeline.storage.days import day_footer, get_day, settings_store
from backfill_pipeline.storage.parquet import findings, row_findings
from backfill_pipeline.storage.store import Store

_AT_ONCE = 16
"""Objects looked at side by side: each is a few small requests."""

_AT_ONCE_DEEP = 2
"""Objects read whole side by side: each is a day in memory."""


@dataclass(frozen=True, slots=True)
class Adopted:
    """What became of one site-day.

    Attributes:
        site: its site.
        day: its day.
        result: `adopted`: verified and recorded now; `known`: recorded before, and not looked at; `missing`: no object;
            `damaged`: an object that is not believed, and not recorded.
        wrong: what is wrong with a damaged one, a line each.
    """

    site: str
    day: date
    result: Literal["adopted", "known", "missing", "damaged"]
    wrong: tuple[str, ...] = ()


def adopt(
    instance: dg.DagsterInstance, settings: Settings, sites: Sequence[str], days: Sequence[date], *, deep: bool = False
) -> Iterator[Adopted]:
    """Verify what the store holds of `sites` x `days`, and record each good day that Dagster does not know.

    Each day is recorded before it is given out, so that an interrupted call goes on where it ended.

    Args:
        instance: where to record.
        settings: they name the store.
        sites: site names.
        days: UTC days.
        deep: read every row, not the footers alone.

    Raises:
        SettingError, StoreRefusedError, StoreBusyError: the store cannot be read.
    """
    store = settings_store(settings)
    with ThreadPoolExecutor(_AT_ONCE_DEEP if deep else _AT_ONCE) as pool:
        for site in sites:
            recorded = instance.get_materialized_partitions(asset_key(site))
            unknown = [day for day in days if partition_key(day) not in recorded]
            yield from (Adopted(site, day, "known") for day in days if partition_key(day) in recorded)
            looks = pool.map(lambda day, site=site: _looked(store, site, day, deep=deep), unknown)
            for day, look in zip(unknown, looks, strict=True):
                if isinstance(look, Adopted):
                    yield look
                else:
                    instance.report_runless_asset_event(look)
                    yield Adopted(site, day, "adopted")


def _looked(store: Store, site: str, day: date, *, deep: bool) -> dg.AssetMaterialization | Adopted:
    """What is to be recorded of an object, or why nothing is."""
    key = object_key(site, day)
    stat = store.head(key)
    if stat is None:
        return Adopted(site, day, "missing")
    try:
        footer = day_footer(store, site, day)
        wrong = findings(footer, site, day, stat.bytes)
        if deep and footer.columns_right:
            wrong += row_findings(get_day(store, site, day), footer, site, day)
    except FileNotFoundError:
        return Adopted(site, day, "missing")
    except DamagedObjectError as error:
        wrong = [str(error)]
    if wrong:
        return Adopted(site, day, "damaged", tuple(wrong))
    about = footer.about
    dropped = json.loads(about.get("dropped", "{}"))
    url = store.url(key)
    return dg.AssetMaterialization(
        asset_key(site),
        partition=partition_key(day),
        description="adopted: the object was there, and was verified instead of fetched again",
        metadata={
            "dagster/row_count": footer.rows,
            "path": dg.MetadataValue.url(url)
            if url.startswith(("http://", "https://"))
            else dg.MetadataValue.path(url),
            "bytes": stat.bytes,
            "state": about.get("state", "stored"),
            "adopted": True,
            "samples_fetched": int(about.get("fetched", footer.rows)),
            "samples_dropped": sum(dropped.values()),
            "dropped": dg.MetadataValue.json(dropped),
            "conflicts": int(about.get("conflicts", 0)),
            "points_configured": int(about.get("points_configured", 0)),
            "requests": 0,
            "duration_s": 0.0,
            "sha256": stat.sha256 or stat.named or "",
        },
    )
