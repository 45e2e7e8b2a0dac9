"""`backfill report` and `backfill points`: the coverage of stored days, as files and as lines.

Put here: which days are read, and where the files are written. Keep out: what the files show (`coverage/`).
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backfill_pipeline.control.day_ranges import named_sites
from backfill_pipeline.core.day import days_between
from backfill_pipeline.core.point_catalogue import PointSpan, at_instant
from backfill_pipeline.core.quality import DAYS_AROUND
from backfill_pipeline.core.text import printable
from backfill_pipeline.coverage.attention import SilentPoints
from backfill_pipeline.coverage.footers import read_figures, read_footers
from backfill_pipeline.coverage.missing_points import Lacking, lacking
from backfill_pipeline.coverage.point_changes import PointChange, changes
from backfill_pipeline.coverage.report import KINDS, Replaced, Report, rendered
from backfill_pipeline.coverage.silent_points import find_silent_points
from backfill_pipeline.coverage.table import Damaged, Found, SiteDay, coverage, points_of
from backfill_pipeline.dataset.point_catalogue import read_catalogue
from backfill_pipeline.errors import DamagedObjectError, UsageError, quoted
from backfill_pipeline.settings import Settings
from backfill_pipeline.storage.day_index import settings_cache
from backfill_pipeline.storage.days import settings_store
from backfill_pipeline.storage.parquet import Footer

if TYPE_CHECKING:
    from backfill_pipeline.control.dagster_instance import Gateway

MOST_DAYS = 10_000
"""The largest number of days in a report; future days may be among them."""

_UNKNOWN = "Failures and replaced days are not shown, since DAGSTER_HOME has no dagster.yaml."


@dataclass(frozen=True)
class Arrived:
    """The coverage of a range of days.

    Attributes:
        table: coverage, site by site.
        found: the footers of the sites whose points are shown.
        made: when it was generated.
        note: which facts are missing.
        replaced: days of the range whose rows changed, in order of the changes.
    """

    table: list[SiteDay]
    found: Found
    made: datetime
    note: str
    replaced: Sequence[Replaced] = ()


def arrived(
    settings: Settings, sites: Sequence[str], first: date, last: date, *, with_points: Collection[str] | None = None
) -> Arrived:
    """Read the footers of a range and of the days around it, and the recorded failures.

    Args:
        settings: they name the store and the sites.
        sites: site names; empty: all sites.
        first: first day.
        last: last day, included.
        with_points: the sites whose footers are kept, for the changes of their points; None: all sites.

    Raises:
        UsageError: the range ends before it begins.
        SettingError: no site is configured.
        StoreRefusedError, StoreBusyError: the store cannot be read.
    """
    if last < first:
        raise UsageError(f"the last day, {last}, is before the first, {first}", about="last")
    if (last - first).days >= MOST_DAYS:
        raise UsageError(f"{first} to {last} is more than {MOST_DAYS:,} days", hint="show fewer days", about="last")
    days = list(days_between(first, last))
    wanted = named_sites(settings, sites, days)
    before, after = first.toordinal() - DAYS_AROUND, last.toordinal() + DAYS_AROUND
    around = range(max(before, date.min.toordinal()), min(after, date.max.toordinal()) + 1)
    days_around = [date.fromordinal(number) for number in around]
    store, now, gateway = settings_store(settings), datetime.now(UTC), _gateway(settings)
    table: list[SiteDay] = []
    kept: dict[tuple[str, date], Footer | Damaged] = {}
    replaced: list[Replaced] = []
    without_points = [] if with_points is None else [site for site in wanted if site not in with_points]
    figures = read_figures(store, without_points, days_around, settings_cache(settings, store))
    for site in wanted:
        if site in without_points:
            found: Found = {(site, day): figures[site, day] for day in days_around if (site, day) in figures}
        else:  # one site at a time: footers take a hundred times the memory of the coverage
            found = read_footers(store, [site], days_around)
        events = gateway.events(site) if gateway else []
        newest = {event.day: event for event in events}
        failures = {(site, day): event.error.text for day, event in newest.items() if event.error is not None}
        table += coverage([site], days, found, failures, ready_at=_ready(settings), now=now)
        replaced += [
            Replaced(site, one.day, datetime.fromtimestamp(one.at, UTC), one.number("rows_before"), one.rows)
            for one in events
            if one.about.get("replaced") is True and first <= one.day <= last
        ]
        if with_points is None or site in with_points:
            kept.update(found)
    replaced.sort(key=lambda one: one.at)
    return Arrived(table, kept, now, "" if gateway else _UNKNOWN, replaced)


def silent_points(settings: Settings, table: Sequence[SiteDay]) -> dict[str, SilentPoints]:
    """The points that never reported, by site: up to 30 footers of each site.

    Raises:
        StoreRefusedError, StoreBusyError: the store cannot be read.
    """
    store = settings_store(settings)
    stored: dict[str, list[date]] = {}
    for one in table:
        if one.rows:
            stored.setdefault(one.site, []).append(one.day)
    found = {site: find_silent_points(store, site, sorted(days)) for site, days in stored.items()}
    return {site: silent for site, silent in found.items() if silent is not None}


def _ready(settings: Settings) -> Callable[[date], datetime]:
    def ready_at(day: date) -> datetime:
        return settings.ready_at(day) if day < date.max - timedelta(days=500) else datetime.max.replace(tzinfo=UTC)

    return ready_at


def _gateway(settings: Settings) -> "Gateway | None":
    """Open the Dagster instance, which records failures; None when there is no instance here."""
    if not (settings.home / "dagster.yaml").is_file():
        return None
    from backfill_pipeline.control.dagster_instance import Gateway  # noqa: PLC0415 - Dagster takes long to import

    return Gateway(settings)


def point_changes(arrived_: Arrived, site: str) -> list[PointChange]:
    """The changes of a site's points within the range."""
    days = [one.day for one in arrived_.table if one.site == site]
    return changes(points_of(arrived_.found, site, days))


