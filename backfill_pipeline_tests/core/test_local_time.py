"""Local hours, days and months are those of pandas, across changes of the clocks in both directions."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as example_settings
from hypothesis import strategies as st

from backfill_pipeline.core.local_time import interval_starts

ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/St_Johns",
    "Asia/Kolkata",
    "Asia/Kathmandu",
    "Australia/Lord_Howe",
    "Australia/Adelaide",
    "America/Havana",
    "Asia/Beirut",
    "Pacific/Chatham",
)


@pytest.mark.parametrize("zone", ZONES)
def test_days_and_months_start_at_local_midnight(zone):
    """Every quarter of an hour of two years: the local date of each instant, and its first instant, by pandas."""
    ms = np.arange(1_704_067_200_000, 1_767_225_600_000, 900_000)
    local = pd.to_datetime(ms, unit="ms", utc=True).tz_convert(zone)
    for unit, label in (("day", local.strftime("%Y-%m-%d")), ("month", local.strftime("%Y-%m"))):
        found = interval_starts(ms, unit, ZoneInfo(zone))
        first = pd.Series(ms).groupby(label).transform("min").to_numpy()
        inner = label != label[0]  # the first interval began before the first instant
        assert (found[inner] == first[inner]).all()
        assert len(set(found[~inner])) == 1


@pytest.mark.parametrize("zone", ZONES)
def test_hours_start_at_a_whole_local_hour(zone):
    """Intervals of instants follow each other, each with one local date and hour; at most one in a change is longer."""
    ms = np.arange(1_704_067_200_000, 1_767_225_600_000, 900_000)
    found = interval_starts(ms, "hour", ZoneInfo(zone))
    assert (np.diff(found) >= 0).all()
    assert ((ms - found >= 0) & (ms - found < 5_400_000)).all()
    local = pd.to_datetime(ms, unit="ms", utc=True).tz_convert(zone).strftime("%Y-%m-%d %H")
    names = pd.Series(local).groupby(found)
    assert (names.min() == names.max()).all()
    assert len(set(found)) >= len(set(local))


def test_an_hour_that_occurs_twice_is_two_intervals():
    """When clocks are set back in Berlin, 02:00 is two hours; the day has 25."""
    zone = ZoneInfo("Europe/Berlin")
    start = datetime(2025, 10, 26, tzinfo=zone).astimezone(UTC)
    ms = np.array([int((start + timedelta(minutes=m)).timestamp() * 1000) for m in range(0, 25 * 60, 5)])
    assert len(set(interval_starts(ms, "hour", zone))) == 25
    assert set(interval_starts(ms, "day", zone)) == {ms[0]}


@given(st.lists(st.integers(1_577_836_800_000, 1_893_456_000_000), max_size=20), st.sampled_from(ZONES))
@example_settings(deadline=None)
def test_a_start_is_not_later_than_its_instant(instants, zone):
    """The start of an interval belongs to the interval."""
    ms = np.array(instants, np.int64)
    for unit in ("hour", "day", "month"):
        found = interval_starts(ms, unit, ZoneInfo(zone))
        assert (found <= ms).all()
        assert (interval_starts(found, unit, ZoneInfo(zone)) == found).all()
