"""Points that were configured after a day was fetched: which stored days lack them, and whether a refetch adds rows.

Put here: the comparison of a day's footer with the present points. Keep out: where the present points come from, and
the requests that a refetch costs (`control/report.py`).
"""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from backfill_pipeline.coverage.table import Found, points_of
from backfill_pipeline.storage.parquet import Footer


@dataclass(frozen=True, slots=True)
class Lacking:
    """Consecutive stored days that lack the same points; a refetch adds rows to all of these days, or to none.

    Attributes:
        first: first day.
        last: last day, included.
        points: names of points that are configured now and were not when these days were fetched, sorted.
        left_out: rows of points that were not configured then, which the API returned and the objects do not contain.
    """

    first: date
    last: date
    points: tuple[str, ...]
    left_out: int

    @property
    def days(self) -> int:
        """How many days."""
        return (self.last - self.first).days + 1


def lacking(found: Found, site: str, days: Sequence[date], configured: Collection[str]) -> list[Lacking]:
    """List the stored days of a site that lack points, as ranges.

    Days whose object does not name its points are skipped.

    Args:
        found: the footers.
        site: the site.
        days: UTC days, ascending.
        configured: the points that are configured now.
    """
    now, ranges = frozenset(configured), list[Lacking]()
    for day, points in points_of(found, site, days).items():
        missing = tuple(sorted(now - set(points.names)))
        if not missing:
            continue
        footer = found[site, day]
        assert isinstance(footer, Footer)  # noqa: S101 - since it has a summary of its points
        rows = int(json.loads(footer.about.get("dropped", "{}")).get("not_configured", 0))
        before = ranges[-1] if ranges else None
        follows = before is not None and day - before.last == timedelta(days=1)
        if before and follows and before.points == missing and bool(before.left_out) == bool(rows):
            ranges[-1] = Lacking(before.first, day, missing, before.left_out + rows)
        else:
            ranges.append(Lacking(day, day, missing, rows))
    return ranges
