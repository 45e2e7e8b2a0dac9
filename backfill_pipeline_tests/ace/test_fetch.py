"""A day, whole: whatever the API does, the rows that come out are the rows that it holds."""

import gc
import json
import math
import threading
import time
import unicodedata
import weakref
from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from itertools import cycle, pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backfill_pipeline.ace.client import PointList
from backfill_pipeline.ace.fetch import Fetcher
from backfill_pipeline.ace.retry import Retries
from backfill_pipeline.ace.spool import DaySpool, Kept
from backfill_pipeline.core.backoff import Backoff
from backfill_pipeline.core.day import Window, day_window
from backfill_pipeline.core.paging import Cursor
from backfill_pipeline.core.rows import NO_TIME, Chunk, Counts, Fault, TextRows
from backfill_pipeline.errors import (
    ContractError,
    KeyRefusedError,
    PageFailedError,
    RequestRefusedError,
    StoppedError,
    ThrottledError,
)
from backfill_pipeline.setting_formats import PAGE_SIZES
from backfill_pipeline_tests.builders import Row, answer, page_of

DAY = date(2025, 10, 12)
START = day_window(DAY).start * 1_000_000
SITE = "north"


@dataclass
class FakeClient:
    """An ACE client over rows in memory; `script` holds what goes wrong, request by request."""

    rows: list[Row]
    script: list[Exception | None] = field(default_factory=list)
    rows_a_day: int = 10**6
    url: str = "fake"
    largest: int = 10**6
    asked: list[tuple[int, int, int, str | None]] = field(default_factory=list)
    configured: list[str] | None = None
    lists: int = 0
    waited: float = 0.0
    first_byte_s: float = 0.0

    def __post_init__(self) -> None:
        self.retries = Retries(Backoff(tries=10, first_s=0, most_s=0))
        self.lock = threading.Lock()

    def configured_points(self, site: str) -> PointList:
        found = {name for _, name, _ in self.rows} | {"silent"} if self.configured is None else self.configured
        return PointList(site, tuple(sorted(found)), self.rows_a_day)

    def known_points(self, site: str) -> frozenset[str]:
        self.lists += 1
        return frozenset({name for _, name, _ in self.rows} | set(self.configured or ()))

    def page(self, site, window, size, cursor):
        with self.lock:
            self.asked.append((window.start, window.end, size, cursor))
            error = self.script.pop(0) if self.script else None
        if size > self.largest:
            raise RequestRefusedError("no such size", status=400, fields=("page_size",))
        if error is not None:
            raise error
        return answer(self.rows, window.start, window.end, size, cursor)


def sweeps(points: int, every_s: int, day: date = DAY, phase_us: int = 1_234_567) -> list[Row]:
    start = day_window(day).start * 1_000_000
    times = range(start + phase_us, start + 86_400_000_000, every_s * 1_000_000)
    return [(time, f"p{point:03}", point + (time - start) / 1e9) for time in times for point in range(points)]


def fetch(client, tmp_path, days=(DAY,), **options):
    fetcher = Fetcher(client, spool=tmp_path / "spool", **options)
    return list(fetcher.days(SITE, list(days)))


def rows_of(day) -> list[tuple[str, int, float]]:
    start = day_window(day.day).start * 1_000_000
    return sorted(
        (day.rows.points[code], start + ms * 1000, value)
        for chunk in day.rows.chunks
        for code, ms, value in zip(chunk.code.tolist(), chunk.ms.tolist(), chunk.value.tolist(), strict=True)
    )


