"""`backfill index rebuild`: the index of stored days, made from the objects.

Put here: the sites one after the other, progress, and what the command prints. Keep out: how rows are made from footers
(`coverage/footers.py`), and the index itself (`storage/day_index.py`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any

from backfill_pipeline.control.output import echo
from backfill_pipeline.core.object_keys import object_key
from backfill_pipeline.coverage.footers import rebuild_index
from backfill_pipeline.settings import Settings
from backfill_pipeline.storage.comparison import list_days
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
    """Rebuild the index of some sites, one site after the other; show progress on standard error.

    Raises:
        StoreRefusedError, StoreBusyError: the store cannot be read or written.
    """
    store = settings_store(settings)
    listed = list_days(store, min(days), max(days))
    for site in sites:

        def show(done: int, total: int, site: str = site) -> None:
            echo(f"{site}: {done:,} of {total:,} objects read", err=True)

        indexed = rebuild_index(store, site, days, everything=everything, progress=show)
        stored = sum(object_key(site, day) in listed for day in days)
        yield SiteIndex(site, indexed, max(0, stored - indexed))
