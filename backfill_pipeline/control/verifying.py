"""`backfill verify`: every expected object held against the contract.

Put here: which objects are expected, and what the report says. Keep out: what is wrong with one object
(`storage/parquet.py`).
"""

from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from backfill_pipeline.core.layout import day_prefix, object_key, parse_key
from backfill_pipeline.errors import DamagedObjectError, UsageError
from backfill_pipeline.settings import Settings
from backfill_pipeline.storage.days import day_footer, get_day, settings_store
from backfill_pipeline.storage.parquet import Footer, findings, row_findings
from backfill_pipeline.storage.store import Store

AT_ONCE = 16
"""Objects looked at side by side: a footer is a request that waits for the store."""

AT_ONCE_DEEP = 4
"""Objects read whole side by side: each takes memory."""


@dataclass
class Report:
    """What became of the expected objects: (site, day) by state, and what is wrong with those damaged.

    `expected` says of what, and where.
    `foreign` holds the keys below the range's folders that belong to no site-day that anybody expects.
    """

    stored: list[tuple[str, date]] = field(default_factory=list)
    empty: list[tuple[str, date]] = field(default_factory=list)
    missing: list[tuple[str, date]] = field(default_factory=list)
    damaged: dict[tuple[str, date], list[str]] = field(default_factory=dict)
    foreign: list[str] = field(default_factory=list)
    rows: int = 0
    bytes: int = 0
    expected: str = ""

    @property
    def is_good(self) -> bool:
        """Whether every expected object is there and whole, and no other."""
        return not self.missing and not self.damaged and not self.foreign

    def facts(self) -> dict[str, Any]:
        """The report for scripts."""

        def listed(days: Sequence[tuple[str, date]]) -> list[dict[str, str]]:
            return [{"site": site, "date": day.isoformat()} for site, day in days]

        return {
            "expected": self.expected,
            "stored": len(self.stored),
            "rows": self.rows,
            "bytes": self.bytes,
            "empty": listed(self.empty),
            "missing": listed(self.missing),
            "damaged": [
                {"site": site, "date": day.isoformat(), "findings": wrong}
                for (site, day), wrong in self.damaged.items()
            ],
            "foreign": self.foreign,
        }

    def lines(self) -> Iterator[str]:
        """The report for people."""
        for site, day in self.missing:
            yield f"missing  {site} {day}"
        for (site, day), wrong in self.damaged.items():
            yield f"damaged  {site} {day}: {'; '.join(wrong)}"
        for key in self.foreign:
            yield f"foreign  {key}"
        for site, day in self.empty:
            yield f"empty    {site} {day}"
        yield (
            f"{len(self.stored)} stored with {self.rows:,} rows, {len(self.empty)} empty, "
            f"{len(self.missing)} missing, {len(self.damaged)} damaged, {len(self.foreign)} foreign; "
            f"expected: {self.expected}"
        )


def verified(settings: Settings, sites: Sequence[str], days: Sequence[date], *, deep: bool) -> Report:
    """List the range's folders, then read every expected object: its footer, or with `deep` all of it.

    An object of a site that was not asked about is foreign only when `ACE_SITES` is set and does not name it.

    Raises:
        StoreRefusedError, StoreBusyError: the store cannot be read.
    """
    store = settings_store(settings)
    named = sites[0] if len(sites) == 1 else f"{len(sites)} sites"
    report = Report(
        expected=f"{len(sites) * len(days)} objects, of {named}, {days[0]} to {days[-1]}, in {store.url('')}"
    )
    known = {*settings.sites, *sites} if settings.sites else None
    with ThreadPoolExecutor(AT_ONCE_DEEP if deep else AT_ONCE) as pool:
        sizes: dict[str, int] = {}
        for listed in pool.map(lambda day: list(store.list(day_prefix(day))), days):
            sizes.update({stat.key: stat.bytes for stat in listed})
        expected = [(site, day) for site in sites for day in days]
        report.foreign = sorted(key for key in sizes if _is_foreign(key, known))
        there = [(site, day) for site, day in expected if object_key(site, day) in sizes]
        report.missing = [site_day for site_day in expected if object_key(*site_day) not in sizes]

        def look(site_day: tuple[str, date]) -> tuple[Footer | None, list[str]]:
            site, day = site_day
            return _looked(store, site, day, sizes[object_key(site, day)], deep=deep)

        looks = pool.map(look, there)
        for site_day, (footer, wrong) in zip(there, looks, strict=True):
            if footer is None or wrong:
                report.damaged[site_day] = wrong
                continue
            report.rows += footer.rows
            report.bytes += sizes[object_key(*site_day)]
            (report.empty if footer.about.get("state") == "empty" else report.stored).append(site_day)
    return report


def _is_foreign(key: str, known: Collection[str] | None) -> bool:
    try:
        site, _ = parse_key(key)
    except UsageError:
        return True
    return known is not None and site not in known


def _looked(store: Store, site: str, day: date, size: int, *, deep: bool) -> tuple[Footer | None, list[str]]:
    """An object's footer, and what is wrong with it."""
    try:
        footer = day_footer(store, site, day)
        wrong = findings(footer, site, day, size)
        if deep and footer.columns_right:
            wrong += row_findings(get_day(store, site, day), footer, site, day)
    except FileNotFoundError:
        return None, ["it was there a moment ago, and is no longer"]
    except DamagedObjectError as error:
        return None, [str(error)]
    return footer, wrong