def truth(rows: list[Row], day: date = DAY) -> list[tuple[str, int, float]]:
    start = day_window(day).start * 1_000_000
    kept = {(n, t // 1000 * 1000): v for t, n, v in rows if start <= t < start + 86_400_000_000}
    return sorted((name, time, value) for (name, time), value in kept.items())


@pytest.mark.parametrize("size", [3, 50, 500, 100_000])
def test_a_day_is_whole_at_any_page_size(tmp_path, size):
    """Pages far smaller than one sweep, or larger than the day, give the same rows."""
    rows = sweeps(30, 7_200)
    (day,) = fetch(FakeClient(rows), tmp_path, max_page_size=size)
    assert rows_of(day) == truth(rows)
    assert day.rows.counts.fetched == len(rows)
    assert (day.points_configured, day.points_seen) == (31, 30)


def test_a_known_site_costs_hardly_more_than_the_least_possible(tmp_path):
    """Without a limit, as many windows as may be: at most a seventh above the least, a sweep being 4 % of a page."""
    days = [DAY, DAY + timedelta(days=1)]
    rows = [row for day in days for row in sweeps(40, 60, day)]
    client = FakeClient(rows)
    _, second = fetch(client, tmp_path, days, max_page_size=1_000)
    assert rows_of(second) == truth(rows, days[1])
    assert second.requests <= -(-57_600 // 1_000) * 1.15


def test_at_the_budget_a_day_costs_the_least_possible(tmp_path):
    """Where answers come faster than the budget lets requests leave, all pages but the last are full."""
    days = [DAY, DAY + timedelta(days=1)]
    rows = [row for day in days for row in sweeps(40, 60, day)]
    fetched = fetch(FakeClient(rows), tmp_path, days, max_page_size=1_000, requests_per_minute=50)
    assert [day.requests for day in fetched] == [58, 58]


def test_where_answers_are_slow_the_first_day_is_shared_as_well(tmp_path):
    """Nothing is known at first, and yet all take their part of the same day, at hardly more than a page each."""
    client = FakeClient(sweeps(40, 300))
    honest, at_once, most = client.page, set(), []

    def page(*asked):
        at_once.add(threading.get_ident())
        most.append(len(at_once))
        time.sleep(0.05)
        try:
            return honest(*asked)
        finally:
            at_once.discard(threading.get_ident())

    client.page = page
    (day,) = fetch(client, tmp_path, max_page_size=500)
    assert rows_of(day) == truth(client.rows)
    assert max(most) >= 6
    assert day.requests <= -(-11_520 // 500) + 8


@pytest.mark.parametrize("size", [50, 500, 100_000])
def test_no_page_is_asked_for_twice_and_none_off_the_list(tmp_path, size):
    """Where nothing fails, each place of the day is asked for once, with sizes that the API takes."""
    client = FakeClient(sweeps(30, 900))
    fetch(client, tmp_path, max_page_size=size)
    places = [cursor or start for start, _, _, cursor in client.asked]
    assert len(places) == len(set(places))
    assert {size for *_, size, _ in client.asked} <= set(PAGE_SIZES)


def test_a_small_day_is_one_request(tmp_path):
    """A site whose day fits a page is asked once."""
    client = FakeClient(sweeps(3, 60), rows_a_day=4_320)
    (day,) = fetch(client, tmp_path)
    assert day.requests == 1


faults = st.sampled_from(
    [
        None,
        PageFailedError("cut"),
        PageFailedError("502"),
        ThrottledError("429"),
        PageFailedError("html", size_related=False),
        ContractError("no point_samples"),
    ]
)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.integers(0, 86_399_999_999), st.integers(1, 40)), max_size=12, unique_by=lambda s: s[0]),
    st.lists(st.one_of(st.none(), faults), max_size=9),  # ten failures in a row at one place fail the day
    st.sampled_from([3, 10, 100, 1_000]),
    st.sampled_from([50, math.inf]),
)
def test_any_faults_that_end_leave_the_truth(tmp_path_factory, found, script, size, per_minute):
    """For any sweeps and any sequence of failures that ends, every sample arrives once."""
    rows = sorted((START + time, f"p{n:02}", float(n)) for time, points in found for n in range(points))
    # At most two answers of a broken form: the third at one place would be believed, and fail the day.
    broken = [number for number, fault in enumerate(script) if isinstance(fault, ContractError)]
    script = [fault for number, fault in enumerate(script) if number not in broken[2:]]
    client = FakeClient(rows, list(script))
    (day,) = fetch(
        client, tmp_path_factory.mktemp("day"), max_page_size=size, accept_marks=True, requests_per_minute=per_minute
    )
    assert day.error is None
    assert rows_of(day) == truth(rows)


def test_a_size_the_api_refuses_is_stepped_down_at_once(tmp_path):
    """A 400 that names the page size leads to the next size of the list, and is not asked again."""
    client = FakeClient(sweeps(5, 600), largest=500)
    (day,) = fetch(client, tmp_path)
    assert rows_of(day) == truth(client.rows)
    assert sum(size > 500 for _, _, size, _ in client.asked) <= 5


def test_a_size_that_is_refused_for_one_site_is_not_asked_for_another(tmp_path):
    """The API's list of sizes is one for all sites."""
    client = FakeClient(sweeps(5, 600), largest=500)
    fetcher = Fetcher(client, spool=tmp_path)
    list(fetcher.days("north", [DAY]))
    client.asked.clear()
    list(fetcher.days("south", [DAY]))
    assert {size for _, _, size, _ in client.asked} == {500}


def test_an_empty_day_is_asked_twice_and_said_to_be_empty(tmp_path):
    """No samples at all: asked again, then given out as empty, which is not an error."""
    client = FakeClient([], rows_a_day=100)
    (day,) = fetch(client, tmp_path)
    assert day.error is None
    assert day.rows.is_empty
    assert day.requests == 2


def test_an_answer_that_is_empty_by_mistake_is_found_out(tmp_path):
    """The second question brings what the first answer lacked."""
    client = FakeClient(sweeps(3, 3_601), rows_a_day=100)
    honest = client.page
    answers = iter([page_of([])])
    client.page = lambda *asked: next(answers, None) or honest(*asked)
    (day,) = fetch(client, tmp_path)
    assert rows_of(day) == truth(client.rows)


@pytest.mark.parametrize("size", [3, 50, 500, 100_000])
@pytest.mark.parametrize("every_s", [7_200, None])
def test_an_end_that_promises_more_costs_few_requests_and_is_recorded(tmp_path, caplog, size, every_s):
    """With `has_more` true and no cursor on each last page, the day is whole, or empty, and its rows are the same."""
    client = FakeClient(sweeps(30, every_s) if every_s else [], rows_a_day=100)
    (plain,) = fetch(client, tmp_path / "plain", max_page_size=size)
    honest = client.page

    def page(*sent):
        found = honest(*sent)
        return found if found.has_more else replace(found, has_more=True)

    client.page = page
    client.asked.clear()
    (day,) = fetch(client, tmp_path / "more", max_page_size=size)
    assert rows_of(day) == truth(client.rows)
    assert (day.facts, day.rows.is_empty) == (plain.facts, plain.rows.is_empty)
    assert max(Counter(client.asked).values()) <= 3
    assert (plain.more_at_end, day.more_at_end >= 1) == (0, True)
    lines = [record for record in caplog.records if "empty pages with `has_more` true" in record.getMessage()]
    assert len(lines) == day.more_at_end
    assert {(line.levelname, line.site, line.day) for line in lines} == {("WARNING", day.site, str(day.day))}


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(["echo", "null", "opaque", "field", "cut", "shape"]), min_size=20, max_size=20))
def test_no_place_costs_more_than_a_dozen_requests(tmp_path_factory, kinds):
    """Whatever an API without rows answers, mixed with failures, it is believed or fails the day by then."""
    client, turn = FakeClient([], rows_a_day=100), iter(enumerate(kinds))

    def page(_site, window, _size, cursor):
        number, kind = next(turn)
        client.asked.append((window.start, window.end, number, cursor))
        if kind == "cut":
            raise PageFailedError("cut", size_related=False)
        if kind == "shape":
            raise ContractError("no point_samples")
        cursors = {"echo": cursor, "opaque": f"opaque-{number}", "field": Cursor(START, 0, "", {"n": number}).encode()}
        return page_of([], cursor=cursors.get(kind), has_more=True)

    client.page = page
    fetch(client, tmp_path_factory.mktemp("day"))
    assert len(client.asked) <= 12


