"""The walk: every row of a window exactly once, at any page size, against a server whose cursor does not advance."""

import base64
import json
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backfill_pipeline.core.day import Window
from backfill_pipeline.core.paging import MOST_IDLE_PAGES, Cursor, Walk
from backfill_pipeline.core.rows import Page
from backfill_pipeline.errors import ContractError, PageFailedError

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
    with pytest.raises(ContractError, match="contained no new rows, but `has_more` is true"):
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
    with pytest.raises(ContractError, match="received before"):
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


def cursor_of(time: int, offset: int, **others: object) -> str:
    """A cursor as a server may spell it: compact, fields of its own first."""
    fields = {**others, "timestamp": Cursor.at(time, 0).text, "offset": offset}
    return base64.b64encode(json.dumps(fields, separators=(",", ":")).encode()).decode()


def test_a_cursor_that_names_our_position_is_sent_back_verbatim():
    """Unknown fields, their order and the spacing of the JSON are the server's."""
    sent = cursor_of(START + 5, 2, shard=7)
    walk = Walk(WINDOW)
    walk.accept(page_of([(START, "a"), (START + 5, "a"), (START + 5, "b")], cursor=sent, has_more=True), 3)
    assert walk.cursor == sent


def test_our_own_cursor_keeps_the_unknown_fields_of_the_servers():
    """Where the server's position is the stalled one, our position is sent with the server's other fields."""
    walk = Walk(WINDOW)
    for names in ("abc", "def"):
        sent = cursor_of(START, 3, shard=7)
        walk.accept(page_of([(START, name) for name in names], cursor=sent, has_more=True), 3)
    assert walk.cursor is not None
    assert json.loads(base64.b64decode(walk.cursor)) == {"offset": 6, "timestamp": Cursor.at(START, 0).text, "shard": 7}


@pytest.mark.parametrize("offset", [0, 1, 2, 5])
def test_an_empty_page_whose_cursor_differs_is_followed(offset):
    """The same position with one more field is sent verbatim; a position behind ours only passes its field on."""
    walk = Walk(WINDOW)
    walk.accept(page_of([(START, "a"), (START, "b")], has_more=True), 2)
    sent = cursor_of(START, offset, shard=7)
    walk.accept(page_of([], cursor=sent, has_more=True), 2)
    assert (walk.cursor == sent) == (offset >= 2)
    found = Cursor.decode(walk.cursor)
    assert found is not None
    assert (found.time_us, found.offset, found.others) == (START, max(offset, 2), {"shard": 7})


def test_a_cursor_of_an_unknown_form_is_followed_until_it_fails():
    """After rows it is followed from the second empty answer on; where it fails, the walk returns to its position."""
    walk = Walk(WINDOW)
    walk.accept(page_of([(START, "a")], has_more=True), 1)
    ours = walk.cursor
    walk.accept(page_of([], cursor="opaque-1", has_more=True), 1)
    assert walk.cursor == ours
    walk.accept(page_of([], cursor="opaque-2", has_more=True), 1)
    assert walk.cursor == "opaque-2"
    assert walk.step_back()
    assert not walk.step_back()
    assert walk.cursor == ours


def test_a_cursor_that_fits_no_url_is_not_sent_back():
    """A cursor of a megabyte would make every further request fail."""
    walk = Walk(WINDOW)
    walk.accept(page_of([(START, "a")], cursor=cursor_of(START, 1, more="x" * 1_000_000), has_more=True), 1)
    assert walk.cursor == Cursor.at(START, 1).encode()


@pytest.mark.parametrize(
    "sent",
    [
        lambda number: cursor_of(START, 1, nonce=number),
        lambda _: cursor_of(START, 1),
        lambda _: cursor_of(START, 0),
        lambda number: f"opaque-{number}",
        lambda _: "opaque",
    ],
)
def test_empty_pages_without_end_are_followed_a_bounded_number_of_times(sent):
    """Whatever cursors they carry, an endless loop of empty pages is an error after a dozen requests."""
    walk = Walk(WINDOW)
    walk.accept(page_of([(START, "a")], has_more=True), 1)
    for number in range(MOST_IDLE_PAGES):
        walk.accept(page_of([], cursor=sent(number), has_more=True), 1)
    for number in range(MOST_IDLE_PAGES, 12):
        with pytest.raises(ContractError, match="contained no new rows"):
            walk.accept(page_of([], cursor=sent(number), has_more=True), 1)
    assert not walk.finished


@pytest.mark.parametrize("rows", [0, 1])
def test_has_more_without_a_cursor_is_believed_to_be_the_end_the_third_time(rows):
    """Three empty answers in a row at one place, with `has_more` true and no cursor: the window ends there."""
    walk, last = Walk(WINDOW), [(START + 599_000_000, "a")]
    if rows:
        walk.accept(page_of(last, has_more=True), 10)
    for _ in range(2):
        with pytest.raises(PageFailedError, match="no cursor"):
            walk.accept(page_of([], has_more=True), 10)
        assert not walk.finished
    walk.accept(page_of([], has_more=True), 10)
    assert walk.finished
    assert walk.more_at_end


