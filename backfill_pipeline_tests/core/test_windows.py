"""The plan of a day: whole, without overlap, in as few windows as the pages allow."""

import math
from datetime import date
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backfill_pipeline.core.day import Window, day_window
from backfill_pipeline.core.windows import HANDS, SHORTEST_S, DayPlan, SitePace

DAY = date(2025, 10, 12)
WHOLE = day_window(DAY)
SIZES = [1_000, 5_000, 10_000, 50_000, 100_000]


def pace_of(density: float = 0.0, burst: int = 0, size: int = 100_000, rate: float = 50 / 60) -> SitePace:
    pace = SitePace([s for s in SIZES if s <= size], 8, rate=rate)
    if density:
        pace.learn_density(int(density * 86_400), 86_400, burst)
    return pace


def all_windows(plan: DayPlan, pace: SitePace, at_once: int = 1) -> list[Window]:
    windows = []
    while (window := plan.next_window(pace, max(1, at_once - len(windows)))) is not None:
        windows.append(window)
    return windows


@settings(deadline=None)
@given(
    st.floats(0, 500),
    st.integers(0, 9_000),
    st.lists(st.tuples(st.integers(0, 86_399), st.integers(1, 30_000)), max_size=5),
    st.integers(1, 9),
    st.sampled_from([50 / 60, math.inf]),
)
def test_windows_cover_the_day_exactly_once(density, burst, done_spans, at_once, rate):
    """Whatever is done already and however dense the site, the windows fill the rest without gap or overlap."""
    done, end = [], 0
    for start, length in sorted(done_spans):
        if start >= end:
            end = min(start + length, 86_400)
            done.append(Window(WHOLE.start + start, WHOLE.start + end))
    windows = all_windows(DayPlan(DAY, done), pace_of(density, burst, rate=rate), at_once)
    parts = sorted([*done, *windows])
    assert parts[0].start == WHOLE.start
    assert parts[-1].end == WHOLE.end
    assert all(a.end == b.start for a, b in pairwise(parts))


