"""The reading API gives what a walk over all rows gives, from a folder as from a bucket."""

from collections import defaultdict
from datetime import UTC, date, datetime, timedelta
from math import inf, isclose
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import settings as example_settings
from hypothesis import strategies as st

from backfill_pipeline import read
from backfill_pipeline.core.object_keys import object_key
from backfill_pipeline.core.point_catalogue import described
from backfill_pipeline.core.rows import Chunk, Counts, DayRows
from backfill_pipeline.dataset.point_catalogue import learn_states, update_catalogue
from backfill_pipeline.errors import DamagedObjectError, SettingError, UsageError
from backfill_pipeline.settings import Settings
from backfill_pipeline.storage.days import put_day, settings_store
from backfill_pipeline_tests.builders import listed
from backfill_pipeline_tests.orchestration.fakes import day_rows
from backfill_pipeline_tests.storage.bucket import BUCKET, KEY, SECRET, bucket_server
from backfill_pipeline_tests.storage.test_texts import worded

FIRST = date(2024, 2, 28)
MIDNIGHT = datetime(2024, 2, 28, tzinfo=UTC)
POINTS = ["a", "it's", "z"]
STORED = (0, 1, 3)
INSTANTS = st.builds(
    lambda hours, micros, zone: (MIDNIGHT + timedelta(hours=hours, microseconds=micros)).astimezone(zone),
    st.integers(-5, 101),
    st.sampled_from([0, 1, 999, 1000, 1_800_000_000]),
    st.sampled_from([UTC, ZoneInfo("Asia/Kathmandu"), ZoneInfo("America/New_York")]),
)


def fill(settings):
    """Three of four days, leap day among them, two points each half hour and a third that is silent; all rows."""
    rows, store = [], settings_store(settings)
    times = np.arange(0, 86_400_000, 1_800_000, dtype=np.int32)
    for number in STORED:
        day = FIRST + timedelta(days=number)
        code, ms = np.repeat(np.arange(2, dtype=np.int32), len(times)), np.tile(times, 2)
        value = np.sin(np.arange(len(code)) + number)
        put_day(store, DayRows("s", day, POINTS, [Chunk(code, ms, value)], Counts(len(code), len(code))))
        start = MIDNIGHT + timedelta(days=number)
        rows += [
            (start + timedelta(milliseconds=int(m)), POINTS[c], float(v))
            for c, m, v in zip(code, ms, value, strict=True)
        ]
    return rows


class Rows(list):
    def __repr__(self):
        return f"{len(self)} rows"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    settings = Settings(store=str(tmp_path_factory.mktemp("store")))
    return settings, Rows(fill(settings))


@given(start=INSTANTS, end=INSTANTS, points=st.none() | st.sets(st.sampled_from(POINTS), min_size=1))
@example_settings(deadline=None)
def test_what_lies_between_two_instants_comes_and_nothing_else(folder, start, end, points):
    """Half-open, to the microsecond, in any time zone; days that are not stored are named."""
    settings, rows = folder
    if end <= start:
        with pytest.raises(UsageError, match="is not later than start"):
            read.samples("s", start, end, points=points, settings=settings)
        return
    found = read.samples("s", start, end, points=points, settings=settings)
    expected = [row for row in rows if start <= row[0] < end and (points is None or row[1] in points)]
    assert listed(found.arrow()) == expected
    touched = {(MIDNIGHT + timedelta(days=n)).date() for n in range(-1, 6)}
    asked = {d for d in touched if datetime(d.year, d.month, d.day, tzinfo=UTC) < end}
    asked = {d for d in asked if datetime(d.year, d.month, d.day, tzinfo=UTC) + timedelta(days=1) > start}
    assert set(found.days) | set(found.missing) == asked
    assert set(found.days) == {d for d in asked if (d - FIRST).days in STORED}


