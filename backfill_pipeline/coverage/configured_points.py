"""The names of points that were configured when each stored day was fetched, from the days' footers.

Put here: how the names are read, some days at a time. Keep out: what a catalogue makes of them
(`dataset/point_catalogue.py`).
"""

from collections.abc import Callable, Iterator, Sequence
from datetime import date

from backfill_pipeline.coverage.footers import read_footers
from backfill_pipeline.coverage.table import points_of
from backfill_pipeline.storage.store import Store

BATCH = 128
"""Days whose footers are in memory at once."""


def configured_names(
    store: Store, site: str, days: Sequence[date], *, progress: Callable[[int, int], None] = lambda _read, _of: None
) -> Iterator[tuple[date, Sequence[str]]]:
    """Read the names of each stored day of a site: one request a day.

    Days that are not stored, and days whose object is damaged or older than the names in the footer, are left out.

    Args:
        store: where the days are.
        site: the site.
        days: UTC days, oldest first.
        progress: called after each batch with the number of days that were read, and of all days.

    Raises:
        StoreRefusedError, StoreBusyError: the store cannot be read.
    """
    for at in range(0, len(days), BATCH):
        part = days[at : at + BATCH]
        for day, each in points_of(read_footers(store, [site], part), site, part).items():
            yield day, each.names
        progress(min(at + BATCH, len(days)), len(days))
