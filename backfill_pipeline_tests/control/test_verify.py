"""`verified` over a bucket: four kinds of wrong, few bytes, and a store that cannot be read is no missing day."""

import os
import shlex
from datetime import date, timedelta

import pytest

from backfill_pipeline.control.verify import Report, verified
from backfill_pipeline.core.object_keys import object_key, text_key
from backfill_pipeline.core.rows import Counts, DayRows
from backfill_pipeline.errors import StoreRefusedError
from backfill_pipeline.settings import Settings
from backfill_pipeline.storage.comparison import Recorded
from backfill_pipeline.storage.days import put_day, settings_store
from backfill_pipeline.storage.local import LocalStore
from backfill_pipeline_tests.orchestration.fakes import day_rows
from backfill_pipeline_tests.storage.bucket import BUCKET, KEY, SECRET, answers, bucket_server, client
from backfill_pipeline_tests.storage.test_texts import worded

DAYS = [date(2025, 1, 1) + timedelta(days=number) for number in range(6)]


@pytest.fixture(scope="module")
def bucket():
    with bucket_server() as proxy:
        settings = Settings(
            sites=("a", "b"),
            store=f"s3://{BUCKET}/days",
            s3_access_key_id=KEY,
            s3_secret_access_key=SECRET,
            s3_endpoint_url=proxy.url,
            s3_region="auto",
        )
        store = settings_store(settings)
        for site in settings.sites:
            for day in DAYS[:4]:
                put_day(store, day_rows(site, day, points=9, every_s=60))
        put_day(store, DayRows("a", DAYS[4], ["p"], [], Counts(7, 0, {"null_value": 7})))
        store.delete(object_key("a", DAYS[1]))
        whole = store.get(object_key("b", DAYS[0]))
        flipped = bytearray(store.get(object_key("b", DAYS[3])))
        flipped[len(flipped) // 3] ^= 4
        for key, data in {
            object_key("b", DAYS[1]): whole,  # another day's object
            object_key("b", DAYS[2]): whole[: len(whole) // 2],
            object_key("b", DAYS[3]): bytes(flipped),
            object_key("b", DAYS[4]): b"",
            object_key("stranger", DAYS[0]): whole,
            object_key("a", DAYS[0]).replace("a.parquet", "x/a.parquet"): whole,
        }.items():
            store.put(key, data, "00" * 32)
        yield proxy, settings


@pytest.mark.parametrize("deep", [False, True])
def test_missing_empty_damaged_and_foreign_are_told_apart(bucket, deep):
    """By footers alone all but flipped bits are found; with `deep` those too."""
    _, settings = bucket
    report = verified(settings, settings.sites, DAYS, deep=deep)
    assert report.missing == [("a", DAYS[1]), ("a", DAYS[5]), ("b", DAYS[5])]
    assert report.empty == [("a", DAYS[4])]
    line = "empty    a 2025-01-05: 0 rows: none of the 7 samples that the API returned for 2025-01-05 can be stored"
    assert line in report.lines()
    assert report.facts()["empty"] == [{"site": "a", "date": "2025-01-05", "samples_fetched": 7}]
    assert set(report.damaged) == {("b", DAYS[n]) for n in ((1, 2, 3, 4) if deep else (1, 2, 4))}
    assert report.foreign == ["timeseries/2025/01/01/stranger.parquet", "timeseries/2025/01/01/x/a.parquet"]
    assert not report.is_good
    assert len(report.stored) == (4 if deep else 5)


def test_footers_are_read_and_no_more(bucket):
    """Without `deep` one request lists the range, and one reads no more than 64 KB of each object."""
    proxy, settings = bucket
    proxy.reset()
    verified(settings, ["a"], DAYS[:4], deep=False)
    ranges = [asked.headers.get("Range", "") for asked in proxy.asked if "list-type" not in asked.path]
    assert ranges == ["bytes=-65536"] * 3
    assert len(proxy.asked) == 2 + 3


def test_a_flipped_byte_anywhere_in_the_file_is_found_by_the_recorded_hash(tmp_path):
    """Rows, page headers, statistics, footer, length and mark: `deep` compares a hash that is kept outside the file."""
    settings, day = Settings(sites=("a",), store=str(tmp_path)), DAYS[0]
    stored = put_day(settings_store(settings), day_rows("a", day, points=2, every_s=7200))
    path = tmp_path / stored.key
    whole, records = path.read_bytes(), {("a", day): Recorded(stored.bytes, None, stored.sha256)}
    assert verified(settings, ["a"], [day], deep=True, recorded=records).is_good
    for at in range(0, len(whole), 23):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :])
        report = verified(settings, ["a"], [day], deep=True, recorded=records)
        assert "SHA-256" in report.damaged["a", day][0], at