def test_a_cursor_that_leads_to_the_windows_end_leaves_the_rows_before_it(tmp_path):
    """An empty page whose cursor names the end of the window: what was received before it is kept."""
    client = FakeClient(sweeps(3, 3_601), rows_a_day=100)
    honest = client.page

    def page(site, window, size, cursor):
        found = honest(site, window, size, cursor)
        if not found.has_more and cursor != (end := Cursor.at(window.end * 1_000_000, 0).encode()):
            return replace(found, next_cursor=None if len(found) else end, has_more=True)
        return found

    client.page = page
    (day,) = fetch(client, tmp_path)
    assert day.error is None
    assert rows_of(day) == truth(client.rows)


def test_a_cursor_of_an_unknown_form_that_the_api_refuses_is_not_sent_again(tmp_path):
    """The walk returns to the position that its rows show, whether the API calls the cursor wrong or fails over it."""
    client = FakeClient(sweeps(30, 7_200))
    honest, wrong, refused = client.page, iter([False, True, True] * 2 + [False] * 1_000), []
    errors = cycle([RequestRefusedError("no such cursor", status=400, fields=("cursor",)), PageFailedError("500")])

    def page(site, window, size, cursor):
        if cursor == "opaque":
            refused.append(window)
            raise next(errors)
        if next(wrong):
            return page_of([], cursor="opaque", has_more=True)
        return honest(site, window, size, cursor)

    client.page = page
    (day,) = fetch(client, tmp_path, max_page_size=50, max_windows=1)
    assert len(refused) >= 2
    assert rows_of(day) == truth(client.rows)


def test_a_day_that_fails_does_not_stop_the_next(tmp_path):
    """The failed day is given out with its error, and its neighbours whole."""
    days = [DAY + timedelta(days=n) for n in range(3)]
    rows = [row for day in days for row in sweeps(3, 3_601, day)]
    client = FakeClient(rows, rows_a_day=100)
    honest, bad = client.page, day_window(days[1])

    def page(site, window, size, cursor):
        if window.start == bad.start:
            raise RequestRefusedError("HTTP 400 for this day", status=400)
        return honest(site, window, size, cursor)

    client.page = page
    first, second, third = fetch(client, tmp_path, days)
    assert isinstance(second.error, RequestRefusedError)
    assert second.rows is None
    assert rows_of(first) == truth(rows, days[0])
    assert rows_of(third) == truth(rows, days[2])


