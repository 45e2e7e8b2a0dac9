"""A day in the store: whole, the contract's, the same bytes for the same rows."""

import math
from datetime import date
from io import BytesIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backfill_pipeline.core.day import DAY_MS, day_window
from backfill_pipeline.core.object_keys import object_key, parse_key
from backfill_pipeline.core.rows import Chunk, Counts, DayRows
from backfill_pipeline.core.schema import SCHEMA
from backfill_pipeline.errors import DamagedObjectError, UsageError
from backfill_pipeline.storage.days import day_footer, get_day, put_day, wrong_object
from backfill_pipeline.storage.local import LocalStore
from backfill_pipeline.storage.parquet import (
    Encoding,
    Footer,
    decode,
    encode,
    findings,
    read_footer,
    row_findings,
)
from backfill_pipeline.storage.store_urls import open_store

DAY = date(2024, 2, 29)
START = day_window(DAY).start * 1000
SITE = "Büro 1.north"


def day_of(rows: dict[tuple[str, int], float], *, windows: int = 3, site: str = SITE) -> DayRows:
    """A day as the fetcher gives it: windows in time order, each sorted by point and time."""
    points = sorted({name for name, _ in rows} | {"silent"})
    chunks = []
    for number in range(windows):
        low, high = DAY_MS * number // windows, DAY_MS * (number + 1) // windows
        part = sorted((points.index(n), ms, v) for (n, ms), v in rows.items() if low <= ms < high)
        chunks.append(
            Chunk(
                np.array([p[0] for p in part], np.int32),
                np.array([p[1] for p in part], np.int32),
                np.array([p[2] for p in part], np.float64),
            )
        )
    return DayRows(site, DAY, points, chunks, Counts(len(rows) + 1, len(rows), {"not_numeric": 1}))


names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12)
days = st.dictionaries(
    st.tuples(names, st.integers(0, DAY_MS - 1)),
    st.floats(allow_nan=False, allow_infinity=False),
    max_size=40,
)


@settings(deadline=None, max_examples=60)
@given(
    days,
    st.integers(1, 4),
    st.builds(
        Encoding,
        st.sampled_from(["snappy", "zstd"]),
        st.integers(1, 7),
        st.sampled_from(["auto", "delta", "dictionary"]),
    ),
)
def test_a_day_reads_back_as_it_was(rows, windows, encoding):
    """Encode, then decode, is the identity, sorted by point and time, at any windows and any layout."""
    encoded = encode(day_of(rows, windows=windows), encoding=encoding)
    table = decode(encoded.data)
    assert table.schema.equals(SCHEMA, check_metadata=False)
    got = list(zip(*(table[name].to_pylist() for name in ("point_name", "timestamp", "value")), strict=True))
    expected = sorted(
        ((name, START + ms, value) for (name, ms), value in rows.items()), key=lambda row: (row[0].encode(), row[1])
    )
    assert got == expected
    assert set(table["site_name"].to_pylist()) <= {SITE}
    assert encoded.rows == len(rows)
    footer = read_footer(encoded.data)
    assert findings(footer, SITE, DAY, len(encoded.data)) == []
    assert row_findings(table, footer, SITE, DAY) == []


@settings(deadline=None, max_examples=30)
@given(days, st.integers(1, 7))
def test_the_same_rows_give_the_same_bytes_whatever_their_windows(rows, group):
    """Two encodings of one day are equal to the byte; the data's own hash is also that of another layout."""
    one = encode(day_of(rows, windows=1), facts={"b": "1", "a": "2"})
    two = encode(day_of(rows, windows=4), facts={"b": "1", "a": "2"})
    assert one.data == two.data
    other = encode(day_of(rows), encoding=Encoding("zstd", group))
    hashes = {read_footer(file.data).about["data_sha256"] for file in (one, other)}
    assert len(hashes) == 1


