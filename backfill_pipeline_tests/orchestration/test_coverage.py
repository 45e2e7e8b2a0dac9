"""The asset `coverage` shows what the store holds, and is made again once days have come."""

from datetime import UTC, date, datetime

import dagster as dg

from backfill_pipeline.errors import PageFailedError
from backfill_pipeline.orchestration.coverage import COVERAGE_JOB, coverage_sensor
from backfill_pipeline_tests.orchestration.fakes import FakeFetcher, Runs

NOW = datetime(2025, 1, 6, 13, tzinfo=UTC)


def looked(runs, cursor):
    context = dg.build_sensor_context(instance=runs.instance, cursor=cursor, definitions=runs.defs)
    return coverage_sensor(runs.settings.sites).evaluate_tick(context)


def test_the_asset_shows_what_arrived(tmp_path):
    """Figures, a picture of each site, files; failures come from Dagster's own events."""
    wrong = {("north", date(2025, 1, 2)): PageFailedError("it broke")}
    with Runs(tmp_path, FakeFetcher(wrong), now=lambda: NOW) as runs:
        runs.run("2025-01-01", "2025-01-04")
        done = runs.defs.resolve_job_def(COVERAGE_JOB).execute_in_process(instance=runs.instance)
        (event,) = done.get_asset_materialization_events()
        about = {name: value.value for name, value in event.materialization.metadata.items()}
        assert (about["days_stored"], about["days_failed"], about["days_never_asked"]) == (7, 1, 2)
        assert about["rows"] == 7 * 432
        assert about["calendar north"].startswith("![calendar](data:image/png;base64,")
        assert (tmp_path / ".dagster" / "coverage" / "coverage.html").read_text(encoding="utf-8").count("it broke") > 1
        assert about["needs_a_person"] == []


def test_it_is_made_again_once_days_have_come(tmp_path):
    """Nothing stored: nothing; a day: one run; no further day: none."""
    with Runs(tmp_path, FakeFetcher(), now=lambda: NOW) as runs:
        before = looked(runs, None)
        assert before.run_requests == []
        runs.run("2025-01-01")
        came = looked(runs, before.cursor)
        assert len(came.run_requests) == 1
        assert looked(runs, came.cursor).run_requests == []


def test_without_any_day_it_says_so(tmp_path):
    """A new installation, on its first day."""
    with Runs(tmp_path, FakeFetcher(), now=lambda: datetime(2025, 1, 1, 1, tzinfo=UTC)) as runs:
        done = runs.defs.resolve_job_def(COVERAGE_JOB).execute_in_process(instance=runs.instance)
        (event,) = done.get_asset_materialization_events()
        assert event.materialization.metadata["days_not_ready"].value == 2