@given(start=INSTANTS, hours=st.integers(1, 60), every=st.sampled_from([1, 7, 3_600_000, 5_000_000, 86_400_000]))
@example_settings(deadline=None)
def test_resampling_gives_what_a_walk_gives(folder, start, hours, every):
    """Mean, min, max, last and count of each point and interval, counted from 1970."""
    settings, rows = folder
    end = start + timedelta(hours=hours)
    groups = defaultdict(list)
    for time, point, value in rows:
        if start <= time < end:
            groups[point, round(time.timestamp() * 1000) // every * every].append(value)
    told = read.samples("s", start, end, settings=settings).resampled(
        timedelta(milliseconds=every), ["mean", "min", "max", "last"]
    )
    assert told.column_names == ["timestamp", "point_name", "samples", "mean", "min", "max", "last"]
    found = {(r["point_name"], round(r["timestamp"].timestamp() * 1000)): r for r in told.to_pylist()}
    assert list(found) == sorted(groups)
    for key, values in groups.items():
        row = found[key]
        assert (row["samples"], row["min"], row["max"], row["last"]) == (
            len(values),
            min(values),
            max(values),
            values[-1],
        )
        assert isclose(row["mean"], sum(values) / len(values), abs_tol=1e-12)


def test_every_form_holds_the_same(folder):
    """Arrow, pandas and polars; lazily, with aware times."""
    settings, _ = folder
    found = read.samples("s", MIDNIGHT, MIDNIGHT + timedelta(days=1), points="it's", settings=settings)
    lazy = found.polars()
    assert isinstance(lazy, pl.LazyFrame)
    assert lazy.collect_schema() == {
        "timestamp": pl.Datetime("ms", "UTC"),
        "point_name": pl.String,
        "value": pl.Float64,
    }
    frame = found.pandas()
    assert frame["timestamp"].dt.tz is not None
    assert frame["value"].tolist() == found.arrow()["value"].to_pylist() == lazy.collect()["value"].to_list()


def test_a_bucket_is_read_as_a_folder_is(folder):
    """The same rows, with the settings' own credentials."""
    _, rows = folder
    with bucket_server() as proxy:
        settings = Settings(
            store=f"s3://{BUCKET}/days",
            s3_access_key_id=KEY,
            s3_secret_access_key=SECRET,
            s3_endpoint_url=proxy.url,
            s3_region="us-east-1",
        )
        fill(settings)
        found = read.samples("s", MIDNIGHT, MIDNIGHT + timedelta(days=4), points="a", settings=settings)
        assert listed(found.arrow()) == [row for row in rows if row[1] == "a"]
        assert found.missing == (date(2024, 3, 1),)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        (lambda s: read.samples("s", datetime(2024, 1, 1), MIDNIGHT, settings=s), "has no time zone"),  # noqa: DTZ001
        (lambda s: read.samples("s", MIDNIGHT, MIDNIGHT + timedelta(1), points=[], settings=s), "no point is named"),
        (lambda s: read.samples("s", MIDNIGHT.date(), MIDNIGHT, settings=s), "is no instant"),
        (lambda s: read.samples("s", MIDNIGHT, MIDNIGHT, settings=s), "is not later than"),
        (lambda s: read.samples("s", MIDNIGHT, MIDNIGHT + timedelta(9), points="its", settings=s), 'is "it.s" meant'),
        (lambda s: read.samples("s", MIDNIGHT, MIDNIGHT + timedelta(1), settings=s).resampled(timedelta(0)), "by 0:00"),
        (
            lambda s: read.samples("s", MIDNIGHT, MIDNIGHT + timedelta(1), settings=s).resampled(timedelta(1), ["sum"]),
            "cannot resample to sum",
        ),
    ],
)
def test_what_cannot_be_meant_is_told(folder, how, said):
    """One line that names what was asked."""
    with pytest.raises(UsageError, match=said):
        how(folder[0])


def test_a_site_that_is_not_there_has_every_day_missing(folder):
    """Nothing is read, and nothing made up."""
    found = read.samples("t", MIDNIGHT, MIDNIGHT + timedelta(2), points="p", settings=folder[0])
    assert (found.days, len(found.missing), found.arrow().num_rows) == ((), 2, 0)