def test_the_file_is_the_contracts():
    """Physical types, no nulls, Snappy, column order, statistics, page index, and metadata that says what came."""
    encoded = encode(day_of({("a", 0): 1.0, ("b", DAY_MS - 1): -2.5}))
    meta = pq.read_metadata(BytesIO(encoded.data))
    columns = [meta.schema.column(number) for number in range(4)]
    assert [c.name for c in columns] == ["timestamp", "point_name", "value", "site_name"]
    assert [c.physical_type for c in columns] == ["INT64", "BYTE_ARRAY", "DOUBLE", "BYTE_ARRAY"]
    assert [c.max_definition_level for c in columns] == [0, 0, 0, 0]
    chunks = [meta.row_group(0).column(n) for n in range(4)]
    assert {chunk.compression for chunk in chunks} == {"SNAPPY"}
    assert all(chunk.statistics.has_min_max for chunk in chunks)
    assert all(chunk.has_offset_index and chunk.has_column_index for chunk in chunks)
    assert chunks[0].statistics.max == START + DAY_MS - 1
    assert "DELTA_BINARY_PACKED" in chunks[0].encodings
    about = read_footer(encoded.data).about
    assert (about["site"], about["day"], about["schema_version"]) == (SITE, "2024-02-29", "1")
    assert (about["fetched"], about["kept"], about["dropped"]) == ("3", "2", '{"not_numeric": 1}')
    assert about["state"] == "stored"
    assert about["software"].startswith("backfill-pipeline ")
    assert len(about["data_sha256"]) == 64


def test_codec_and_row_groups_are_as_set(tmp_path):
    """Zstd and the seed's row groups of 10,000 rows, by setting."""
    rows = {("a", ms): 1.0 for ms in range(25_000)}
    stored = put_day(LocalStore(tmp_path), day_of(rows), encoding=Encoding("zstd", 10_000))
    meta = pq.read_metadata(tmp_path / stored.key)
    assert [meta.row_group(number).num_rows for number in range(3)] == [10_000, 10_000, 5_000]
    assert meta.row_group(0).column(0).compression == "ZSTD"


def test_a_day_without_samples_is_an_object_that_says_so(tmp_path):
    """No rows, state `empty`, still the contract's columns."""
    store = LocalStore(tmp_path)
    stored = put_day(store, DayRows(SITE, DAY, ["a"], [], Counts()))
    assert (stored.rows, stored.state) == (0, "empty")
    table = get_day(store, SITE, DAY)
    assert table.num_rows == 0
    assert table.schema.equals(SCHEMA, check_metadata=False)
    assert day_footer(store, SITE, DAY).about["state"] == "empty"


def test_a_seed_shaped_part_of_a_day_takes_under_two_bytes_a_row():
    """Jittered sweeps of quantised sensor values, 300 points by 1,440 minutes."""
    rng = np.random.default_rng(1)
    points = [f"client/site/10.0.0.{n % 250}-{n}/analogInput/{n}" for n in range(300)]
    sweeps = np.sort(rng.integers(0, 999, 1440) + np.arange(1440) * 60_000)
    code = np.repeat(np.arange(300, dtype=np.int32), 1440)
    walk = np.cumsum(rng.choice([0, 0, 0, 0.1, -0.1], (300, 1440)), axis=1).round(1) + 20
    chunk = Chunk(code, np.tile(sweeps, 300).astype(np.int32), walk.ravel())
    day = DayRows("seed", DAY, sorted(points), [chunk], Counts(len(code), len(code)))
    encoded = encode(day)
    assert len(encoded.data) / encoded.rows < 2.0


def test_a_footer_of_any_length_is_read_from_the_objects_end(tmp_path):
    """A footer longer than the bytes first asked for is asked for again, exactly."""
    store = LocalStore(tmp_path)
    rows = {("a", ms): float(ms) for ms in range(400)}
    put_day(store, day_of(rows), encoding=Encoding(row_group_rows=1))
    assert day_footer(store, SITE, DAY).rows == 400


@pytest.mark.parametrize("cut", [0, 1, 7, 8, 100])
def test_a_damaged_file_is_found_by_its_footer(tmp_path, cut):
    """A file that is cut short, or nothing at all, is no day."""
    store = LocalStore(tmp_path)
    stored = put_day(store, day_of({("a", 5): 1.0}))
    path = tmp_path / stored.key
    path.write_bytes(path.read_bytes()[:cut])
    assert wrong_object(store, SITE, DAY)
    with pytest.raises(DamagedObjectError, match="fetch the day again"):
        get_day(store, SITE, DAY)


