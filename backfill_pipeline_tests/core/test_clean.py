"""Cleaning: which rows of a page belong into the day's object."""

from dataclasses import replace
from datetime import date

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from backfill_pipeline.core.clean import kept, merged
from backfill_pipeline.core.day import DAY_MS, day_window
from backfill_pipeline.core.rows import NO_TIME, Chunk, Counts, Fault, Page

DAY = date(2025, 10, 12)
WINDOW = day_window(DAY)
START = WINDOW.start * 1_000_000
INDEX = {"a": 0, "b": 1}


def page_of(*rows: tuple[str, int, float, Fault]) -> Page:
    names = list(dict.fromkeys(name for name, *_ in rows if name))
    return Page(
        names,
        np.array([names.index(name) if name else -1 for name, *_ in rows], np.int32),
        np.array([time for _, time, _, _ in rows], np.int64),
        np.array([value for *_, value, _ in rows], np.float64),
        np.array([fault for *_, fault in rows], np.uint8),
        None,
        False,
    )


def test_each_row_left_out_is_counted_by_its_reason():
    """Fetched is kept plus dropped, and every reason is named."""
    page = page_of(
        ("a", START, 1.0, Fault.NONE),
        ("", START, 1.0, Fault.NO_NAME),
        ("a", int(NO_TIME), 1.0, Fault.BAD_TIME),
        ("a", START, np.nan, Fault.NULL_VALUE),
        ("a", START, np.nan, Fault.NOT_NUMERIC),
        ("a", START, np.nan, Fault.NOT_FINITE),
        ("elsewhere", START, 1.0, Fault.NONE),
        ("a", START - 1, 1.0, Fault.NONE),
        ("a", START + DAY_MS * 1000, 1.0, Fault.NONE),
    )
    chunk, counts = kept(page, WINDOW, DAY, INDEX)
    assert chunk.ms.tolist() == [0]
    assert counts.dropped == {
        "no_name": 1,
        "bad_time": 1,
        "null_value": 1,
        "not_numeric": 1,
        "not_finite": 1,
        "not_configured": 1,
        "outside_window": 2,
    }
    assert counts.fetched == counts.kept + sum(counts.dropped.values())


def test_the_last_microsecond_belongs_to_its_day():
    """A time is cut to the millisecond, never rounded into the next day."""
    chunk, _ = kept(page_of(("a", START + DAY_MS * 1000 - 1, 1.0, Fault.NONE)), WINDOW, DAY, INDEX)
    assert chunk.ms.tolist() == [DAY_MS - 1]


def test_an_empty_page_keeps_nothing():
    """No rows in, no rows out, nothing counted."""
    chunk, counts = kept(page_of(), WINDOW, DAY, INDEX)
    assert len(chunk) == 0
    assert counts == Counts()


rows = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5), st.integers(0, 3)), max_size=30)


@given(st.lists(rows, max_size=4))
def test_of_several_rows_for_one_point_and_time_the_last_to_arrive_stays(parts):
    """Merging sorts by (code, ms) and keeps what a dictionary filled in order of arrival would hold."""
    chunks = [
        Chunk(
            np.array([r[0] for r in part], np.int32),
            np.array([r[1] for r in part], np.int32),
            np.array([r[2] for r in part], np.float64),
        )
        for part in parts
    ]
    chunk, counts = merged(chunks)
    truth = {(code, ms): value for part in parts for code, ms, value in part}
    assert list(zip(chunk.code.tolist(), chunk.ms.tolist(), strict=True)) == sorted(truth)
    assert chunk.value.tolist() == [truth[pair] for pair in sorted(truth)]
    assert counts.dropped.get("duplicate", 0) == sum(map(len, parts)) - len(truth) == -counts.kept


def texts_of(rows):
    """Rows of texts as (code, ms, text)."""
    if rows is None:
        return []
    text = [rows.texts[number] for number in rows.text]
    return list(zip(rows.code.tolist(), rows.ms.tolist(), text, strict=True))


arrived = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "elsewhere", ""]),
        st.sampled_from([START - 1, START, START + 700, START + 1000, START + DAY_MS * 1000, int(NO_TIME)]),
        st.sampled_from(["on", "off", 1.0, 2.0, Fault.NULL_VALUE, Fault.NOT_FINITE]),
    ),
    max_size=25,
)


@given(st.lists(arrived, max_size=4))
def test_each_row_that_arrives_is_in_one_figure(pages):
    """Rows, texts and the rows left out for one reason each are what arrived, of any pages."""
    chunks, counts = [], Counts()
    truth = {}
    for rows in pages:
        faults = [value if isinstance(value, Fault) else Fault.NOT_NUMERIC if isinstance(value, str) else Fault.NONE
                  for *_, value in rows]  # fmt: skip
        faults = [
            Fault.NO_NAME if not name else Fault.BAD_TIME if time == int(NO_TIME) else fault
            for (name, time, _), fault in zip(rows, faults, strict=True)
        ]
        plain = [
            (name, time, value if isinstance(value, float) else np.nan, fault)
            for (name, time, value), fault in zip(rows, faults, strict=True)
        ]
        text = [("on", "off").index(value) if isinstance(value, str) else -1 for *_, value in rows]
        page = replace(page_of(*plain), texts=("on", "off"), text=np.array(text, np.int32))
        for (name, time, value), fault in zip(rows, faults, strict=True):
            if fault is Fault.NOT_NUMERIC and name in INDEX and START <= time < START + DAY_MS * 1000:
                truth[INDEX[name], (time - START) // 1000] = value
        chunk, some = kept(page, WINDOW, DAY, INDEX)
        chunks.append(chunk)
        counts += some
    whole, merging = merged(chunks)
    counts += merging
    assert texts_of(whole.texts) == [(*pair, truth[pair]) for pair in sorted(truth)]
    assert (counts.kept, counts.texts) == (len(whole), len(truth))
    assert counts.unaccounted == 0
    assert "not_numeric" not in counts.left_out
    assert counts.fetched == counts.kept + sum(counts.dropped.values())
    assert min([0, *counts.left_out.values()]) == 0


def test_a_text_is_left_out_for_one_reason():
    """Outside the day, not configured, a duplicate: each text is counted once, as a number would be."""
    rows = [("a", START), ("a", START), ("elsewhere", START), ("elsewhere", START - 1), ("a", START - 1)]
    page = page_of(*[(name, time, np.nan, Fault.NOT_NUMERIC) for name, time in rows])
    page = replace(page, texts=("on", "off"), text=np.array([0, 1, 0, 0, 0], np.int32))
    chunk, counts = kept(page, WINDOW, DAY, INDEX)
    whole, merging = merged([chunk])
    counts += merging
    assert texts_of(whole.texts) == [(0, 0, "off")]
    assert counts.left_out == {"outside_window": 2, "not_configured": 1, "duplicate": 1}
    assert counts.dropped == {"not_numeric": 5}