def catalogued(tmp_path):
    """A store whose point `a` changes its unit on the second day, and whose point `it's` leaves the list then."""
    settings = Settings(store=str(tmp_path))
    rows = fill(settings)
    store = settings_store(settings)
    day = {"name": "a", "bacnet_data": {"units": "degreesCelsius", "object_description": "Zone temperature"}}
    first = [day, {"name": "it's", "bacnet_data": {"units": "percent"}}]
    update_catalogue(store, "s", described(first, MIDNIGHT), MIDNIGHT)
    later = MIDNIGHT + timedelta(days=1)
    second = [day | {"bacnet_data": {"units": "degreesFahrenheit", "object_description": "Zone temperature"}}]
    update_catalogue(store, "s", described(second, later), later)
    return settings, rows, later


def test_samples_are_read_with_the_unit_that_was_valid_at_their_instant(tmp_path):
    """Each sample has the unit and description that its point had then; no sample is lost or doubled."""
    settings, rows, later = catalogued(tmp_path)
    found = read.samples("s", MIDNIGHT, MIDNIGHT + timedelta(days=4), settings=settings).described().collect()
    assert sorted(found.select("timestamp", "point_name", "value").rows()) == sorted(rows)
    for time, name, unit in found.select("timestamp", "point_name", "unit").iter_rows():
        if name == "a":
            assert unit == ("degreesCelsius" if time < later else "degreesFahrenheit")
        else:
            assert unit == ("percent" if time < later else None)


def test_points_are_found_by_words_at_an_instant(tmp_path):
    """`read.points` gives the rows valid at an instant, found by words of any field."""
    settings, _, later = catalogued(tmp_path)
    assert read.points("s", at=MIDNIGHT, words="zone", settings=settings)["unit"].to_pylist() == ["degreesCelsius"]
    assert read.points("s", at=later, settings=settings)["name"].to_pylist() == ["a"]
    assert read.points("s", settings=settings)["name"].to_pylist() == ["a", "it's"]
    assert len(read.points("elsewhere", settings=settings)) == 0
    with pytest.raises(UsageError, match="time zone"):
        read.points("s", at=datetime(2025, 1, 1), settings=settings)  # noqa: DTZ001 - what is refused


WAYS = {
    "polars": lambda found: found.polars().collect(),
    "arrow": lambda found: found.arrow(),
    "pandas": lambda found: found.pandas(),
    "resampled": lambda found: found.resampled(timedelta(hours=1)),
}


def cut(data, _other):
    return data[:-20]


def emptied(_data, _other):
    return b""


def swapped(_data, other):
    return other


