"""The walk: every row of a window exactly once, at any page size, against a server whose cursor stands still."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backfill_pipeline.core.day import Window
from backfill_pipeline.core.paging import MOST_IDLE_PAGES, Cursor, Walk
from backfill_pipeline.core.rows import Page
from backfill_pipeline.errors import PageFailedError

WINDOW = Window(1_700_000_000, 1_700_000_600)
START = WINDOW.start * 1_000_000
Row = tuple[int, str]


def page_of(rows: list[Row], *, cursor: str | None = None, has_more: bool = False) -> Page:
    names = sorted({name for _, name in rows})
    return Page(
        names,
        np.array([names.index(name) for _, name in rows], np.int32),
        np.array([time for time, _ in rows], np.int64),
        np.zeros(len(rows)),
        np.zeros(len(rows), np.uint8),
        cursor,
        has_more,
    )


@dataclass
class StallingServer:
    """Rows in the API's order; the outgoing offset counts the current page alone, as the real one does."""

    rows: list[Row]

    def answer(self, window: Window, size: int, cursor: str | None) -> Page:
        rows = [r for r in self.rows if window.start * 1_000_000 <= r[0] < window.end * 1_000_000]
        at = Cursor.decode(cursor)
        if at is not None:
            same = [r for r in rows if r[0] == at.time_us]
            rows = same[at.offset :] + [r for r in rows if r[0] > at.time_us]
        page, more = rows[:size], len(rows) > size
        if not more:
            return page_of(page)
        last = page[-1][0]
        return page_of(page, cursor=Cursor.at(last, sum(t == last for t, _ in page)).encode(), has_more=True)


def walk_all(server: StallingServer, size: int, window: Window = WINDOW, most: int = 10_000) -> list[Row]:
    walk, got = Walk(window), []
    for _ in range(most):
        page = server.answer(walk.window, size, walk.cursor)
        walk.accept(page, size)
        got += [(int(t), page.names[c]) for t, c in zip(page.time_us, page.code, strict=True)]
        if walk.finished:
            return got
    raise AssertionError("the walk does not end")


sweeps = st.lists(
    st.tuples(st.integers(0, 599_999_999), st.integers(1, 25)), max_size=12, unique_by=lambda sweep: sweep[0]
)


@settings(deadline=None, max_examples=300)
@given(sweeps, st.sampled_from([3, 10, 50]))
def test_every_row_arrives_exactly_once_at_any_page_size(found, size):
    """For any sweeps, also ones far larger than a page, the walk yields each row once and in order."""
    rows = sorted((START + time, f"p{number:03}") for time, points in found for number in range(points))
    assert walk_all(StallingServer(rows), size) == rows


def test_a_plain_loop_over_the_servers_cursor_would_never_end():
    """The server under test has the bug: its own cursor stands still inside one timestamp."""
    server = StallingServer([(START, f"p{number:03}") for number in range(30)])
    first = server.answer(WINDOW, 10, None)
    second = server.answer(WINDOW, 10, first.next_cursor)
    assert second.next_cursor == first.next_cursor
    assert second.has_more


@settings(deadline=None)
@given(sweeps, st.sampled_from([3, 10]))
def test_a_row_that_the_server_repeats_loses_none(found, size):
    """A server that puts the last row of a page in front of the next one costs repeats, never rows."""
    rows = sorted((START + time, f"p{number:03}") for time, points in found for number in range(points))

    class Repeating(StallingServer):
        last: Row | None = None

        def answer(self, window, size, cursor):
            page = super().answer(window, size, cursor)
            got = [(int(t), page.names[c]) for t, c in zip(page.time_us, page.code, strict=True)]
            repeated = [self.last] if self.last is not None and cursor is not None else []
            self.last = got[-1] if got else self.last
            return page_of(repeated + got, cursor=page.next_cursor, has_more=page.has_more)

    assert sorted(set(walk_all(Repeating(rows), size))) == rows


