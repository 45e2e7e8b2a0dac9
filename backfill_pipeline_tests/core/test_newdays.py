"""New days: what is due is asked for once, again on a back-off that ends, and one date is all that is remembered."""

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from backfill_pipeline.core.day import days_between
from backfill_pipeline.core.newdays import FAILED_AGAIN_H, THIN_AGAIN_H, Ask, Past, newest_ready, plan_new_days

NOW = datetime(2025, 6, 1, 13, tzinfo=UTC)
FIRST, NEWEST = date(2025, 5, 1), date(2025, 5, 31)
GOOD = Past(1, NOW, stored=True)


def planned(past, sites=("a", "b"), since=FIRST, newest=NEWEST, *, now=NOW, days_per_ask=30, room=4):
    return plan_new_days(past, sites, since, newest, now=now, days_per_ask=days_per_ask, room=room)


def test_new_days_of_all_sites_share_a_run():
    """Sites that want the same days are one ask; the span is cut to what a run takes."""
    plan = planned({}, days_per_ask=30)
    assert plan.asks == (
        Ask(1, FIRST, date(2025, 5, 30), ("a", "b")),
        Ask(1, NEWEST, NEWEST, ("a", "b")),
    )
    assert plan.since == FIRST


def test_the_number_of_asks_is_bounded():
    """No more is asked for than there is room; the oldest first."""
    plan = planned({}, days_per_ask=1, room=2)
    assert [ask.first for ask in plan.asks] == [FIRST, FIRST + timedelta(days=1)]
    assert planned({}, room=0).asks == planned({}, room=-3).asks == ()


def test_what_is_at_work_is_left_alone():
    """A day that somebody asks for is not asked for again, and is not settled."""
    past = {(site, day): GOOD for site in "ab" for day in days_between(FIRST, NEWEST)}
    past["b", date(2025, 5, 9)] = Past(in_flight=True)
    plan = planned(past)
    assert (plan.asks, plan.in_flight, plan.since) == ((), 1, date(2025, 5, 9))


def test_when_all_is_settled_nothing_is_remembered_but_the_next_day():
    """The span that is looked at becomes empty."""
    past = {("a", day): GOOD for day in days_between(FIRST, NEWEST)}
    plan = planned(past, sites=("a",))
    assert (plan.asks, plan.since) == ((), date(2025, 6, 1))
    assert planned({}, since=date(2025, 6, 1)).asks == ()


def asked_until_it_ends(**state):
    """The hours at which one day is asked for, if each ask ends as the one before."""
    past, now, hours = Past(), NOW, []
    for _ in range(2000):
        if planned({("a", FIRST): past}, ("a",), FIRST, FIRST, now=now).asks:
            hours.append((now - NOW) // timedelta(hours=1))
            past = Past(past.asks + 1, now, **state)
        now += timedelta(hours=1)
    return hours, planned({("a", FIRST): past}, ("a",), FIRST, FIRST, now=now)


def test_thin_days_are_asked_for_again_until_the_back_off_ends():
    """At growing distances, a fixed number of times; then the day is settled as it is, and counted."""
    hours, plan = asked_until_it_ends(stored=True, thin=True)
    assert [after - before for before, after in pairwise(hours)] == list(THIN_AGAIN_H)
    assert (plan.given_up, plan.since) == (1, FIRST + timedelta(days=1))


def test_failed_days_are_asked_for_again_until_the_back_off_ends():
    """A site that always fails keeps nothing waiting for ever."""
    hours, plan = asked_until_it_ends()
    assert [after - before for before, after in pairwise(hours)] == list(FAILED_AGAIN_H)
    assert (plan.given_up, plan.since) == (1, FIRST + timedelta(days=1))


pasts = st.builds(
    Past,
    asks=st.integers(0, 8),
    last=st.one_of(st.none(), st.datetimes(datetime(2025, 5, 1), datetime(2025, 6, 1)).map(lambda t: t.replace(tzinfo=UTC))),  # noqa: DTZ001, E501
    stored=st.booleans(),
    thin=st.booleans(),
    in_flight=st.booleans(),
)  # fmt: skip


@given(
    st.dictionaries(st.tuples(st.sampled_from("abc"), st.dates(FIRST, NEWEST)), pasts),
    st.integers(1, 9),
    st.integers(0, 50),
)
def test_no_site_day_is_in_two_asks_and_none_is_lost(past, days_per_ask, room):
    """Whatever happened before: asks do not overlap, hold due days alone, and no unsettled day lies before `since`."""
    plan = planned(past, ("a", "b", "c"), days_per_ask=days_per_ask, room=room)
    asked = [(site, day) for ask in plan.asks for site in ask.sites for day in days_between(ask.first, ask.last)]
    assert len(asked) == len(set(asked))
    assert len(plan.asks) <= room
    for one in asked:
        known = past.get(one, Past())
        assert not known.in_flight
        assert known.due() <= NOW
    for site in "abc":
        for day in days_between(FIRST, plan.since - timedelta(days=1)):
            known = past.get((site, day), Past())
            assert not known.in_flight
            assert known.due() is None


@given(st.datetimes(datetime(2025, 1, 1), datetime(2026, 1, 1)), st.floats(0, 100))  # noqa: DTZ001
def test_the_newest_ready_day_is_ready_and_the_next_is_not(now, lag):
    """A day is ready its lag after it ended."""
    now = now.replace(tzinfo=UTC)
    day = newest_ready(now, lag)
    end = datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1)
    assert end + timedelta(hours=lag) <= now < end + timedelta(days=1, hours=lag)
