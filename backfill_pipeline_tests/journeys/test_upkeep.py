"""What an operator does to an installation that works: another key in mid-backfill, a backup and its restore."""

import subprocess

import pytest

from backfill_pipeline.simulator.app import Simulator
from backfill_pipeline.simulator.world import SiteSpec, World
from backfill_pipeline_tests.journeys.stack import Stack, day, stack
from backfill_pipeline_tests.services import postgres_server, program

SITES = ("north", "a-b")


@pytest.fixture
def simulator():
    with Simulator(World([SiteSpec(site, 10) for site in SITES]), api_key="old-key", latency_s=0.2) as simulator:
        yield simulator


def test_a_key_is_rotated_in_mid_backfill(simulator, tmp_path, monkeypatch):
    """New key, daemon begun anew, runs from before ended, old key revoked: Dagster keeps what it read of `.env`."""
    made = Stack(tmp_path / "home", simulator.url, SITES, monkeypatch, BACKFILL_DAYS_PER_RUN="5")
    try:
        monkeypatch.delenv("ACE_API_KEY")
        (made.home / ".env").write_text("ACE_API_KEY=old-key\n", encoding="utf-8")
        made.start()
        backfill = made.launch(0, 9)
        made.until(lambda: len(made.done("north")) >= 2)
        simulator.keys.add("new-key")
        (made.home / ".env").write_text("ACE_API_KEY=new-key\n", encoding="utf-8")
        made.process.kill()
        made.process.wait()
        made.start()
        before = [run.run_id for run in made.runs(backfill) if run.status.value in ("STARTING", "STARTED")]
        made.until(lambda: all(made.instance.get_run_by_id(one).is_finished for one in before))
        simulator.keys.remove("old-key")
        assert made.status(backfill) == "REQUESTED"
        assert made.until_over(backfill) == "COMPLETED_SUCCESS"
        assert made.times_stored() == {(site, day(number)): 1 for site in SITES for number in range(10)}
        assert {one.status for one in simulator.requests} == {200}
    finally:
        made.stop()
        made.instance.dispose()


def test_a_dump_of_the_database_is_a_backup(simulator, tmp_path, monkeypatch):
    """`pg_dump` while it works, restored into another database: days, checks and runs are there, and work goes on."""
    simulator.keys.add("hush-hush")
    with postgres_server() as url:
        with stack(tmp_path / "home", simulator.url, SITES, monkeypatch, BACKFILL_RUN_STORAGE=url) as made:
            backfill = made.launch(0, 2)
            assert made.until_over(backfill) == "COMPLETED_SUCCESS"
            before = [(made.done(site), made.checked(site)) for site in SITES]
            dump = str(tmp_path / "dump")
            subprocess.run([program("pg_dump"), "-Fc", "-f", dump, url], check=True)
        other = url.replace("/postgres", "/restored")
        subprocess.run([program("createdb"), "--maintenance-db", url, "restored"], check=True)
        subprocess.run([program("pg_restore"), "--no-owner", "-d", other, dump], check=True)
        with stack(tmp_path / "home", simulator.url, SITES, monkeypatch, BACKFILL_RUN_STORAGE=other) as made:
            assert [(made.done(site), made.checked(site)) for site in SITES] == before
            assert made.until_over(made.launch(3, 3)) == "COMPLETED_SUCCESS"
            assert made.times_stored() == {(site, day(number)): 1 for site in SITES for number in range(4)}
