"""Days and windows: half-open, in UTC, both ways."""

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backfill_pipeline.core.day import Window, day_window, days_between, iso, parse_day, partition_key
from backfill_pipeline.errors import UsageError

days = st.dates(date(1970, 1, 1), date(9998, 12, 31))


@given(days)
def test_a_day_and_its_partition_key_are_two_way(day):
    """Key, then day, is the identity."""
    assert parse_day(partition_key(day)) == day


@given(days)
def test_a_days_window_is_midnight_to_midnight_utc(day):
    """Every day has 86,400 s and begins at its own midnight, whatever the machine's zone."""
    window = day_window(day)
    assert window.seconds == 86_400
    assert datetime.fromtimestamp(window.start, UTC) == datetime(day.year, day.month, day.day, tzinfo=UTC)
    assert day_window(day + timedelta(days=1)).start == window.end
    assert iso(window.start) == f"{day.isoformat()}T00:00:00Z"


@pytest.mark.parametrize("text", ["", "2025-13-01", "2025-02-29", "20250301", "2025-3-1", "2025-W01-1", "tomorrow"])
def test_no_other_text_is_a_day(text):
    """Anything but YYYY-MM-DD of the calendar is refused with one line."""
    with pytest.raises(UsageError, match="write YYYY-MM-DD"):
        parse_day(text)


@pytest.mark.parametrize("end", [0, -1])
def test_a_window_must_end_after_it_starts(end):
    """Empty and reversed windows cannot be made."""
    with pytest.raises(UsageError):
        Window(0, end)


def test_a_range_of_days_includes_both_ends():
    """One day is a range of one, a leap day counts, and a reversed range is empty."""
    assert list(days_between(date(2024, 2, 28), date(2024, 3, 1))) == [
        date(2024, 2, 28),
        date(2024, 2, 29),
        date(2024, 3, 1),
    ]
    assert list(days_between(date(2024, 3, 1), date(2024, 2, 28))) == []
