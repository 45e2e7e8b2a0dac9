"""Adopting: Dagster gets materialisations of days that are in the store and not in its storage; nothing is fetched.

For a Dagster storage that was lost, or a bucket that another installation filled. Put here: the checks of an object
before it is recorded, and what is recorded. Keep out: the command around it (`control/`).
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from typing import Literal

import dagster as dg

from backfill_pipeline.core.day import partition_key
from backfill_pipeline.core.object_keys import object_key, text_key
from backfill_pipeline.core.rows import Counts
from backfill_pipeline.orchestration.checks import samples_verdict, severity
from backfill_pipeline.orchestration.partitions import asset_key
from backfill_pipeline.orchestration.stored_records import ComparedPart, compare_records
from backfill_pipeline.settings import Settings
from backfill_pipeline.storage.comparison import Comparison, Recorded, SiteDay
from backfill_pipeline.storage.days import read_object, settings_store
from backfill_pipeline.storage.parquet import Footer
from backfill_pipeline.storage.store import Store
from backfill_pipeline.storage.texts import read_texts_object

_AT_ONCE = 16
"""Objects looked at side by side: each is a few small requests."""

_AT_ONCE_DEEP = 2
"""Objects read whole side by side: each is a day in memory."""


@dataclass(frozen=True, slots=True)
class Adopted:
    """The result for one site and day.

    Attributes:
        site: its site.
        day: its day.
        result: `adopted`: verified and recorded now; `known`: recorded before, and the object is the recorded one;
            `missing`: no object; `damaged`: the object fails its checks, or differs from the recorded one.
        wrong: what was found, a line each.
        recorded: whether Dagster had a record of the day before. Such a day is not recorded again.
        rows: rows of an adopted one; None of the others.
    """

    site: str
    day: date
    result: Literal["adopted", "known", "missing", "damaged"]
    wrong: tuple[str, ...] = ()
    recorded: bool = False
    rows: int | None = None


def adopt(
    instance: dg.DagsterInstance, settings: Settings, sites: Sequence[str], days: Sequence[date], *, deep: bool = False
) -> Iterator[Adopted]:
    """Verify what the store holds of `sites` x `days`, and record each good day that Dagster does not know.

    Each day is recorded before it is given out, so that an interrupted call goes on where it ended. Days that Dagster
    knows are compared with a listing of the store, and with `deep` read and compared with the recorded hash.

    Args:
        instance: where to record.
        settings: they name the store.
        sites: site names.
        days: UTC days.
        deep: read every byte, not the footers alone.

    Raises:
        SettingError, StoreRefusedError, StoreBusyError: the store cannot be read.
    """
    store = settings_store(settings)
    with ThreadPoolExecutor(_AT_ONCE_DEEP if deep else _AT_ONCE) as pool:
        for part in compare_records(instance, store, sites, days):

            def look(one: SiteDay, part: ComparedPart = part) -> dg.AssetMaterialization | Adopted:
                if one not in part.records:
                    return _looked(store, *one, deep=deep)
                return _compared(store, *one, part.records[one], part.lost, deep=deep)

            wanted = [(site, day) for site in sites for day in part.days]
            for (site, day), found in zip(wanted, pool.map(look, wanted), strict=True):
                if isinstance(found, Adopted):
                    yield found
                else:
                    instance.report_runless_asset_event(found)
                    _check_samples(instance, settings, site, day, found)
                    yield Adopted(site, day, "adopted", rows=int(str(found.metadata["dagster/row_count"].value)))


def _check_samples(
    instance: dg.DagsterInstance, settings: Settings, site: str, day: date, made: dg.AssetMaterialization
) -> None:
    """Record the check `has_samples` of a day whose materialisation was just recorded.

    The footer does not contain what the other checks need.
    """
    names = ("dagster/row_count", "samples_fetched", "samples_text")
    rows, samples, texts = (int(str(made.metadata[name].value)) for name in names)
    verdict = samples_verdict(rows, samples, day, texts)
    filters = dg.AssetRecordsFilter(asset_key=asset_key(site), asset_partitions=[partition_key(day)])
    found = instance.fetch_materializations(filters, limit=1).records
    for evaluation in verdict.evaluations(site, day, severity(settings), of=found[0] if found else None):
        instance.report_runless_asset_event(evaluation)


def _compared(store: Store, site: str, day: date, known: Recorded, lost: Comparison, *, deep: bool) -> Adopted:
    """A day that Dagster knows, compared with the store."""
    one = (site, day)
    if one in lost.missing:
        return Adopted(site, day, "missing", (lost.found(one),), recorded=True)
    wrong = [lost.different[one]] if one in lost.different else []
    if deep and not wrong:
        stat = store.head(object_key(site, day))
        try:
            size = 0 if stat is None else stat.bytes
            _, wrong = read_object(store, site, day, size=size, deep=True, sha256=known.sha256)
        except FileNotFoundError:
            return Adopted(site, day, "missing", ("it was deleted a moment ago",), recorded=True)
    return Adopted(site, day, "damaged" if wrong else "known", tuple(wrong), recorded=True)


def _texts(store: Store, site: str, day: date, of: Mapping[str, str], *, deep: bool) -> tuple[Footer | None, list[str]]:
    """The footer of a day's texts, None if it has none; and what is wrong with them."""
    stat = store.head(text_key(site, day))
    try:
        return (None, []) if stat is None else read_texts_object(store, site, day, size=stat.bytes, deep=deep, of=of)
    except FileNotFoundError:
        return None, []


def _looked(store: Store, site: str, day: date, *, deep: bool) -> dg.AssetMaterialization | Adopted:
    """What is to be recorded of an object, or why nothing is."""
    key = object_key(site, day)
    stat = store.head(key)
    if stat is None:
        return Adopted(site, day, "missing")
    try:
        footer, wrong = read_object(store, site, day, size=stat.bytes, deep=deep)
    except FileNotFoundError:
        return Adopted(site, day, "missing")
    if footer is None or wrong:
        return Adopted(site, day, "damaged", tuple(wrong))
    about = footer.about
    texts, wrong = _texts(store, site, day, about, deep=deep)
    if wrong:
        return Adopted(site, day, "damaged", tuple(wrong))
    counts = Counts(
        dropped=json.loads(about.get("dropped", "{}")),
        texts=texts.rows if texts else 0,
        texts_dropped=json.loads(texts.about.get("dropped", "{}")) if texts else {},
    )
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
            "state": "empty" if footer.is_empty else "stored",
            "adopted": True,
            "samples_fetched": int(about.get("fetched", footer.rows)),
            "samples_text": counts.texts,
            "samples_dropped": sum(counts.left_out.values()),
            "dropped": dg.MetadataValue.json(counts.left_out),
            "conflicts": int(about.get("conflicts", 0)),
            "points_configured": int(about.get("points_configured", 0)),
            "requests": 0,
            "duration_s": 0.0,
            "sha256": stat.sha256 or stat.named or "",
            **({"etag": stat.etag} if stat.etag else {}),
        },
    )
