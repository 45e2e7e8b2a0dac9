"""The plan of a day: whole, without overlap, in as few windows as the pages allow."""

from datetime import date
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from backfill_pipeline.core.day import Window, day_window
from backfill_pipeline.core.windows import SHORTEST_S, DayPlan, SitePace

DAY = date(2025, 10, 12)
WHOLE = day_window(DAY)
SIZES = [1_000, 5_000, 10_000, 50_000, 100_000]


def pace_of(density: float = 0.0, burst: int = 0, size: int = 100_000) -> SitePace:
    pace = SitePace([s for s in SIZES if s <= size], 8)
    if density:
        pace.learn_density(int(density * 86_400), 86_400, burst)
    return pace


def all_windows(plan: DayPlan, pace: SitePace) -> list[Window]:
    windows = []
    while (window := plan.next_window(pace)) is not None:
        windows.append(window)
    return windows


@settings(deadline=None)
@given(
    st.floats(0, 500),
    st.integers(0, 9_000),
    st.lists(st.tuples(st.integers(0, 86_399), st.integers(1, 30_000)), max_size=5),
)
def test_windows_cover_the_day_exactly_once(density, burst, done_spans):
    """Whatever is done already and however dense the site, the windows fill the rest without gap or overlap."""
    done, end = [], 0
    for start, length in sorted(done_spans):
        if start >= end:
            end = min(start + length, 86_400)
            done.append(Window(WHOLE.start + start, WHOLE.start + end))
    windows = all_windows(DayPlan(DAY, done, expected_rows=10**6), pace_of(density, burst))
    parts = sorted([*done, *windows])
    assert parts[0].start == WHOLE.start
    assert parts[-1].end == WHOLE.end
    assert all(a.end == b.start for a, b in pairwise(parts))


def test_windows_of_a_known_site_fill_their_pages():
    """The measured site (4,581 rows every 300 s) takes 14 pages of 100,000, the least, or 27 of 50,000 and one more."""
    for size, spare in ((100_000, 0), (50_000, 1)):
        windows = all_windows(DayPlan(DAY), pace_of(4_581 / 300, burst=4_581, size=size))
        sweeps = [-(-window.seconds // 300) for window in windows]
        requests = sum(-(-count * 4_581 // size) for count in sweeps)
        assert requests <= -(-4_581 * 288 // size) + spare


def test_a_small_site_is_asked_for_its_whole_day_at_once():
    """A site whose points cannot fill a page costs one request a day."""
    assert all_windows(DayPlan(DAY, expected_rows=60_000), pace_of()) == [WHOLE]


def test_a_large_unknown_site_is_probed_first():
    """While nothing is known of a large site the first window is a small part of the day."""
    window = DayPlan(DAY, expected_rows=6_600_000).next_window(pace_of())
    assert window is not None
    assert window.start == WHOLE.start
    assert window.seconds * 6_600_000 / 86_400 <= 50_000


def test_a_silent_site_is_asked_for_whole_days():
    """After a day without samples the next one is a single window."""
    pace = pace_of()
    pace.learn_density(0, 86_400, 0)
    assert all_windows(DayPlan(DAY, expected_rows=10**7), pace) == [WHOLE]


def test_a_window_given_back_is_handed_out_again():
    """What a walk could not keep is asked for by another window, joined with its neighbours."""
    plan, pace = DayPlan(DAY), pace_of()
    pace.learn_density(0, 86_400, 0)
    window = plan.next_window(pace)
    assert window is not None
    assert plan.exhausted
    plan.give_back(Window(window.start + 600, window.end))
    plan.give_back(Window(window.start + 300, window.start + 600))
    assert all_windows(plan, pace) == [Window(window.start + 300, window.end)]


def test_bursts_larger_than_pages_make_windows_of_many_pages():
    """Where one sweep fills several pages, a window's last page is the only one that is not full."""
    pace = SitePace([50], 8)
    pace.learn_density(4_581 * 12, 3_600, 4_581)
    pages = pace.pages(4_581 * 288)
    assert pace.fitting_s(pages) * pace.density >= 10 * 4_581
    assert pace.fitting_s(pages) >= SHORTEST_S


def test_one_failure_keeps_the_page_size_and_two_step_it_down():
    """A single failure is chance; a second in a row at one size leads to the next smaller size on the API's list."""
    pace = pace_of()
    assert pace.page_failed(100_000, 1) == 100_000
    assert pace.page_failed(100_000, 2) == 50_000
    assert pace.size == 50_000


def test_the_page_size_grows_back_after_success_and_waits_longer_after_a_relapse():
    """A larger page is tried again after some good ones; when that fails at once, twice as many are wanted."""
    pace = pace_of()
    pace.page_failed(100_000, 2)
    for _ in range(8):
        pace.page_came(50_000, 50_000, 1.0)
    assert pace.size == 100_000
    assert pace.page_failed(100_000, 1) == 50_000
    for _ in range(8):
        pace.page_came(50_000, 50_000, 1.0)
    assert pace.size == 50_000
    for _ in range(8):
        pace.page_came(50_000, 50_000, 1.0)
    assert pace.size == 100_000


def test_a_size_that_the_api_does_not_take_is_never_asked_again():
    """A refused size lowers the ceiling for good."""
    pace = pace_of()
    assert pace.size_refused(100_000) == 50_000
    for _ in range(300):
        pace.page_came(50_000, 50_000, 1.0)
    assert pace.size == 50_000
    assert SitePace([3], 8).size_refused(3) is None


def test_windows_at_once_grow_by_parts_and_shrink_by_factors_within_the_ceiling():
    """Success adds, trouble divides; the number stays between one and the ceiling."""
    pace = pace_of()
    for _ in range(20):
        pace.page_came(100_000, 1_000, 0.1)
    assert pace.at_once == 8
    pace.throttled()
    assert pace.at_once == 4
    for _ in range(20):
        pace.throttled()
    assert pace.at_once == 1
