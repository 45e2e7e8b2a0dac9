"""The asset `coverage`: what arrived, shown in Dagster's UI, and refreshed as days come.

Put here: where its figures come from, and when it is made again. Keep out: what is shown (`coverage/`).
"""

import base64
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import date, datetime, timedelta

import dagster as dg

from backfill_pipeline.core.day import days_between, partition_key
from backfill_pipeline.core.new_days import newest_ready
from backfill_pipeline.core.text import printable
from backfill_pipeline.coverage.canvas import png_of
from backfill_pipeline.coverage.findings import findings
from backfill_pipeline.coverage.footers import read_figures
from backfill_pipeline.coverage.pictures import calendar
from backfill_pipeline.coverage.report import KINDS, Report, rendered
from backfill_pipeline.coverage.table import SiteDay, State, coverage
from backfill_pipeline.orchestration.alerts import Alerts
from backfill_pipeline.orchestration.dagster_internals import IN_PROGRESS_RUN_STATUSES, PRIORITY_TAG
from backfill_pipeline.orchestration.failures import observed_error
from backfill_pipeline.orchestration.partitions import asset_key
from backfill_pipeline.settings import Settings
from backfill_pipeline.storage.days import settings_store

KEY = "coverage"
COVERAGE_JOB = "coverage_job"
DAYS = 366
"""Newest days that are shown."""

EVERY_S = 900
"""Seconds between two looks whether days came."""

_ASKED = 100
_UNDER_WAY = [dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.QUEUED, *IN_PROGRESS_RUN_STATUSES]


def coverage_asset(settings: Settings, sites: Sequence[str], *, now: Callable[[], datetime]) -> dg.AssetsDefinition:
    """The asset: the newest days of all sites.

    Args:
        settings: the settings.
        sites: site names.
        now: the instant, aware.
    """

    @dg.asset(
        name=KEY,
        group_name=KEY,
        deps=[asset_key(site) for site in sites],
        kinds={"python"},
        description=f"What arrived of each site and day, of the newest {DAYS} days, from the objects' own footers. "
        "Made again by the sensor `coverage` as days come.",
    )
    def coverage_(context: dg.AssetExecutionContext) -> dg.MaterializeResult:  # type: ignore[type-arg]  # Dagster knows only the bare one
        made = now()
        newest = newest_ready(made, settings.raw_lag_hours)
        first = max(settings.first_day, newest - timedelta(days=DAYS - 1))
        days = list(days_between(first, max(first, newest)))
        table: list[SiteDay] = []
        found = read_figures(settings_store(settings), sites, days)
        for site in sites:
            of_site = {(site, day): found[site, day] for day in days if (site, day) in found}
            failures = recorded_failures(context.instance, {site: [day for day in days if (site, day) not in found]})
            table += coverage([site], days, of_site, failures, ready_at=settings.ready_at, now=made)
        report = Report(table, made)
        folder = settings.private / KEY
        folder.mkdir(parents=True, exist_ok=True)
        for kind in KINDS:
            (folder / f"coverage.{kind}").write_bytes(rendered(report, kind))
        told = [one for site_days in report.by_site().values() for one in findings(site_days)]
        alerts = Alerts(settings, context.log.warning)
        for one in told:  # a silence is told once, not each day: `since` names it
            alerts.send(one.kind, one.text, about=f"{one.site} {one.since}", again_s=float("inf"), site=one.site)
        return dg.MaterializeResult(
            metadata=_metadata(report)
            | {
                "needs_a_person": dg.MetadataValue.json([one.text for one in told]),
                "report": dg.MetadataValue.path(str(folder / "coverage.html")),
            }
        )

    return coverage_


def _metadata(report: Report) -> dict[str, dg.MetadataValue]:
    """A picture and a line of figures for each site, and the figures of all."""
    states = Counter(one.state for one in report.table)
    about: dict[str, dg.MetadataValue] = {
        f"days_{state.replace(' ', '_')}": dg.MetadataValue.int(states[state]) for state in State
    }
    about["rows"] = dg.MetadataValue.int(sum(one.rows or 0 for one in report.table))
    for site, days in report.by_site().items():
        about[f"calendar {printable(site)}"] = dg.MetadataValue.md(_picture(site, days))
    return about


def _picture(site: str, days: Sequence[SiteDay]) -> str:
    data = base64.b64encode(png_of([calendar(site, days)], small=True)).decode()
    return f"![calendar](data:image/png;base64,{data})"


def recorded_failures(instance: dg.DagsterInstance, missing: dict[str, list[date]]) -> dict[tuple[str, date], str]:
    """Why the newest ask of each day that is not stored failed, of those whose ask did.

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
                    failed.setdefault((site, date.fromisoformat(error.day)), error.error)
    return failed


def coverage_sensor(sites: Sequence[str]) -> dg.SensorDefinition:
    """The sensor that makes the asset again once days have come, at most every quarter of an hour.

    One question to Dagster's storage a look; the run reads footers, and asks the API for nothing.

    Args:
        sites: site names.
    """

    @dg.sensor(
        name=KEY,
        job_name=COVERAGE_JOB,
        minimum_interval_seconds=EVERY_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Makes the asset `coverage` again once days have come.",
    )
    def look(context: dg.SensorEvaluationContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
        records = context.instance.get_asset_records([asset_key(site) for site in sites])
        newest = max((r.asset_entry.last_materialization_storage_id or 0 for r in records), default=0)
        if str(newest) == (context.cursor or "0"):
            yield dg.SkipReason("no day has come since")
        elif context.instance.get_run_records(dg.RunsFilter(job_name=COVERAGE_JOB, statuses=_UNDER_WAY), limit=1):
            yield dg.SkipReason("a run is at work on it")
        else:
            context.update_cursor(str(newest))
            yield dg.RunRequest(run_key=str(newest), tags={PRIORITY_TAG: "1"})

    return look
