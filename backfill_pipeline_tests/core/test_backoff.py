"""Back-off: waits double, spread out, and end."""

import math
from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from backfill_pipeline.ace.retry import Retries
from backfill_pipeline.core.backoff import CEILING_S, Backoff, retry_after_s
from backfill_pipeline.errors import PageFailedError, RequestRefusedError, ThrottledError


def test_waits_double_up_to_a_bound_and_end():
    """2, 4, 8, 16 s, then 30 s, with up to a quarter more; the tenth failure is the last."""
    plain = [Backoff().delay(failures, None, lambda: 0.0) for failures in range(1, 11)]
    assert plain == [2, 4, 8, 16, 30, 30, 30, 30, 30, None]
    assert Backoff().delay(1, None, lambda: 0.999) == pytest.approx(2.5, rel=0.01)


def test_a_wait_that_was_asked_for_is_never_undercut():
    """Longer when asked, never shorter than our own."""
    assert Backoff().delay(1, 77.0, lambda: 0.0) == 77
    assert Backoff().delay(3, 1.0, lambda: 0.0) == 8


@pytest.mark.parametrize(
    ("error", "tries"),
    [(PageFailedError("502"), 4), (ThrottledError("429"), 4), (RequestRefusedError("400", status=400), 1)],
)
def test_transient_errors_are_tried_a_bounded_number_of_times_and_permanent_ones_once(error, tries):
    """The last failure is raised as it came."""
    seen = []

    def attempt(failures):
        seen.append(failures)
        raise error

    with pytest.raises(type(error)):
        Retries(Backoff(tries=4, first_s=0, most_s=0)).run("it", attempt)
    assert seen == list(range(tries))


NOW = 1_795_618_000.0
"""Unix seconds: 2026-11-25 14:46:40 UTC."""


def http_date(at: float) -> str:
    return format_datetime(datetime.fromtimestamp(at, UTC), usegmt=True)


@pytest.mark.parametrize("clock", [NOW, NOW - 86_400, NOW + 86_400, 0.0])
@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0),
        (" 7.5 ", 7.5),
        ("0", 0.0),
        ("86400", CEILING_S),
        ("999999999", CEILING_S),
        (str(int(NOW) + 25), 25.0),
        (str(int(NOW) - 25), 0.0),
        (str(int(NOW) + 3_456_000), CEILING_S),
        (str((int(NOW) + 25) * 1000), 25.0),
        (http_date(NOW + 25), 25.0),
        (http_date(NOW - 25), 0.0),
        (http_date(NOW + 3_456_000), CEILING_S),
        (datetime.fromtimestamp(NOW + 25, UTC).isoformat(), 25.0),
        (f"{datetime.fromtimestamp(NOW + 25, UTC):%Y-%m-%dT%H:%M:%SZ}", 25.0),
        (f"{datetime.fromtimestamp(NOW + 25, UTC):%a %b %d %H:%M:%S %Y}", 25.0),
        ("1e12", CEILING_S),
        ("1e308", CEILING_S),
        ("-5", None),
        ("inf", None),
        ("-inf", None),
        ("nan", None),
        ("1e999", None),
        ("soon", None),
        ("", None),
        (None, None),
    ],
)
def test_a_requested_wait_counts_from_the_answers_own_time_up_to_the_ceiling(value, seconds, clock):
    """Only finite values count, an instant is read as one, and this machine's clock does not matter."""
    assert retry_after_s(value, http_date(NOW), clock) == seconds


@pytest.mark.parametrize("date", [None, "", "today"])
def test_without_a_time_of_the_answer_this_machines_clock_is_used(date):
    """An answer without a readable `Date` leaves no other clock."""
    assert retry_after_s(http_date(NOW + 25), date, NOW) == 25


@given(st.text() | st.floats().map(repr) | st.integers().map(str), st.text() | st.none())
@example("١٢٣", None)
@example("Sat, 01 Mar 99999 00:00:07 GMT", "Sat, 01 Mar 0001 00:00:07 GMT")
def test_no_header_makes_a_wait_beyond_the_ceiling(value, date):
    """Whatever the two headers contain: no error, and a wait from 0 to the ceiling, or none."""
    seconds = retry_after_s(value, date, NOW)
    assert seconds is None or 0 <= seconds <= CEILING_S


@pytest.mark.parametrize("requested", [1e12, math.inf, math.nan, -1.0])
def test_a_retry_waits_no_longer_than_the_ceiling(requested):
    """The ceiling applies to every error that states a wait."""
    assert 2 <= Backoff().delay(1, requested, lambda: 0.0) <= CEILING_S


def test_a_caller_that_does_not_wait_gives_up_instead():
    """With a longest wait, a longer one is not begun."""
    impatient = Backoff(longest_s=5)
    assert impatient.delay(1, 4.0, lambda: 0.0) == 4
    assert impatient.delay(1, 6.0, lambda: 0.0) is None
