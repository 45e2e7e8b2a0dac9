"""The asset `coverage`: what arrived, shown in Dagster's UI.

Put here: where its figures come from, and what its events contain. Keep out: what is drawn (`coverage/`), when it is
refreshed and which of its runs are kept (`coverage_refresh.py`).
"""

import base64
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta
from urllib.parse import urlencode

import dagster as dg

from backfill_pipeline.core.day import days_between, partition_key
from backfill_pipeline.core.new_days import newest_ready
from backfill_pipeline.core.text import printable
from backfill_pipeline.coverage.attention import needs_operator
from backfill_pipeline.coverage.findings import findings
from backfill_pipeline.coverage.footers import read_figures
from backfill_pipeline.coverage.report import Report, rendered
from backfill_pipeline.coverage.table import SiteDay, State, coverage
from backfill_pipeline.coverage.year_strips import MOST_SITES, year_strip, years_of
from backfill_pipeline.orchestration.alerts import Alerts
from backfill_pipeline.orchestration.coverage_refresh import delete_old_runs
from backfill_pipeline.orchestration.failures import observed_error
from backfill_pipeline.orchestration.partitions import COVERAGE, asset_key
from backfill_pipeline.orchestration.ui_links import site_url
from backfill_pipeline.settings import Settings
from backfill_pipeline.storage.day_index import settings_cache
from backfill_pipeline.storage.days import settings_store

KINDS = ("html", "parquet")
"""The files of each refresh; the PNG of many sites takes too long to draw, and `backfill report` writes it."""

_PICTURES_BYTES, _LINES_BYTES = 10_000, 3_000
"""Most bytes of the pictures and of each list in one event: an event stays below 20 kB at any number of sites."""

_LINKED_DAYS = 1_000
"""Days of a linked coverage page: `backfill explore` shows up to three years."""

_ASKED = 100


def coverage_asset(settings: Settings, sites: Sequence[str], *, now: Callable[[], datetime]) -> dg.AssetsDefinition:
    """Define the asset: all sites from the first stored or failed day on.

    Args:
        settings: the settings.
        sites: site names.
        now: the instant, aware.
    """

    @dg.asset(
        name=COVERAGE,
        group_name=COVERAGE,
        deps=[asset_key(site) for site in sites],
        kinds={"python"},
        description="What arrived of each site and day since the first stored day, from the index and the objects' "
        "footers. The sensor `coverage` refreshes it when days were stored.",
    )
    def coverage_(context: dg.AssetExecutionContext) -> dg.MaterializeResult:  # type: ignore[type-arg]  # Dagster knows only the bare one
        report = _report(context.instance, settings, sites, now())
        folder = settings.private / COVERAGE
        folder.mkdir(parents=True, exist_ok=True)
        for kind in KINDS:
            (folder / f"coverage.{kind}").write_bytes(rendered(report, kind))
        alerts = Alerts(settings, context.log)
        for one in (one for site_days in report.by_site().values() for one in findings(site_days)):
            # A silence is reported once, not each day: `since` names it.
            link = site_url(settings, one.site)
            alerts.send(
                one.kind,
                f"{one.text}. Details: {link}",
                about=f"{one.site} {one.since}",
                again_s=float("inf"),
                facts={"site": one.site, "since": one.since, "site_url": link},
            )
        delete_old_runs(context)
        return dg.MaterializeResult(
            metadata=_metadata(settings, report) | {"report": dg.MetadataValue.path(str(folder / "coverage.html"))}
        )

    return coverage_


def _report(instance: dg.DagsterInstance, settings: Settings, sites: Sequence[str], made: datetime) -> Report:
    """The coverage of all sites from the first day that is stored or failed."""
    newest = newest_ready(made, settings.raw_lag_hours)
    days = list(days_between(settings.first_day, max(settings.first_day, newest)))
    store = settings_store(settings)
    found = read_figures(store, sites, days, settings_cache(settings, store))
    missing = {site: [day for day in days if (site, day) not in found] for site in sites}
    failures = recorded_failures(instance, missing)
    first = min((day for _, day in (*found, *failures)), default=days[-1])
    shown = [day for day in days if day >= first]
    table: list[SiteDay] = []
    for site in sites:
        of_site = {(site, day): found[site, day] for day in shown if (site, day) in found}
        table += coverage([site], shown, of_site, failures, ready_at=settings.ready_at, now=made)
    return Report(table, made)


