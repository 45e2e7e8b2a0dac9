"""Timestamps by dictionary or delta: the smaller is chosen, and every reader reads both."""

from datetime import date
from io import BytesIO

import duckdb
import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backfill_pipeline.core.day import DAY_MS, day_window
from backfill_pipeline.core.rows import Chunk, Counts, DayRows
from backfill_pipeline.storage.days import put_day
from backfill_pipeline.storage.local import LocalStore
from backfill_pipeline.storage.parquet import Encoding, decode, encode, findings, read_footer, row_findings

DAY = date(2025, 3, 1)
BOTH = ("delta", "dictionary")
GROUP = 65_536


def day_of(times, windows=1):
    """A day of one array of milliseconds for each point, cut into windows of equal length."""
    code = np.repeat(np.arange(len(times), dtype=np.int32), [len(each) for each in times])
    ms = np.concatenate([*times, np.zeros(0)]).astype(np.int32)
    value = np.round(np.sin(ms / 7e6) * 20 + code, 1)
    window = ms.astype(np.int64) * windows // DAY_MS
    chunks = [Chunk(code[window == n], ms[window == n], value[window == n]) for n in range(windows)]
    return DayRows("north", DAY, [f"p{n:05}" for n in range(len(times))], chunks, Counts(len(ms), len(ms)))


def sweeps(points, step_s, share, jitter_ms=1000, seed=1):
    """Times of points of which `share` have the timestamps of one sweep in common."""
    rng = np.random.default_rng(seed)
    marks = np.arange(0, DAY_MS - jitter_ms, step_s * 1000)
    return [
        each
        for _ in range(points // share)
        for each in [marks + (rng.integers(0, jitter_ms, len(marks)) if jitter_ms else 0)] * share
    ]


SHAPES = {
    "a sweep a minute of 100 points": (sweeps(100, 60, 100), "dictionary"),
    "a sweep each five minutes of 50 points": (sweeps(300, 300, 50), "dictionary"),
    "a timestamp for each sample": (sweeps(40, 60, 1), "delta"),
    "the exact minute": (sweeps(60, 60, 60, jitter_ms=0), "delta"),
    "each second": (sweeps(1, 1, 1, jitter_ms=0), "delta"),
    "one point, one row": ([np.array([5])], "delta"),
    "no rows": ([np.array([])], "delta"),
    "no points": ([], "delta"),
}


def encoding_of(data):
    """What the timestamps of each row group have, as `auto` chose it."""
    meta = pq.read_metadata(BytesIO(data))
    found = {"DELTA_BINARY_PACKED" in meta.row_group(n).column(0).encodings for n in range(meta.num_row_groups)}
    return {True: "delta", False: "dictionary"}[found.pop()] if found else "delta"


@pytest.mark.parametrize("shape", SHAPES)
def test_the_smaller_encoding_is_chosen(shape):
    """Shared sweeps get a dictionary, other times get deltas; the choice costs no byte over the better of both."""
    times, expected = SHAPES[shape]
    sizes = {kind: len(encode(day_of(times), encoding=Encoding("snappy", GROUP, kind)).data) for kind in BOTH}
    chosen = encode(day_of(times), encoding=Encoding("snappy", GROUP)).data
    assert encoding_of(chosen) == expected
    assert len(chosen) == sizes[expected] <= min(sizes.values())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("codec", ["snappy", "zstd"])
def test_the_choice_depends_on_the_rows_alone(shape, codec):
    """However the day was cut into windows, and however often it is encoded: the same bytes."""
    times, _ = SHAPES[shape]
    files = {encode(day_of(times, windows), encoding=Encoding(codec, GROUP)).data for windows in (1, 1, 12, 48)}
    assert len(files) == 1


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", BOTH)
def test_every_reader_reads_both_encodings(tmp_path, shape, kind):
    """DuckDB, polars and pyarrow read the same rows, and `verify` finds nothing, with each encoding."""
    times, _ = SHAPES[shape]
    day = day_of(times)
    path = tmp_path / "day.parquet"
    path.write_bytes(encode(day, encoding=Encoding("snappy", GROUP, kind)).data)
    expected = (np.concatenate([*times, np.zeros(0)]).astype(np.int64) + day_window(DAY).start * 1000).tolist()
    values = day.chunks[0].value.tolist()
    assert duckdb.connect().read_parquet(str(path)).fetchnumpy()["timestamp"].tolist() == expected
    assert duckdb.connect().read_parquet(str(path)).fetchnumpy()["value"].tolist() == values
    frame = pl.read_parquet(path)
    assert (frame["timestamp"].to_list(), frame["value"].to_list()) == (expected, values)
    table, footer = decode(path.read_bytes()), read_footer(path.read_bytes())
    assert (table["timestamp"].to_pylist(), table["value"].to_pylist()) == (expected, values)
    assert findings(footer, "north", DAY, path.stat().st_size) == []
    assert row_findings(table, footer, "north", DAY) == []


def test_more_timestamps_than_a_dictionary_takes_are_read_as_well(tmp_path):
    """A dictionary that grows too large gives way to plain pages, which the oldest readers know."""
    rows = 40_000
    data = encode(day_of([np.arange(rows)]), encoding=Encoding(timestamps="dictionary")).data
    column = pq.read_metadata(BytesIO(data)).row_group(0).column(0)
    assert set(column.encodings) <= {"PLAIN", "RLE", "RLE_DICTIONARY"}
    (tmp_path / "day.parquet").write_bytes(data)
    assert (
        len(set(duckdb.connect().read_parquet(str(tmp_path / "day.parquet")).fetchnumpy()["timestamp"].tolist()))
        == rows
    )


@settings(deadline=None, max_examples=40)
@given(st.lists(st.sets(st.integers(0, DAY_MS - 1), max_size=30), max_size=6), st.integers(1, 9), st.integers(1, 5))
def test_the_hash_of_the_rows_knows_no_encoding(points, group, windows):
    """The same rows have the same hash in each encoding, and read back the same."""
    day = day_of([np.array(sorted(each)) for each in points], windows)
    files = [encode(day, encoding=Encoding("snappy", group, kind)).data for kind in ("auto", *BOTH)]
    assert len({read_footer(data).about["data_sha256"] for data in files}) == 1
    assert decode(files[0]).equals(decode(files[1]))
    assert decode(files[1]).equals(decode(files[2]))


def test_a_day_in_another_layout_is_written_again(tmp_path):
    """The same rows in another encoding are another object: `changed`, and the same the next time."""
    store, day = LocalStore(tmp_path), day_of(sweeps(4, 300, 4))
    layouts = [Encoding(timestamps="delta"), Encoding(timestamps="dictionary"), Encoding(timestamps="dictionary")]
    assert [put_day(store, day, encoding=encoding).changed for encoding in layouts] == [True, True, False]