def test_a_refused_key_stops_everything_at_once(tmp_path):
    """401 is raised, not recorded 365 times."""
    client = FakeClient(sweeps(3, 3_601), [KeyRefusedError("401")], rows_a_day=100)
    days = [DAY + timedelta(days=n) for n in range(365)]
    with pytest.raises(KeyRefusedError):
        fetch(client, tmp_path, days)
    assert len(client.asked) <= 2


def test_failures_without_end_fail_the_day_after_a_bounded_number_of_tries(tmp_path):
    """A page that never arrives is given up, and nothing is passed off as the day."""
    client = FakeClient(sweeps(3, 3_601), [PageFailedError("502")] * 100, rows_a_day=100)
    (day,) = fetch(client, tmp_path)
    assert isinstance(day.error, PageFailedError)
    assert day.rows is None
    assert day.requests <= 30


def test_aggregated_data_is_not_taken_for_raw(tmp_path):
    """A day whose times all lie on five-minute marks fails and says what to set if the site is really so."""
    rows = sweeps(3, 300, phase_us=0)
    (day,) = fetch(FakeClient(rows, rows_a_day=100), tmp_path)
    assert isinstance(day.error, ContractError)
    assert "ACE_ACCEPT_MARKS" in str(day.error)
    (day,) = fetch(FakeClient(rows, rows_a_day=100), tmp_path, accept_marks=True)
    assert rows_of(day) == truth(rows)


def test_a_page_of_another_site_is_asked_for_again_and_never_taken(tmp_path):
    """None of its names is a point of the site: asked again; where it stays so, the day fails and names the point."""
    client = FakeClient(sweeps(40, 600))
    honest, foreign = client.page, [(time, f"other/{name}", value) for time, name, value in client.rows]
    wrong = iter([False, True, True, False, True])
    client.page = lambda *asked: (
        answer(foreign, asked[1].start, asked[1].end, asked[2], asked[3]) if next(wrong, False) else honest(*asked)
    )
    (day,) = fetch(client, tmp_path, max_page_size=1_000)
    assert rows_of(day) == truth(client.rows)
    assert set(day.rows.counts.dropped) == set()
    client.page = lambda _site, window, size, cursor: answer(foreign, window.start, window.end, size, cursor)
    (day,) = fetch(client, tmp_path / "again", max_page_size=1_000)
    assert isinstance(day.error, ContractError)
    assert "samples of another site" in str(day.error)
    assert "'other/p0" in str(day.error)


@pytest.mark.parametrize("configured", [["p000"], ["silent"], []])
@pytest.mark.parametrize("size", [3, 1_000])
def test_points_that_are_not_configured_are_no_other_site(tmp_path, configured, size):
    """Few or none are configured, so most pages hold others alone: known by the full list, which is read once."""
    client = FakeClient(sweeps(30, 7_200), configured=configured)
    (day,) = fetch(client, tmp_path, max_page_size=size, max_windows=1)
    assert day.error is None
    assert rows_of(day) == [row for row in truth(client.rows) if row[0] in configured]
    assert day.rows.counts.fetched == len(client.rows)
    assert client.lists <= 1


def test_names_that_begin_as_the_sites_own_are_not_doubted(tmp_path):
    """A page of points that no list has, of the same client and site, is usual: the full list is read once, no more."""
    rows = [(time, f"client/site/{name}", value) for time, name, value in sweeps(40, 600)]
    client = FakeClient(rows, configured=["client/site/p000"])
    client.known_points = lambda _site: setattr(client, "lists", client.lists + 1) or frozenset(client.configured)
    (day,) = fetch(client, tmp_path, max_page_size=3, max_windows=1)
    assert day.error is None
    assert rows_of(day) == [row for row in truth(rows) if row[0] == "client/site/p000"]
    assert client.lists == 1


def _site_of(client, known):
    """Let the API know `known` as the site's points, in the fake's place."""

    def known_points(_site):
        client.lists += 1
        return frozenset(known)

    client.known_points = known_points
    return client


def _unreadable(page, *rows):
    """The page with rows that have no time, as the decoder gives it."""
    time_us, fault, value = page.time_us.copy(), page.fault.copy(), page.value.copy()
    time_us[list(rows)], fault[list(rows)], value[list(rows)] = NO_TIME, Fault.BAD_TIME, np.nan
    return replace(page, time_us=time_us, fault=fault, value=value, unreadable=("time", '"01/03/2025 00:00"'))