def torn(data, _other):
    return data[:30] + bytes(len(data) // 2) + data[30 + len(data) // 2 :]


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("damage", [cut, emptied, swapped])
def test_a_damaged_object_is_named_with_what_to_do(tmp_path, way, damage):
    """Cut, emptied, another site's: site, day and the command that fetches it again, however it is read."""
    settings = Settings(store=str(tmp_path))
    fill(settings)
    store = settings_store(settings)
    key, other = (object_key(site, FIRST + timedelta(1)) for site in ("s", "t"))
    put_day(store, DayRows("t", FIRST + timedelta(1), POINTS, [], Counts()))
    store.put(key, damage(store.get(key), store.get(other)), "")
    with pytest.raises(DamagedObjectError, match=r"site 's', 2024-02-29: .*2024.02.29.s\.parquet is damaged") as caught:
        way(read.samples("s", MIDNIGHT, MIDNIGHT + timedelta(4), settings=settings))
    assert (caught.value.site, caught.value.day) == ("s", date(2024, 2, 29))
    assert "backfill verify --from 2024-02-29 --to 2024-02-29 --site s --repair" in caught.value.hint


@pytest.mark.parametrize("way", ["arrow", "pandas", "resampled"])
def test_an_object_damaged_in_its_middle_is_named_once_a_query_fails(tmp_path, way):
    """The footer is whole, and the pages are not."""
    settings = Settings(store=str(tmp_path))
    fill(settings)
    store = settings_store(settings)
    key = object_key("s", FIRST + timedelta(1))
    store.put(key, torn(store.get(key), b""), "")
    found = read.samples("s", MIDNIGHT, MIDNIGHT + timedelta(4), settings=settings)
    with pytest.raises(DamagedObjectError, match="site 's', 2024-02-29: "):
        WAYS[way](found)


@pytest.fixture
def with_texts(tmp_path):
    """Three days; the second has no texts."""
    settings = Settings(store=str(tmp_path / "data"))
    store = settings_store(settings)
    names = [f"s/p{number}" for number in range(4)]
    at = MIDNIGHT
    update_catalogue(store, "s", described([{"name": name} for name in names], at), at)
    for number in range(3):
        day = FIRST + timedelta(days=number)
        texts = (
            {}
            if number == 1
            else {(0, 1000): "Active", (0, 2000): "inactive", (1, 1000): f"made {number}", (2, 5): "auto"}
        )
        put_day(store, worded(texts, [], day_rows("s", day)))
        learn_states(
            store, "s", {} if number == 1 else {"s/p0": ("Active", "inactive"), "s/p1": (), "s/p2": ("auto",)}, day
        )
    return settings


def test_texts_are_read_between_two_instants(with_texts):
    """Half-open, of some points or all; a day without texts is simply passed over."""
    end = MIDNIGHT + timedelta(days=2, seconds=2)
    table = read.texts("s", MIDNIGHT + timedelta(seconds=1), end, settings=with_texts)
    at = [
        MIDNIGHT + timedelta(days=days, milliseconds=ms)
        for days, ms in ((0, 1000), (0, 2000), (0, 1000), (2, 1000), (2, 1000), (2, 5))
    ]
    assert table["timestamp"].to_pylist() == at
    assert table["text"].to_pylist() == ["Active", "inactive", "made 0", "Active", "made 2", "auto"]
    one = read.texts("s", MIDNIGHT, end, points="s/p2", settings=with_texts)
    assert one["point_name"].to_pylist() == ["s/p2", "s/p2"]
    assert len(read.texts("elsewhere", MIDNIGHT, end, settings=with_texts)) == 0
    with pytest.raises(UsageError):
        read.texts("s", end, MIDNIGHT, settings=with_texts)


def test_states_are_categories_and_numbers(with_texts, tmp_path):
    """BACnet's own numbers, and the user's, by argument or by file; texts that are no states are left out."""
    end = MIDNIGHT + timedelta(days=1)
    table = read.states("s", MIDNIGHT, end, settings=with_texts)
    assert table["point_name"].to_pylist() == ["s/p0", "s/p0", "s/p2"]
    assert table["number"].to_pylist() == [1.0, 0.0, None]
    assert table.to_pandas()["state"].dtype == "category"
    given = read.states("s", MIDNIGHT, end, numbers={"s/p2": {"auto": 7}}, settings=with_texts)
    assert given["number"].to_pylist() == [1.0, 0.0, 7.0]
    path = tmp_path / "numbers.json"
    settings = with_texts.model_copy(update={"state_numbers": path})
    path.write_text('{"AUTO": 3}')
    assert read.states("s", MIDNIGHT, end, settings=settings)["number"].to_pylist() == [1.0, 0.0, 3.0]
    path.write_text('{"AUTO": "3"}')
    with pytest.raises(SettingError, match="BACKFILL_STATE_NUMBERS"):
        read.states("s", MIDNIGHT, end, settings=settings)
    with pytest.raises(UsageError, match="numbers"):
        read.states("s", MIDNIGHT, end, numbers={"on": inf}, settings=with_texts)
    assert len(read.states("elsewhere", MIDNIGHT, end, settings=with_texts)) == 0
