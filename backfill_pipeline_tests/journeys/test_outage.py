"""An API that goes down in mid-backfill: runs wait, an operator sees since when, a cancel works, and no day fails."""

import math
from datetime import date

import pyarrow.parquet as pq

from backfill_pipeline.core.object_keys import object_key
from backfill_pipeline.orchestration.build import sites_of
from backfill_pipeline.orchestration.partitions import API_DOWN_TAG
from backfill_pipeline.settings import Settings
from backfill_pipeline.simulator.app import Simulator
from backfill_pipeline.simulator.world import SiteSpec, World
from backfill_pipeline_tests.builders import listed
from backfill_pipeline_tests.journeys.stack import day, stack

SITES = ("a-b", "north")


def test_a_backfill_outlasts_an_outage_and_a_run_may_start_in_it(tmp_path, monkeypatch):
    """Without ACE_SITES: the first run is cancelled in the outage, the next starts in it, and all days are stored."""
    world = World([SiteSpec(site, 10) for site in SITES])
    with (
        Simulator(world, api_key="hush-hush", latency_s=0.3) as simulator,
        stack(tmp_path / "home", simulator.url, SITES, monkeypatch, ACE_SITES="") as made,
    ):
        assert sites_of(Settings.load(folder=made.home)) == SITES
        first = made.launch(0, 9)
        made.until(lambda: len(made.done("north")) >= 2)
        simulator.down_until = math.inf
        made.until(lambda: made.control.status(first).api_down_since)
        assert "has not answered since" in made.control.status(first).message
        assert made.control.status(first).failed == 0
        (run,) = made.runs(first)
        assert run.tags[API_DOWN_TAG].startswith("20")
        start = len(simulator.requests)
        made.until(lambda: len(simulator.requests) >= start + 2)
        assert {request.path for request in simulator.requests[start:]} == {"/sites/"}
        made.control.cancel(first)
        made.until(lambda: made.run_statuses(first) == {"CANCELED"})

        second = made.launch(0, 9)
        made.until(lambda: made.control.status(second).api_down_since)
        simulator.down_until = 0.0
        assert made.until_over(second) == "COMPLETED_SUCCESS"
        status = made.control.status(second)
        assert (status.word, status.failed, status.api_down_since) == ("completed", 0, None)
        (run,) = made.runs(second)
        assert run.tags[API_DOWN_TAG] == ""
        sizes = {request.query["page_size"] for request in simulator.requests if "page_size" in request.query}
        assert len(sizes) == 1
        for site in SITES:
            for number in range(10):
                one = date.fromisoformat(day(number))
                table = pq.read_table(made.home / "data" / object_key(site, one))
                assert listed(table) == world.truth(site, one)
