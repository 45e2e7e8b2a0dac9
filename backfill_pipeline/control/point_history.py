"""`backfill points --rebuild`: adds earlier points of stored days to the catalogue of a site.

Put here: which days are read and what is reported. Keep out: how a catalogue is rebuilt (`dataset/point_catalogue.py`).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from backfill_pipeline.control.day_ranges import named_sites
from backfill_pipeline.core.day import days_between
from backfill_pipeline.core.object_keys import points_key
from backfill_pipeline.core.point_catalogue import PointSpan
from backfill_pipeline.coverage.configured_points import configured_names
from backfill_pipeline.dataset.point_catalogue import read_catalogue, rebuild_catalogue
from backfill_pipeline.errors import UsageError
from backfill_pipeline.settings import Settings
from backfill_pipeline.storage.days import settings_store
from backfill_pipeline.storage.store import Store


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """A catalogue after its rebuild.

    Attributes:
        path: the object.
        changed: whether the rebuild changed it.
        days: stored days whose points were read.
        spans: the catalogue's rows.
    """

    path: str
    changed: bool
    days: int
    spans: Sequence[PointSpan]

    def facts(self) -> dict[str, Any]:
        """The figures for scripts."""
        names = {span.name for span in self.spans}
        listed = {span.name for span in self.spans if span.valid_to is None}
        return {
            "path": self.path,
            "changed": self.changed,
            "days_read": self.days,
            "rows": len(self.spans),
            "points": len(names),
            "points_not_listed": len(names - listed),
            "points_known_by_name_only": len({span.name for span in self.spans if span.is_name_only}),
        }

    def lines(self) -> Iterator[str]:
        """The figures for the terminal."""
        facts = self.facts()
        yield f"{self.path} {'is rebuilt' if self.changed else 'did not change'}: {self.days:,} stored days were read"
        yield (
            f"{facts['points']:,} points in {facts['rows']:,} rows; {facts['points_not_listed']:,} are no longer "
            f"listed; {facts['points_known_by_name_only']:,} are known by name only"
        )


def rebuilt(
    settings: Settings,
    site: str,
    first: date | None,
    last: date | None,
    *,
    progress: Callable[[int, int], None],
) -> Rebuilt:
    """Rebuild the catalogue of a site from the footers of its stored days: one request a day, none to the API.

    Args:
        settings: they name the store.
        site: the site.
        first: the first day that is read; None: BACKFILL_FIRST_DAY.
        last: the last day, included; None: today.
        progress: called with the number of days read so far and the number of all days.

    Raises:
        UsageError: the range is reversed. Or the site is not configured, and none of its days is stored. Or no stored
            day names its points, and the site has no catalogue.
        SettingError, StoreRefusedError, StoreBusyError: the store cannot be read or written.
    """
    first, last = first or settings.first_day, last or datetime.now(UTC).date()
    if last < first:
        raise UsageError(f"the last day, {last}, is before the first, {first}", about="last")
    days = list(days_between(first, last))
    named_sites(settings, [site], days)
    store, found = settings_store(settings), 0

    def counted(store: Store) -> Iterator[tuple[date, Sequence[str]]]:
        nonlocal found
        for one in configured_names(store, site, days, progress=progress):
            found += 1
            yield one

    spans = rebuild_catalogue(store, site, counted(store))
    known = read_catalogue(store, site) if spans is None else spans
    if not known:
        raise UsageError(
            f"site {site!r} has no catalogue of points, and none of its stored days names its points",
            about="site",
            hint="fetch a day of the site: its run writes the catalogue",
        )
    return Rebuilt(store.url(points_key(site)), spans is not None, found, known)
