"""Texts of a day in the store: whole, beside the day, the same bytes for the same rows."""

from dataclasses import replace
from datetime import date
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backfill_pipeline.core.day import DAY_MS, day_window
from backfill_pipeline.core.object_keys import TEXT_ROOT, object_key, parse_key, text_key
from backfill_pipeline.core.rows import Counts, DayRows, TextRows
from backfill_pipeline.core.schema import TEXT_SCHEMA
from backfill_pipeline.errors import DamagedObjectError, StoreBusyError, UsageError
from backfill_pipeline.storage import texts as module
from backfill_pipeline.storage.days import day_footer, put_day
from backfill_pipeline.storage.local import LocalStore
from backfill_pipeline.storage.parquet import Encoding, encode
from backfill_pipeline.storage.texts import encode_texts, get_texts, read_texts_object, texts_footer
from backfill_pipeline_tests.orchestration.fakes import day_rows

DAY = date(2024, 2, 29)
START = day_window(DAY).start * 1000
SITE = "Büro 1.north"


def worded(rows: dict[tuple[int, int], str], cuts: list[int], day: DayRows | None = None) -> DayRows:
    """A day of numbers with texts, cut into windows at some milliseconds; windows have their texts in any order."""
    day = day or day_rows(SITE, DAY)
    windows = []
    bounds = [0, *sorted(cuts), DAY_MS]
    for number, (low, high) in enumerate(pairwise(bounds)):
        part = sorted((code, ms, text) for (code, ms), text in rows.items() if low <= ms < high)
        texts = sorted({text for *_, text in part}, reverse=bool(number % 2))
        if part:
            columns = ([p[0] for p in part], [p[1] for p in part], [texts.index(p[2]) for p in part])
            windows.append(TextRows(*(np.array(column, np.int32) for column in columns), texts))
    dropped = {"not_numeric": len(rows)} if rows else {}
    counts = Counts(day.counts.fetched + len(rows), day.counts.kept, dropped, 0, len(rows), {})
    return replace(day, texts=windows, counts=counts)


def listed(table):
    names = ("timestamp", "point_name", "text", "site_name")
    return list(zip(*(table[name].to_pylist() for name in names), strict=True))


words = st.one_of(st.sampled_from(["active", "inactive", "On", 'a "b"\n', ""]), st.text(max_size=20))
samples = st.dictionaries(st.tuples(st.integers(0, 3), st.integers(0, DAY_MS - 1)), words, min_size=1, max_size=30)


@given(samples, st.lists(st.integers(0, DAY_MS), max_size=3), st.lists(st.integers(0, DAY_MS), max_size=3))
@settings(max_examples=60)
def test_texts_cut_into_any_windows_give_the_same_bytes(rows, cuts, other):
    """Sorted by point and time, one row per pair, and read as they were put."""
    day = worded(rows, cuts)
    of = encode(day)
    encoded = encode_texts(day, of)
    assert encoded == encode_texts(worded(rows, other), of)
    table = module.decode(encoded.data, TEXT_SCHEMA)
    truth = [(START + ms, day.points[code], rows[code, ms], SITE) for code, ms in sorted(rows)]
    assert listed(table) == truth
    assert table.schema.equals(TEXT_SCHEMA)


def test_long_and_odd_texts_are_read_as_they_were_put(tmp_path, monkeypatch):
    """Ten kilobytes, quotes, line ends, NUL and letters of any script, in row groups bounded by bytes."""
    monkeypatch.setattr(module, "_GROUP_BYTES", 15_000)
    some = ["x" * 10_000, "ß" * 5_000, 'He said "on"\r\n', "\0", "測 \U0001f600", "\ufffe"]
    rows = {(number % 3, number * 1000): some[number % len(some)] + str(number) for number in range(40)}
    store = LocalStore(tmp_path)
    stored = put_day(store, worded(rows, [20_000]))
    assert stored.texts == 40
    found = listed(get_texts(store, SITE, DAY))
    assert [text for *_, text, _ in found] == [rows[pair] for pair in sorted(rows)]
    assert texts_footer(store, SITE, DAY).rows == 40
    size = store.head(text_key(SITE, DAY)).bytes
    footer, wrong = read_texts_object(store, SITE, DAY, size=size, deep=True, of=day_footer(store, SITE, DAY).about)
    assert (footer.rows, wrong) == (40, [])


