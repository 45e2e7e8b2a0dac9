"""The asset `tables` in real Dagster runs, and when the sensor materialises it."""

from datetime import UTC, date, datetime, timedelta

import dagster as dg
import pytest

from backfill_pipeline.core.object_keys import object_key
from backfill_pipeline.dataset.table_catalogue import open_catalogue
from backfill_pipeline.orchestration.partitions import ROLLUP_JOB
from backfill_pipeline.orchestration.stored_records import remove_records
from backfill_pipeline.orchestration.tables import AT_LEAST, RETRY, TABLES_JOB, tables_sensor
from backfill_pipeline.storage.days import settings_store
from backfill_pipeline_tests.orchestration.fakes import FakeFetcher, Runs, day_rows


@pytest.fixture
def runs(tmp_path):
    with Runs(tmp_path, FakeFetcher(), "north", table_catalog=f"sqlite:///{tmp_path.as_posix()}/c.db") as opened:
        yield opened


def looked(runs, cursor, later=timedelta(0)):
    context = dg.build_sensor_context(instance=runs.instance, cursor=cursor, definitions=runs.defs)
    return tables_sensor(runs.settings.sites, now=lambda: datetime.now(UTC) + later).evaluate_tick(context)


def launched(runs, cursor, later=timedelta(0)):
    """Whether the sensor launches a run now, and its cursor."""
    found = looked(runs, cursor, later)
    return len(found.run_requests or []), found.cursor


def synced(runs):
    job = runs.defs.resolve_job_def(TABLES_JOB)
    return job.execute_in_process(instance=runs.instance, raise_on_error=False)


def rows(runs, table="samples"):
    catalogue = open_catalogue(runs.settings, settings_store(runs.settings))
    return catalogue.load_table(f"backfill.{table}").scan().to_arrow()


def test_the_tables_follow_each_day_that_is_stored_or_replaced(runs):
    """After the job, samples and hourly values are those of the store; a replaced day has its new rows alone."""
    runs.run("2025-01-01", "2025-01-03")
    runs.defs.resolve_job_def(ROLLUP_JOB).execute_in_process(instance=runs.instance, partition_key="2025-01-01")
    (event,) = synced(runs).get_asset_materialization_events()
    assert event.materialization.metadata["dagster/row_count"].value == len(rows(runs)) == 3 * 432
    assert len(rows(runs, "hourly")) == 3 * 72
    runs.fetcher.make = lambda site, day: day_rows(site, day, every_s=300)
    runs.run("2025-01-02")
    done = synced(runs)
    assert len(rows(runs)) == 4 * 432
    (event,) = done.get_asset_materialization_events()
    samples = event.materialization.metadata["tables"].records[0].data
    assert (samples["table"], samples["replaced"], samples["unchanged"]) == ("backfill.samples", 1, 2)
    assert [one.passed for one in done.get_asset_check_evaluations()] == [True]


def test_a_day_that_is_stored_replaced_or_removed_leads_to_one_run(runs):
    """The first evaluation launches a run; then each event does, once; without an event a run follows after an hour."""
    count, cursor = launched(runs, None)
    assert count == 1
    assert synced(runs).success
    assert launched(runs, cursor) == (0, cursor)
    for store in (
        lambda: runs.run("2025-01-01"),
        lambda: runs.run("2025-01-01"),
        lambda: remove_records(runs.instance, "north", [date(2025, 1, 1)]),
    ):
        store()
        count, after = launched(runs, cursor)
        assert (count, after != cursor) == (1, True)
        cursor = after
        assert synced(runs).success
        assert launched(runs, cursor, AT_LEAST - timedelta(minutes=5)) == (0, cursor)
    assert launched(runs, cursor, AT_LEAST) == (1, cursor)


def test_no_run_is_launched_while_one_is_in_progress(runs):
    """An event during a run is not lost: it leads to a run after that one."""
    runs.run("2025-01-01")
    _, cursor = launched(runs, None)
    job = runs.defs.resolve_job_def(TABLES_JOB)
    run = runs.instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)
    runs.run("2025-01-02")
    assert launched(runs, cursor, AT_LEAST) == (0, cursor)
    runs.instance.report_run_failed(run)
    assert launched(runs, cursor)[0] == 1


def test_a_catalogue_that_cannot_be_used_fails_the_run_which_follows_later(tmp_path):
    """The error names the catalogue without its password; the sensor launches the next run after ten minutes."""
    url = "postgresql://me:hush-hush@127.0.0.1:1/x"
    with Runs(tmp_path, FakeFetcher(), "north", table_catalog=url) as runs:
        runs.run("2025-01-01")
        _, cursor = launched(runs, None)
        done = synced(runs)
        assert not done.success
        (failure,) = [event for event in done.all_events if event.is_step_failure]
        said = failure.step_failure_data.user_failure_data.description
        assert "the catalogue postgresql://127.0.0.1:1/x cannot be used" in said
        assert "hush" not in said
        assert launched(runs, cursor, RETRY - timedelta(minutes=1)) == (0, cursor)
        assert launched(runs, cursor, RETRY) == (1, cursor)


def test_an_object_that_cannot_be_registered_does_not_pass_the_check(runs):
    """The other objects are registered, and the check names the object."""
    runs.run("2025-01-01", "2025-01-02")
    store = settings_store(runs.settings)
    key = object_key("north", date(2025, 1, 3))
    store.put(key, store.get(object_key("north", date(2025, 1, 2))), "")
    done = synced(runs)
    (check,) = done.get_asset_check_evaluations()
    assert (check.passed, check.metadata["failed"].value) == (False, 1)
    assert key in check.description
    assert len(rows(runs)) == 2 * 432


def test_without_a_catalogue_there_is_neither_asset_nor_sensor(tmp_path):
    """A user who does not need tables sees and installs nothing."""
    with Runs(tmp_path, FakeFetcher(), "north") as runs:
        graph = runs.defs.resolve_asset_graph()
        assert dg.AssetKey("tables") not in graph.get_all_asset_keys()
        assert "tables" not in {one.name for one in runs.defs.sensors or ()}
        assert TABLES_JOB not in {one.name for one in runs.defs.resolve_all_job_defs()}