def test_a_page_without_a_readable_row_is_requested_again_and_then_fails_the_day(tmp_path):
    """Twice such a page costs no row; the third time at one place the day fails and shows one time."""
    client = FakeClient(sweeps(3, 3_601), rows_a_day=100)
    honest, turn = client.page, iter(range(2))
    client.page = lambda *asked: (
        _unreadable(page, *range(len(page))) if (page := honest(*asked)) and next(turn, None) is not None else page
    )
    (day,) = fetch(client, tmp_path)
    assert rows_of(day) == truth(client.rows)
    assert day.rows.counts.unreadable == 0
    client.page = lambda *asked: _unreadable(page := honest(*asked), *range(len(page)))
    (day,) = fetch(client, tmp_path / "again")
    assert isinstance(day.error, ContractError)
    assert day.rows is None
    assert day.requests == 3
    assert 'none of the 72 rows of a page can be read: the `time` of one is "01/03/2025 00:00"' in str(day.error)
    assert (day.error.site, day.error.day) == (SITE, DAY)


@pytest.mark.parametrize(("unreadable", "stored"), [(0, True), (7, True), (8, False)])
def test_a_day_with_more_than_one_unreadable_row_in_a_hundred_fails(tmp_path, unreadable, stored):
    """Of 720 rows seven may be unreadable: they are counted, with an example; eight fail the day."""
    client = FakeClient(sweeps(30, 3_600), rows_a_day=720)
    honest = client.page
    client.page = lambda *asked: _unreadable(honest(*asked), *range(unreadable)) if unreadable else honest(*asked)
    (day,) = fetch(client, tmp_path)
    assert (day.error is None) is stored
    assert day.unreadable == (("time", '"01/03/2025 00:00"') if unreadable else None)
    if stored:
        assert day.rows.counts.unreadable == unreadable
    else:
        assert '8 of 720 rows cannot be read: the `time` of one is "01/03/2025 00:00"' in str(day.error)


def test_unreadable_rows_are_counted_across_attempts(tmp_path):
    """Windows that an earlier attempt kept count: their unreadable rows, and the example."""
    client = FakeClient(sweeps(30, 60), [None] * 10 + [RequestRefusedError("no", status=400)] * 50)
    honest = client.page
    client.page = lambda *asked: _unreadable(honest(*asked), 0, 1) if len(client.asked) < 5 else honest(*asked)
    (failed,) = fetch(client, tmp_path, max_page_size=1_000, max_windows=1)
    assert isinstance(failed.error, RequestRefusedError)
    client.script.clear()
    client.page = honest
    (day,) = fetch(client, tmp_path, max_page_size=1_000, max_windows=1)
    assert day.error is None
    assert day.rows.counts.unreadable >= 8
    assert day.unreadable == ("time", '"01/03/2025 00:00"')


def test_a_day_that_is_refused_as_a_whole_is_requested_again(tmp_path):
    """Its windows are not taken from the spool: the next attempt gets what the API returns by then."""
    client = FakeClient(sweeps(30, 3_600), rows_a_day=720)
    honest = client.page
    client.page = lambda *asked: _unreadable(honest(*asked), *range(100))
    (day,) = fetch(client, tmp_path)
    assert isinstance(day.error, ContractError)
    client.page = honest
    (day,) = fetch(client, tmp_path)
    assert rows_of(day) == truth(client.rows)


def test_a_day_of_names_that_no_list_has_fails(tmp_path):
    """They begin as the site's own names do, which is usual of some rows; of a whole day it is another site's data."""
    rows = [(time, f"client/site/{name}", value) for time, name, value in sweeps(40, 600)]
    known = ["client/site/other", "client/site/more"]
    client = _site_of(FakeClient(rows, configured=known[:1]), known)
    (day,) = fetch(client, tmp_path, max_page_size=500)
    assert isinstance(day.error, ContractError)
    assert day.rows is None
    assert "configured (such as 'client/site/other') or not. One row is of 'client/site/p0" in str(day.error)
    assert client.lists == 1
    known.append("client/site/p007")  # configured or not
    (day,) = fetch(client, tmp_path, max_page_size=500)
    assert day.error is None
    assert (day.rows.counts.kept, day.rows.counts.fetched) == (0, len(rows))


def test_a_site_without_points_has_no_rows(tmp_path):
    """Rows of a site that has no point at all belong to another site."""
    (day,) = fetch(_site_of(FakeClient(sweeps(3, 3_601), configured=[]), []), tmp_path)
    assert isinstance(day.error, ContractError)
    assert "is a point of this site, configured or not" in str(day.error)


SPELLINGS = [
    ("a/Büro", "a/Büro "),
    ("a/Büro ", "a/Büro"),
    ("a/Büro", unicodedata.normalize("NFD", "a/Büro")),
    (unicodedata.normalize("NFD", "a/Büro"), " a/Büro\t"),
]


