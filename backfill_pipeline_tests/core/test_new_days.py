"""New days: each day is requested once, and the sensor stores only the date `since`."""

from datetime import UTC, date, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from backfill_pipeline.core.day import days_between
from backfill_pipeline.core.new_days import PlannedRun, newest_ready, plan_new_days

FIRST, NEWEST = date(2025, 5, 1), date(2025, 5, 31)
ALL = frozenset(days_between(FIRST, NEWEST))


def planned(requested, running=None, sites=("a", "b"), since=FIRST, newest=NEWEST, *, days_per_run=30, room=4):
    return plan_new_days(requested, running or {}, sites, since, newest, days_per_run=days_per_run, room=room)


def test_new_days_of_all_sites_share_a_run():
    """Sites with the same new days share a run; a long range is split into runs of at most `days_per_run` days."""
    plan = planned({}, days_per_run=30)
    assert plan.runs == (
        PlannedRun(1, FIRST, date(2025, 5, 30), ("a", "b")),
        PlannedRun(1, NEWEST, NEWEST, ("a", "b")),
    )
    assert plan.since == FIRST


def test_the_number_of_runs_is_bounded():
    """At most `room` runs are planned, the oldest days first."""
    plan = planned({}, days_per_run=1, room=2)
    assert [run.first for run in plan.runs] == [FIRST, FIRST + timedelta(days=1)]
    assert planned({}, room=0).runs == planned({}, room=-3).runs == ()


def test_a_day_in_progress_is_not_requested_again():
    """A day of a run that has not ended is in no new run, and `since` stays at that day."""
    day = date(2025, 5, 9)
    plan = planned({"a": ALL, "b": ALL - {day}}, {"b": {day}})
    assert (plan.runs, plan.in_progress, plan.since) == ((), 1, day)


def test_since_is_the_next_day_when_all_days_were_requested():
    """When every day was requested, `since` is the day after the last one, and the next range is empty."""
    plan = planned({"a": ALL}, sites=("a",))
    assert (plan.runs, plan.since) == ((), date(2025, 6, 1))
    assert planned({}, since=date(2025, 6, 1)).runs == ()


by_site = st.dictionaries(st.sampled_from("abc"), st.frozensets(st.dates(FIRST, NEWEST)))


@given(by_site, by_site, st.integers(1, 9))
def test_every_new_day_is_in_one_run(requested, running, days_per_run):
    """The runs contain each day that no run has requested exactly once, and no such day is before `since`."""
    plan = planned(requested, running, ("a", "b", "c"), days_per_run=days_per_run, room=1000)
    found = [(site, day) for run in plan.runs for site in run.sites for day in days_between(run.first, run.last)]
    new = [(site, day) for site in "abc" for day in ALL - requested.get(site, set()) - running.get(site, set())]
    assert sorted(found) == sorted(new)
    assert all(day >= plan.since for _, day in new)
    assert all((run.last - run.first).days < days_per_run for run in plan.runs)


@given(st.datetimes(datetime(2025, 1, 1), datetime(2026, 1, 1)), st.floats(0, 100))  # noqa: DTZ001
def test_the_newest_ready_day_is_ready_and_the_next_is_not(now, lag):
    """The latest ready day ended at least `lag` hours ago, and the day after it did not."""
    now = now.replace(tzinfo=UTC)
    day = newest_ready(now, lag)
    end = datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1)
    assert end + timedelta(hours=lag) <= now < end + timedelta(days=1, hours=lag)
