"""The summary of a day's points says what a walk over its rows says, and survives its form as text."""

from collections import defaultdict
from datetime import date

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from backfill_pipeline.core.point_summaries import PointDays
from backfill_pipeline.core.rows import Chunk, Counts, DayRows
from backfill_pipeline.storage.parquet import Encoding, encode, read_footer

POINTS = ["a", "b\n", "c", "z" * 300, "ünï"]


@given(
    rows=st.sets(st.tuples(st.integers(0, 4), st.integers(0, 86_399_999)), max_size=40),
    values=st.lists(st.sampled_from([0.0, 1.5]), min_size=40, max_size=40),
    most=st.integers(1, 10),
    cut=st.integers(0, 86_400_000),
)
def test_the_footer_holds_what_a_walk_over_the_rows_finds(rows, values, most, cut):
    """Rows, first, last, interval and flatness of each point, whatever the windows and the row groups."""
    told = [(code, ms, value) for (code, ms), value in zip(sorted(rows), values, strict=False)]
    chunks = []
    for part in ([r for r in told if r[1] < cut], [r for r in told if r[1] >= cut]):
        code, ms, value = zip(*part, strict=True) if part else ((), (), ())
        chunks.append(Chunk(np.array(code, np.int32), np.array(ms, np.int32), np.array(value, np.float64)))
    day = DayRows("s", date(2024, 2, 29), POINTS, chunks, Counts(len(told), len(told)))
    about = read_footer(encode(day, encoding=Encoding(row_group_rows=most)).data).about
    seen = PointDays.from_text(about["points"])
    walked = defaultdict(list)
    for code, ms, value in told:
        walked[code].append((ms, value))
    assert seen is not None
    assert seen.names == POINTS
    assert int(about["points_seen"]) == len(walked)
    for code in range(len(POINTS)):
        times, held = [ms for ms, _ in walked[code]], {value for _, value in walked[code]}
        steps = sorted(np.diff(times))
        assert seen.rows[code] == len(times)
        assert seen.first_min[code] == (times[0] // 60_000 if times else -1)
        assert seen.last_min[code] == (times[-1] // 60_000 if times else -1)
        assert seen.step_s[code] == (max(1, round(steps[(len(steps) - 1) // 2] / 1000)) if steps else 0)
        assert seen.flat[code] == (len(times) > 1 and len(held) == 1)


@given(st.text(max_size=50))
def test_a_summary_that_cannot_be_read_is_none(text):
    """An older object's, a foreign one's, a damaged one's."""
    assert PointDays.from_text(text) is None
