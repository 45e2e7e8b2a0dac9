"""Backfills through the real daemon: killed, cancelled, run again; nothing lost, and nothing fetched twice."""

import json
import math
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from datetime import date, datetime
from itertools import groupby, pairwise

import psutil
import pyarrow.parquet as pq
import pytest

from backfill_pipeline.control.http import build_app
from backfill_pipeline.control.service import Control
from backfill_pipeline.core.object_keys import object_key
from backfill_pipeline.settings import Settings
from backfill_pipeline.simulator.app import Simulator
from backfill_pipeline.simulator.world import SiteSpec, World
from backfill_pipeline_tests.builders import listed
from backfill_pipeline_tests.control.serving import served
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
            assert listed(table) == world.truth(site, date.fromisoformat(one))


def test_killed_runs_and_a_power_cut_cost_no_stored_day(simulator, tmp_path, monkeypatch):
    """A run's process, then everything, is killed: dead runs are freed, and what is missing alone is run again."""
    with stack(tmp_path / "home", simulator.url, SITES, monkeypatch) as made:
        backfill = made.launch(0, 9)
        made.until(lambda: len(made.done("north")) >= 2)
        (run,) = made.runs(backfill)
        psutil.Process(made.pid(run)).kill()
        made.until(lambda: made.run_statuses(backfill) == {"FAILURE"})
        lost = {(site, day(n)) for site in SITES for n in range(10)} - set(made.times_stored())
        status, errors = made.control.status(backfill), made.control.errors(backfill)
        assert lost == {(one.site, str(one.day)) for one in errors}
        assert all("run's process ended" in one.error and "backfill start --from" in one.hint for one in errors)
        assert (status.lost, status.failed) == (len(lost), len(lost))

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


def test_a_cancelled_backfill_goes_on_from_there_and_no_figure_goes_back(simulator, tmp_path, monkeypatch):
    """The days at work complete, finished days stay, and a start fetches the rest; who looks on sees figures that grow.

    Asked over HTTP all the time, and by the command at the turning points.
    """
    wanted = {"start_date": day(0), "end_date": day(19)}
    variables = {"BACKFILL_GRACE_SECONDS": "20", "BACKFILL_DAYS_PER_RUN": "20"}
    with (
        stack(tmp_path / "home", simulator.url, SITES, monkeypatch, **variables) as made,
        served(build_app(made.control, token=None)) as client,
        watched(client) as seen,
    ):
        began = time.time()
        made.until(made.gateway.daemon_is_alive)
        backfill = client.post("/backfill/start", json=wanted).json()["backfill_id"]
        at_begin = seen.newest(backfill)
        assert (at_begin["progress_percent"], at_begin["days_completed"], at_begin["days_total"]) == (0.0, 0, 20)
        assert (at_begin["status"], at_begin["estimated_completion"]) == ("in_progress", None)
        made.until(lambda: len(made.done("north")) >= 4)
        half_way = seen.newest(backfill)
        assert began - 1 < instant(half_way["started_at"]) <= instant(half_way["last_updated"]) <= time.time()
        assert instant(half_way["estimated_completion"]) > time.time() - 2

        cancelled = client.post("/backfill/cancel").json()
        assert (cancelled["status"], cancelled["backfill_id"]) == ("cancelled", backfill)
        assert seen.newest(backfill)["status"] == "cancelled"
        made.until(lambda: made.run_statuses(backfill) == {"CANCELED"})
        before = {site: made.done(site) for site in SITES}
        assert all(4 <= len(done) < 20 for done in before.values())
        for site in SITES:  # what is stored is recorded: no object is there that Dagster does not know of
            assert len(list((made.home / "data" / "timeseries").rglob(f"{site}.parquet"))) == len(before[site])
            assert made.checked(site) == before[site]
        made.until(lambda: made.status(backfill) == "CANCELED")
        parts = sum(map(len, before.values()))
        at_rest = seen.newest(backfill)
        assert at_rest["progress_percent"] == pytest.approx(parts / 40 * 100)
        assert at_rest["days_completed"] == len(set.intersection(*before.values()))
        assert at_rest["estimated_completion"] is None
        assert told_by_command(made)["site_days_completed"] == parts

        again = client.post("/backfill/start", json=wanted).json()
        assert again["message"].startswith(f"{40 - parts} site-days of 2 sites will be fetched; {parts} are stored")
        assert seen.newest(again["backfill_id"])["progress_percent"] >= at_rest["progress_percent"]
        assert made.until_over(again["backfill_id"]) == "COMPLETED_SUCCESS"
        over = seen.newest(again["backfill_id"])
        assert (over["status"], over["progress_percent"], over["days_completed"]) == ("completed", 100.0, 20)
        assert over["current_date"] == day(19)
        assert instant(over["started_at"]) < instant(over["estimated_completion"]) <= instant(over["last_updated"])
        rows = sum(len(simulator.world.truth(site, date.fromisoformat(one))) for site in SITES for one in ALL)
        assert over["records_processed"] == rows
        by_command = told_by_command(made)
        assert {name: by_command[name] for name in over} == over
        assert seen.newest(backfill) == at_rest
        assert made.times_stored() == {(site, one): 1 for site in SITES for one in ALL}
        whole(made, simulator.world)
    assert len(seen.answers) > 20
    seen.hold()


