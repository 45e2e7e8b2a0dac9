"""The assets `rollup/<site>` in real Dagster runs, and when the sensor builds a month."""

from datetime import UTC, date, datetime, timedelta

import dagster as dg

from backfill_pipeline.dataset.rollup import rollup_days
from backfill_pipeline.orchestration.partitions import ROLLUP_JOB
from backfill_pipeline.orchestration.rollup import rollup_asset_key, rollup_sensor
from backfill_pipeline.storage.days import settings_store
from backfill_pipeline_tests.orchestration.fakes import FakeFetcher, Runs

JANUARY = date(2025, 1, 1)


def looked(runs, cursor, at):
    context = dg.build_sensor_context(instance=runs.instance, cursor=cursor, definitions=runs.defs)
    return rollup_sensor(runs.settings, runs.settings.sites, now=lambda: at).evaluate_tick(context)


def test_a_month_is_built_once_after_its_last_change(tmp_path):
    """Not before 15 minutes have passed nor before the month is over; once for all its days; again after a change."""
    with Runs(tmp_path, FakeFetcher(), "north") as runs:
        first = looked(runs, None, datetime.now(UTC))
        runs.run("2025-01-01", "2025-01-03")
        now = datetime.now(UTC)
        early = looked(runs, first.cursor, now + timedelta(minutes=14))
        assert early.run_requests == []
        assert looked(runs, early.cursor, datetime(2025, 1, 31, 23, tzinfo=UTC)).run_requests == []
        due = looked(runs, early.cursor, now + timedelta(minutes=16))
        (request,) = due.run_requests
        assert request.partition_key == "2025-01-01"
        assert request.asset_selection == [rollup_asset_key("north")]
        later = looked(runs, due.cursor, now + timedelta(hours=9))
        assert later.run_requests == []
        runs.run("2025-01-02")
        assert len(looked(runs, later.cursor, datetime.now(UTC) + timedelta(minutes=16)).run_requests) == 1


def test_a_run_builds_the_month_from_its_stored_days(tmp_path):
    """The materialisation has rows, bytes and days; the object names the days."""
    with Runs(tmp_path, FakeFetcher(), "north") as runs:
        runs.run("2025-01-01", "2025-01-03")
        job = runs.defs.resolve_job_def(ROLLUP_JOB)
        done = job.execute_in_process(instance=runs.instance, partition_key="2025-01-01")
        (event,) = done.get_asset_materialization_events()
        about = {name: value.value for name, value in event.materialization.metadata.items()}
        assert event.partition == "2025-01-01"
        assert (about["days"], about["changed"]) == (3, True)
        assert about["dagster/row_count"] > 0
        days = rollup_days(settings_store(runs.settings), "north", JANUARY)
        assert sorted(days) == [JANUARY + timedelta(days=n) for n in range(3)]


def test_a_month_without_stored_days_fails(tmp_path):
    """No rows is never a success."""
    with Runs(tmp_path, FakeFetcher(), "north") as runs:
        job = runs.defs.resolve_job_def(ROLLUP_JOB)
        done = job.execute_in_process(instance=runs.instance, partition_key="2025-01-01", raise_on_error=False)
        assert not done.success
        assert done.get_asset_materialization_events() == []
