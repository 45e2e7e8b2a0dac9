"""New days: what nobody asked for is asked for once, and one date is all that is remembered."""

from datetime import UTC, date, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from backfill_pipeline.core.day import days_between
from backfill_pipeline.core.new_days import Ask, newest_ready, plan_new_days

FIRST, NEWEST = date(2025, 5, 1), date(2025, 5, 31)
ALL = frozenset(days_between(FIRST, NEWEST))


def planned(asked, flying=None, sites=("a", "b"), since=FIRST, newest=NEWEST, *, days_per_ask=30, room=4):
    return plan_new_days(asked, flying or {}, sites, since, newest, days_per_ask=days_per_ask, room=room)


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
    """A day that somebody asks for is not asked for again, and is looked at again."""
    day = date(2025, 5, 9)
    plan = planned({"a": ALL, "b": ALL - {day}}, {"b": {day}})
    assert (plan.asks, plan.in_flight, plan.since) == ((), 1, day)


def test_when_all_were_asked_for_nothing_is_remembered_but_the_next_day():
    """The span that is looked at becomes empty."""
    plan = planned({"a": ALL}, sites=("a",))
    assert (plan.asks, plan.since) == ((), date(2025, 6, 1))
    assert planned({}, since=date(2025, 6, 1)).asks == ()


by_site = st.dictionaries(st.sampled_from("abc"), st.frozensets(st.dates(FIRST, NEWEST)))


@given(by_site, by_site, st.integers(1, 9))
def test_every_new_day_is_in_one_ask(asked, flying, days_per_ask):
    """Whatever happened before: asks hold each day that nobody asked for, once; none of them lies before `since`."""
    plan = planned(asked, flying, ("a", "b", "c"), days_per_ask=days_per_ask, room=1000)
    found = [(site, day) for ask in plan.asks for site in ask.sites for day in days_between(ask.first, ask.last)]
    new = [(site, day) for site in "abc" for day in ALL - asked.get(site, set()) - flying.get(site, set())]
    assert sorted(found) == sorted(new)
    assert all(day >= plan.since for _, day in new)
    assert all((ask.last - ask.first).days < days_per_ask for ask in plan.asks)


@given(st.datetimes(datetime(2025, 1, 1), datetime(2026, 1, 1)), st.floats(0, 100))  # noqa: DTZ001
def test_the_newest_ready_day_is_ready_and_the_next_is_not(now, lag):
    """A day is ready its lag after it ended."""
    now = now.replace(tzinfo=UTC)
    day = newest_ready(now, lag)
    end = datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1)
    assert end + timedelta(hours=lag) <= now < end + timedelta(days=1, hours=lag)
