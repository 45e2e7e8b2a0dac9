"""Ticks are round local times, also where the clock changes."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st

from backfill_pipeline.explore.ticks import time_ticks

ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "Asia/Kathmandu"]


def ms(text, tz):
    return round(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(tz)).timestamp() * 1000)


def test_days_begin_at_local_midnight_across_the_change_of_the_clock():
    """In Berlin the day of the change has 23 hours, and each tick is a local midnight."""
    found = time_ticks(ms("2025-03-29", "Europe/Berlin"), ms("2025-04-01", "Europe/Berlin"), "Europe/Berlin", most=4)
    assert list(found.values()) == ["2025-03-29", "2025-03-30", "2025-03-31", "2025-04-01"]
    hours = [(two - one) / 3_600_000 for one, two in zip(list(found)[:-1], list(found)[1:], strict=True)]
    assert hours == [24, 23, 24]


def test_a_year_has_months():
    """A year is labelled by months."""
    found = time_ticks(ms("2024-01-01", "UTC"), ms("2024-12-31", "UTC"), "UTC", most=12)
    assert list(found.values()) == [f"2024-{month:02}" for month in range(1, 13)]


@given(
    start=st.integers(0, 2**41),
    length=st.integers(1, 3 * 366 * 86_400_000),
    tz=st.sampled_from(ZONES),
    most=st.integers(2, 20),
)
def test_ticks_are_inside_ascending_few_and_labelled_by_their_local_time(start, length, tz, most):
    """For any span and zone: the ticks lie inside, ascend, are at most a few more than wanted, and their labels fit."""
    found = time_ticks(start, start + length, tz, most)
    assert list(found) == sorted(found)
    assert all(start <= at <= start + length for at in found)
    assert len(found) <= most + 2
    for at, label in found.items():
        local = datetime.fromtimestamp(at / 1000, UTC).astimezone(ZoneInfo(tz)).isoformat()
        assert label in local