def test_rows_after_two_empty_answers_without_a_cursor_are_received():
    """Twice nothing is chance: what the third answer holds is taken, and the count starts again."""
    walk = Walk(WINDOW)
    for time in (START, START + 1):
        for _ in range(2):
            with pytest.raises(PageFailedError, match="no cursor"):
                walk.accept(page_of([], has_more=True), 1)
        walk.accept(page_of([(time, "a")], has_more=True), 1)
    assert walk.rows == 2
    assert not walk.finished
    assert not walk.more_at_end


def test_what_is_reached_lies_inside_the_window():
    """A cursor that leads to the window's end, or past it, leaves a part to be requested."""
    walk = Walk(WINDOW)
    walk.accept(page_of([], cursor=cursor_of(WINDOW.end * 1_000_000, 0), has_more=True), 10)
    assert walk.reached == WINDOW.end - 1


@dataclass
class ModelServer:
    """A server with any of the known kinds of misbehaviour; it shares no code with the product.

    Attributes:
        rows: in the API's order.
        stall: the outgoing offset counts the current page alone.
        demanding: a page is empty until its cursor carries a token that depends on the position.
        more_at_end: `has_more` is true, without a cursor, on the last page and behind it.
        repeat: the last row sent is put in front of the next page.
        inclusive: rows exactly at the window's end are sent.
    """

    rows: list[Row]
    stall: bool
    demanding: bool
    more_at_end: bool
    repeat: bool
    inclusive: bool
    last: Row | None = None

    def answer(self, window: Window, size: int, cursor: str | None) -> Page:
        rest = [
            row for row in self.rows if window.start * 1_000_000 <= row[0] < window.end * 1_000_000 + self.inclusive
        ]
        inside = rest
        at = json.loads(base64.b64decode(cursor)) if cursor else None
        if at is not None:
            if self.demanding and cursor != self.cursor(at["timestamp"], at["offset"]):
                return page_of([], cursor=self.cursor(at["timestamp"], at["offset"]), has_more=True)
            same = [row for row in rest if stamp_of(row) == at["timestamp"]]
            rest = same[at["offset"] :] + [row for row in rest if stamp_of(row) > at["timestamp"]]
        page, more = rest[:size], len(rest) > size
        following = None
        if more:
            stamp = stamp_of(page[-1])
            offset = sum(stamp_of(row) == stamp for row in page)
            if not self.stall and at is not None and at["timestamp"] == stamp:
                offset += at["offset"]
            following = self.cursor(stamp, offset)
        repeated = [self.last] if self.repeat and self.last in inside and at is not None else []
        self.last = page[-1] if page else self.last
        return page_of(repeated + page, cursor=following, has_more=more or self.more_at_end)

    def cursor(self, stamp: str, offset: int) -> str:
        fields: dict[str, object] = {"offset": offset, "timestamp": stamp}
        if self.demanding:
            fields = {"token": f"{stamp[-6:]}-{offset}", **fields}
        return base64.b64encode(json.dumps(fields).encode()).decode()


def stamp_of(row: Row) -> str:
    return str(np.datetime64(row[0], "us"))


@settings(deadline=None, max_examples=500)
@given(
    sweeps,
    st.sampled_from([3, 10, 50]),
    st.tuples(*[st.booleans()] * 5),
    st.lists(st.one_of(st.none(), st.integers(1, 599)), max_size=40),
    st.booleans(),
)
def test_every_kind_of_cursor_and_end_costs_few_requests_and_no_row(found, size, kinds, cuts, at_end):
    """Alone and together, and where windows are shortened: each row arrives, a place costs a dozen requests at most."""
    rows = sorted((START + time, f"p{number:03}") for time, points in found for number in range(points))
    beyond = [(WINDOW.end * 1_000_000, f"p{number:03}") for number in range(5)] if at_end else []
    server, got, cut = ModelServer(rows + beyond, *kinds), set(), iter(cuts)
    left = [WINDOW]
    while left:
        walk, here = Walk(left.pop()), 0
        server.last = None
        while not walk.finished:
            here += 1
            assert here <= 12
            page = server.answer(walk.window, size, walk.cursor)
            try:
                walk.accept(page, size)
            except PageFailedError:
                continue
            told = {(int(t), page.names[c]) for t, c in zip(page.time_us, page.code, strict=True)}
            here = 0 if told - got else here
            got |= told
            if (end := next(cut, None)) is not None and (rest := walk.shorten(WINDOW.start + end)) is not None:
                left.append(rest)
    assert got - set(beyond) == set(rows)
