"""Hourly values equal those of the samples, and are used only while they belong to the stored rows."""

from collections import defaultdict
from datetime import date, timedelta
from fractions import Fraction

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from backfill_pipeline import read
from backfill_pipeline.core.object_keys import object_key, rollup_key
from backfill_pipeline.dataset.rollup import SCHEMA, build_rollup
from backfill_pipeline.settings import Settings
from backfill_pipeline.storage.days import settings_store
from backfill_pipeline.storage.local import LocalStore
from backfill_pipeline_tests.dataset.test_chart import FIRST, POINTS, START, store_days
from backfill_pipeline_tests.storage.bucket import BUCKET, KEY, SECRET, bucket_server

MONTHS = (date(2024, 3, 1), date(2024, 4, 1))


def shown(settings, *, width=20, days=4):
    return read.chart("s", POINTS, START, START + timedelta(days=days), width=width, settings=settings)


def built(settings):
    return [build_rollup(settings_store(settings), "s", month) for month in MONTHS]


def test_each_point_and_hour_has_the_figures_of_its_samples(tmp_path):
    """Minimum, maximum, last value and count are the samples' own; the mean has a relative error of 1e-12."""
    settings, rows = store_days(tmp_path, [0, 1, 2, 3])
    made = built(settings)
    tables = [pq.read_table(pa.BufferReader(settings_store(settings).get(one.key)), schema=SCHEMA) for one in made]
    hours = defaultdict(list)
    for name, ms, value in rows:
        hours[name, ms // 3_600_000 * 3_600_000].append(value)
    found = [row for table in tables for row in table.to_pylist()]
    assert {(row["point_name"], row["timestamp"]) for row in found} == hours.keys()
    assert len(found) == len(hours)
    for row in found:
        values = hours[row["point_name"], row["timestamp"]]
        assert (row["min"], row["max"], row["last"]) == (min(values), max(values), values[-1])
        assert (row["count"], row["site_name"]) == (len(values), "s")
        exact = sum(map(Fraction, values)) / len(values)
        assert abs(Fraction(row["mean"]) - exact) <= abs(exact) / 10**12
    for table in tables:
        places = [(row["point_name"], row["timestamp"]) for row in table.to_pylist()]
        assert places == sorted(places)


def test_a_chart_is_the_same_from_hourly_values_and_from_samples(tmp_path):
    """The same rows, and the chart reports from what they were made."""
    settings, _ = store_days(tmp_path, [0, 1, 2, 3])
    raw = shown(settings)
    built(settings)
    hourly = shown(settings)
    assert set(raw.sources.values()) == {"raw"}
    assert set(hourly.sources.values()) == {"rollup"}
    assert [one.rows for one in raw.series] == [one.rows for one in hourly.series]


def test_a_day_that_was_stored_again_is_read_from_its_samples(tmp_path):
    """Only that day: its hourly values are stale; the other days' are current."""
    settings, _ = store_days(tmp_path, [0, 1, 2, 3])
    built(settings)
    store_days(tmp_path, [2], every_min=11)
    found = shown(settings)
    assert [day for day, source in found.sources.items() if source == "raw"] == [FIRST + timedelta(days=2)]
    for month in MONTHS:
        settings_store(settings).delete(rollup_key("s", month))
    assert [one.rows for one in found.series] == [one.rows for one in shown(settings).series]


def test_a_removed_day_is_missing_although_its_hourly_values_are_stored(tmp_path):
    """Hourly values are never believed against the days."""
    settings, _ = store_days(tmp_path, [0, 1, 2, 3])
    built(settings)
    gone = FIRST + timedelta(days=1)
    settings_store(settings).delete(object_key("s", gone))
    found = shown(settings)
    assert found.missing == (gone,)
    assert sum(found.series[0].rows["count"].to_pylist()) == 3 * 206


@pytest.mark.parametrize("data", [b"", b"PAR1", b"no Parquet file at all"])
def test_damaged_hourly_values_are_not_used(tmp_path, data):
    """The chart is made of samples."""
    settings, _ = store_days(tmp_path, [0, 1, 2, 3])
    raw = shown(settings)
    built(settings)
    for month in MONTHS:
        settings_store(settings).put(rollup_key("s", month), data, "")
    assert [one.rows for one in shown(settings).series] == [one.rows for one in raw.series]


def test_a_second_build_changes_nothing(tmp_path):
    """The same days give the same bytes; a month without days has no object."""
    settings, _ = store_days(tmp_path, [0, 1])
    first, second = built(settings)[0], built(settings)[0]
    assert (first.changed, second.changed) == (True, False)
    assert built(settings)[1] is None


class Replacing(LocalStore):
    """A store in which another run stores a day again as soon as it has been read once."""

    def __init__(self, path, key, again):
        super().__init__(path)
        self.key, self.again = key, again

    def get(self, key, last=None):
        data = super().get(key, last)
        if key == self.key and self.again:
            self.again.pop()()
        return data


def test_hourly_values_are_marked_with_the_rows_that_were_read(tmp_path):
    """A day that is stored again while the month is built is stale, whatever was read first."""
    settings, _ = store_days(tmp_path, [0, 1])
    again = [lambda: store_days(tmp_path, [1], every_min=13)]
    day = FIRST + timedelta(days=1)
    build_rollup(Replacing(tmp_path, object_key("s", day), again), "s", FIRST)
    assert not again
    assert shown(settings, days=2).sources == {FIRST: "rollup", day: "raw"}


def test_a_chart_of_two_months_costs_few_requests(tmp_path):
    """A listing, the catalogue, and a few requests for each month: none for each day."""
    with bucket_server() as proxy:
        variables = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_REGION": "us-east-1"}
        variables |= {"BACKFILL_STORE": f"s3://{BUCKET}", "AWS_ENDPOINT_URL_S3": proxy.url}
        settings = Settings.load(variables, folder=tmp_path)
        store_days(None, range(20), settings=settings, every_min=60)
        built(settings)
        proxy.reset()
        found = shown(settings, days=20)
        assert set(found.sources.values()) == {"rollup"}
        assert len(found.sources) == 20
        assert len(proxy.asked) <= 12
        assert not [one for one in proxy.asked if "/timeseries/" in one.path.partition("?")[0]]
