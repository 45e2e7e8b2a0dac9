"""`backfill verify`: every expected object held against the contract.

Put here: which objects are expected, and what the report says. Keep out: what is wrong with one object
(`storage/parquet.py`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from backfill_pipeline.core.layout import object_key
from backfill_pipeline.settings import Settings
from backfill_pipeline.storage.days import settings_store
from backfill_pipeline.storage.parquet import findings, read_footer


@dataclass
class Report:
    """What became of the expected objects: (site, day) by state, and what is wrong with those damaged."""

    stored: list[tuple[str, date]] = field(default_factory=list)
    empty: list[tuple[str, date]] = field(default_factory=list)
    missing: list[tuple[str, date]] = field(default_factory=list)
    damaged: dict[tuple[str, date], list[str]] = field(default_factory=dict)
    rows: int = 0

    @property
    def is_good(self) -> bool:
        """Whether every expected object is there and whole."""
        return not self.missing and not self.damaged

    def facts(self) -> dict[str, Any]:
        """The report for scripts."""

        def listed(days: Sequence[tuple[str, date]]) -> list[dict[str, str]]:
            return [{"site": site, "date": day.isoformat()} for site, day in days]

        return {
            "stored": len(self.stored),
            "rows": self.rows,
            "empty": listed(self.empty),
            "missing": listed(self.missing),
            "damaged": [
                {"site": site, "date": day.isoformat(), "findings": wrong}
                for (site, day), wrong in self.damaged.items()
            ],
        }

    def lines(self) -> Iterator[str]:
        """The report for people."""
        for site, day in self.missing:
            yield f"missing  {site} {day}"
        for (site, day), wrong in self.damaged.items():
            yield f"damaged  {site} {day}: {'; '.join(wrong)}"
        for site, day in self.empty:
            yield f"empty    {site} {day}"
        yield (
            f"{len(self.stored)} stored with {self.rows:,} rows, {len(self.empty)} empty, "
            f"{len(self.missing)} missing, {len(self.damaged)} damaged"
        )


def verified(settings: Settings, sites: Sequence[str], days: Sequence[date], *, deep: bool) -> Report:
    """Read every expected object: its footer, or with `deep` all of it.

    Raises:
        StoreRefusedError, StoreBusyError: the store cannot be read.
    """
    store = settings_store(settings)
    report = Report()
    for site in sites:
        for day in days:
            try:
                with store.open(object_key(site, day)) as file:
                    wrong = findings(file, site, day, deep=deep)
                    if wrong:
                        report.damaged[site, day] = wrong
                        continue
                    file.seek(0)
                    footer = read_footer(file)
            except (FileNotFoundError, NotADirectoryError):
                report.missing.append((site, day))
                continue
            report.rows += footer.rows
            (report.empty if footer.about.get("state") == "empty" else report.stored).append((site, day))
    return report
