"""Cleaning: which rows of a page belong into the day's object."""

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
