"""What downstream assets load: a day or a range of days, as the type that they ask for."""

import hashlib
from datetime import date

import dagster as dg
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from backfill_pipeline.core.object_keys import object_key
from backfill_pipeline.errors import DamagedObjectError
from backfill_pipeline.orchestration.assets import OBJECTS
from backfill_pipeline.orchestration.io_manager import DayIOManager
from backfill_pipeline.orchestration.partitions import asset_key, day_partitions
from backfill_pipeline.settings import Settings
from backfill_pipeline.storage.days import put_day, settings_store
from backfill_pipeline_tests.orchestration.fakes import RANGE, FakeFetcher, Runs, day_rows
from backfill_pipeline_tests.storage.bucket import BUCKET, KEY, SECRET, bucket_server

SITE = "Büro 1/[north]"
DAYS = [date(2025, 1, number) for number in (1, 2, 3)]


@pytest.fixture(scope="module", params=["folder", "bucket"])
def settings(request, tmp_path_factory):
    """Three stored days of a site whose name no disk would take as it is."""
    common = {"sites": (SITE,), "first_day": DAYS[0]}
    if request.param == "folder":
        found = Settings(store=str(tmp_path_factory.mktemp("store")), **common)
        stored(found)
        yield found
        return
    with bucket_server() as proxy:
        keys = {"s3_access_key_id": KEY, "s3_secret_access_key": SECRET, "s3_endpoint_url": proxy.direct}
        found = Settings(store=f"s3://{BUCKET}/days", s3_region="auto", **keys, **common)
        stored(found)
        yield found


def stored(settings):
    for day in DAYS:
        put_day(settings_store(settings), day_rows(SITE, day))


def loaded(settings, kind, first, last=None):
    """What a downstream asset that asks for `kind` is given, in a real run."""
    seen = []
    upstream = dg.AssetSpec(
        asset_key(SITE), partitions_def=day_partitions(settings), metadata={"dagster/io_manager_key": OBJECTS}
    )

    def downstream(rows):
        seen.append(rows)

    downstream.__annotations__["rows"] = kind
    asset = dg.asset(
        ins={"rows": dg.AssetIn(asset_key(SITE))},
        partitions_def=day_partitions(settings),
    )(downstream)
    held = dg.ResourceDefinition.hardcoded_resource(settings)
    dg.materialize(
        [upstream, asset],
        selection=[asset],
        resources={OBJECTS: DayIOManager(settings=held), "io_manager": dg.mem_io_manager},
        tags=dict(zip(RANGE, (first, last or first), strict=True)),
    )
    return seen[0]


@pytest.mark.parametrize("kind", [pa.Table, pd.DataFrame, pl.DataFrame, pl.LazyFrame])
def test_a_range_of_days_comes_as_the_type_asked_for(settings, kind):
    """All rows of the range, oldest first, the contract's columns in their order."""
    rows = loaded(settings, kind, "2025-01-01", "2025-01-03")
    assert isinstance(rows, kind)
    table = rows.collect().to_arrow() if kind is pl.LazyFrame else pa.table(rows)
    assert table.column_names == ["timestamp", "point_name", "value", "site_name"]
    assert table.num_rows == 3 * 432
    days = [value // 86_400_000 for value in table["timestamp"].to_pylist()]
    assert days == sorted(days)
    assert set(table["site_name"].to_pylist()) == {SITE}


def test_a_single_day_comes_alone(settings):
    """A run of one partition loads that day and no other."""
    assert loaded(settings, pa.Table, "2025-01-02").num_rows == 432


@pytest.mark.parametrize("kind", [pa.Table, pl.LazyFrame])
def test_days_that_are_not_stored_are_named(settings, kind):
    """Site, days, store and what to do; before a query begins, for a lazy frame too."""
    with pytest.raises(FileNotFoundError, match=r"2025-01-04, 2025-01-05: no object in .*materialise these days"):
        loaded(settings, kind, "2025-01-03", "2025-01-05")


@pytest.mark.parametrize("kind", [pa.Table, pd.DataFrame, pl.DataFrame, pl.LazyFrame])
def test_another_sites_object_is_refused_by_site_and_day(settings, kind):
    """And an object that is cut: before a query begins, for a lazy frame too."""
    store = settings_store(settings)
    put_day(store, day_rows("other", DAYS[1]))
    key = object_key(SITE, DAYS[1])
    whole = store.get(key)
    try:
        for wrong in (store.get(object_key("other", DAYS[1])), whole[:-30]):
            store.put(key, wrong, hashlib.sha256(wrong).hexdigest())
            with pytest.raises(DamagedObjectError, match=r"2025-01-02: .* is damaged.*--repair") as caught:
                loaded(settings, kind, "2025-01-01", "2025-01-03")
            assert (caught.value.site, caught.value.day) == (SITE, DAYS[1])
    finally:
        store.put(key, whole, hashlib.sha256(whole).hexdigest())


def test_a_day_that_did_not_change_is_not_written_and_says_so(tmp_path):
    """Materialised again, the same rows leave the object as it is: `changed` is false in the newest metadata."""
    with Runs(tmp_path, FakeFetcher(), "north") as runs:
        told = []
        for _ in range(2):
            (event,) = runs.run("2025-01-01").get_asset_materialization_events()
            told.append(event.step_materialization_data.materialization.metadata)
            (path,) = tmp_path.rglob("north.parquet")
            told[-1]["written"] = path.stat().st_mtime_ns
    assert [metadata["changed"].value for metadata in told] == [True, False]
    assert told[0]["sha256"] == told[1]["sha256"]
    assert told[0]["written"] == told[1]["written"]


@pytest.mark.parametrize("encoding", ["delta", "dictionary"])
def test_the_layout_is_that_of_the_settings(tmp_path, encoding):
    """`BACKFILL_ROW_GROUP_ROWS`, `_COMPRESSION` and `_TIMESTAMP_ENCODING` reach the object."""
    with Runs(
        tmp_path, FakeFetcher(), "north", row_group_rows=1000, compression="zstd", timestamp_encoding=encoding
    ) as runs:
        runs.run("2025-01-01")
    (path,) = tmp_path.rglob("north.parquet")
    meta = pq.read_metadata(path)
    assert meta.num_rows == 432
    assert meta.row_group(0).column(2).compression == "ZSTD"
    assert ("DELTA_BINARY_PACKED" in meta.row_group(0).column(0).encodings) == (encoding == "delta")