def test_without_a_record_the_hash_that_the_bucket_keeps_is_compared(bucket):
    """A byte of the footer that only the hash covers, in an object whose metadata has the hash of what was put."""
    proxy, settings = bucket
    store = settings_store(settings)
    stored = put_day(store, day_rows("a", DAYS[3], points=9, every_s=60))
    data = store.get(stored.key).replace(b"parquet-cpp-arrow", b"parquet-cpp-brrow")
    client(proxy.direct).put_object(
        Bucket=BUCKET, Key=f"days/{stored.key}", Body=data, Metadata={"sha256": stored.sha256}
    )
    try:
        assert verified(settings, ["a"], [DAYS[3]], deep=False).is_good
        assert "SHA-256" in verified(settings, ["a"], [DAYS[3]], deep=True).damaged["a", DAYS[3]][0]
        records = {("a", DAYS[3]): Recorded(stored.bytes, stored.etag, stored.sha256)}
        assert ("a", DAYS[3]) in verified(settings, ["a"], [DAYS[3]], deep=True, recorded=records).damaged
    finally:
        store.put(stored.key, store.get(stored.key).replace(b"brrow", b"arrow"), stored.sha256)


@pytest.mark.skipif(os.name == "nt", reason="shlex reads the line as POSIX shells do")
def test_the_repair_is_a_line_that_a_shell_reads_back():
    """The command names range, sites and `--deep`, with any letters in a name; for all sites it has no `--site`."""
    one = ("it's a `site`; $HOME", DAYS[1])
    report = Report(damaged={one: ["cut"]}, missing=[("b", DAYS[0])], deep=True, all_sites=("b", one[0], "c"))
    assert shlex.split(report.repair) == [
        "backfill", "verify", "--from", "2025-01-01", "--to", "2025-01-02",
        "--site", "b", "--site", one[0], "--deep", "--repair",
    ]  # fmt: skip
    assert list(report.lines())[-1].endswith(report.repair)
    assert "--site" not in Report(missing=[("b", DAYS[0])], all_sites=("b",)).repair
    assert Report().repair is None


def test_a_store_that_refuses_is_no_missing_day(bucket):
    """Without the right to read, nothing is said about any day."""
    proxy, settings = bucket
    proxy.always = answers(403, "AccessDenied")
    try:
        with pytest.raises(StoreRefusedError, match="no right to list"):
            verified(settings, settings.sites, DAYS, deep=False)
    finally:
        proxy.reset()


def test_texts_are_verified_with_their_day(tmp_path):
    """Damaged texts, texts of another fetch and missing ones make a day damaged; texts of no site are foreign."""
    settings = Settings(sites=("a",), store=str(tmp_path))
    store = settings_store(settings)
    for day in DAYS:
        put_day(store, worded({(0, 5): "on"}, [], day_rows("a", day)))
    recorded = {("a", day): Recorded(texts=1) for day in DAYS}
    good = verified(settings, ["a"], DAYS, deep=True, recorded=recorded)
    assert good.is_good
    assert good.facts()["texts"] == len(DAYS)
    assert "6 objects of texts with 6 rows" in list(good.lines())
    whole = store.get(text_key("a", DAYS[0]))
    store.put(text_key("a", DAYS[1]), whole, "00" * 32)
    store.put(text_key("a", DAYS[2]), whole[:-9], "00" * 32)
    store.delete(text_key("a", DAYS[3]))
    store.put(text_key("stranger", DAYS[0]), whole, "00" * 32)
    put_day(LocalStore(tmp_path / "other"), worded({(0, 5): "on", (1, 7): "off"}, [], day_rows("a", DAYS[4])))
    store.put(text_key("a", DAYS[4]), (tmp_path / "other" / text_key("a", DAYS[4])).read_bytes(), "00" * 32)
    report = verified(settings, ["a"], DAYS, deep=False, recorded=recorded)
    assert set(report.damaged) == {("a", day) for day in DAYS[1:5]}
    assert report.damaged["a", DAYS[3]] == [f"its 1 texts are missing: there is no {text_key('a', DAYS[3])}"]
    assert report.damaged["a", DAYS[4]] == ["its texts: they were fetched with other samples of this day"]
    assert report.foreign == [text_key("stranger", DAYS[0])]
    assert "repair" in report.facts()