def point_spans(settings: Settings, site: str) -> dict[str, PointSpan]:
    """The points of a site by name, from its catalogue: one request. Empty without a readable catalogue."""
    try:
        return {span.name: span for span in at_instant(read_catalogue(settings_store(settings), site), None)}
    except DamagedObjectError:
        return {}


@dataclass(frozen=True)
class Filling:
    """Points that are configured now, the days that lack them, and the cost of fetching these days again.

    Attributes:
        site: the site.
        configured: how many points are configured now.
        ranges: the days, grouped by the points that they lack.
        cost: requests, hours and bytes, as `backfill plan` estimates them; None when no day is worth fetching again.
    """

    site: str
    configured: int
    ranges: Sequence[Lacking]
    cost: Mapping[str, Any] | None

    @property
    def gain(self) -> list[Lacking]:
        """The days that are worth fetching again: the API sent rows of them that were not stored."""
        return [one for one in self.ranges if one.left_out]

    def commands(self) -> list[str]:
        """The commands that fetch them again."""
        return [f"backfill start --site {self.site} --from {o.first} --to {o.last} --force" for o in self.gain]

    def facts(self) -> dict[str, Any]:
        """For scripts."""
        ranges = [
            {
                "first": str(one.first),
                "last": str(one.last),
                "days": one.days,
                "points": list(one.points),
                "rows_left_out": one.left_out,
            }
            for one in self.ranges
        ]
        cost = self.cost and {name: self.cost[name] for name in ("site_days", "requests", "hours", "bytes")}
        return {"points_configured": self.configured, "lacking": ranges, "cost": cost, "commands": self.commands()}

    def lines(self) -> Iterator[str]:
        """For people."""
        if not self.ranges:
            yield f"no stored day lacks any of the {self.configured:,} points that are configured now"
        for one in self.ranges:
            more = f" and {len(one.points) - 1:,} more" if len(one.points) > 1 else ""
            rows = (
                f"{one.left_out:,} rows of points that were not configured were left out"
                if one.left_out
                else ("nothing to gain, since the API sent no rows of points that were not configured")
            )
            days = f"{one.first} to {one.last}" if one.days > 1 else f"{one.first}"
            yield f"{days}  {one.days:,} days lack {printable(one.points[0])}{more}: {rows}"
        if self.cost:
            yield (
                f"the API has no raw samples of single points, so the {self.cost['site_days']:,} days would be fetched "
                f"whole: about {self.cost['requests']:,} requests, {self.cost['hours']:,.1f} hours at "
                f"{self.cost['requests_per_minute']} requests a minute"
            )
            yield from self.commands()


def filling(settings: Settings, first: date, last: date, site: str) -> Filling:
    """Find stored days that lack points that are configured now, and estimate the cost with a few requests.

    Raises:
        UsageError, SettingError, StoreRefusedError, StoreBusyError: as `arrived`.
        BackfillError: the API refuses, or does not answer.
    """
    from backfill_pipeline.ace.client import open_client  # noqa: PLC0415 - takes long to import
    from backfill_pipeline.control.estimate import planned  # noqa: PLC0415 - as above

    days = list(days_between(first, last))
    seen = arrived(settings, [site], first, last)
    client = open_client(settings)
    names = client.configured_points(site).names
    found = Filling(site, len(names), lacking(seen.found, site, days, names), None)
    again = [day for one in found.gain for day in days_between(one.first, one.last)]
    if not again:
        return found
    cost = planned(settings, client, settings_store(settings), [site], again, {}).facts()
    return Filling(site, len(names), found.ranges, cost)


def write_report(
    settings: Settings, first: date, last: date, sites: Sequence[str], *, points: str | None, out: Path
) -> list[Path]:
    """Write the report: HTML, PNG and Parquet into a folder, or one file, by its suffix.

    Returns:
        The files that were written.

    Raises:
        UsageError: as `arrived`; or the files cannot be written, or no such file can be made.
        SettingError, StoreRefusedError, StoreBusyError: as `arrived`.
    """
    if points is not None and (not points or (settings.sites and points not in settings.sites)):
        raise UsageError(f"--points {quoted(points)} is not a configured site (ACE_SITES)")
    one_kind = out.suffix.removeprefix(".").lower()
    if one_kind and one_kind not in KINDS and not out.is_dir():
        raise UsageError(f"--out {out}: a folder, or a file that ends with {', '.join(f'.{kind}' for kind in KINDS)}")
    asked = list(sites or named_sites(settings, ()))
    all_asked = [*asked, points] if points and points not in asked else asked
    seen = arrived(settings, all_asked, first, last, with_points=[points] if points else ())
    days = list(days_between(first, last))
    report = Report(
        seen.table,
        seen.made,
        points,
        points_of(seen.found, points, days) if points else {},
        point_changes(seen, points) if points else (),
        seen.note,
        seen.replaced,
        point_spans(settings, points) if points else {},
        silent_points(settings, seen.table),
    )
    single = one_kind in KINDS and not out.is_dir()
    targets = {one_kind: out} if single else {kind: out / f"coverage.{kind}" for kind in KINDS}
    try:
        for kind, path in targets.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(rendered(report, kind))
    except OSError as error:
        raise UsageError(
            f"--out {out} cannot be written: {error.strerror or error}",
            hint="name a file or a folder that you may write",
        ) from None
    return list(targets.values())
