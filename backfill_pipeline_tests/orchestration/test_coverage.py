"""The asset `coverage` shows what the store contains, stays small, and is refreshed soon after days were stored."""

from datetime import UTC, date, datetime, timedelta

import dagster as dg

from backfill_pipeline.coverage.report import Report
from backfill_pipeline.coverage.table import SiteDay, State
from backfill_pipeline.errors import PageFailedError
from backfill_pipeline.orchestration.coverage import _metadata
from backfill_pipeline.orchestration.coverage_refresh import EVERY_S, KEPT_RUNS, coverage_sensor
from backfill_pipeline.orchestration.partitions import COVERAGE_JOB, OTHER_JOBS
from backfill_pipeline.settings import Settings
from backfill_pipeline_tests.orchestration.fakes import FakeFetcher, Runs

NOW = datetime(2025, 1, 6, 13, tzinfo=UTC)


def looked(runs, cursor, now=NOW):
    context = dg.build_sensor_context(instance=runs.instance, cursor=cursor, definitions=runs.defs)
    return coverage_sensor(runs.settings.sites, now=lambda: now).evaluate_tick(context)


def refreshed(runs):
    done = runs.defs.resolve_job_def(COVERAGE_JOB).execute_in_process(instance=runs.instance)
    (event,) = done.get_asset_materialization_events()
    return event.materialization


def figures(materialization):
    return {name: value.value for name, value in materialization.metadata.items()}


def test_the_asset_shows_what_arrived(tmp_path):
    """Figures, a picture of the year and files; failures are read from Dagster's own events."""
    wrong = {("north", date(2025, 1, 2)): PageFailedError("it broke")}
    with Runs(tmp_path, FakeFetcher(wrong), now=lambda: NOW) as runs:
        runs.run("2025-01-01", "2025-01-04")
        about = figures(refreshed(runs))
        assert (about["days_stored"], about["days_failed"], about["days_never_asked"]) == (7, 1, 2)
        assert about["rows"] == 7 * 432
        assert about["calendar"].startswith("![2025](data:image/png;base64,")
        assert (tmp_path / ".dagster" / "coverage" / "coverage.html").read_text(encoding="utf-8").count("it broke") > 1
        assert "it broke" in about["needs_you"]
        assert "backfill start" in about["needs_you"]


def test_the_days_begin_with_the_first_stored_or_failed_day(tmp_path):
    """Days before a backfill of last spring are not counted, and a failed first day is."""
    wrong = {("north", date(2024, 3, 1)): PageFailedError("it broke")}
    with Runs(tmp_path, FakeFetcher(wrong), now=lambda: NOW, first_day=date(2023, 1, 1)) as runs:
        runs.run("2024-03-01", "2024-03-02")
        about = figures(refreshed(runs))
    sites, days = 2, (date(2025, 1, 5) - date(2024, 3, 1)).days + 1
    assert (about["days_stored"], about["days_failed"]) == (3, 1)
    assert sum(about[name] for name in about if name.startswith("days_")) == sites * days
    assert about["calendar"].count("![") == 1  # of 2024; no day of 2025 was requested


def test_an_event_stays_below_20_kb_at_any_number_of_sites(tmp_path):
    """Three years of 1,000 sites, each day another than the day before: pictures and lists are cut, not the figures."""
    states, first = (State.STORED, State.FAILED, State.EMPTY, State.THIN), date(2022, 1, 1)
    table = [
        SiteDay(f"site-{site}", first + timedelta(days=day), states[(day * site) % 4], 5, 1, 2, note="why " * 50)
        for site in range(1000)
        for day in range(0, 1096, 40)
    ]
    settings = Settings(home=tmp_path, explore_url="http://127.0.0.1:1")
    about = _metadata(settings, Report(table, NOW))
    event = dg.AssetMaterialization("coverage", metadata=about)
    assert len(dg.serialize_value(event)) < 20_000
    assert "http://127.0.0.1:1/coverage?site=site-" in about["sites"].value
    assert "more" in about["sites"].value
    assert about["days_stored"].value == sum(one.state is State.STORED for one in table)


def test_it_is_refreshed_when_days_were_stored(tmp_path):
    """Nothing is stored: no run; one day: one run at once; no further day: none."""
    with Runs(tmp_path, FakeFetcher(), now=lambda: NOW) as runs:
        before = looked(runs, None)
        assert before.run_requests == []
        runs.run("2025-01-01")
        first = looked(runs, before.cursor)
        assert len(first.run_requests) == 1
        assert looked(runs, first.cursor).run_requests == []


def test_while_days_are_fetched_it_is_refreshed_every_quarter_of_an_hour(tmp_path):
    """The first day and the end are shown at once, and runs of other jobs do not delay it."""
    with Runs(tmp_path, FakeFetcher(), now=lambda: NOW) as runs:
        runs.run("2025-01-01")
        cursor = looked(runs, "7").cursor  # the form of earlier versions: the event alone
        runs.run("2025-01-02")
        job = runs.defs.resolve_job_def(COVERAGE_JOB)
        for name, asked in ((OTHER_JOBS[0], 1), ("__ASSET_JOB", 0)):
            run = runs.instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)
            runs.instance.delete_run(run.run_id)
            runs.instance.add_run(dg.DagsterRun(name, run_id=run.run_id, status=dg.DagsterRunStatus.STARTED))
            assert len(looked(runs, cursor).run_requests) == asked
            assert len(looked(runs, cursor, NOW + timedelta(seconds=EVERY_S)).run_requests) == 1
            runs.instance.delete_run(run.run_id)


def test_old_runs_are_deleted_and_the_latest_stay(tmp_path):
    """Only runs of this job, and only finished ones; the asset keeps its latest events."""
    with Runs(tmp_path, FakeFetcher(), now=lambda: NOW) as runs:
        stored = runs.run("2025-01-01").run_id
        made = [refreshed(runs) and runs.instance.get_runs(limit=1)[0].run_id for _ in range(KEPT_RUNS + 3)]
        left = {run.run_id for run in runs.instance.get_runs()}
    assert left == {stored, *made[-KEPT_RUNS - 1 :]}


def test_without_any_day_it_says_so(tmp_path):
    """A new installation, on its first day."""
    with Runs(tmp_path, FakeFetcher(), now=lambda: datetime(2025, 1, 1, 1, tzinfo=UTC)) as runs:
        about = figures(refreshed(runs))
    assert about["days_not_ready"] == 2
    assert about["calendar"] == "No day is stored."
