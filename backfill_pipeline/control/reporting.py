"""`backfill report` and `backfill points`: what arrived, as files and as lines.

Put here: where the figures come from, and where the files go. Keep out: what they show (`coverage/`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from backfill_pipeline.control.ranges import named_sites
from backfill_pipeline.core.day import days_between
from backfill_pipeline.core.quality import DAYS_AROUND
from backfill_pipeline.coverage.changes import PointChange, changes
from backfill_pipeline.coverage.footers import read_footers
from backfill_pipeline.coverage.report import KINDS, Report, rendered
from backfill_pipeline.coverage.table import Found, SiteDay, coverage, points_of
from backfill_pipeline.errors import UsageError, quoted
from backfill_pipeline.settings import Settings
from backfill_pipeline.storage.days import settings_store

MOST_DAYS = 10_000
"""Days that a report shows, at most; those to come may be among them."""

_UNKNOWN = "Failures are not known here, since DAGSTER_HOME has no dagster.yaml: such days count as never asked."


@dataclass(frozen=True)
class Arrived:
    """What is there of a range.

    Attributes:
        table: coverage, site by site.
        found: the footers.
        made: when it was told.
        note: what is not known.
    """

    table: list[SiteDay]
    found: Found
    made: datetime
    note: str


def arrived(settings: Settings, sites: Sequence[str], first: date, last: date) -> Arrived:
    """Read the footers of a range and of the days around it, and the recorded failures.

    Raises:
        UsageError: the range ends before it begins.
        SettingError: no site is named.
        StoreRefusedError, StoreBusyError: the store cannot be read.
    """
    if last < first:
        raise UsageError(f"the last day, {last}, lies before the first, {first}", about="last")
    if (last - first).days >= MOST_DAYS:
        raise UsageError(f"{first} to {last} is more than {MOST_DAYS:,} days: show fewer", about="last")
    wanted = named_sites(settings, sites)
    days = list(days_between(first, last))
    before, after = first.toordinal() - DAYS_AROUND, last.toordinal() + DAYS_AROUND
    around = range(max(before, date.min.toordinal()), min(after, date.max.toordinal()) + 1)
    found = read_footers(settings_store(settings), wanted, [date.fromordinal(number) for number in around])
    now = datetime.now(UTC)
    failures = recorded_failures(settings, wanted)
    table = coverage(wanted, days, found, failures or {}, ready_at=_ready(settings), now=now)
    return Arrived(table, found, now, _UNKNOWN if failures is None else "")


def _ready(settings: Settings) -> Callable[[date], datetime]:
    def ready_at(day: date) -> datetime:
        return settings.ready_at(day) if day < date.max - timedelta(days=500) else datetime.max.replace(tzinfo=UTC)

    return ready_at


def recorded_failures(settings: Settings, sites: Sequence[str]) -> Mapping[tuple[str, date], str] | None:
    """Why the newest ask of each site-day failed, for those that did; None when there is no Dagster instance here."""
    if not (settings.home / "dagster.yaml").is_file():
        return None
    from backfill_pipeline.control.gateway import Gateway  # noqa: PLC0415 - Dagster takes long to import

    gateway, failed = Gateway(settings), {}
    for site in sites:
        newest = {event.day: event for event in gateway.events(site)}
        failed.update({(site, day): event.error for day, event in newest.items() if event.error is not None})
    return failed


def point_changes(arrived_: Arrived, site: str) -> list[PointChange]:
    """The changes of a site's points within the range."""
    days = [one.day for one in arrived_.table if one.site == site]
    return changes(points_of(arrived_.found, site, days))


def write_report(
    settings: Settings, first: date, last: date, sites: Sequence[str], *, points: str | None, out: Path
) -> list[Path]:
    """Write the report: HTML, PNG and Parquet into a folder, or the one file whose suffix says which.

    Returns:
        What was written.

    Raises:
        UsageError: as `arrived`; or the files cannot be written, or no such file can be made.
        SettingError, StoreRefusedError, StoreBusyError: as `arrived`.
    """
    if points is not None and (not points or (settings.sites and points not in settings.sites)):
        raise UsageError(f"--points {quoted(points)} is none of the sites of ACE_SITES")
    one_kind = out.suffix.removeprefix(".").lower()
    if one_kind and one_kind not in KINDS and not out.is_dir():
        raise UsageError(f"--out {out}: a folder, or a file that ends with {', '.join(f'.{kind}' for kind in KINDS)}")
    asked = list(sites or settings.sites)
    seen = arrived(settings, [*asked, points] if points and points not in asked else asked, first, last)
    days = list(days_between(first, last))
    report = Report(
        seen.table,
        seen.made,
        points,
        points_of(seen.found, points, days) if points else {},
        point_changes(seen, points) if points else (),
        seen.note,
    )
    single = one_kind in KINDS and not out.is_dir()
    targets = {one_kind: out} if single else {kind: out / f"coverage.{kind}" for kind in KINDS}
    try:
        for kind, path in targets.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(rendered(report, kind))
    except OSError as error:
        raise UsageError(f"--out {out} cannot be written: {error.strerror or error}") from None
    return list(targets.values())
