"""Rows of the index for many sites, each only while a listing shows the object that it describes.

Put here: how a caller that goes from site to site shares listings and reads index objects in parallel. Keep out: when
a row fits an object (`day_index.py`).
"""

from collections.abc import Callable, Collection, Sequence
from datetime import date, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from backfill_pipeline.core.object_keys import INDEX_ROOT, object_key
from backfill_pipeline.errors import BackfillError
from backfill_pipeline.storage.comparison import list_days
from backfill_pipeline.storage.day_index import IndexedDay, current, read_index_objects, readable_table, rows_of
from backfill_pipeline.storage.index_cache import IndexCache
from backfill_pipeline.storage.store import Stat, Store

MOST_LISTED = 400
"""Days that are listed at most: 400 requests for 1,000 sites. Further days have no rows."""

_SITES = 64
"""Sites whose index objects are read side by side."""


class CurrentRows:
    """Reads rows for sites in a known order, for one look at them: each day is listed once.

    Args:
        store: opens the store.
        sites: site names, in the order in which they will be read.
        cache: makes the copies of index objects.
        warn: called once with the error when the store cannot be read; from then on there are no rows.
    """

    def __init__(
        self,
        store: Callable[[], Store],
        sites: Sequence[str],
        cache: Callable[[Store], IndexCache],
        warn: Callable[[BackfillError], None],
    ) -> None:
        self._open, self._sites, self._cache, self._warn = store, sites, cache, warn
        self._days: set[date] = set()
        self._objects: dict[str, Stat] = {}
        self._index: dict[str, Stat] | None = None
        self._tables: dict[tuple[str, int], Any] = {}
        self._failed = False

    def read(self, site: str, days: Collection[date]) -> dict[date, IndexedDay]:
        """Return the rows of these days whose object a listing shows unchanged; the other days have no row."""
        if self._failed or not days:
            return {}
        try:
            store = self._open()
            self._list(store, days)
            listed = sorted(self._days.intersection(days))
            rows: dict[date, IndexedDay] = {}
            for year in sorted({day.year for day in listed}):
                self._load(store, site, year)
                rows |= _rows(self._tables[site, year], listed)
            return current(site, [day for day in listed if day in rows], rows, self._objects)[0]
        except BackfillError as error:
            self._failed = True
            self._warn(error)
            return {}

    def _list(self, store: Store, days: Collection[date]) -> None:
        """List the days that were not listed yet, each run of consecutive days at once, the latest first."""
        new = sorted(set(days) - self._days, reverse=True)[: max(0, MOST_LISTED - len(self._days))]
        while new:
            last = first = new.pop(0)
            while new and new[0] == first - timedelta(days=1):
                first = new.pop(0)
            wanted = set(self._sites)
            keys = {object_key(site, last).rpartition("/")[2] for site in wanted}
            found = list_days(store, first, last)
            self._objects.update((key, stat) for key, stat in found.items() if key.rpartition("/")[2] in keys)
            self._days.update(first + timedelta(days=n) for n in range((last - first).days + 1))

    def _load(self, store: Store, site: str, year: int) -> None:
        if (site, year) in self._tables:
            return
        if self._index is None:
            self._index = {stat.key: stat for stat in store.list(f"{INDEX_ROOT}/")}
        at = self._sites.index(site)
        for one, _, _, data in read_index_objects(
            store, self._sites[at : at + _SITES], [year], self._cache(store), self._index
        ):
            self._tables[one, year] = readable_table(data, one, year)


def _rows(table: Any, days: Sequence[date]) -> dict[date, IndexedDay]:
    if table is None:
        return {}
    wanted = table.filter(pc.is_in(table["day"], pa.array(days, pa.date32())))
    return {row.day: row for row in rows_of(wanted)}
