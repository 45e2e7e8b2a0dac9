"""Decoding: one meaning for every value and time, however fast the page is read; nothing broken looks empty."""

import json
import math
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backfill_pipeline.ace import decode
from backfill_pipeline.ace.decode import decode_page
from backfill_pipeline.core.rows import NO_TIME, Fault
from backfill_pipeline.errors import ContractError, PageFailedError

NOON = (datetime(2025, 10, 12, 12, tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
EMPTY = b'{"point_samples": [], "next_cursor": null, "has_more": false}\n'


def body_of(rows, *, cursor=None, more=False, compact=False) -> bytes:
    answer = {"point_samples": rows, "next_cursor": cursor, "has_more": more}
    return (json.dumps(answer, separators=(",", ":") if compact else None) + "\n").encode()


def sample(value="1.5", time="2025-10-12T12:00:00", name="p") -> dict:
    return {"name": name, "value": value, "time": time}


def test_the_documented_page_is_read_as_documented():
    """Names, text values and naive UTC times with microseconds, in order."""
    rows = [
        sample("71.0", "2025-10-12T12:00:00.055960", "ses/falls/a"),
        sample("1.6100000143051147", "2025-10-12T12:00:00.055960", "ses/falls/b"),
        sample("-24.8571", "2025-10-12T12:00:01", "ses/falls/a"),
    ]
    page = decode_page(body_of(rows, cursor="abc", more=True))
    assert [page.names[code] for code in page.code] == ["ses/falls/a", "ses/falls/b", "ses/falls/a"]
    assert page.time_us.tolist() == [NOON + 55_960, NOON + 55_960, NOON + 1_000_000]
    assert page.value.tolist() == [71.0, 1.6100000143051147, -24.8571]
    assert (page.next_cursor, page.has_more) == ("abc", True)


def test_the_empty_answer_is_empty():
    """The exact body of an empty window."""
    page = decode_page(EMPTY)
    assert len(page) == 0
    assert not page.has_more


VALUES = [
    ("71.0", 71.0, Fault.NONE),
    (71, 71.0, Fault.NONE),
    (-0.5, -0.5, Fault.NONE),
    (" 71.0 ", 71.0, Fault.NONE),
    ("+5", 5.0, Fault.NONE),
    (".5", 0.5, Fault.NONE),
    ("5.", 5.0, Fault.NONE),
    ("1e3", 1000.0, Fault.NONE),
    ("1e-400", 0.0, Fault.NONE),
    (None, None, Fault.NULL_VALUE),
    ("", None, Fault.NULL_VALUE),
    ("  ", None, Fault.NULL_VALUE),
    ("NaN", None, Fault.NOT_FINITE),
    ("nan", None, Fault.NOT_FINITE),
    ("-Infinity", None, Fault.NOT_FINITE),
    ("inf", None, Fault.NOT_FINITE),
    ("1e400", None, Fault.NOT_FINITE),
    (math.nan, None, Fault.NOT_FINITE),
    (math.inf, None, Fault.NOT_FINITE),
    (10**400, None, Fault.NOT_FINITE),
    (True, None, Fault.NOT_NUMERIC),
    ("true", None, Fault.NOT_NUMERIC),
    ("active", None, Fault.NOT_NUMERIC),
    ("1,5", None, Fault.NOT_NUMERIC),
    ("0x10", None, Fault.NOT_NUMERIC),
    ("12abc", None, Fault.NOT_NUMERIC),
    ("1_000", None, Fault.NOT_NUMERIC),
    ("١٢", None, Fault.NOT_NUMERIC),
    ([1], None, Fault.NOT_NUMERIC),
]


@pytest.mark.parametrize(("value", "number", "fault"), VALUES)
@pytest.mark.parametrize("beside", ["2.5", 2.5])
def test_each_kind_of_value_has_one_meaning(value, number, fault, beside):
    """A value means the same beside documented neighbours and beside others."""
    page = decode_page(body_of([sample(beside), sample(value), sample("3")]))
    assert Fault(page.fault[1]) is fault
    assert page.value[1] == number if number is not None else math.isnan(page.value[1])
    assert page.value[[0, 2]].tolist() == [2.5, 3.0]


TIMES = [
    ("2025-10-12T12:00:00", 0),
    ("2025-10-12T12:00", 0),
    ("2025-10-12T12:00:00.5", 500_000),
    ("2025-10-12T12:00:00.123456", 123_456),
    ("2025-10-12T12:00:00.123456789", 123_456),
    ("2025-10-12 12:00:00", 0),
    ("2025-10-12T12:00:00Z", 0),
    ("2025-10-12T12:00:00.25+00:00", 250_000),
    ("2025-10-12T06:00:00-06:00", 0),
    ("2025-10-12T17:30:00+0530", 0),
    (NOON // 1_000_000, 0),
    (NOON // 1_000 + 7, 7_000),
    (NOON + 7, 7),
    (str(NOON // 1_000), 0),
    (f"{NOON}000", 0),
    ("Sun, 12 Oct 2025 12:00:00 GMT", 0),
    ("Sun, 12 Oct 2025 14:00:07 +0200", 7_000_000),
    ("sun, 12 oct 2025 12:00:00 utc", 0),
    ("12 Oct 2025 12:00 UT", 0),
    ("12 Oct 25 08:00:00 EDT", 0),
    (" Sun, 12 Oct 2025 12:00:00 -0000 ", 0),
]


@pytest.mark.parametrize(("time", "offset"), TIMES)
@pytest.mark.parametrize("value", ["1", 1])
def test_each_shape_of_time_is_the_same_instant(time, offset, value):
    """Naive is UTC, offsets are applied, epochs are told by their size."""
    page = decode_page(body_of([sample(value), sample(time=time)]))
    assert page.time_us.tolist() == [NOON, NOON + offset]


@pytest.mark.parametrize(
    "time",
    [None, "", "soon", "2025-02-30T00:00:00", "2025-10-12T24:00:00", "2025-10-12T12:60:00", "2025-13-01T00:00:00",
     "2025-10-12T12:00:00.12345x", "2025-10-12", True, 5, [], "2025-10-12T12:00:6O",
     "01/03/2025 00:00", "2025-060T00:00:07", "20250301T000007", "2025-W09-6T00:00:07", "99999999999999999999",
     "-1740787207", -1740787207, 1e18, {}, "2025-10-12T12:00:00 Europe/Berlin",
     "Mon, 12 Oct 2025 12:00:00 GMT", "Sun, 12 Oct 2025 12:00:00", "Sun, 12 Oct 2025 24:00:00 GMT",
     "Sun, 12 Oct 2025 12:00:00 +2400", "Sun, 12 Oct 2025 12:00:00 +0060", "Sunday, 12-Oct-25 12:00:00 GMT",
     "Sun Oct 12 12:00:00 2025", "31 Feb 2025 12:00:00 GMT", "12 Oct 0025 12:00:00 GMT"],
)  # fmt: skip
def test_what_is_no_time_is_said_to_be_none(time):
    """An unreadable time drops its row by that reason and no other row."""
    page = decode_page(body_of([sample(), sample(time=time)]))
    assert page.time_us.tolist() == [NOON, NO_TIME]
    assert page.fault.tolist() == [Fault.NONE, Fault.BAD_TIME]
    assert (page.readable, page.unreadable) == (1, ("time", json.dumps(time)))


@pytest.mark.parametrize("zone", ["America/Denver", "Asia/Tokyo"])
def test_the_machines_zone_changes_nothing(zone, monkeypatch):
    """Naive times are UTC on every machine."""
    monkeypatch.setenv("TZ", zone)
    assert decode_page(body_of([sample()])).time_us.tolist() == [NOON]


@pytest.mark.parametrize("name", [None, "", 5, " \t", "\u00a0"])
def test_a_row_without_a_name_is_dropped_by_that_reason(name):
    """A missing, empty or non-text name comes first of all reasons."""
    page = decode_page(body_of([sample(), sample(name=name, time="soon")]))
    assert page.code.tolist() == [0, -1]
    assert page.fault.tolist() == [Fault.NONE, Fault.NO_NAME]
    assert (page.readable, page.unreadable) == (1, ("name", json.dumps(name)))


@pytest.mark.parametrize("value", [None, "active", "NaN", math.inf])
def test_a_row_whose_value_is_no_number_is_readable(value):
    """Words, nulls and values that are not finite have a point and a time."""
    page = decode_page(body_of([sample(value)]))
    assert (page.readable, page.unreadable) == (1, None)


@pytest.mark.parametrize("missing", ["name", "time"])
def test_a_member_that_is_missing_makes_a_row_unreadable(missing):
    """The example of a missing member is `null`."""
    row = sample()
    del row[missing]
    page = decode_page(body_of([sample(), row, sample()]))
    assert (page.readable, page.unreadable) == (2, (missing, "null"))


@pytest.mark.parametrize(
    "answer",
    [
        {"data": [], "next_cursor": None, "has_more": False},
        {"point_samples": None, "next_cursor": None, "has_more": False},
        {"point_samples": {}, "next_cursor": None, "has_more": False},
        {"point_samples": [], "next_cursor": None},
        {"point_samples": [], "next_cursor": 5, "has_more": False},
        {"point_samples": [], "next_cursor": None, "has_more": "false"},
        {"point_samples": [5], "next_cursor": None, "has_more": False},
        {"point_samples": [{"point_name": "a", "value": 1}], "next_cursor": None, "has_more": False},
        {"message": "An unhandled exception occurred."},
        [],
        None,
    ],
)
def test_an_answer_of_another_shape_is_an_error(answer):
    """An unknown or missing key is never an empty page."""
    with pytest.raises(ContractError):
        decode_page(json.dumps(answer).encode())


@pytest.mark.parametrize("body", [b"", b"<html></html>", b"[" * 100_000, b'{"point_samples": ['])
def test_what_is_not_whole_json_failed_to_arrive(body):
    """HTML, nothing at all, endless nesting and a cut body are pages to be asked for again."""
    with pytest.raises(PageFailedError):
        decode_page(body)


@given(st.integers(0, 400))
def test_no_part_of_a_body_passes_for_the_whole(cut):
    """Every strict prefix is a failure, also one that ends between two rows."""
    body = body_of([sample(str(number)) for number in range(5)], cursor="abc", more=True).rstrip()
    with pytest.raises(PageFailedError):
        decode_page(body[: min(cut, len(body) - 1)])


naive = st.integers(-(2 * 10**15), 7 * 10**15).map(
    lambda us: datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=us)
)
naive = naive.map(lambda instant: instant.replace(tzinfo=None))
values = st.one_of(
    st.sampled_from([value for value, *_ in VALUES]),
    st.floats().map(repr),
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(-(10**20), 10**20),
    st.text(max_size=6),
)
times = st.one_of(
    st.sampled_from([time for time, _ in TIMES]),
    naive.map(datetime.isoformat),
    st.text(max_size=8),
)
plain = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["a/b", "c", "d.e-1", "", " "]),
        "value": st.one_of(st.floats().map(repr), st.sampled_from(["", "x", "1,5", " 2 "])),
        "time": st.one_of(
            naive.map(datetime.isoformat),
            st.sampled_from(["2025-02-30T00:00:00", "x" * 26, "2025-10-12T12:00:00Z"]),
        ),
    }
)
mixed = st.fixed_dictionaries({"name": st.text(max_size=5), "value": values, "time": times})


@settings(deadline=None, max_examples=300)
@given(st.lists(st.one_of(plain, mixed), max_size=12) | st.lists(plain, min_size=1, max_size=12), st.booleans())
def test_the_fast_reader_and_the_general_one_agree(rows, compact):
    """Whatever the rows hold, the two readers give the same page."""
    body = body_of(rows, cursor="c", more=True, compact=compact)
    fast = decode._together(body)
    slow = decode._any(body)
    if fast is None:
        return
    assert [fast.names[c] if c >= 0 else None for c in fast.code] == [
        slow.names[c] if c >= 0 else None for c in slow.code
    ]
    np.testing.assert_array_equal(fast.time_us, slow.time_us)
    np.testing.assert_array_equal(fast.value, slow.value)
    np.testing.assert_array_equal(fast.fault, slow.fault)
    assert (fast.next_cursor, fast.has_more, fast.unreadable) == (slow.next_cursor, slow.has_more, slow.unreadable)


def test_documented_pages_take_the_fast_road():
    """Both spacings of the documented shape are read without a Python object per sample."""
    for compact in (False, True):
        assert decode._together(body_of([sample(), sample("NaN"), sample("x")], compact=compact)) is not None


def test_members_may_come_in_any_order():
    """A row means the same however its members are ordered, and each is read only once."""
    rows = [dict(reversed(sample(str(number)).items())) for number in range(5)]
    page = decode._together(body_of(rows))
    assert page is not None
    assert page.value.tolist() == [0, 1, 2, 3, 4]
    twice = body_of([sample()] * 5).replace(b'"value": "1.5"', b'"value": "1.5", "value": "2"', 1)
    assert decode_page(twice).value.tolist() == [2, 1.5, 1.5, 1.5, 1.5]


def test_other_shapes_of_rows_are_left_to_the_general_reader():
    """Extra keys are not the documented shape."""
    assert decode._together(body_of([{**sample(), "extra": "x"}] * 5)) is None


def test_pages_of_bare_values_take_the_fast_road_too():
    """Numbers, booleans and null beside strings are read without a Python object per sample."""
    rows = [sample(1.5), sample(True), sample(None), sample("2"), sample(time=NOON // 1000)]
    page = decode_page(body_of(rows))
    slow = decode._any(body_of(rows))
    np.testing.assert_array_equal(page.value, slow.value)
    np.testing.assert_array_equal(page.fault, slow.fault)
    np.testing.assert_array_equal(page.time_us, slow.time_us)


@settings(deadline=None, max_examples=200)
@given(st.lists(mixed, min_size=1, max_size=12), st.booleans())
def test_however_it_is_read_a_page_means_what_the_general_reader_says(rows, compact):
    """Any mix of shapes: the whole decoder agrees with reading row by row."""
    body = body_of(rows, compact=compact)
    page, slow = decode_page(body), decode._any(body)
    np.testing.assert_array_equal(page.time_us, slow.time_us)
    np.testing.assert_array_equal(page.value, slow.value)
    np.testing.assert_array_equal(page.fault, slow.fault)


decimals = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.floats(width=32, allow_nan=False, allow_infinity=False).map(repr),
    st.integers(0, 2**64).map(str),
    st.from_regex(r"[+-]?([0-9]{1,21}(\.[0-9]{0,21})?|\.[0-9]{1,21})([eE][+-]?[0-9]{1,3})?", fullmatch=True),
    # Halfway between two floats, and a digit beside it: where a reader that is not exact goes wrong.
    st.integers(2**53, 2**60).map(lambda n: str((n >> 10 << 10) + 512)),
    st.tuples(st.integers(2**52, 2**53 - 1), st.integers(-40, 9)).map(lambda h: f"{2 * h[0] + 1}e{h[1]}"),
)


@settings(deadline=None, max_examples=300)
@given(st.lists(decimals, min_size=1, max_size=40))
def test_a_number_is_the_nearest_float(texts):
    """Every decimal is what Python says it is, to the last bit; also the sign of a zero."""
    page = decode_page(body_of([sample(text) for text in [*texts, "0", "0"]]))
    expected = np.array([float(text) for text in [*texts, "0", "0"]])
    expected[~np.isfinite(expected)] = math.nan
    np.testing.assert_array_equal(page.value.view(np.uint64), expected.view(np.uint64))


@settings(deadline=None, max_examples=500)
@given(
    st.lists(st.one_of(plain, mixed), min_size=1, max_size=8),
    st.booleans(),
    st.lists(
        st.tuples(
            st.integers(0, 10_000),
            st.integers(0, 3),
            st.sampled_from(
                [b"", b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b" ", b"\n", b"0", b"e", b"\x00", b"\xff"]
            ),
        ),
        min_size=1,
        max_size=3,
    ),
)
def test_a_damaged_page_is_never_read_as_another(rows, compact, damage):
    """Whatever happens to a few bytes: the fast reader agrees with JSON, refuses the page, or leaves it alone."""
    body = body_of([*rows, sample(), sample()], cursor="c", more=True, compact=compact)
    for place, gone, put in damage:
        at = place % len(body)
        body = body[:at] + put + body[at + gone :]
    try:
        fast = decode._together(body)
    except ContractError:
        return
    if fast is None:
        return
    slow = decode._any(body)
    for column in ("time_us", "value", "fault"):
        np.testing.assert_array_equal(getattr(fast, column), getattr(slow, column))
    assert [fast.names[c] for c in fast.code if c >= 0] == [slow.names[c] for c in slow.code if c >= 0]
    assert (fast.next_cursor, fast.has_more) == (slow.next_cursor, slow.has_more)


def texts_of(page):
    """The text of each row; None where it has none."""
    if page.text is None:
        return [None] * len(page)
    worded = page.fault == Fault.NOT_NUMERIC
    return [page.texts[text] if is_text else None for text, is_text in zip(page.text, worded, strict=True)]


TEXTS = [
    ("active", "active"),
    (" On\n", " On\n"),
    ("1,5", "1,5"),
    ('say "hi" \\ there', 'say "hi" \\ there'),
    ("°C 測 \U0001f600", "°C 測 \U0001f600"),
    ("\ud83d!", "\\ud83d!"),
    ("x" * 10_000, "x" * 10_000),
    (True, "true"),
    (False, "false"),
    ([1, "a", None], '[1,"a",null]'),
    ({"b": 1, "a": [True]}, '{"b":1,"a":[true]}'),
    ("71.0", None),
    ("NaN", None),
    (None, None),
    (" ", None),
]


@pytest.mark.parametrize(("value", "text"), TEXTS)
@pytest.mark.parametrize("beside", ["2.5", "off", None])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_a_value_that_is_not_a_number_is_kept_as_text(value, text, beside, ascii_only):
    """A string as it was sent, anything else as its JSON; numbers, nulls and NaN have no text."""
    if not ascii_only and "\ud83d" in str(value):
        pytest.skip("half of a surrogate pair cannot be sent but as an escape")
    rows = [sample(beside), sample(value), sample(beside)]
    answer = {"point_samples": rows, "next_cursor": None, "has_more": False}
    body = json.dumps(answer, ensure_ascii=ascii_only).encode()
    page = decode_page(body)
    around = beside if beside == "off" else None
    assert texts_of(page) == [around, text, around]
    assert texts_of(decode._any(body)) == texts_of(page)


@given(
    st.lists(st.one_of(st.booleans(), st.none(), st.text(max_size=40), st.lists(st.integers(), max_size=2)), max_size=9)
)
def test_both_ways_of_reading_find_the_same_texts(values):
    """The scanner and the reading row by row agree on every value, written in either way."""
    answer = {"point_samples": [sample(value) for value in values], "next_cursor": None, "has_more": False}
    body = json.dumps(answer).encode()
    assert texts_of(decode_page(body)) == texts_of(decode._any(body))


def test_a_page_of_numbers_has_no_texts():
    """A page without texts costs nothing more: it has no column of texts."""
    page = decode_page(body_of([sample("1.5"), sample(None), sample("NaN")]))
    assert (page.texts, page.text) == ((), None)