GROWS = ("progress_percent", "days_completed", "records_processed", "current_date", "last_updated")
WORDS = {"not_started", "in_progress", "completed", "cancelled", "failed"}


class Watched:
    """Each answer of `GET /backfill/status`, one after the other."""

    def __init__(self, client) -> None:
        self.client = client
        self.answers: list[dict] = []
        self.stop = threading.Event()

    def look(self) -> None:
        while not self.stop.wait(0.1):
            self.answers.append(self.client.get("/backfill/status").json())

    def newest(self, backfill_id: str) -> dict:
        answer = self.client.get("/backfill/status", params={"backfill_id": backfill_id}).json()
        assert answer["backfill_id"] == backfill_id
        return answer

    def hold(self) -> None:
        """What must hold of them all, the second backfill's figures going on from the first one's."""
        for answer in self.answers:
            assert answer["status"] in WORDS
            assert 0 <= answer["progress_percent"] <= 100
            assert math.isfinite(answer["progress_percent"])
        at_work = [answer for answer in self.answers if answer["backfill_id"]]
        words = [answer["status"] for answer in at_work]
        assert [word for word, _ in groupby(words)] == ["in_progress", "cancelled", "in_progress", "completed"]
        for earlier, later in pairwise(at_work):
            for name in GROWS:
                assert later[name] >= earlier[name], (name, earlier, later)


@contextmanager
def watched(client):
    """Looks on beside the journey."""
    seen = Watched(client)
    thread = threading.Thread(target=seen.look)
    thread.start()
    try:
        yield seen
    finally:
        seen.stop.set()
        thread.join()


def told_by_command(made) -> dict:
    """`backfill status --json`, in a process of its own."""
    words = [sys.executable, "-m", "backfill_pipeline.control.cli", "status", "--json"]
    done = subprocess.run(words, cwd=made.home, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def instant(text: str) -> float:
    """Unix seconds; whole ones are told."""
    return datetime.fromisoformat(text).timestamp()


def test_one_day_in_twenty_fails_and_those_alone_are_run_again(tmp_path, monkeypatch):
    """Every other day is stored, oldest first, though the daemon is killed meanwhile; then the failed ones alone."""
    bad = {("north", day(22)), ("a-b", day(3)), ("a-b", day(22)), ("a-b", day(39))}
    world = World(
        [Spoilt(SiteSpec(site, 10), {date.fromisoformat(one) for name, one in bad if name == site}) for site in SITES]
    )
    days = [date.fromisoformat(day(number)) for number in range(40)]
    with (
        Simulator(world, api_key="hush-hush", latency_s=1.0) as simulator,
        stack(tmp_path / "home", simulator.url, SITES, monkeypatch) as made,
    ):
        first = made.launch(0, 39)
        made.until(lambda: len(made.done("north")) >= 2)
        made.process.kill()  # two runs are at work, and no third one is being started, which would not be run again
        made.process.wait()
        simulator.latency_s = 0.1
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


def test_settings_that_change_in_mid_backfill_are_named(tmp_path, monkeypatch):
    """A site leaves ACE_SITES and the daemon is restarted: status and errors show why the backfill ended."""
    with (
        Simulator(World([SiteSpec(site, 10) for site in SITES]), api_key="hush-hush", latency_s=0.5) as simulator,
        stack(tmp_path / "home", simulator.url, SITES, monkeypatch, BACKFILL_DAYS_PER_RUN="1") as made,
    ):
        backfill = made.launch(0, 5)
        made.until(lambda: made.done("a-b"))
        made.kill()
        monkeypatch.setenv("ACE_SITES", "north")
        instance = made.home / "dagster.yaml"  # a run that was killed while it started is not waited for three minutes
        instance.write_text(
            instance.read_text("utf-8").replace("start_timeout_seconds: 180", "start_timeout_seconds: 20")
        )
        made.start()
        assert made.until_over(backfill) == "FAILED"
        made.control = Control(made.gateway, Settings.load(folder=made.home), all_sites=lambda: ("north",))
        status = made.control.status()
        assert status.word == "failed"
        for text in (status.message, made.control.errors()[0].error):
            assert "timeseries" in text
            assert "ACE_SITES no longer contains 'a-b'" in text
            assert "\n" not in text
