"""Backfills through the real daemon: killed, cancelled, run again; nothing lost, and nothing fetched twice."""

from datetime import date

import psutil
import pyarrow.parquet as pq
import pytest

from backfill_pipeline.core.layout import object_key
from backfill_pipeline.simulator.app import Simulator
from backfill_pipeline.simulator.world import SiteSpec, World
from backfill_pipeline_tests.journeys.stack import Spoilt, day, stack

SITES = ("north", "a-b")
ALL = {day(number) for number in range(20)}


@pytest.fixture
def simulator():
    with Simulator(World([SiteSpec(site, 10) for site in SITES]), api_key="hush-hush", latency_s=0.25) as simulator:
        yield simulator


def whole(made, world, days=ALL):
    """Every object of these days holds what the API holds."""
    for site in SITES:
        for one in days:
            table = pq.read_table(made.home / "data" / object_key(site, date.fromisoformat(one)))
            rows = list(zip(*(table[name].to_pylist() for name in ("timestamp", "point_name", "value")), strict=True))
            assert rows == world.truth(site, date.fromisoformat(one))


def test_killed_runs_and_a_power_cut_cost_no_stored_day(simulator, tmp_path, monkeypatch):
    """A run's process, then everything, is killed: dead runs are freed, and what is missing alone is run again."""
    with stack(tmp_path / "home", simulator.url, SITES, monkeypatch) as made:
        backfill = made.launch(0, 9)
        made.until(lambda: len(made.done("north")) >= 2)
        (run,) = made.runs(backfill)
        psutil.Process(made.pid(run)).kill()
        made.until(lambda: made.run_statuses(backfill) == {"FAILURE"})

        second = made.launch(10, 19)
        made.until(lambda: made.done("north") & {day(11)})
        made.kill()
        assert made.run_statuses(second) == {"STARTED"}  # as Dagster left it: nobody was there to say otherwise
        before = {site: made.done(site) for site in SITES}
        made.start()
        made.until(lambda: made.run_statuses(second) == {"FAILURE"})
        assert {site: made.done(site) for site in SITES} == before

        missing = {one for site in SITES for one in ALL - before[site]}
        again = [
            made.gateway.launch([site], sorted(date.fromisoformat(one) for one in ALL - before[site])) for site in SITES
        ]
        assert [made.until_over(one) for one in again] == ["COMPLETED_SUCCESS"] * 2
        assert [made.until_over(one) for one in (backfill, second)] == ["COMPLETED_FAILED"] * 2
        assert missing
        assert made.times_stored() == {(site, one): 1 for site in SITES for one in ALL}
        whole(made, simulator.world)


def test_a_cancelled_run_ends_as_cancelled_and_goes_on_from_there(simulator, tmp_path, monkeypatch):
    """The days at work complete, finished days stay, and the rest can be asked for."""
    with stack(
        tmp_path / "home", simulator.url, SITES, monkeypatch, BACKFILL_GRACE_SECONDS="20", BACKFILL_DAYS_PER_RUN="20"
    ) as made:
        backfill = made.launch(0, 19)
        made.until(lambda: len(made.done("north")) >= 2)
        (run,) = made.runs(backfill)
        made.instance.run_launcher.terminate(run.run_id)  # as the UI's button does
        made.until(lambda: made.run_statuses(backfill) == {"CANCELED"})
        before = {site: made.done(site) for site in SITES}
        assert all(2 <= len(done) < 20 for done in before.values())
        for site in SITES:  # what is stored is recorded: no object is there that Dagster does not know of
            assert len(list((made.home / "data").rglob(f"{site}.parquet"))) == len(before[site])
            assert made.checked(site) == before[site]
        again = [
            made.gateway.launch([site], sorted(date.fromisoformat(one) for one in ALL - before[site])) for site in SITES
        ]
        assert [made.until_over(one) for one in again] == ["COMPLETED_SUCCESS"] * 2
        assert made.until_over(backfill) in ("CANCELED", "COMPLETED_FAILED")
        assert made.times_stored() == {(site, one): 1 for site in SITES for one in ALL}
        whole(made, simulator.world)


def test_one_day_in_twenty_fails_and_those_alone_are_run_again(tmp_path, monkeypatch):
    """Every other day is stored, oldest first, though the daemon is killed meanwhile; then the failed ones alone."""
    bad = {("north", day(22)), ("a-b", day(3)), ("a-b", day(22)), ("a-b", day(39))}
    world = World(
        [Spoilt(SiteSpec(site, 10), {date.fromisoformat(one) for name, one in bad if name == site}) for site in SITES]
    )
    days = [date.fromisoformat(day(number)) for number in range(40)]
    with (
        Simulator(world, api_key="hush-hush", latency_s=0.1) as simulator,
        stack(tmp_path / "home", simulator.url, SITES, monkeypatch) as made,
    ):
        first = made.launch(0, 39)
        made.until(lambda: len(made.done("north")) >= 2)
        made.process.kill()
        made.process.wait()
        made.start()
        assert made.until_over(first) == "COMPLETED_FAILED"
        good = {(site, str(one)): 1 for site in SITES for one in days if (site, str(one)) not in bad}
        assert made.times_stored() == good
        runs = sorted(made.runs(first), key=lambda run: made.instance.get_run_record_by_id(run.run_id).start_time)
        assert [run.tags["dagster/asset_partition_range_start"] for run in runs] == [day(n) for n in (0, 10, 20, 30)]
        for run in runs:
            for site in SITES:
                told = [one for name, one in made.stored_by(run) if name == site]
                assert told == sorted(told)

        for site in world.sites:
            site.bad.clear()
        simulator.requests.clear()
        again = made.gateway.launch(SITES, days, skip=made.gateway.days_stored(SITES))
        assert made.until_over(again) == "COMPLETED_SUCCESS"
        assert made.times_stored() == good | dict.fromkeys(bad, 1)
        samples = [one for one in simulator.requests if one.path.endswith("/paginated")]
        assert {(one.path.split("/")[-3], one.query["start_time"][:10]) for one in samples} == bad


def test_a_refused_key_ends_the_backfill(tmp_path, monkeypatch):
    """A run that no further day could succeed in ends the whole backfill, which says why; the rest is not tried."""
    with (
        Simulator(World([SiteSpec(site, 10) for site in SITES]), api_key="another") as simulator,
        stack(tmp_path / "home", simulator.url, SITES, monkeypatch, BACKFILL_DAYS_PER_RUN="1") as made,
    ):
        backfill = made.launch(0, 19)
        assert made.until_over(backfill) == "FAILED"
        assert "refused the key" in made.instance.get_backfill(backfill).error.message
        assert made.run_statuses(backfill) == {"FAILURE", "CANCELED"}
        assert len(simulator.requests) < 20
