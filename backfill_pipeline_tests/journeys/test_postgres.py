"""Dagster's storage and the budget on a real Postgres: a backfill through the daemon, and a move there from SQLite."""

from datetime import date

import pytest

from backfill_pipeline.errors import SettingError, UsageError
from backfill_pipeline.orchestration.migrate_storage import move_storage
from backfill_pipeline.settings import Settings
from backfill_pipeline.simulator.app import Simulator
from backfill_pipeline.simulator.world import SiteSpec, World
from backfill_pipeline_tests.journeys.stack import Stack, day, stack
from backfill_pipeline_tests.services import postgres_server

SITES = ("north", "a-b")
DAYS = {day(number) for number in range(4)}


@pytest.fixture(scope="module")
def simulator():
    with Simulator(World([SiteSpec(site, 10) for site in SITES]), api_key="hush-hush") as simulator:
        yield simulator


def files_with(folder, word):
    return [path for path in folder.rglob("*") if path.is_file() and word in path.read_bytes()]


def test_a_backfill_keeps_runs_events_and_budget_in_postgres(simulator, tmp_path, monkeypatch):
    """By two settings alone; no SQLite file appears, and the password is in no file, run, event or page."""
    home = tmp_path / "home"
    with (
        postgres_server() as url,
        stack(home, simulator.url, SITES, monkeypatch, BACKFILL_RUN_STORAGE=url, BACKFILL_LIMITER=url) as made,
    ):
        backfill = made.launch(0, 3)
        assert made.until_over(backfill) == "COMPLETED_SUCCESS"
        assert made.times_stored() == {(site, one): 1 for site in SITES for one in DAYS}
        assert [made.checked(site) for site in SITES] == [DAYS, DAYS]
        assert "hush@" not in str(made.instance.get_ref()) + made.instance.info_str() + str(made.gateway.settings)
        made.stop()
        assert not list(home.rglob("*.db"))
        assert not list(home.rglob("budget.sqlite"))
        assert files_with(home, b"hush@") == []


def test_what_sqlite_held_is_in_postgres_after_a_move(simulator, tmp_path, monkeypatch):
    """Days, checks, backfills, run logs and their order are the same; a second move is refused; work goes on there."""
    home = tmp_path / "home"
    with stack(home, simulator.url, SITES, monkeypatch) as made:
        backfill = made.launch(0, 1)
        assert made.until_over(backfill) == "COMPLETED_SUCCESS"
        (run,) = made.runs(backfill)
        made.until(lambda: made.gateway.active_run() is None)  # of sensors neither
    logs = [entry.message for entry in made.instance.all_logs(run.run_id)]
    before = [(made.done(site), made.checked(site)) for site in SITES]
    assert all(done == checked for done, checked in before)
    with postgres_server() as url:
        monkeypatch.setenv("BACKFILL_RUN_STORAGE", url)
        counts = move_storage(Settings.load(folder=home))
        assert counts["runs"] == len(made.instance.get_runs())
        assert counts["bulk_actions"] == 1
        assert counts["events"] >= len(logs)
        with pytest.raises(UsageError, match="already"):
            move_storage(Settings.load(folder=home))
        moved = Stack(home, simulator.url, SITES, monkeypatch, BACKFILL_RUN_STORAGE=url)
        try:
            assert [(moved.done(site), moved.checked(site)) for site in SITES] == before
            assert [entry.message for entry in moved.instance.all_logs(run.run_id)] == logs
            assert moved.gateway.newest().id == backfill
            moved.start()
            again = moved.launch(2, 3)
            assert moved.until_over(again) == "COMPLETED_SUCCESS"
            assert moved.times_stored() == {(site, one): 1 for site in SITES for one in DAYS}
        finally:
            moved.stop()
            moved.instance.dispose()


def test_a_database_that_is_not_there_is_one_line_without_the_password(tmp_path, monkeypatch):
    """The setting is named, the password is not."""
    monkeypatch.setenv("BACKFILL_RUN_STORAGE", "postgresql://backfill:hush@127.0.0.1:1/none")
    with pytest.raises(SettingError, match="BACKFILL_RUN_STORAGE") as told:
        Stack(tmp_path, "http://127.0.0.1:1", SITES, monkeypatch)
    assert "hush" not in str(told.value)
    with pytest.raises(SettingError) as told:
        Settings.load({"BACKFILL_RUN_STORAGE": "mysql://u:hush@h/d"}, folder=tmp_path)
    assert "hush" not in str(told.value)
    assert Settings(first_day=date(2025, 1, 1)).run_storage is None
