"""Healing: a day is asked for again on a back-off that ends, and all days together within a share of the budget."""

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backfill_pipeline.core.day import days_between
from backfill_pipeline.core.healing import (
    FAILED_AGAIN_H,
    SHARE,
    THIN_AGAIN_H,
    Again,
    Past,
    most_at_once,
    pause,
    plan_healing,
)

NOW = datetime(2025, 6, 1, 13, tzinfo=UTC)
FIRST = date(2025, 5, 1)


@pytest.mark.parametrize(
    ("state", "waits"), [({"stored": True, "thin": True}, THIN_AGAIN_H), ({}, FAILED_AGAIN_H)], ids=["thin", "failed"]
)
def test_the_back_off_grows_and_ends(state, waits):
    """At growing distances, a fixed number of times; then the day is settled as it is."""
    asks = [Past(number, NOW, **state).due() for number in range(1, len(waits) + 3)]
    assert asks == [NOW + timedelta(hours=wait) for wait in waits] + [None, None]
    assert list(waits) == sorted(waits)


def test_a_good_day_is_settled():
    """Stored, and neither empty nor thin: nothing is left to ask for."""
    assert Past(1, NOW, stored=True).due() is None


def test_a_day_that_takes_more_than_the_share_is_asked_for_alone():
    """A large site is healed as well: day by day, with longer pauses."""
    due = [Again("a", FIRST + timedelta(days=n), 2, 70) for n in range(3)]
    asks, cost = plan_healing(due, most=50, days_per_ask=30, room=4)
    assert ([(ask.first, ask.last) for ask in asks], cost) == ([(FIRST, FIRST)], 70)
    assert pause(cost, 50) == timedelta(minutes=14)


dues = st.lists(
    st.builds(
        Again,
        st.sampled_from("abc"),
        st.dates(FIRST, FIRST + timedelta(days=20)),
        st.integers(2, 4),
        st.integers(1, 90),
    ),
    unique_by=lambda one: (one.site, one.day),
)


@given(dues, st.integers(1, 30), st.integers(1, 9), st.integers(0, 5))
def test_the_share_of_the_budget_is_bounded_and_nothing_is_asked_twice(due, per_minute, days_per_ask, room):
    """Healed tick after tick: what is asked for by any time is within the share, but for one batch."""
    at, taken, biggest, left = 0.0, 0, max((one.requests for one in due), default=0), list(due)
    while left:
        asks, cost = plan_healing(left, most=most_at_once(per_minute), days_per_ask=days_per_ask, room=room)
        assert len(asks) <= room
        named = [(s, day) for ask in asks for s in ask.sites for day in days_between(ask.first, ask.last)]
        costs = {(one.site, one.day): one for one in left}
        assert len(named) == len(set(named))
        assert cost == sum(costs[one].requests for one in named)
        assert all(costs[s, ask.first].attempt == ask.attempt for ask in asks for s in ask.sites)
        taken += cost
        assert taken <= SHARE * per_minute * at + max(most_at_once(per_minute), biggest) + 1e-6
        if not named:
            assert not room
            return
        at += pause(cost, per_minute) / timedelta(minutes=1)
        left = [one for one in left if (one.site, one.day) not in named]
