"""Rules of the points' catalogue in the store."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backfill_pipeline.core.object_keys import points_key
from backfill_pipeline.core.point_catalogue import SCHEMA, described
from backfill_pipeline.dataset.point_catalogue import (
    encode,
    learn_states,
    read_catalogue,
    rebuild_catalogue,
    update_catalogue,
)
from backfill_pipeline.errors import DamagedObjectError
from backfill_pipeline.storage.local import LocalStore

AT = datetime(2025, 6, 1, 12, tzinfo=UTC)


def listed(*names, **changes):
    return described([{"name": name, "collect_enabled": True, "collect_interval": 60} | changes for name in names], AT)


@pytest.fixture
def store(tmp_path):
    return LocalStore(tmp_path)


def test_a_catalogue_lies_beside_the_days_and_other_readers_read_it(store):
    """The catalogue of a site is one Parquet object, `points/<site>.parquet`, with the documented columns."""
    assert update_catalogue(store, "north", listed("b", "a"), AT)
    table = pq.read_table(store.url("points/north.parquet"))
    assert table.schema.equals(SCHEMA, check_metadata=False)
    assert table["name"].to_pylist() == ["a", "b"]


def test_the_same_list_gives_the_same_bytes_and_is_not_written_again(store):
    """A second run on the same day with the same list leaves the object as it is."""
    update_catalogue(store, "north", listed("a"), AT)
    before = store.get(points_key("north"))
    assert not update_catalogue(store, "north", listed("a"), AT + timedelta(hours=1))
    assert store.get(points_key("north")) == before == encode(read_catalogue(store, "north"), "north")


def test_an_empty_list_closes_nothing(store):
    """A list without any point changes nothing: an API that lists no points has not removed them all."""
    update_catalogue(store, "north", listed("a"), AT)
    assert not update_catalogue(store, "north", [], AT + timedelta(days=1))
    assert [span.valid_to for span in read_catalogue(store, "north")] == [None]


def test_a_damaged_catalogue_is_named_and_written_again(store):
    """A catalogue that cannot be read is an error that names it; the next run writes it anew."""
    store.put(points_key("north"), b"not a file", "")
    with pytest.raises(DamagedObjectError, match=r"points/north\.parquet"):
        read_catalogue(store, "north")
    assert update_catalogue(store, "north", listed("a"), AT)
    assert [span.name for span in read_catalogue(store, "north")] == ["a"]


def test_the_history_of_points_is_rebuilt_from_the_days(store):
    """From the names that stored days list, the catalogue learns when points were first seen, and which have left."""
    update_catalogue(store, "north", listed("a"), AT)
    days = {date(2024, 1, 1) + timedelta(days=n): ["a", "gone"] if n < 3 else ["a"] for n in range(5)}
    assert rebuild_catalogue(store, "north", days.items())
    a, gone = read_catalogue(store, "north")
    assert (a.first_seen, a.last_seen, a.collect_interval) == (date(2024, 1, 1), AT.date(), 60)
    assert (gone.name, gone.first_seen, gone.last_seen) == ("gone", date(2024, 1, 1), date(2024, 1, 3))
    assert gone.valid_to == datetime(2024, 1, 4, tzinfo=UTC)
    assert not rebuild_catalogue(store, "north", days.items())


DAYS = [date(2024, 1, 1) + timedelta(days=n) for n in range(6)]


def test_a_store_without_a_list_takes_what_the_next_list_says_for_its_history(store):
    """Rebuilt before any list was fetched, a point of the newest day has one row; the next list describes all of it."""
    rebuild_catalogue(store, "north", [(day, ["a", "gone"] if day < DAYS[3] else ["a"]) for day in DAYS])
    a, gone = read_catalogue(store, "north")
    assert (a.valid_to, gone.valid_to) == (None, datetime(2024, 1, 4, tzinfo=UTC))
    assert a.is_name_only
    update_catalogue(store, "north", listed("a"), AT)
    a, gone_still = read_catalogue(store, "north")
    assert (a.collect_interval, a.valid_from, a.valid_to) == (60, datetime(2024, 1, 1, tzinfo=UTC), None)
    assert (a.first_seen, a.last_seen) == (DAYS[0], AT.date())
    assert gone_still == gone


def test_a_rebuilt_point_that_is_listed_again_has_a_row_of_its_own(store):
    """A point that left (by the stored days) and is listed again later has two rows that do not overlap."""
    rebuild_catalogue(store, "north", [(day, ["a", "b"] if day < DAYS[3] else ["b"]) for day in DAYS])
    update_catalogue(store, "north", listed("a", "b"), AT)
    rebuild_catalogue(store, "north", [(day, ["a", "b"]) for day in DAYS])
    before, now, b = read_catalogue(store, "north")
    assert (before.name, before.is_name_only, before.valid_to) == ("a", True, datetime(2024, 1, 7, tzinfo=UTC))
    assert (now.name, now.valid_from, now.collect_interval) == ("a", AT, 60)
    assert b.name == "b"


@given(
    st.lists(st.tuples(st.sampled_from(DAYS), st.sets(st.sampled_from("abc"))), max_size=6),
    st.integers(0, 6),
    st.sampled_from([(), ("a",), ("a", "d")]),
)
def test_a_rebuild_in_parts_is_the_rebuild_of_all(days, cut, names):
    """Whichever days are read first, and however often: the same rows, none of which overlap."""

    def rebuilt(*parts):
        with TemporaryDirectory() as folder:
            store = LocalStore(Path(folder))
            update_catalogue(store, "north", listed(*names), AT)
            for part in parts:
                rebuild_catalogue(store, "north", part)
            return store.read(points_key("north"))

    whole = rebuilt(days)
    parts = rebuilt(days[cut:], days[:cut], days)
    assert (whole and whole.data) == (parts and parts.data)


def test_a_catalogue_of_a_large_site_is_small(store):
    """The catalogue of 4,583 fully described points takes at most 300 kB."""
    items = [
        {
            "name": f"client/site/10.0.{n % 250}.{n // 250}-{n}/analogInput/{n}",
            "id": n,
            "kv_tags": {"vav": f"VAV{n % 90}_{n % 7}", "floor": str(n % 6)},
            "marker_tags": ["zone", "air", "temp", "sensor"],
            "collect_interval": 300,
            "collect_enabled": True,
            "created": f"2024-02-14T19:{n % 60:02}:07.62{n % 10}281",
            "bacnet_data": {
                "object_name": f"ZN-T-{n}",
                "object_description": f"Zone {n % 90} temperature",
                "units": "degreesCelsius",
                "device_name": f"VAV-{n % 90}",
                "present_value": repr(20 + n * 0.7310585786300049 % 7),
                **{f"property_{extra}": "property: unknown-property" for extra in range(28)},
            },
        }
        for n in range(4583)
    ]
    update_catalogue(store, "large", described(items, AT), AT)
    assert len(store.get(points_key("large"))) <= 300_000


def test_states_are_learned_beside_what_the_points_are(store):
    """They are united over days, begin no row, stay when the list is merged, and cost no write when nothing is new."""
    assert not learn_states(store, "north", {"a": ("on",)}, AT.date())
    assert store.read(points_key("north")) is None
    update_catalogue(store, "north", listed("a", "b"), AT)
    assert learn_states(store, "north", {"a": ("on",), "stranger": ("x",)}, AT.date())
    assert learn_states(store, "north", {"a": ("off",)}, AT.date() + timedelta(days=1))
    assert not learn_states(store, "north", {"a": ("off", "on")}, AT.date())
    update_catalogue(store, "north", listed("a", "b"), AT + timedelta(days=2))
    assert [(span.name, span.states) for span in read_catalogue(store, "north")] == [("a", ("off", "on")), ("b", None)]


def test_states_belong_to_the_span_of_their_day(store):
    """What a point was before a change and after it has states of its own; too many texts stay too many."""
    update_catalogue(store, "north", listed("a"), AT)
    learn_states(store, "north", {"a": ("on",)}, AT.date())
    later = AT + timedelta(days=10)
    update_catalogue(store, "north", listed("a", collect_interval=300), later)
    learn_states(store, "north", {"a": ()}, later.date())
    learn_states(store, "north", {"a": ("fast",)}, later.date())
    learn_states(store, "north", {"a": ("off",)}, AT.date() - timedelta(days=300))
    assert [span.states for span in read_catalogue(store, "north")] == [("off", "on"), ()]
