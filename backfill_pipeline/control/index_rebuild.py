"""`backfill index rebuild`: the index of stored days, made from the objects.

Put here: progress, and what the command prints. Keep out: how rows are made from footers
(`coverage/footers.py`), and the index itself (`storage/day_index.py`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any

from backfill_pipeline.control.output import echo
from backfill_pipeline.coverage.footers import rebuild_years
from backfill_pipeline.settings import Settings
from backfill_pipeline.storage.days import settings_store


@dataclass(frozen=True)
class SiteIndex:
    """The index of a site after the rebuild.

    Attributes:
        site: the site.
        days: stored days that have a row.
        damaged: stored days without a row, because their object is damaged.
    """

    site: str
    days: int
    damaged: int

    def facts(self) -> dict[str, Any]:
        """The counts for scripts."""
        return asdict(self)

    def line(self) -> str:
        """The counts for the terminal."""
        damaged = f", {self.damaged:,} damaged: run backfill verify to name them" if self.damaged else ""
        return f"{self.site}: {self.days:,} days in the index{damaged}"


def rebuilt_index(
    settings: Settings, sites: Sequence[str], days: Sequence[date], *, everything: bool
) -> Iterator[SiteIndex]:
    """Rebuild the index of some sites, one year after the other; show progress on standard error.

    Raises:
        StoreRefusedError, StoreBusyError: the store cannot be read or written.
    """
    days_of, damaged = dict.fromkeys(sites, 0), dict.fromkeys(sites, 0)

    def show(site: str, done: int, total: int) -> None:
        echo(f"{site}: {done:,} of {total:,} objects read", err=True)

    for one in rebuild_years(settings_store(settings), sites, days, everything=everything, progress=show):
        days_of[one.site] += one.days
        damaged[one.site] += one.damaged
    for site in sites:
        yield SiteIndex(site, days_of[site], damaged[site])