@pytest.mark.parametrize("cursor", [None, "garbage", Cursor.at(START - 10**9, 1).encode()])
def test_the_servers_cursor_is_not_needed_while_rows_arrive(cursor):
    """A missing, unreadable or backward cursor beside `has_more` changes nothing."""
    rows = [(START + number // 7, f"p{number:03}") for number in range(40)]

    class Careless(StallingServer):
        def answer(self, window, size, sent):
            page = super().answer(window, size, sent)
            return page_of(
                [(int(t), page.names[c]) for t, c in zip(page.time_us, page.code, strict=True)],
                cursor=cursor if page.has_more else None,
                has_more=page.has_more,
            )

    assert walk_all(Careless(rows), 3) == rows


def test_a_repaired_cursor_equals_the_servers_where_that_is_right():
    """On a page that crosses timestamps both sides name the same position."""
    rows = [(START, "a"), (START + 5, "a"), (START + 5, "b"), (START + 5, "c")]
    walk, server = Walk(WINDOW), StallingServer(rows)
    page = server.answer(WINDOW, 3, None)
    walk.accept(page, 3)
    assert walk.cursor == page.next_cursor


def test_pages_that_never_bring_a_row_end_as_a_failure():
    """Endless empty pages with `has_more` are an error, not an end."""
    walk = Walk(WINDOW)
    pages = [page_of([], cursor=Cursor.at(START + n, 0).encode(), has_more=True) for n in range(MOST_IDLE_PAGES + 1)]
    for page in pages[:-1]:
        walk.accept(page, 10)
    with pytest.raises(PageFailedError, match="no rows although more were promised"):
        walk.accept(pages[-1], 10)
    assert not walk.finished


def test_an_empty_page_with_a_cursor_is_not_the_end():
    """An empty page that promises more is followed to the rows behind it."""
    walk = Walk(WINDOW)
    walk.accept(page_of([], cursor=Cursor.at(START, 0).encode(), has_more=True), 10)
    assert not walk.finished
    walk.accept(page_of([(START + 599_000_000, "a")]), 10)
    assert walk.finished


def test_pages_that_only_repeat_end_as_a_failure():
    """A server that ignores the cursor is found out instead of being asked for ever."""
    walk = Walk(WINDOW)
    same = page_of([(START, "a"), (START, "b"), (START, "c")], has_more=True)
    for _ in range(MOST_IDLE_PAGES + 1):
        walk.accept(same, 3)
    with pytest.raises(PageFailedError, match="received before"):
        walk.accept(same, 3)


@settings(deadline=None, max_examples=200)
@given(sweeps, st.sampled_from([3, 10, 50]), st.randoms(use_true_random=False))
def test_a_row_that_comes_twice_in_one_page_loses_none(found, size, choice):
    """Wherever it lies: counted twice among the page's last timestamp, it would move the cursor past another row."""
    rows = sorted((START + time, f"p{number:03}") for time, points in found for number in range(points))
    server, walk, got = StallingServer(rows), Walk(WINDOW), set()
    while not walk.finished:
        page = server.answer(walk.window, size, walk.cursor)
        told = [(int(t), page.names[c]) for t, c in zip(page.time_us, page.code, strict=True)]
        got |= set(told)
        if told:
            told.insert(choice.randrange(len(told)), choice.choice(told))
        walk.accept(page_of(sorted(told), cursor=page.next_cursor, has_more=page.has_more), size)
    assert got == set(rows)


@pytest.mark.parametrize(("empties", "finished"), [(1, False), (2, False), (3, True)])
def test_nothing_where_rows_were_promised_is_believed_the_third_time(empties, finished):
    """An end without a row, after a page that said more follow, is asked again; the rest may come after all."""
    last = START + 599 * 1_000_000
    walk = Walk(WINDOW)
    walk.accept(page_of([(last, "a"), (last, "b")], has_more=True), 2)
    for _ in range(empties):
        walk.accept(page_of([]), 2)
    assert walk.finished == finished
    if not finished:
        walk.accept(page_of([(last, "c")]), 2)
        assert walk.finished
        assert walk.rows == 3


def test_a_promise_of_rows_ends_with_the_window_that_it_was_made_for():
    """After a window was shortened, nothing in what is left of it is its end."""
    walk = Walk(WINDOW)
    walk.accept(page_of([(START, "a")], has_more=True), 1)
    assert walk.shorten(WINDOW.start + 300) is not None
    walk.accept(page_of([]), 1)
    assert walk.finished


def test_time_never_goes_back():
    """A page that ends before the position is refused, and the walk stays where it was."""
    walk = Walk(WINDOW)
    walk.accept(page_of([(START + 10_000, "a")], has_more=True), 1)
    before = walk.cursor
    with pytest.raises(PageFailedError, match="back in time"):
        walk.accept(page_of([(START + 5_000, "a")], has_more=True), 1)
    assert walk.cursor == before


def test_a_page_of_another_window_is_refused():
    """Rows of a day that was not asked for are no answer."""
    with pytest.raises(PageFailedError, match="another window"):
        Walk(WINDOW).accept(page_of([(START - 86_400_000_000, "a")]), 10)


def test_rows_exactly_at_the_end_are_the_end():
    """A server that counts the end in is finished when nothing but the end itself is left."""
    walk = Walk(WINDOW)
    walk.accept(page_of([(WINDOW.end * 1_000_000, "a")], has_more=True), 1)
    assert walk.finished


@pytest.mark.parametrize("doubt", ["full page", "cursor", "early"])
def test_an_end_that_looks_wrong_is_asked_once_more(doubt):
    """`has_more` false beside a full page, a cursor, or hours of silence is believed only when confirmed."""
    day = Window(WINDOW.start, WINDOW.start + 86_400)
    time = day.end * 1_000_000 - 1_000_000 if doubt != "early" else START
    page = page_of([(time, "a")], cursor="x" if doubt == "cursor" else None)
    walk = Walk(day)
    walk.accept(page, 1 if doubt == "full page" else 10)
    assert not walk.finished
    walk.accept(page_of([]), 10)
    assert walk.finished


def test_a_confirmed_end_may_bring_the_rest():
    """Rows that a wrong `has_more` held back arrive with the second question."""
    day = Window(WINDOW.start, WINDOW.start + 86_400)
    walk = Walk(day)
    walk.accept(page_of([(START, "a")]), 10)
    walk.accept(page_of([(day.end * 1_000_000 - 5, "b")]), 10)
    assert walk.finished
    assert walk.rows == 2


def test_a_window_is_shortened_only_ahead_of_what_was_reached():
    """The rest of a window is given away whole and without overlap; what was received stays."""
    walk = Walk(WINDOW)
    walk.accept(page_of([(START + 100_000_000, "a")], has_more=True), 1)
    assert walk.shorten(WINDOW.start + 50) is None
    assert walk.shorten(WINDOW.start + 200) == Window(WINDOW.start + 200, WINDOW.end)
    assert walk.window == Window(WINDOW.start, WINDOW.start + 200)


def test_times_that_lost_digits_neither_lose_rows_nor_stall():
    """Rows of one timestamp shown partly to the millisecond are walked by the server's fuller cursor."""
    true = START + 5_960
    shown = [(true // 1000 * 1000 if number % 3 == 0 else true, f"p{number:02}") for number in range(20)]

    class Shortening(StallingServer):
        def answer(self, window, size, cursor):
            page = StallingServer([(true, name) for _, name in shown]).answer(window, size, cursor)
            seen = {name: time for time, name in shown}
            got = [(seen[page.names[c]], page.names[c]) for c in page.code]
            return page_of(got, cursor=page.next_cursor, has_more=page.has_more)

    assert {name for _, name in walk_all(Shortening([]), 3)} == {name for _, name in shown}


@given(st.integers(-(10**15), 4 * 10**15), st.integers(0, 10**6))
def test_a_cursor_survives_its_encoding(time_us, offset):
    """Encode, then decode, is the identity."""
    assert Cursor.decode(Cursor.at(time_us, offset).encode()) == Cursor.at(time_us, offset)


@given(st.text())
def test_no_text_is_more_than_an_unknown_cursor(text):
    """Whatever a server sends as a cursor, decoding it gives a position or None, never an error."""
    Cursor.decode(text)
