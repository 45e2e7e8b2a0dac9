"""Points that were configured after a day was fetched: which stored days lack them, and whether anything is to be had.

Put here: what a day's footer says against the points of now. Keep out: who is asked for those, and what fetching the
days again takes (`control/report.py`).
"""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from backfill_pipeline.coverage.table import Found, points_of
from backfill_pipeline.storage.parquet import Footer


@dataclass(frozen=True, slots=True)
class Lacking:
    """Stored days in a row that lack the same points, and of which all, or none, are worth fetching again.

    Attributes:
        first: first day.
        last: last day, included.
        points: names of points that are configured now and were not when these days were fetched, sorted.
        left_out: rows of points that were not configured then, which the API sent and the objects do not hold.
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
    """The stored days of a site that lack points, as ranges; days whose object does not name its points say nothing.

    Args:
        found: the footers.
        site: the site.
        days: UTC days, ascending.
        configured: the points that are configured now.
    """
    now, ranges = frozenset(configured), list[Lacking]()
    for day, told in points_of(found, site, days).items():
        missing = tuple(sorted(now - set(told.names)))
        if not missing:
            continue
        footer = found[site, day]
        assert isinstance(footer, Footer)  # noqa: S101 - since it says what its points did
        rows = int(json.loads(footer.about.get("dropped", "{}")).get("not_configured", 0))
        before = ranges[-1] if ranges else None
        follows = before is not None and day - before.last == timedelta(days=1)
        if before and follows and before.points == missing and bool(before.left_out) == bool(rows):
            ranges[-1] = Lacking(before.first, day, missing, before.left_out + rows)
        else:
            ranges.append(Lacking(day, day, missing, rows))
    return ranges
