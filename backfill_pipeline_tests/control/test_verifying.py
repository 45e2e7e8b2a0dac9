"""`verified` over a bucket: four kinds of wrong, few bytes, and a store that cannot be read is no missing day."""

from datetime import date, timedelta

import pytest

from backfill_pipeline.control.verifying import verified
from backfill_pipeline.core.layout import object_key
from backfill_pipeline.core.rows import Counts, DayRows
from backfill_pipeline.errors import StoreRefusedError
from backfill_pipeline.settings import Settings
from backfill_pipeline.storage.days import put_day, settings_store
from backfill_pipeline_tests.orchestration.fakes import day_rows
from backfill_pipeline_tests.storage.bucket import BUCKET, KEY, SECRET, answers, bucket_server

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
        put_day(store, DayRows("a", DAYS[4], ["p"], [], Counts()))
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
    assert set(report.damaged) == {("b", DAYS[n]) for n in ((1, 2, 3, 4) if deep else (1, 2, 4))}
    assert report.foreign == ["timeseries/2025/01/01/stranger.parquet", "timeseries/2025/01/01/x/a.parquet"]
    assert not report.is_good
    assert len(report.stored) == (4 if deep else 5)


def test_footers_are_read_and_no_more(bucket):
    """Without `deep` no more than 64 KB of an object are asked for, with one request for each object and each day."""
    proxy, settings = bucket
    proxy.reset()
    verified(settings, ["a"], DAYS[:4], deep=False)
    ranges = [asked.headers.get("Range", "") for asked in proxy.asked if "list-type" not in asked.path]
    assert ranges == ["bytes=-65536"] * 3
    assert len(proxy.asked) == 4 + 3


def test_a_store_that_refuses_is_no_missing_day(bucket):
    """Without the right to read, nothing is said about any day."""
    proxy, settings = bucket
    proxy.always = answers(403, "AccessDenied")
    try:
        with pytest.raises(StoreRefusedError, match="no permission"):
            verified(settings, settings.sites, DAYS, deep=False)
    finally:
        proxy.reset()
