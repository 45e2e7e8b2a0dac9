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
from backfill_pipeline.core.layout import object_key, parse_key
from backfill_pipeline.core.rows import Chunk, Counts, DayRows
from backfill_pipeline.core.schema import SCHEMA
from backfill_pipeline.errors import DamagedObjectError, StoreRefusedError, UsageError
from backfill_pipeline.storage import parquet
from backfill_pipeline.storage.days import get_day, put_day
from backfill_pipeline.storage.local import LocalStore
from backfill_pipeline.storage.parquet import encode, findings, read_footer
from backfill_pipeline.storage.store import open_store

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
@given(days, st.integers(1, 4), st.integers(1, 7))
def test_a_day_reads_back_as_it_was(tmp_path_factory, rows, windows, group):
    """Encode, then read, is the identity, sorted by point and time, at any number of windows and any row group."""
    path = tmp_path_factory.mktemp("day") / "day.parquet"
    usual, parquet.ROW_GROUP_ROWS = parquet.ROW_GROUP_ROWS, group
    try:
        encoded = encode(day_of(rows, windows=windows), path)
    finally:
        parquet.ROW_GROUP_ROWS = usual
    table = pq.read_table(path)
    assert table.schema.equals(SCHEMA, check_metadata=False)
    got = list(zip(*(table[name].to_pylist() for name in ("point_name", "timestamp", "value")), strict=True))
    expected = sorted(
        ((name, START + ms, value) for (name, ms), value in rows.items()), key=lambda row: (row[0].encode(), row[1])
    )
    assert got == expected
    assert set(table["site_name"].to_pylist()) <= {SITE}
    assert encoded.rows == len(rows)
    assert findings(path, SITE, DAY, deep=True) == []


@settings(deadline=None, max_examples=30)
@given(days)
def test_the_same_rows_give_the_same_bytes_whatever_their_windows(tmp_path_factory, rows):
    """Two encodings of one day are equal to the byte, however it was cut for fetching."""
    folder = tmp_path_factory.mktemp("day")
    one = encode(day_of(rows, windows=1), folder / "1", facts={"b": "1", "a": "2"})
    two = encode(day_of(rows, windows=4), folder / "2", facts={"b": "1", "a": "2"})
    assert one.sha256 == two.sha256


def test_the_file_is_the_contracts(tmp_path):
    """Physical types, no nulls, Snappy, column order, and the metadata that says what came."""
    path = tmp_path / "day.parquet"
    encode(day_of({("a", 0): 1.0, ("b", DAY_MS - 1): -2.5}), path)
    meta = pq.read_metadata(path)
    columns = [meta.schema.column(number) for number in range(4)]
    assert [c.name for c in columns] == ["timestamp", "point_name", "value", "site_name"]
    assert [c.physical_type for c in columns] == ["INT64", "BYTE_ARRAY", "DOUBLE", "BYTE_ARRAY"]
    assert [c.max_definition_level for c in columns] == [0, 0, 0, 0]
    assert {meta.row_group(0).column(n).compression for n in range(4)} == {"SNAPPY"}
    assert meta.row_group(0).column(0).statistics.max == START + DAY_MS - 1
    about = read_footer(path).about
    assert about["site"] == SITE
    assert about["day"] == "2024-02-29"
    assert (about["fetched"], about["kept"], about["dropped"]) == ("3", "2", '{"not_numeric": 1}')
    assert about["state"] == "stored"


def test_a_day_without_samples_is_an_object_that_says_so(tmp_path):
    """No rows, state `empty`, still the contract's columns."""
    store = LocalStore(tmp_path)
    stored = put_day(store, DayRows(SITE, DAY, ["a"], [], Counts()))
    assert (stored.rows, stored.state) == (0, "empty")
    table = get_day(store, SITE, DAY)
    assert table.num_rows == 0
    assert table.schema.equals(SCHEMA, check_metadata=False)
    with store.open(stored.key) as file:
        assert read_footer(file).about["state"] == "empty"


