"""Back-off: waits double, spread out, and end."""

import pytest

from backfill_pipeline.ace.retry import Retries
from backfill_pipeline.core.backoff import Backoff
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
