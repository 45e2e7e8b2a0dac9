"""Configured points that never reported: the names that the latest footers have, without a row.

Put here: which days are checked. Keep out: points that reported once and stopped (`point_changes.py`).
"""

from collections.abc import Mapping, Sequence
from datetime import date

from backfill_pipeline.core.point_summaries import PointDays
from backfill_pipeline.core.text import natural_key
from backfill_pipeline.coverage.attention import SilentPoints
from backfill_pipeline.coverage.footers import read_footers
from backfill_pipeline.coverage.table import points_of
from backfill_pipeline.storage.store import Store

MOST_DAYS = 30
"""Stored days that are checked for each site, latest first: one request each."""

_BATCH = 6


def never_reported(each: Mapping[date, PointDays]) -> list[str]:
    """List points that are configured on the latest of these days and have no row on any, in natural order."""
    if not each:
        return []
    latest = each[max(each)]
    reported = {name for points in each.values() for name, rows in zip(points.names, points.rows, strict=True) if rows}
    return sorted(set(latest.names) - reported, key=natural_key)


def find_silent_points(store: Store, site: str, days: Sequence[date]) -> SilentPoints | None:
    """Find configured points without a row on the latest stored days; None if there are none.

    Args:
        store: where the objects are.
        site: the site.
        days: its stored days, ascending. Objects of earlier versions have no figures of points, and are not counted.

    Raises:
        StoreRefusedError, StoreBusyError: the store cannot be read.
    """
    each: dict[date, PointDays] = {}
    latest = list(reversed(days))[:MOST_DAYS]
    names: list[str] = []
    for at in range(0, len(latest), _BATCH):
        part = latest[at : at + _BATCH]
        each |= points_of(read_footers(store, [site], part), site, part)
        names = never_reported(each)
        if each and not names:  # each point has reported: no further day can change that
            return None
    return SilentPoints(min(each), max(each), len(each), names) if names else None
