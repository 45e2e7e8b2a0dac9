"""Coverage: the state and the figures of each site and day, one row each.

Put here: the states, and how a footer and a recorded failure determine the state of a day. Keep out: reading footers
(`footers.py`) and pictures (`pictures.py`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from enum import StrEnum
from typing import Any

import pyarrow as pa

from backfill_pipeline.core.point_summaries import PointDays
from backfill_pipeline.core.quality import is_thin, usual_rows
from backfill_pipeline.storage.parquet import Footer


class State(StrEnum):
    """The state of a site's day."""

    STORED = "stored"
    THIN = "thin"
    """Stored, with a long silence or far fewer rows than the days before and after."""
    EMPTY = "empty"
    """Stored without rows: the API, requested twice, returned none that can be stored."""
    FAILED = "failed"
    """Not stored, and the latest attempt failed; or the object is damaged."""
    NOT_READY = "not ready"
    NEVER_ASKED = "never asked"


@dataclass(frozen=True, slots=True)
class SiteDay:
    """Coverage of one site and day. Unknown figures, such as those that an older object does not contain, are None.

    Attributes:
        site: the site.
        day: the UTC day.
        state: its state.
        rows: rows stored; None when there is no object.
        points_seen: points with a row.
        points_configured: points that were configured when it was fetched.
        gap_min: the longest time in which no point has a row, in whole minutes.
        interval_s: median time between two rows of a point, in seconds.
        note: why it failed, in one line; empty otherwise.
    """

    site: str
    day: date
    state: State
    rows: int | None = None
    points_seen: int | None = None
    points_configured: int | None = None
    gap_min: int | None = None
    interval_s: float | None = None
    note: str = ""

    @property
    def share(self) -> float | None:
        """Points seen of points configured, from 0 to 1; None when it is not known."""
        if self.points_seen is None or not self.points_configured:
            return None
        return self.points_seen / self.points_configured


@dataclass(frozen=True, slots=True)
class Damaged:
    """A damaged object, and the reason."""

    why: str


Found = Mapping[tuple[str, date], Footer | Damaged]
"""The contents of the store, by site and day; days without an object are absent."""


def coverage(
    sites: Sequence[str],
    days: Sequence[date],
    found: Found,
    failures: Mapping[tuple[str, date], str],
    *,
    ready_at: Callable[[date], datetime],
    now: datetime,
) -> list[SiteDay]:
    """Make one row for each site and day, in their order.

    Args:
        sites: site names.
        days: UTC days, ascending.
        found: the footers; those of days before and after `days` help to find thin days.
        failures: why the latest attempt of a day failed, in one line.
        ready_at: from when a day may be fetched, aware.
        now: the present time, aware.
    """
    table = []
    for site in sites:
        of_site = {day: seen for (whose, day), seen in found.items() if whose == site}
        rows = {day: seen.rows for day, seen in of_site.items() if isinstance(seen, Footer)}
        for day in days:
            footer = of_site.get(day)
            if isinstance(footer, Footer):
                table.append(_stored(site, day, footer, usual_rows(rows, day)))
            elif footer is not None:
                table.append(SiteDay(site, day, State.FAILED, note=f"damaged: {footer.why}"))
            elif (site, day) in failures:
                table.append(SiteDay(site, day, State.FAILED, note=failures[site, day]))
            else:
                state = State.NOT_READY if ready_at(day) > now else State.NEVER_ASKED
                table.append(SiteDay(site, day, state))
    return table


def _stored(site: str, day: date, footer: Footer, usual: float | None) -> SiteDay:
    interval = footer.about.get("interval_s")
    one = SiteDay(
        site,
        day,
        State.STORED,
        footer.rows,
        _whole(footer, "points_seen"),
        _whole(footer, "points_configured"),
        _whole(footer, "longest_gap_min"),
        float(interval) if interval else None,
    )
    if footer.is_empty:
        return replace(one, state=State.EMPTY)
    return replace(one, state=State.THIN) if is_thin(footer.rows, usual, one.gap_min, one.share) else one


def _whole(footer: Footer, name: str) -> int | None:
    text = footer.about.get(name, "")
    return int(text) if text.isdecimal() else None


def points_of(found: Found, site: str, days: Sequence[date]) -> dict[date, PointDays]:
    """Return the summaries of a site's points, by day; days whose object has no summary are absent."""
    summaries = {}
    for day in days:
        footer = found.get((site, day))
        each = PointDays.from_text(footer.about.get("points", "")) if isinstance(footer, Footer) else None
        if each is not None:
            summaries[day] = each
    return summaries


def to_arrow(table: Sequence[SiteDay], made: datetime) -> Any:
    """Make an Arrow table: one row for each site and day; `made` is in the schema's metadata."""
    schema = pa.schema(
        [
            ("site_name", pa.string()),
            ("day", pa.date32()),
            ("state", pa.string()),
            ("rows", pa.int64()),
            ("points_seen", pa.int64()),
            ("points_configured", pa.int64()),
            ("longest_gap_min", pa.int64()),
            ("interval_s", pa.float64()),
            ("note", pa.string()),
        ],
        metadata={"made": made.astimezone(UTC).isoformat()},
    )
    names = ("site", "day", "state", "rows", "points_seen", "points_configured", "gap_min", "interval_s", "note")
    columns = [[getattr(one, name) for one in table] for name in names]
    return pa.table([pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)], schema)
