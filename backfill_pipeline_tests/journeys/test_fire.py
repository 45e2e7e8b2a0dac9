"""A short backfill under fire. The longer run: `python -m backfill_pipeline_tests.journeys.fire`."""

from backfill_pipeline_tests.journeys.fire import LOCK, OUTAGE, REFUSED, SECOND_UP, fire


def test_killed_servers_and_workers_cost_no_day_and_no_more_than_what_was_in_flight(tmp_path, monkeypatch):
    """A lock, an outage and a second `up` fail no day; servers and the run are killed; each object is the truth."""
    targets = [LOCK, OUTAGE, SECOND_UP, "webserver", "code server", "run worker"]
    told = fire(tmp_path / "home", monkeypatch, targets, days=12, sites=2, latency_s=1.2)
    assert told.killed == dict.fromkeys(targets, 1)
    assert told.refused == [REFUSED]
    assert (told.wrong, told.untrue, told.unrecorded, told.twice, told.failures) == ([], [], [], 0, 0)
    assert told.again <= told.bound