def test_another_days_object_is_found_by_its_footer(tmp_path):
    """Site, day, rows and size are held against what they should be."""
    encoded = encode(day_of({("a", 5): 1.0}))
    footer = read_footer(encoded.data)
    assert findings(footer, "other", DAY, len(encoded.data))
    assert findings(footer, SITE, date(2024, 3, 1), len(encoded.data))
    assert "bytes" in findings(footer, SITE, DAY, footer.least_bytes - 1)[0]


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_a_flipped_bit_among_the_rows_is_found_by_reading_them(data):
    """Page checksums and the data's own hash: no bit of a page may change unseen."""
    encoded = encode(day_of({("a", n * 7919 % DAY_MS): float(n) for n in range(200)}))
    meta = pq.read_metadata(BytesIO(encoded.data))
    chunk = meta.row_group(0).column(2)
    first = chunk.dictionary_page_offset or chunk.data_page_offset
    at = data.draw(st.integers(first, first + chunk.total_compressed_size - 1))
    damaged = bytearray(encoded.data)
    damaged[at] ^= 1 << data.draw(st.integers(0, 7))
    footer = read_footer(encoded.data)
    try:
        table = decode(bytes(damaged))
    except DamagedObjectError:
        return
    assert table.equals(decode(encoded.data)) or row_findings(table, footer, SITE, DAY)


def test_rows_that_break_the_contract_are_found_by_reading_them():
    """Order, bounds and finite values are held against the rows themselves."""
    footer = Footer(2, {}, columns_right=True, least_bytes=0)
    for times, values, word in (
        ([START + 1, START], [1.0, 2.0], "sorted"),
        ([START, START], [1.0, 2.0], "sorted"),
        ([START, START + DAY_MS], [1.0, 2.0], "outside"),
        ([START, START + 1], [1.0, math.inf], "finite"),
    ):
        table = pa.table([times, ["a", "a"], values, [SITE, SITE]], schema=SCHEMA)
        assert word in " ".join(row_findings(table, footer, SITE, DAY))


@given(st.text(min_size=1, max_size=40), st.dates(date(1000, 1, 1)))
def test_keys_are_two_way_for_any_site_name(site, day):
    """Key, then site and day, is the identity, and no name leaves its folder."""
    key = object_key(site, day)
    assert parse_key(key) == (site, day)
    assert key.count("/") == 4
    assert not key.split("/")[4].startswith(".")


@pytest.mark.parametrize("site", ["a-b", "a.b", "a b", "Büro", "東京", "ses_falls_city"])
def test_usual_names_stay_as_they_are(site):
    """Hyphens, dots, spaces and letters of any script are seen in the bucket as they are."""
    assert object_key(site, DAY) == f"timeseries/2024/02/29/{site}.parquet"


@pytest.mark.parametrize("site", ["../../etc/passwd", "..", ".", "a/b", "con", "NUL.txt", "a\\b", "%41", "x ", "a\nb"])
def test_names_that_a_disk_could_take_amiss_are_escaped_both_ways(site):
    """No separator, no device name of Windows, no dot or space at an end; still two-way."""
    key = object_key(site, DAY)
    assert parse_key(key) == (site, DAY)
    assert key != f"timeseries/2024/02/29/{site}.parquet"


@pytest.mark.parametrize("key", ["", "timeseries/2024/02/30/a.parquet", "timeseries/2024/02/29/%2e.parquet", "x/y"])
def test_other_keys_belong_to_no_day(key):
    """A key that `object_key` would not make is refused."""
    with pytest.raises(UsageError):
        parse_key(key)


def test_a_store_is_opened_by_its_url(tmp_path):
    """A folder, a file URL, and a bucket."""
    assert isinstance(open_store(str(tmp_path)), LocalStore)
    assert open_store(tmp_path.as_uri()).folder == tmp_path
