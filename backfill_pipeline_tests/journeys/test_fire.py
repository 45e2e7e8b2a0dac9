"""A short backfill under fire. The longer run: `python -m backfill_pipeline_tests.journeys.fire`."""

from backfill_pipeline_tests.journeys.fire import LOCK, fire


def test_killed_servers_and_workers_cost_no_day_and_no_more_than_what_was_in_flight(tmp_path, monkeypatch):
    """A lock fails no day; webserver, code server, then the run are killed, and each object is the truth."""
    targets = [LOCK, "webserver", "code server", "run worker"]
    told = fire(tmp_path / "home", monkeypatch, targets, days=10, sites=2, latency_s=1.2)
    assert told.killed == dict.fromkeys(targets, 1)
    assert (told.wrong, told.untrue, told.unrecorded, told.twice, told.failures) == ([], [], [], 0, 0)
    assert told.again <= told.bound
