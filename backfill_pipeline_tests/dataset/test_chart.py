"""A chart keeps the extremes of its samples, shows gaps as gaps, and has no more columns than pixels."""

from datetime import UTC, date, datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from backfill_pipeline import read
from backfill_pipeline.core.rows import Chunk, Counts, DayRows
from backfill_pipeline.errors import UsageError
from backfill_pipeline.settings import Settings
from backfill_pipeline.storage.days import put_day, settings_store

FIRST = date(2024, 3, 30)
START = datetime(2024, 3, 30, tzinfo=UTC)
POINTS = ["a", "b"]


def store_days(folder, numbers, *, every_min=7, settings=None):
    """Days of two points with random values; all samples as (point, milliseconds, value)."""
    settings = settings or Settings(store=str(folder))
    rng, rows = np.random.default_rng(3), []
    times = np.arange(0, 86_400_000, every_min * 60_000, dtype=np.int32)
    for number in numbers:
        day = FIRST + timedelta(days=number)
        code, ms = np.repeat(np.arange(2, dtype=np.int32), len(times)), np.tile(times, 2)
        value = rng.normal(20, 5, len(code))
        put_day(settings_store(settings), DayRows("s", day, POINTS, [Chunk(code, ms, value)], Counts(len(ms), len(ms))))
        start = int(START.timestamp() * 1000) + number * 86_400_000
        rows += [(POINTS[c], start + int(m), float(v)) for c, m, v in zip(code, ms, value, strict=True)]
    return settings, rows


@pytest.mark.parametrize(
    ("width", "hours", "begin"), [(1, 96, 0), (24, 96, 0), (50, 96, 5), (500, 30, 3), (1000, 24, 0)]
)
def test_a_column_has_the_figures_of_its_samples(tmp_path, width, hours, begin):
    """At most `width` columns and one; together they hold each sample once, and each extreme."""
    settings, rows = store_days(tmp_path, [0, 1, 2, 3])
    start = START + timedelta(hours=begin)
    end = min(start + timedelta(hours=hours), START + timedelta(days=4))
    found = read.chart("s", POINTS, start, end, width=width, settings=settings)
    assert [one.point for one in found.series] == POINTS
    low, high = (int(one.timestamp() * 1000) for one in (start, end))
    for one in found.series:
        expected = [v for name, ms, v in rows if name == one.point and low <= ms < high]
        table = one.rows
        assert len(table) <= width + 1
        assert sum(table["count"].to_pylist()) == len(expected)
        assert min(table["min"].to_pylist()) == min(expected)
        assert max(table["max"].to_pylist()) == max(expected)
        assert table["last"].to_pylist()[-1] == expected[-1]
        pairs = zip(table["mean"].to_pylist(), table["count"].to_pylist(), strict=True)
        assert sum(mean * count for mean, count in pairs) / len(expected) == pytest.approx(np.mean(expected), rel=1e-12)


def test_a_missing_day_is_a_gap(tmp_path):
    """Between two stored days with a missing one there is one row without figures, and the day is in `missing`."""
    settings, _ = store_days(tmp_path, [0, 2])
    found = read.chart("s", "a", START, START + timedelta(days=3), width=300, settings=settings)
    rows = found.series[0].rows
    gaps = [ms for ms, count in zip(rows["timestamp"].to_pylist(), rows["count"].to_pylist(), strict=True) if not count]
    assert len(gaps) == 1
    assert gaps[0].date() == FIRST + timedelta(days=1)
    assert rows["mean"].null_count == rows["min"].null_count == 1
    assert found.missing == (FIRST + timedelta(days=1),)


@pytest.mark.parametrize(("more", "words"), [({"width": 0}, "width 0"), ({"tz": "Mars/Base"}, "tz 'Mars/Base'")])
def test_a_wrong_width_or_time_zone_is_refused(tmp_path, more, words):
    """The error names the argument and its value."""
    settings, _ = store_days(tmp_path, [0])
    with pytest.raises(UsageError, match=words):
        read.chart("s", "a", START, START + timedelta(days=1), settings=settings, **more)


