"""Retries of days: each day has a limited number of retries, and all retries stay within a share of the budget."""

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backfill_pipeline.core.day import days_between
from backfill_pipeline.core.day_retries import (
    FAILED_RETRY_H,
    SHARE,
    THIN_RETRY_H,
    Attempts,
    Retry,
    most_at_once,
    pause,
    plan_retries,
)

NOW = datetime(2025, 6, 1, 13, tzinfo=UTC)
FIRST = date(2025, 5, 1)


@pytest.mark.parametrize(
    ("state", "waits"), [({"stored": True, "thin": True}, THIN_RETRY_H), ({}, FAILED_RETRY_H)], ids=["thin", "failed"]
)
def test_retries_come_at_growing_intervals_and_end(state, waits):
    """A day is retried at growing intervals, a fixed number of times; then it is settled."""
    due = [Attempts(number, NOW, **state).due() for number in range(1, len(waits) + 3)]
    assert due == [NOW + timedelta(hours=wait) for wait in waits] + [None, None]
    assert list(waits) == sorted(waits)


def test_a_complete_day_is_settled():
    """A stored day that is neither empty nor thin is not retried."""
    assert Attempts(1, NOW, stored=True).due() is None


def test_a_day_that_takes_more_than_the_share_is_retried_alone():
    """The days of a large site are retried one at a time, with longer pauses."""
    due = [Retry("a", FIRST + timedelta(days=n), 2, 70) for n in range(3)]
    runs, cost = plan_retries(due, most=50, days_per_run=30, room=4)
    assert ([(run.first, run.last) for run in runs], cost) == ([(FIRST, FIRST)], 70)
    assert pause(cost, 50) == timedelta(minutes=14)


dues = st.lists(
    st.builds(
        Retry,
        st.sampled_from("abc"),
        st.dates(FIRST, FIRST + timedelta(days=20)),
        st.integers(2, 4),
        st.integers(1, 90),
    ),
    unique_by=lambda one: (one.site, one.day),
)


@given(dues, st.integers(1, 30), st.integers(1, 9), st.integers(0, 5))
def test_retries_stay_within_the_share_and_no_day_is_in_two_runs(due, per_minute, days_per_run, room):
    """At any time, the requests of all retries so far are within the share plus one batch."""
    at, taken, biggest, left = 0.0, 0, max((one.requests for one in due), default=0), list(due)
    while left:
        runs, cost = plan_retries(left, most=most_at_once(per_minute), days_per_run=days_per_run, room=room)
        assert len(runs) <= room
        named = [(s, day) for run in runs for s in run.sites for day in days_between(run.first, run.last)]
        costs = {(one.site, one.day): one for one in left}
        assert len(named) == len(set(named))
        assert cost == sum(costs[one].requests for one in named)
        assert all(costs[s, run.first].attempt == run.attempt for run in runs for s in run.sites)
        taken += cost
        assert taken <= SHARE * per_minute * at + max(most_at_once(per_minute), biggest) + 1e-6
        if not named:
            assert not room
            return
        at += pause(cost, per_minute) / timedelta(minutes=1)
        left = [one for one in left if (one.site, one.day) not in named]
