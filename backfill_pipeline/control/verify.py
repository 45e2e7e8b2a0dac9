"""`backfill verify`: checks every expected object of a range.

Put here: which objects are expected, and the report. Keep out: how one object is checked (`storage/parquet.py`).
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from backfill_pipeline.core.command_lines import repair_command
from backfill_pipeline.core.object_keys import ROOT, TEXT_ROOT, object_key, parse_key, text_key
from backfill_pipeline.core.quality import no_rows
from backfill_pipeline.errors import UsageError
from backfill_pipeline.settings import Settings
from backfill_pipeline.storage.comparison import Recorded, SiteDay, compare, list_days
from backfill_pipeline.storage.days import read_object, settings_store
from backfill_pipeline.storage.parquet import Footer
from backfill_pipeline.storage.texts import read_texts_object

AT_ONCE = 16
"""The number of objects that are read concurrently; to read a footer means to wait for the store."""

AT_ONCE_DEEP = 4
"""The number of whole objects that are read concurrently; each takes memory."""


@dataclass
class Report:
    """The site-days of a range by the state of their object, and the findings about damaged objects.

    Attributes:
        stored: the object is whole and has rows.
        empty: the object is whole and has no rows.
        missing: there is no object.
        damaged: the object is not what was stored; with the findings.
        foreign: unexpected keys below the folders of the range, which belong to no expected site-day.
        rows: rows of the whole objects.
        bytes: bytes of the whole objects.
        expected: the number, sites, days and place of the expected objects.
        deep: whether every byte was read.
        all_sites: the sites of ACE_SITES.
        compared: whether Dagster's records were compared with the objects.
        samples: how many samples the API returned for each day that is stored without rows.
        texts: rows of the whole objects of texts, by site and day.
    """

    stored: list[SiteDay] = field(default_factory=list)
    empty: list[SiteDay] = field(default_factory=list)
    missing: list[SiteDay] = field(default_factory=list)
    damaged: dict[SiteDay, list[str]] = field(default_factory=dict)
    foreign: list[str] = field(default_factory=list)
    rows: int = 0
    bytes: int = 0
    expected: str = ""
    deep: bool = False
    all_sites: tuple[str, ...] = ()
    compared: bool = False
    samples: dict[SiteDay, int] = field(default_factory=dict)
    texts: dict[SiteDay, int] = field(default_factory=dict)

    @property
    def wrong(self) -> list[SiteDay]:
        """The site-days that have to be fetched again."""
        return sorted([*self.missing, *self.damaged])

    @property
    def repair(self) -> str | None:
        """The command that fetches them again; None when no site-day has to be fetched."""
        return repair_command(self.wrong, self.all_sites, deep=self.deep) if self.wrong else None

    @property
    def is_good(self) -> bool:
        """Whether every expected object is whole, and there are no unexpected objects."""
        return not self.missing and not self.damaged and not self.foreign

    def facts(self) -> dict[str, Any]:
        """The report for scripts."""

        def listed(days: Sequence[SiteDay]) -> list[dict[str, str]]:
            return [{"site": site, "date": day.isoformat()} for site, day in days]

        return {
            "expected": self.expected,
            "stored": len(self.stored),
            "rows": self.rows,
            "bytes": self.bytes,
            "text_objects": len(self.texts),
            "texts": sum(self.texts.values()),
            "empty": [
                {"site": site, "date": day.isoformat(), "samples_fetched": self.samples.get((site, day), 0)}
                for site, day in self.empty
            ],
            "missing": listed(self.missing),
            "damaged": [
                {"site": site, "date": day.isoformat(), "findings": wrong}
                for (site, day), wrong in self.damaged.items()
            ],
            "foreign": self.foreign,
            "records_compared": self.compared,
            "repair": self.repair,
        }

    def lines(self, *, with_repair: bool = True) -> Iterator[str]:
        """The report for the terminal; the last line is the command that fetches wrong days again."""
        for site, day in self.missing:
            yield f"missing  {site} {day}"
        for (site, day), wrong in self.damaged.items():
            yield f"damaged  {site} {day}: {'; '.join(wrong)}"
        for key in self.foreign:
            yield f"foreign  {key}"
        for site, day in self.empty:
            yield f"empty    {site} {day}: {self._no_rows(site, day)}"
        if not self.compared:
            yield "Dagster's records were not compared with the objects: DAGSTER_HOME has no dagster.yaml"
        if self.texts:
            yield f"{len(self.texts)} objects of texts with {sum(self.texts.values()):,} rows"
        yield (
            f"{len(self.stored)} stored with {self.rows:,} rows, {len(self.empty)} empty, "
            f"{len(self.missing)} missing, {len(self.damaged)} damaged, {len(self.foreign)} foreign; "
            f"expected: {self.expected}"
        )
        if with_repair and self.repair:
            yield f"to fetch these days again: {self.repair}"

    def _no_rows(self, site: str, day: date) -> str:
        return no_rows(self.samples.get((site, day), 0), day, self.texts.get((site, day), 0))


def verified(
    settings: Settings,
    sites: Sequence[str],
    days: Sequence[date],
    *,
    deep: bool,
    recorded: Mapping[SiteDay, Recorded] | None = None,
) -> Report:
    """List the range, then read every expected object: its footer, or with `deep` all of it.

    An object of a site that was not named is unexpected only when `ACE_SITES` is set and does not contain the site.

    Args:
        settings: they name the store and the configured sites.
        sites: site names.
        days: UTC days, ascending.
        deep: read every byte, and compare the hash of each file.
        recorded: Dagster's records of these days; None: they were not read.

    Raises:
        StoreRefusedError, StoreBusyError: the store cannot be read.
    """
    store = settings_store(settings)
    named = sites[0] if len(sites) == 1 else f"{len(sites)} sites"
    report = Report(
        expected=f"{len(sites) * len(days)} objects, of {named}, {days[0]} to {days[-1]}, in {store.url('')}",
        deep=deep,
        all_sites=settings.sites,
        compared=recorded is not None,
    )
    known = {*settings.sites, *sites} if settings.sites else None
    listed = list_days(store, days[0], days[-1])
    recorded = recorded or {}
    expected = {(site, day): object_key(site, day) for site in sites for day in days}
    there = {one: listed[key] for one, key in expected.items() if key in listed}
    texts = list_days(store, days[0], days[-1], TEXT_ROOT)
    report.foreign = sorted(
        key for root, keys in ((ROOT, listed), (TEXT_ROOT, texts)) for key in keys if _is_foreign(key, known, root)
    )
    report.missing = [one for one in expected if one not in there]
    changed = compare(store, {one: recorded[one] for one in there if one in recorded}, listed.values())

    def look(one: SiteDay) -> tuple[Footer | None, Footer | None, list[str]]:
        record = recorded.get(one)
        try:
            footer, wrong = read_object(
                store, *one, size=there[one].bytes, deep=deep, sha256=record.sha256 if record is not None else None
            )
        except FileNotFoundError:
            return None, None, ["it was deleted during this check"]
        worded, more = look_at_texts(one, footer, record)
        return footer, worded, [*wrong, *more]

    def look_at_texts(one: SiteDay, footer: Footer | None, record: Recorded | None) -> tuple[Footer | None, list[str]]:
        stat = texts.get(text_key(*one))
        if stat is not None:
            about = footer.about if footer is not None else None
            with suppress(FileNotFoundError):
                return read_texts_object(store, *one, size=stat.bytes, deep=deep, of=about)
        if record is not None and record.texts:
            return None, [f"its {record.texts:,} texts are missing: there is no {text_key(*one)}"]
        return None, []

    with ThreadPoolExecutor(AT_ONCE_DEEP if deep else AT_ONCE) as pool:
        for one, (footer, worded, wrong) in zip(there, pool.map(look, there), strict=True):
            if one in changed.different:
                wrong.append(changed.different[one])
            if footer is None or wrong:
                report.damaged[one] = wrong
                continue
            report.rows += footer.rows
            report.bytes += there[one].bytes
            if worded is not None:
                report.texts[one] = worded.rows
            (report.empty if footer.is_empty else report.stored).append(one)
            if footer.is_empty:
                fetched = footer.about.get("fetched", "")
                report.samples[one] = int(fetched) if fetched.isdecimal() else 0
    return report


def _is_foreign(key: str, known: Collection[str] | None, root: str) -> bool:
    try:
        site, _ = parse_key(key, root)
    except UsageError:
        return True
    return known is not None and site not in known
