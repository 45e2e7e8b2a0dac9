"""Which ranges can be asked for, and what is said of the others."""

from datetime import UTC, date, datetime

import pytest

from backfill_pipeline.control.ranges import checked_days
from backfill_pipeline.errors import UsageError
from backfill_pipeline.settings import Settings

SETTINGS = Settings(first_day=date(2025, 1, 10), raw_lag_hours=12)
NOON = datetime(2025, 3, 2, 12, 0, tzinfo=UTC)


def test_a_range_is_every_day_of_it_both_ends_included():
    """From the first day there is to the last that is ready; a single day is a range too."""
    days = checked_days(SETTINGS, date(2025, 1, 10), date(2025, 3, 1), NOON)
    assert (days[0], days[-1], len(days)) == (date(2025, 1, 10), date(2025, 3, 1), 51)
    assert checked_days(SETTINGS, date(2025, 3, 1), date(2025, 3, 1), NOON) == [date(2025, 3, 1)]


@pytest.mark.parametrize(
    ("first", "last", "now", "words"),
    [
        (date(2025, 2, 2), date(2025, 2, 1), NOON, ["2025-02-01", "before"]),
        (date(2025, 1, 9), date(2025, 2, 1), NOON, ["2025-01-09", "2025-01-10", "BACKFILL_FIRST_DAY"]),
        (date(2025, 2, 1), date(2025, 3, 2), NOON, ["2025-03-02", "2025-03-03 12:00 UTC", "ACE_RAW_LAG_HOURS"]),
        (date(2025, 2, 1), date(2025, 3, 1), NOON.replace(hour=11, minute=59), ["2025-03-02 12:00 UTC"]),
    ],
)
def test_any_other_range_is_told_of_in_one_line_that_says_what_to_ask_for(first, last, now, words):
    """Reversed, too early, not yet ready: to the minute, in UTC."""
    with pytest.raises(UsageError) as caught:
        checked_days(SETTINGS, first, last, now)
    assert all(word in str(caught.value) for word in words)
    assert "\n" not in str(caught.value)