def test_a_seed_shaped_part_of_a_day_takes_under_two_bytes_a_row(tmp_path):
    """Jittered sweeps of quantised sensor values, 300 points by 1,440 minutes."""
    rng = np.random.default_rng(1)
    points = [f"client/site/10.0.0.{n % 250}-{n}/analogInput/{n}" for n in range(300)]
    sweeps = np.sort(rng.integers(0, 999, 1440) + np.arange(1440) * 60_000)
    code = np.repeat(np.arange(300, dtype=np.int32), 1440)
    walk = np.cumsum(rng.choice([0, 0, 0, 0.1, -0.1], (300, 1440)), axis=1).round(1) + 20
    chunk = Chunk(code, np.tile(sweeps, 300).astype(np.int32), walk.ravel())
    day = DayRows("seed", DAY, sorted(points), [chunk], Counts(len(code), len(code)))
    encoded = encode(day, tmp_path / "day.parquet")
    assert encoded.bytes / encoded.rows < 2.0


def test_an_unchanged_day_is_not_written_again(tmp_path):
    """Putting the same rows twice says `changed` once and leaves the file as it was."""
    store, day = LocalStore(tmp_path), day_of({("a", 5): 1.0})
    first = put_day(store, day)
    before = (tmp_path / first.key).stat().st_mtime_ns
    second = put_day(store, day)
    assert (first.changed, second.changed) == (True, False)
    assert (tmp_path / first.key).stat().st_mtime_ns == before
    assert put_day(store, day_of({("a", 5): 2.0})).changed


def test_nothing_but_the_object_is_left_in_the_folder(tmp_path):
    """After a put there is one file, and no part of one."""
    put_day(LocalStore(tmp_path), day_of({("a", 5): 1.0}))
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [f"{SITE}.parquet"]


def test_a_put_that_fails_leaves_the_old_object(tmp_path, monkeypatch):
    """A full disk in mid-write: the day before it stays whole, no part is left, and the message says what to do."""
    store = LocalStore(tmp_path)
    stored = put_day(store, day_of({("a", 5): 1.0}))

    def full(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copyfileobj", full)
    with pytest.raises(StoreRefusedError, match="disk is full"):
        put_day(store, day_of({("a", 5): 2.0}))
    assert store.head(stored.key).sha256 == stored.sha256
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 1


def test_a_store_that_loses_what_it_was_given_is_found_out(tmp_path):
    """A day is done only when its object has been read back."""

    class Forgetful(LocalStore):
        def put(self, key, file, sha256):
            file.write_bytes(file.read_bytes()[:-1])
            super().put(key, file, sha256)

    with pytest.raises(DamagedObjectError, match="not what was put there"):
        put_day(Forgetful(tmp_path), day_of({("a", 5): 1.0}))


@pytest.mark.parametrize("cut", [0, 1, 100])
def test_a_damaged_file_is_found(tmp_path, cut):
    """A file that is cut short, or nothing at all, is no day."""
    path = tmp_path / "day.parquet"
    encode(day_of({("a", 5): 1.0}), path)
    assert findings(BytesIO(path.read_bytes()[:cut]), SITE, DAY)
    assert findings(path, "other", DAY)
    assert findings(path, SITE, date(2024, 3, 1))


def test_rows_that_break_the_contract_are_found_by_reading_them(tmp_path):
    """Order, bounds and finite values are held against the rows themselves."""
    path = tmp_path / "day.parquet"
    about = {"site": SITE, "day": DAY.isoformat(), "kept": "2"}
    for times, values, word in (
        ([START + 1, START], [1.0, 2.0], "sorted"),
        ([START, START], [1.0, 2.0], "sorted"),
        ([START, START + DAY_MS], [1.0, 2.0], "outside"),
        ([START, START + 1], [1.0, math.inf], "finite"),
    ):
        pq.write_table(
            pa.table([times, ["a", "a"], values, [SITE, SITE]], schema=SCHEMA.with_metadata(about)),
            path,
        )
        assert findings(path, SITE, DAY) == []
        assert word in " ".join(findings(path, SITE, DAY, deep=True))


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