@pytest.mark.parametrize(("configured", "arrived"), SPELLINGS)
@pytest.mark.parametrize("size", [3, 1_000])
def test_spaces_and_the_unicode_form_of_a_name_do_not_count(tmp_path, configured, arrived, size):
    """The row is the configured point's, under its configured name; the list of all points is read once for it."""
    rows = [(time, arrived if name == "p001" else name, value) for time, name, value in sweeps(4, 3_601)]
    names = ["p000", configured, "p002", "p003"]
    client = _site_of(FakeClient(rows, configured=names), names)
    (day,) = fetch(client, tmp_path, max_page_size=size, max_windows=1)
    assert rows_of(day) == sorted((configured if n == arrived else n, t // 1000 * 1000, v) for t, n, v in rows)
    assert client.lists == 1


@pytest.mark.parametrize("known", [["p001", "p001 "], ["p001", " p001"]])
def test_a_name_that_may_be_of_two_points_is_not_guessed(tmp_path, known):
    """Where a second point is spelled so, or nearly so, the row is not taken for the first; the day stays readable."""
    rows = [(time, "p001 " if name == "p001" else name, value) for time, name, value in sweeps(4, 3_601)]
    client = _site_of(FakeClient(rows, configured=["p000", "p001"]), ["p000", *known])
    (day,) = fetch(client, tmp_path)
    assert {name for name, *_ in rows_of(day)} == {"p000"}
    assert day.rows.counts.dropped["not_configured"] == 3 * len(rows) // 4


@pytest.mark.parametrize("prefix", ["", "acme/north/"])
def test_a_day_whose_names_may_all_be_of_two_points_fails(tmp_path, prefix):
    """None of its rows can be stored, so the day is not stored with 0 rows; the message shows one of the names."""
    names = [f"{prefix}Büro", unicodedata.normalize("NFD", f"{prefix}Büro")]
    rows = [(time, f"{names[1]} ", value) for time, _, value in sweeps(1, 3_601)]
    (day,) = fetch(_site_of(FakeClient(rows, configured=names), names), tmp_path)
    assert isinstance(day.error, ContractError)
    assert "no row has the name of a point of this site" in str(day.error)


def test_without_the_list_of_all_points_a_name_is_not_guessed(tmp_path):
    """Another point may be spelled so: the row is left out."""
    rows = [(time, "p001 " if name == "p001" else name, value) for time, name, value in sweeps(4, 3_601)]
    client = FakeClient(rows, configured=["p000", "p001"])

    def refused(_site):
        raise RequestRefusedError("not found", status=404)

    client.known_points = refused
    (day,) = fetch(client, tmp_path)
    assert {name for name, *_ in rows_of(day)} == {"p000"}


@pytest.mark.parametrize("rows", [0, 2])
def test_a_window_of_the_version_before_is_read(tmp_path, rows):
    """With rows it is used; without, although some arrived, it is requested again: they may be of another site."""
    spool = DaySpool(tmp_path, SITE, DAY, "source")
    chunk = Chunk(np.arange(rows, dtype=np.int32), np.zeros(rows, np.int32), np.zeros(rows))
    spool.put(Kept(Window(0, 60), chunk, Counts(fetched=2, kept=rows), 1.0, on_marks=False, instants=1))
    (path,) = spool.folder.glob("*.npz")
    with np.load(path) as file:
        parts = dict(file)
    about = json.loads(parts["about"].tobytes())
    before = {name: about[name] for name in ("start", "end", "counts", "fetched_at", "on_marks", "instants")}
    np.savez(path, **parts | {"about": np.frombuffer(json.dumps(before).encode(), np.uint8)})
    assert [(kept.named, kept.stranger, kept.unreadable) for kept in spool.get(1.0)] == [(True, None, None)] * (
        rows > 0
    )


@dataclass
class WordedClient(FakeClient):
    """A client of rows of which every third is a text."""

    def page(self, site, window, size, cursor):
        page = super().page(site, window, size, cursor)
        texts = ("active", "inactive")
        fault, text = page.fault.copy(), np.full(len(page), -1, np.int32)
        for number, value in enumerate(page.value.tolist()):
            if word_of(value):
                fault[number], text[number] = Fault.NOT_NUMERIC, texts.index(word_of(value))
        return replace(page, fault=fault, texts=texts, text=text)


def word_of(value):
    """The text that stands for some of the numbers; None for the others."""
    return {0: "active", 1: "inactive"}.get(int(value * 1000) % 6)


def words_of(day):
    return sorted(
        (day.rows.points[code], START + ms * 1000, part.texts[text])
        for part in day.rows.texts
        for code, ms, text in zip(part.code.tolist(), part.ms.tolist(), part.text.tolist(), strict=True)
    )


def test_texts_are_fetched_beside_numbers_whatever_the_windows(tmp_path):
    """Each text arrives once, with any page size, and every row is accounted for."""
    rows = sweeps(20, 300)
    truth_of_texts = sorted((name, time // 1000 * 1000, word_of(value)) for time, name, value in rows if word_of(value))
    assert truth_of_texts
    for size in (500, 2_500):
        client = WordedClient(rows)
        (day,) = fetch(client, tmp_path / str(size), max_page_size=size, max_windows=3)
        assert day.error is None
        assert words_of(day) == truth_of_texts
        counts = day.rows.counts
        assert (counts.texts, counts.unaccounted, counts.left_out) == (len(truth_of_texts), 0, {})
        assert counts.kept == len(rows) - len(truth_of_texts)


def test_texts_are_spooled_so_that_a_death_costs_no_request(tmp_path):
    """A second process reuses the texts of the windows that the first process finished."""
    rows = sweeps(20, 300)
    client = WordedClient(rows, script=[None] * 6 + [KeyRefusedError("refused")])
    with pytest.raises(KeyRefusedError):
        fetch(client, tmp_path, max_page_size=500, max_windows=1)
    again = WordedClient(rows)
    (day,) = fetch(again, tmp_path, max_page_size=500, max_windows=1)
    whole = WordedClient(rows)
    (other,) = fetch(whole, tmp_path / "other", max_page_size=500, max_windows=1)
    assert len(again.asked) < len(whole.asked)
    assert words_of(day) == words_of(other)
    assert day.rows.counts == other.rows.counts


def test_a_spooled_window_has_its_texts_byte_by_byte(tmp_path):
    """Line ends, NUL and letters of any script; a window of an older version that lacks its texts is not used."""
    spool = DaySpool(tmp_path, SITE, DAY, "source")
    texts = ("", "a\n\0b", "測 \U0001f600", "x" * 10_000)
    numbers = np.arange(4, dtype=np.int32)
    chunk = Chunk(numbers[:1], numbers[:1], np.ones(1), TextRows(numbers, numbers, numbers, texts))
    counts = Counts(5, 1, {"not_numeric": 4}, texts=4)
    spool.put(Kept(Window(0, 60), chunk, counts, 1.0, on_marks=False, instants=1))
    (kept,) = spool.get(1.0)
    assert (kept.counts, tuple(kept.chunk.texts.texts)) == (counts, texts)
    assert [column.tolist() for column in (kept.chunk.texts.code, kept.chunk.texts.ms)] == [[0, 1, 2, 3]] * 2
    spool.put(Kept(Window(0, 60), replace(chunk, texts=None), Counts(5, 1, {"not_numeric": 4}), 1.0, False, 1))
    assert list(spool.get(1.0)) == []


def test_without_a_list_of_all_points_no_page_is_condemned(tmp_path):
    """An API that does not tell all points of a site gives no ground to refuse what it sends."""
    client = FakeClient(sweeps(30, 7_200), configured=["silent"])

    def refused(_site):
        raise RequestRefusedError("not found", status=404)

    client.known_points = refused
    (day,) = fetch(client, tmp_path, max_page_size=1_000, max_windows=1)
    assert day.error is None
    assert day.rows.counts.fetched == len(client.rows)


def test_a_page_that_is_refused_leaves_the_walk_where_it_was(tmp_path):
    """An aggregated page among raw ones is asked for again from the same place: no row of it is lost, none is taken."""
    client = FakeClient(sweeps(20, 60))
    honest = client.page
    marks = sorted({(time // 300_000_000 * 300_000_000, name, -1.0) for time, name, _ in client.rows})
    turn = iter(range(10**6))
    client.page = lambda *asked: (
        answer(marks, asked[1].start, asked[1].end, asked[2], asked[3]) if next(turn) % 5 == 3 else honest(*asked)
    )
    (day,) = fetch(client, tmp_path, max_page_size=500, max_windows=1)
    assert day.error is None
    assert rows_of(day) == truth(client.rows)


def test_what_was_spooled_is_not_asked_for_again(tmp_path):
    """A second attempt takes the windows of the first from disk, and asks only for the rest."""
    rows = sweeps(40, 60)
    first = FakeClient(rows)
    fetch(first, tmp_path, max_page_size=1_000)
    second = FakeClient(rows)
    (day,) = fetch(second, tmp_path, max_page_size=1_000)
    assert second.asked == []
    assert rows_of(day) == truth(rows)
    day.discard()
    (again,) = fetch(FakeClient(rows), tmp_path, max_page_size=1_000)
    assert again.requests > 50


def test_a_day_that_was_taken_is_let_go_at_once(tmp_path):
    """No circle holds its rows: Python looks for circles seldom, and a day may be hundreds of megabytes."""
    days = [DAY + timedelta(days=number) for number in range(3)]
    rows = [(at + 86_400_000_000 * number, name, value) for number in range(3) for at, name, value in sweeps(40, 60)]
    seen = []
    gc.disable()
    try:
        for fetched in Fetcher(FakeClient(rows), spool=tmp_path, max_page_size=1_000).days(SITE, days):
            seen += [weakref.ref(chunk.value) for chunk in fetched.rows.chunks]
            del fetched
        left = [one for one in seen if one() is not None]
    finally:
        gc.enable()
    assert len(seen) > 100
    assert left == []


def test_old_or_damaged_windows_are_asked_for_again(tmp_path):
    """A window of yesterday, or one that was cut, counts as not there."""
    rows = sweeps(10, 600)
    fetch(FakeClient(rows), tmp_path, max_page_size=500, now=lambda: 1e9)
    stale = FakeClient(rows)
    fetch(stale, tmp_path, max_page_size=500, now=lambda: 1e9 + 86_401)
    assert stale.asked
    for path in (tmp_path / "spool").rglob("*.npz"):
        path.write_bytes(path.read_bytes()[:-40])
    cut = FakeClient(rows)
    (day,) = fetch(cut, tmp_path, max_page_size=500, now=lambda: 1e9 + 86_401)
    assert cut.asked
    assert rows_of(day) == truth(rows)


def test_a_stop_ends_the_iteration_and_keeps_finished_windows(tmp_path):
    """Once asked to stop, no further request leaves."""
    client, stop = FakeClient(sweeps(40, 60)), threading.Event()
    honest = client.page

    def page(*asked):
        if len(client.asked) > 5:
            stop.set()
        return honest(*asked)

    client.page = page
    fetcher = Fetcher(client, spool=tmp_path, max_page_size=1_000)
    with pytest.raises(StoppedError):
        list(fetcher.days(SITE, [DAY], stop=stop))
    assert len(client.asked) < 20
    assert list(tmp_path.rglob("*.npz"))


def test_a_caller_that_leaves_early_leaves_no_thread_behind(tmp_path):
    """Closing the iteration ends its threads."""
    before = threading.active_count()
    days = Fetcher(FakeClient(sweeps(3, 3_601)), spool=tmp_path).days(SITE, [DAY + timedelta(n) for n in range(9)])
    next(days)
    days.close()
    assert threading.active_count() == before


def test_chunks_of_a_day_do_not_overlap_in_time(tmp_path):
    """What the encoder relies on: windows in time order, each sorted by point and time."""
    (day,) = fetch(FakeClient(sweeps(40, 60)), tmp_path, max_page_size=1_000)
    spans = [(int(chunk.ms.min()), int(chunk.ms.max())) for chunk in day.rows.chunks]
    assert all(a[1] < b[0] for a, b in pairwise(spans))
    for chunk in day.rows.chunks:
        pair = chunk.code.astype(np.int64) * 86_400_000 + chunk.ms
        assert (np.diff(pair) > 0).all()


@pytest.mark.parametrize(("later_s", "first_size"), [(3_600, 500), (8 * 86_400, 1_000)])
def test_the_next_run_starts_with_what_the_last_one_learnt(tmp_path, later_s, first_size):
    """A page size that failed is not tried again by each run, unless the last one is more than a week ago."""
    client = FakeClient(sweeps(10, 300), [PageFailedError("cut", size_related=True)] * 2)
    (day,) = fetch(client, tmp_path, max_page_size=1_000, requests_per_minute=50, now=lambda: 1e9)
    day.discard()
    assert [size for _, _, size, _ in client.asked[:3]] == [1_000, 1_000, 500]
    again = FakeClient(client.rows)
    fetch(again, tmp_path, max_page_size=1_000, requests_per_minute=50, now=lambda: 1e9 + later_s)
    assert again.asked[0][2] == first_size


@pytest.mark.parametrize("damage", [b"", b"[]", b'{"at": 1e9}', b'{"at": []}', b"\xff\x00", b"[" * 100_000])
def test_what_was_learnt_is_a_hint_that_may_be_damaged(tmp_path, damage):
    """A file that is cut, or of another form, is as good as none, and is replaced."""
    client = FakeClient(sweeps(10, 60))
    fetch(client, tmp_path, max_page_size=1_000, now=lambda: 1e9)
    (kept,) = (tmp_path / "spool").glob("pace-*.json")
    whole = kept.read_bytes()
    kept.write_bytes(damage)
    (day,) = fetch(client, tmp_path, max_page_size=1_000, now=lambda: 1e9)
    assert rows_of(day) == truth(client.rows)
    assert kept.read_bytes()[:20] == whole[:20]


def test_a_folder_of_the_spool_that_vanishes_while_it_is_made_is_made_again(tmp_path, monkeypatch):
    """Another run stores the day, and forgets its folder, between two looks at it."""
    spool = DaySpool(tmp_path, SITE, DAY, "source")
    spool.folder.mkdir()
    is_dir = Path.is_dir

    def gone(path, **options):
        monkeypatch.undo()
        path.rmdir()
        return is_dir(path, **options)

    monkeypatch.setattr(Path, "is_dir", gone)
    rows = Chunk(np.zeros(1, np.int32), np.zeros(1, np.int32), np.zeros(1))
    spool.put(Kept(Window(0, 60), rows, Counts(fetched=1, kept=1), 1.0, on_marks=True, instants=1))
    (kept,) = spool.get(1.0)
    assert len(kept.chunk) == 1