@pytest.mark.parametrize(
    ("size", "at_once", "spare"), [(100_000, 1, 0), (100_000, 8, 1), (50_000, 1, 0), (50_000, 8, 1)]
)
def test_windows_of_a_known_site_fill_their_pages(size, at_once, spare):
    """The measured site (4,581 rows every 300 s) takes the least possible, and where eight go side by side one more."""
    windows = all_windows(DayPlan(DAY), pace_of(4_581 / 300, burst=4_581, size=size), at_once)
    assert (len(windows) > 1) == (at_once > 1)
    sweeps = [-(-window.seconds // 300) for window in windows]
    requests = sum(-(-count * 4_581 // size) for count in sweeps)
    assert requests <= -(-4_581 * 288 // size) + spare


def test_shares_are_of_alike_length():
    """So that those who walk side by side end at about the same time."""
    windows = all_windows(DayPlan(DAY), pace_of(4_581 / 300, burst=4_581, size=50_000), 7)
    assert len(windows) == 7
    assert max(window.seconds for window in windows) * 4_581 / 300 <= 4 * 50_000


def test_where_the_budget_is_no_brake_windows_get_shorter_towards_the_end_of_the_day():
    """So that all who walk end together: no window holds more than its part of what is left, the last ones a page."""
    pace = pace_of(4_583 / 60, burst=4_583, rate=math.inf)
    lengths = [window.seconds for window in all_windows(DayPlan(DAY), pace, 8)]
    assert lengths == sorted(lengths, reverse=True)
    pages = [math.ceil(-(-length // 60) * 4_583 / 100_000) for length in lengths]
    assert (pages[0], pages[-8:]) == (5, [1] * 8)
    assert sum(pages) <= math.ceil(1_440 * 4_583 / 100_000) + 4


@pytest.mark.parametrize("over", [1, 2, 3, 5, 10])
def test_what_is_expected_may_be_several_times_what_comes(over):
    """The first eight windows hold full pages all the same, and the rest is cut by what their pages have shown."""
    pace, plan = pace_of(rate=math.inf), DayPlan(DAY)
    pace.expect(4_572 * 288 * over, 4_572)
    first = [window for _ in range(8) if (window := plan.next_window(pace)) is not None]
    pace.learn_density(95_000, 95_000 * 300 // 4_572, 4_572)
    windows = first + all_windows(plan, pace)
    rows = [4_572 * (-(-window.end // 300) - -(-window.start // 300)) for window in windows]
    assert sum(rows) == 4_572 * 288
    assert sum(math.ceil(count / 100_000) for count in rows) <= 14 + 4


def test_where_the_budget_is_the_brake_nothing_is_cut_by_what_is_expected():
    """A window too many would cost a page."""
    pace = pace_of()
    pace.expect(6_600_000, 4_583)
    assert all_windows(DayPlan(DAY), pace, 8) == [WHOLE]


def test_an_unknown_site_is_asked_for_its_whole_day():
    """Its first page, a full one, tells how dense it is; the walk then gives away what others can take."""
    assert all_windows(DayPlan(DAY), pace_of(), 8) == [WHOLE]


def test_what_was_learnt_is_recalled_as_far_as_the_settings_allow():
    """A page size above the new ceiling is left, windows at once stay below theirs, and what is damaged is refused."""
    taught = pace_of(4_581 / 300, burst=4_581)
    taught.page_failed(100_000, 2)
    taught.page_came(50_000, 50_000, 7.0)
    pace = pace_of()
    pace.recall(taught.learnt())
    assert pace.learnt() == taught.learnt()
    assert (pace.size, pace.burst, pace.page_s) == (50_000, 4_581, 7.0)
    smaller = SitePace([1_000, 5_000], 2)
    smaller.recall(taught.learnt())
    assert (smaller.size, smaller.at_once) == (5_000, 2)
    for damaged in ({}, {**taught.learnt(), "rows": math.nan}, {**taught.learnt(), "size": "much"}):
        with pytest.raises(ValueError, match=r"has learnt|could not convert"):
            pace.recall(damaged)


def test_a_silent_site_is_asked_for_whole_days():
    """After a day without samples the next one is a single window."""
    pace = pace_of()
    pace.learn_density(0, 86_400, 0)
    assert all_windows(DayPlan(DAY), pace, 8) == [WHOLE]


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
    assert pace.fitting_s() * pace.density >= 10 * 4_581
    assert min(window.seconds for window in all_windows(DayPlan(DAY), pace, 8)) >= SHORTEST_S


@pytest.mark.parametrize(
    ("per_minute", "page_s", "sites", "wanted"),
    [
        (50, 0.01, 1, 1),
        (50, 1.0, 1, 2),
        (50, 1.0, 4, 1),
        (50, 7.0, 1, 8),
        (50, 7.0, 4, 2),
        (math.inf, 0.01, 1, 8 + HANDS),
    ],
)
def test_no_more_is_asked_for_at_once_than_keeps_the_budget_used(per_minute, page_s, sites, wanted):
    """Each window more costs a page that is not full: with slow answers it is worth it, at the budget it is not."""
    pace = SitePace(SIZES, 8, rate=per_minute / 60)
    pace.learn_density(1_320_000, 86_400, 4_581)
    for _ in range(20):
        pace.page_came(100_000, 50_000, page_s)
    assert pace.side_by_side(sites) == wanted


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


def test_a_page_may_fail_with_a_size_that_was_refused_to_another_walk_meanwhile():
    """It goes on with the largest size that the API takes."""
    pace = pace_of()
    pace.size_refused(50_000)
    assert pace.page_failed(100_000, 1) == 10_000
    assert pace.page_failed(50_000, 1) == 10_000
    assert pace.page_failed(10_000, 1) == 10_000


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


def test_the_first_page_replaces_what_was_expected():
    """Neither the density nor the burst that the points' configuration led to expect outlives it."""
    pace = pace_of()
    pace.expect(6_600_000, 4_583)
    pace.learn_density(1_000, 3_600, 20)
    assert (pace.density, pace.burst) == (1_000 / 3_600, 20)


def test_a_page_shorter_than_a_burst_does_not_lower_the_burst():
    """The last pages of windows hold parts of bursts; a longer page shows that bursts have become smaller."""
    pace = pace_of()
    pace.learn_density(50, 900, 30)
    for _ in range(9):
        pace.learn_density(110, 3_600, 10, 10)
    assert pace.burst == 30
    pace.learn_density(110, 3_600, 10, 50)
    assert pace.burst == 27


@given(st.sampled_from([50, 500, 1_000]), st.integers(1, 2_000), st.integers(60, 3_600), st.integers(2, 20))
def test_no_part_of_a_window_is_shorter_than_the_time_between_two_bursts(size, burst, every_s, shares):
    """A part that lies between two bursts has no rows, and costs two requests that bring nothing."""
    pace = SitePace([size], 8)
    pace.learn_density(burst * 24, every_s * 24, burst)
    span = 86_400
    while length := pace.share_s(span, shares):
        assert length >= every_s
        span -= length
        assert span >= every_s


def test_a_process_that_is_busy_keeps_few_windows():
    """Pages that keep the processor busy take windows away, down to three; pages that wait for the API add them."""
    pace = pace_of(4_581 / 300, burst=4_581, rate=math.inf)
    for _ in range(20):
        pace.page_came(100_000, 100_000, 0.5, busy=1.1, first_byte_s=0.1)
    assert pace.side_by_side() == 3
    for _ in range(20):
        pace.page_came(100_000, 100_000, 1.2, busy=1.1, first_byte_s=1.0)
    assert pace.side_by_side() == 8 + HANDS
    for _ in range(20):
        pace.page_came(100_000, 100_000, 0.5, busy=1.1, first_byte_s=0.1)
    for _ in range(20):
        pace.page_came(100_000, 100_000, 0.5, busy=0.4)
    assert pace.side_by_side() == 8 + HANDS