@pytest.mark.parametrize("zone", ["Europe/Berlin", "Asia/Kathmandu", "America/St_Johns"])
@pytest.mark.parametrize(("unit", "label"), [("hour", "%Y-%m-%d %H %z"), ("day", "%Y-%m-%d"), ("month", "%Y-%m")])
def test_local_intervals_are_those_of_pandas(tmp_path, zone, unit, label):
    """Across the change of the clocks on 2024-03-31: the same groups, means and starts as pandas finds."""
    settings, rows = store_days(tmp_path, [0, 1, 2, 3], every_min=15)
    found = read.samples("s", START, START + timedelta(days=4), points="a", tz=zone, settings=settings)
    mine = pd.DataFrame([(ms, value) for name, ms, value in rows if name == "a"], columns=["ms", "value"])
    local = pd.to_datetime(mine["ms"], unit="ms", utc=True).dt.tz_convert(zone)
    groups = mine.groupby(local.dt.strftime(label))
    table = found.resampled(unit, ["mean", "min", "max", "last"])
    assert sorted(table["samples"].to_pylist()) == sorted(groups.size().tolist())
    assert sorted(table["mean"].to_pylist()) == pytest.approx(sorted(groups["value"].mean().tolist()), rel=1e-12)
    starts = [at.strftime("%Y-%m-%d %H:%M") for at in table["timestamp"].to_pylist()]
    assert all(at.endswith(":00") for at in starts)
    assert found.arrow()["timestamp"].type.tz == zone
    assert found.arrow()["timestamp"].cast("int64").to_pylist() == mine["ms"].tolist()


def test_another_length_in_local_time_is_refused(tmp_path):
    """An hour and a day are local; a length that does not divide local time has no meaning there."""
    settings, _ = store_days(tmp_path, [0])
    found = read.samples("s", START, START + timedelta(days=1), tz="Asia/Kathmandu", settings=settings)
    assert found.resampled(timedelta(hours=1)) == found.resampled("hour")
    with pytest.raises(UsageError, match="in the time zone Asia/Kathmandu"):
        found.resampled(timedelta(minutes=20))


@pytest.mark.parametrize(
    ("zones", "expected"),
    [
        ("Europe/Berlin", "Europe/Berlin"),
        ("t=UTC, s=Asia/Kathmandu", "Asia/Kathmandu"),
        ("UTC, s=Asia/Tokyo", "Asia/Tokyo"),
    ],
)
def test_the_site_has_a_time_zone_of_its_own(tmp_path, zones, expected):
    """`tz="site"` is the zone of `BACKFILL_TIME_ZONES`: the site's, or else that of all sites."""
    store_days(tmp_path, [0])
    settings = Settings(store=str(tmp_path), time_zones=zones)
    found = read.samples("s", START, START + timedelta(days=1), points="a", tz="site", settings=settings)
    assert found.arrow()["timestamp"].type.tz == expected
    same = read.samples("s", START, START + timedelta(days=1), points="a", tz=expected, settings=settings)
    mine, other = (one.resampled("day").sort_by([("timestamp", "ascending")]) for one in (found, same))
    assert mine.drop_columns("mean").equals(other.drop_columns("mean"))
    assert mine["mean"].to_pylist() == pytest.approx(other["mean"].to_pylist())
    chart = read.chart("s", "a", START, START + timedelta(days=1), tz="site", settings=settings)
    assert chart.series[0].rows["timestamp"].type.tz == expected


def test_a_site_without_a_time_zone_is_refused_by_name(tmp_path):
    """Nothing is guessed: the error names the setting."""
    with pytest.raises(UsageError, match=r"time zone of site 's' is not set.*BACKFILL_TIME_ZONES"):
        read.samples("s", START, START + timedelta(days=1), tz="site", settings=Settings(store=str(tmp_path)))


@pytest.mark.parametrize("zones", ["Mars/Base", "s=", "s=UTC,s=Asia/Tokyo", "../etc/passwd"])
def test_time_zones_that_are_none_are_a_wrong_setting(zones):
    """The setting is checked when it is read."""
    with pytest.raises(ValueError, match=r"BACKFILL_TIME_ZONES|time_zones"):
        Settings(time_zones=zones)