def _metadata(settings: Settings, report: Report) -> dict[str, dg.MetadataValue]:
    """The figures of all sites, the list of what needs an operator, and a picture of each year."""
    states = Counter(one.state for one in report.table)
    by_site = report.by_site()
    about: dict[str, dg.MetadataValue] = {
        f"days_{state.replace(' ', '_')}": dg.MetadataValue.int(states[state]) for state in State
    }
    about["rows"] = dg.MetadataValue.int(sum(one.rows or 0 for one in report.table))
    about["calendar"] = dg.MetadataValue.md(_pictures(by_site))
    lines = _within(f"- {_markdown(line)}\n" for line in needs_operator(by_site))
    about["needs_you"] = dg.MetadataValue.md(lines or "Nothing.")
    about["sites"] = dg.MetadataValue.md(_site_table(settings, by_site))
    return about


def _pictures(by_site: Mapping[str, Sequence[SiteDay]]) -> str:
    """A picture of each year, latest first, as many as fit into an event."""
    shown, years = "", years_of(by_site)
    for year in years:
        data = base64.b64encode(year_strip(year, by_site)).decode()
        picture = f"![{year}](data:image/png;base64,{data})\n\n"
        if len(shown) + len(picture) > _PICTURES_BYTES:
            return f"{shown}The report shows the years before."
        shown += picture
    if len(by_site) > MOST_SITES:
        shown += f"The first {MOST_SITES} of {len(by_site):,} sites. The report shows all sites."
    return shown or "No day is stored."


def _site_table(settings: Settings, by_site: Mapping[str, Sequence[SiteDay]]) -> str:
    """The states of each site, worst site first, with a link to its page where `backfill explore` has an address."""
    states = [state for state in State if any(one.state is state for days in by_site.values() for one in days)]
    head = f"| site | {' | '.join(states)} |\n|---|{'---:|' * len(states)}\n"

    def rows() -> Iterator[str]:
        for site, days in by_site.items():
            counts = Counter(one.state for one in days)
            yield f"| {_linked(settings, site, days)} | {' | '.join(f'{counts[state]:,}' for state in states)} |\n"

    return head + _within(rows())


def _linked(settings: Settings, site: str, days: Sequence[SiteDay]) -> str:
    name = _markdown(site)
    if settings.explore_url is None:
        return name
    last = days[-1].day
    first = max(days[0].day, last - timedelta(days=_LINKED_DAYS))
    query = urlencode({"site": site, "from": first.isoformat(), "to": (last + timedelta(days=1)).isoformat()})
    return f"[{name}]({settings.explore_url}/coverage?{query})"


def _within(lines: Iterator[str]) -> str:
    """As many lines as fit into an event, and the number of the others."""
    shown, left = "", 0
    for line in lines:
        if left or len(shown.encode()) + len(line.encode()) > _LINES_BYTES:
            left += 1
        else:
            shown += line
    return shown + (f"\nThe report lists {left:,} more." if left else "")


def _markdown(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    return re.sub(r"([\\`*_{}\[\]<>()#+!|~&])", r"\\\1", printable(text))


def recorded_failures(instance: dg.DagsterInstance, missing: dict[str, list[date]]) -> dict[tuple[str, date], str]:
    """Read why the latest attempt of each missing day failed, if it did.

    Args:
        instance: where events are.
        missing: days without an object, by site.
    """
    failed: dict[tuple[str, date], str] = {}
    for site, days in missing.items():
        for at in range(0, len(days), _ASKED):
            part = days[at : at + _ASKED]
            filters = dg.AssetRecordsFilter(
                asset_key=asset_key(site), asset_partitions=[partition_key(day) for day in part]
            )
            for record in instance.fetch_observations(filters, limit=20 * len(part)).records:  # newest first
                error = observed_error(record.asset_observation) if record.asset_observation else None
                if error is not None:
                    failed.setdefault((site, date.fromisoformat(error.day)), error.text)
    return failed