def test_the_days_own_object_is_the_same_with_texts_and_without(tmp_path):
    """Whoever reads numbers alone finds no other byte than before there were texts."""
    day = worded({(0, 5): "on"}, [])
    assert encode(day).data == encode(replace(day, texts=())).data
    store = LocalStore(tmp_path)
    put_day(store, day, encoding=Encoding())
    assert store.get(object_key(SITE, DAY)) == encode(day).data


class Tracing(LocalStore):
    """A folder that notes what is written, and can fail at one write."""

    def __init__(self, root, fail_at=0):
        super().__init__(root)
        self.written, self.fail_at = [], fail_at

    def put(self, key, data, sha256):
        self._note(key)
        return super().put(key, data, sha256)

    def delete(self, key):
        self._note(f"-{key}")
        super().delete(key)

    def _note(self, what):
        self.written.append(what)
        if len(self.written) == self.fail_at:
            raise StoreBusyError("not now")


def test_texts_are_put_before_their_day_and_deleted_after_it(tmp_path):
    """So that a day whose own object is there has its texts, and no text is lost before the day is replaced."""
    store = Tracing(tmp_path)
    first = put_day(store, worded({(0, 5): "on"}, []))
    again = put_day(store, worded({(0, 5): "on"}, []))
    assert (first.changed, again.changed, first.texts) == (True, False, 1)
    put_day(store, worded({}, []))
    key, texts = object_key(SITE, DAY), text_key(SITE, DAY)
    assert store.written == [texts, key, key, f"-{texts}"]
    assert listed(get_texts(store, SITE, DAY)) == []


@pytest.mark.parametrize("fail_at", [1, 2])
def test_a_day_is_stored_when_both_of_its_objects_are(tmp_path, fail_at):
    """A death between the two leaves a day that is not stored, and the next attempt stores it whole."""
    day = worded({(0, 5): "on"}, [])
    with pytest.raises(StoreBusyError):
        put_day(Tracing(tmp_path, fail_at), day)
    store = LocalStore(tmp_path)
    assert store.head(object_key(SITE, DAY)) is None
    put_day(store, day)
    assert len(get_texts(store, SITE, DAY)) == 1


def test_texts_of_another_fetch_are_found_out(tmp_path):
    """A death between texts and day of a second fetch leaves the first day with the second texts."""
    store = LocalStore(tmp_path)
    put_day(store, worded({(0, 5): "on"}, []))
    with pytest.raises(StoreBusyError):
        put_day(Tracing(tmp_path, 2), worded({(0, 5): "on", (1, 5): "off"}, [], day_rows(SITE, DAY, every_s=900)))
    size = store.head(text_key(SITE, DAY)).bytes
    _, wrong = read_texts_object(store, SITE, DAY, size=size, deep=False, of=day_footer(store, SITE, DAY).about)
    assert wrong == ["its texts: they were fetched with other samples of this day"]


class Flipping(LocalStore):
    """A folder that damages the texts that it takes."""

    def put(self, key, data, sha256):
        if key.startswith(TEXT_ROOT):
            data = data[:30] + bytes([data[30] ^ 1]) + data[31:]
        return super().put(key, data, sha256)


def test_texts_that_are_not_what_was_put_keep_the_day_from_being_stored(tmp_path):
    """They are verified before the day is put."""
    store = Flipping(tmp_path)
    with pytest.raises(DamagedObjectError, match="does not match what was written"):
        put_day(store, worded({(0, 5): "on"}, []))
    assert store.head(object_key(SITE, DAY)) is None


def test_damaged_texts_are_an_error_of_their_day(tmp_path):
    """A reader learns which day is damaged, and never gets other rows."""
    store = LocalStore(tmp_path)
    put_day(store, worded({(0, 5): "on"}, []))
    data = store.get(text_key(SITE, DAY))
    store.put(text_key(SITE, DAY), data[:-20], "00" * 32)
    with pytest.raises(DamagedObjectError, match="2024-02-29"):
        get_texts(store, SITE, DAY)
    with pytest.raises(DamagedObjectError, match="2024-02-29"):
        texts_footer(store, SITE, DAY)


@given(st.text(min_size=1, max_size=30), st.dates(date(1970, 1, 1)))
def test_the_key_of_texts_leads_back_to_its_day(site, day):
    """Site and day are read back from the key, and the two kinds of keys are distinguished."""
    key = text_key(site, day)
    assert parse_key(key, TEXT_ROOT) == (site, day)
    with pytest.raises(UsageError):
        parse_key(key)
    with pytest.raises(UsageError):
        parse_key(object_key(site, day), TEXT_ROOT)
