"""Counters of events: each event once, failures until the day is stored, and the progress of a backfill."""

from datetime import date

from backfill_pipeline.control import site_counters
from backfill_pipeline.control.metrics import metrics_text
from backfill_pipeline.control.site_counters import SiteCounters
from backfill_pipeline.errors import StoreRefusedError

FIRST, LAST = date(2025, 1, 1), date(2025, 1, 10)


def test_each_event_counts_once(made):
    """New events are added to the sums, also in batches, and a reading without new events changes nothing."""
    counters = made.gateway.counters
    assert counters.sums() == {}
    made.store("north", *made.days(1, 3), duration_s=1.5)
    assert counters.sums()["north"] == {"requests": 6, "duration_s": 4.5}
    made.store("north", *made.days(3, 5))
    made.store("a-b", *made.days(1, 1))
    assert counters.sums() == counters.sums()
    assert {site: sums["requests"] for site, sums in counters.sums().items()} == {"north": 12, "a-b": 2}


def test_many_events_are_read_in_batches_and_the_first_reading_is_bounded(made, monkeypatch):
    """A long history costs no more than its latest events; after that every event counts."""
    monkeypatch.setattr(site_counters, "FIRST_EVENTS", 4)
    monkeypatch.setattr(site_counters, "_BATCH", 2)
    made.store("north", *made.days(1, 6))
    counters = SiteCounters(made.instance)
    assert counters.sums()["north"]["requests"] == 8
    made.store("north", *made.days(7, 11))
    assert counters.sums()["north"]["requests"] == 18


def test_a_failure_ends_when_the_day_is_stored_or_removed(made):
    """The failed days are those whose latest event is a failure; the number of failures stays."""
    counters = made.gateway.counters
    made.fail("north", *made.days(1, 3))
    made.store("north", *made.days(2, 2))
    made.gateway.remove("north", made.days(3, 3))
    assert counters.sums()["north"]["failures"] == 3
    assert counters.failed("north") == set(made.days(1, 1))
    made.fail("north", *made.days(2, 2))
    counters.sums()
    assert counters.failed("north") == set(made.days(1, 2))


def test_the_progress_of_metrics_is_that_of_a_status(made):
    """Days that were stored before the start, days of the backfill, and a process that starts in the middle of it."""
    made.store("north", *made.days(1, 2))
    made.control.start(FIRST, LAST)
    assert made.control.progress() == (True, made.control.status().percent) == (True, 10.0)
    made.store("north", *made.days(3, 4))
    made.store("north", *made.days(20, 22))
    assert made.control.progress() == (True, made.control.status().percent) == (True, 20.0)
    del made.gateway.counters
    made.store("a-b", *made.days(1, 10))
    assert made.control.progress() == (True, made.control.status().percent) == (True, 70.0)
    made.store("north", *made.days(5, 10))
    assert made.control.progress() == (False, 100.0)


def test_a_store_that_cannot_be_read_hides_only_the_stored_days(made, monkeypatch):
    """A scrape never fails because of the store: counters and the state of the daemon are still there."""
    made.store("north", *made.days(1, 2))

    def refused(*_args, **_more):
        raise StoreRefusedError("no access")

    monkeypatch.setattr(made.gateway.store, "list", refused)
    text = metrics_text(made.control, lambda: None)
    assert "backfill_store_readable 0.0" in text
    assert 'backfill_requests_total{site="north"} 4.0' in text
    assert "backfill_days{" not in text
    monkeypatch.undo()
    text = metrics_text(made.control, lambda: None)
    assert "backfill_store_readable 1.0" in text
    assert 'backfill_days{site="north",state="stored"} 2.0' in text
