"""Tables follow the store: no row is doubled, lost or counted after its object was replaced."""

import json
import re
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from pyiceberg.catalog import load_catalog
from pyiceberg.exceptions import CommitFailedException

from backfill_pipeline.control.cli import backfill
from backfill_pipeline.control.table_sync import synced_tables
from backfill_pipeline.core.object_keys import object_key, points_key, text_key
from backfill_pipeline.core.point_catalogue import SCHEMA as POINT_COLUMNS
from backfill_pipeline.core.rows import Chunk, Counts, DayRows
from backfill_pipeline.core.schema import TEXT_SCHEMA
from backfill_pipeline.dataset import iceberg
from backfill_pipeline.dataset.rollup import build_rollup
from backfill_pipeline.dataset.table_catalogue import open_catalogue
from backfill_pipeline.errors import SettingError, StoreBusyError, StoreRefusedError, UsageError
from backfill_pipeline.settings import Settings
from backfill_pipeline.storage.days import put_day, settings_store
from backfill_pipeline_tests.dataset.rest_catalogue import TOKEN, WAREHOUSE, rest_catalogue
from backfill_pipeline_tests.dataset.test_chart import FIRST, store_days
from backfill_pipeline_tests.journeys.table_heals import killed_heals
from backfill_pipeline_tests.services import postgres_server
from backfill_pipeline_tests.storage.bucket import BUCKET, KEY, SECRET, bucket_server

COUNTS = ("added", "replaced", "removed", "unchanged", "empty")


@pytest.fixture(params=["folder", "bucket"])
def settings(request, tmp_path):
    """A store, and a SQL catalogue beside it."""
    catalogue = f"sqlite:///{tmp_path.as_posix()}/catalogue.db"
    if request.param == "folder":
        yield Settings(store=str(tmp_path / "store"), table_catalog=catalogue)
        return
    with bucket_server() as proxy:
        access = {"s3_access_key_id": KEY, "s3_secret_access_key": SECRET, "s3_region": "auto"}
        yield Settings(store=f"s3://{BUCKET}/p", table_catalog=catalogue, s3_endpoint_url=proxy.direct, **access)


def opened(settings):
    return open_catalogue(settings, settings_store(settings))


def scanned(settings, table="samples"):
    """The rows of a table, and the count of its metadata."""
    found = opened(settings).load_table(f"backfill.{table}").scan()
    return found.to_arrow(), found.count()


def counts(changes, table="samples"):
    change = next(one for one in changes if one.table == f"backfill.{table}")
    assert change.failed == {}
    assert change.waiting == []
    return tuple(getattr(change, name) for name in COUNTS)


def stored(settings):
    """All rows of the days in the store."""
    store = settings_store(settings)
    keys = [stat.key for stat in store.list("timeseries/")]
    return pa.concat_tables([pq.read_table(pa.BufferReader(store.get(key))) for key in keys])


def holds(settings):
    """Whether table and store have the same rows."""
    rows, counted = scanned(settings)
    order = [(name, "ascending") for name in ("site_name", "point_name", "timestamp", "value")]
    expected = stored(settings).sort_by(order)
    found = rows.select(expected.column_names).sort_by(order)
    return counted == len(expected) and found.to_pydict() == expected.to_pydict()


def test_a_table_follows_the_store(settings):
    """New days are added, again nothing, a day stored again is replaced, and a day that is gone is removed."""
    store_days(None, [0, 1, 2, 3], settings=settings)
    assert counts(synced_tables(settings, None, ())) == (4, 0, 0, 0, 0)
    assert holds(settings)
    assert counts(synced_tables(settings, None, ())) == (0, 0, 0, 4, 0)
    assert holds(settings)
    store_days(None, [1], settings=settings, every_min=11)
    assert counts(synced_tables(settings, None, ())) == (0, 1, 0, 3, 0)
    assert holds(settings)
    settings_store(settings).delete(object_key("s", FIRST))
    assert counts(synced_tables(settings, None, ())) == (0, 0, 1, 3, 0)
    assert holds(settings)
    store_days(None, [0], settings=settings)
    assert counts(synced_tables(settings, None, ())) == (1, 0, 0, 3, 0)
    assert holds(settings)
    table = opened(settings).load_table("backfill.samples")
    assert len(pl.scan_iceberg(table, reader_override="pyiceberg").collect()) == len(stored(settings))


@pytest.mark.parametrize("every_min", [5, 11, None], ids=["more rows", "fewer rows", "removed"])
def test_between_an_object_and_the_next_synchronisation_no_count_is_wrong(settings, every_min, monkeypatch):
    """Each reader counts the rows of the earlier object or those of the new one, or it fails."""
    monkeypatch.setenv("POLARS_ICEBERG_PLANNER", "pyiceberg")
    store_days(None, [0, 1], settings=settings)
    synced_tables(settings, None, ())
    before = len(stored(settings))
    if every_min is None:
        settings_store(settings).delete(object_key("s", FIRST))
    else:
        store_days(None, [1], settings=settings, every_min=every_min)
    after = len(stored(settings))
    table = opened(settings).load_table("backfill.samples")
    readers = {
        "pyiceberg's count": lambda: table.scan().count(),
        "pyiceberg's scan": lambda: len(table.scan().to_arrow()),
        "a bound of the manifest": lambda: len(table.scan("timestamp >= 0").to_arrow()),
        "DuckDB": lambda: table.scan().to_duckdb("samples").sql("SELECT count(*) FROM samples").fetchall()[0][0],
        "polars": lambda: pl.scan_iceberg(table, reader_override="pyiceberg").collect().height,
        "polars, native": lambda: (
            pl.scan_iceberg(table, reader_override="native", storage_options=table.io.properties).collect().height
        ),
    }
    found = {}
    for name, count in readers.items():
        try:
            found[name] = count()
        except (Exception, pl.exceptions.PanicException) as error:  # noqa: BLE001 - each reader fails in its own way
            found[name] = type(error).__name__
    assert {one for one in found.values() if not isinstance(one, str)} <= {before, after}
    assert found["pyiceberg's count"] == before
    assert counts(synced_tables(settings, None, ()))[1:3] == ((0, 1) if every_min is None else (1, 0))
    assert holds(settings)


def day_of(value, site="s"):
    code = np.zeros(2, np.int32)
    chunk = Chunk(code, np.array([0, 60_000], np.int32), np.array([value, value]))
    return DayRows(site, FIRST, ["a"], [chunk], Counts(2, 2))


def test_an_object_of_the_same_size_and_count_is_replaced(settings):
    """The ETag decides: bounds in the manifest are of the new object."""
    store = settings_store(settings)
    put_day(store, day_of(1.5))
    before = store.head(object_key("s", FIRST)).bytes
    synced_tables(settings, None, ())
    put_day(store, day_of(2.5))
    assert store.head(object_key("s", FIRST)).bytes == before
    assert counts(synced_tables(settings, None, ())) == (0, 1, 0, 0, 0)
    assert opened(settings).load_table("backfill.samples").scan("value > 2").count() == 2


def test_a_kill_after_the_commit_leaves_the_file_doubtful(settings, monkeypatch):
    """Content that goes back to an earlier one, after a commit whose record was lost, is registered again."""
    store = settings_store(settings)
    put_day(store, day_of(1.5))
    synced_tables(settings, None, ())
    put_day(store, day_of(2.5))
    with monkeypatch.context() as lost:
        lost.setattr(iceberg, "_record", lambda *_: None)
        synced_tables(settings, None, ())
    put_day(store, day_of(1.5))
    assert counts(synced_tables(settings, None, ())) == (0, 1, 0, 0, 0)
    assert opened(settings).load_table("backfill.samples").scan("value > 2").count() == 0
    assert holds(settings)


def test_two_synchronisations_at_once_double_nothing(tmp_path, monkeypatch):
    """A commit that comes second compares with the table again."""
    settings = Settings(store=str(tmp_path / "store"), table_catalog=f"sqlite:///{tmp_path.as_posix()}/c.db")
    store_days(None, [0, 1], settings=settings)
    synced_tables(settings, None, ())
    store_days(None, [1, 2, 3], settings=settings, every_min=11)
    commit, nested = iceberg._commit, []

    def overtaken(*args):
        if not nested:
            nested.append(True)
            nested.append(counts(synced_tables(settings, None, ())))
        return commit(*args)

    monkeypatch.setattr(iceberg, "_commit", overtaken)
    assert counts(synced_tables(settings, None, ())) == (0, 0, 0, 4, 0)
    assert nested[1] == (2, 1, 0, 1, 0)
    assert holds(settings)


def test_an_object_that_another_process_registers_after_the_listing_stays(tmp_path, monkeypatch):
    """A file is removed only when it is absent from a listing that is later than the table that was read."""
    settings = Settings(store=str(tmp_path / "store"), table_catalog=f"sqlite:///{tmp_path.as_posix()}/c.db")
    store_days(None, [0], settings=settings)
    synced_tables(settings, None, ())
    entries, nested = iceberg._entries, []

    def overtaken(*args):
        if not nested:
            nested.append(True)
            store_days(None, [1], settings=settings)
            nested.append(counts(synced_tables(settings, None, ())))
            args[0].refresh()
        return entries(*args)

    monkeypatch.setattr(iceberg, "_entries", overtaken)
    assert counts(synced_tables(settings, None, ())) == (0, 0, 0, 1, 0)
    assert nested[1] == (1, 0, 0, 1, 0)
    assert holds(settings)


def test_commits_that_never_succeed_end_with_an_error(tmp_path, monkeypatch):
    """The command ends after some tries; the error names the table."""
    settings = Settings(store=str(tmp_path / "store"), table_catalog=f"sqlite:///{tmp_path.as_posix()}/c.db")
    store_days(None, [0], settings=settings)

    def refused(*_):
        raise CommitFailedException("branch main has changed")

    monkeypatch.setattr(iceberg, "_commit", refused)
    with pytest.raises(StoreBusyError, match=r"backfill\.samples"):
        synced_tables(settings, None, ())


def test_an_object_that_changes_during_the_synchronisation_waits(tmp_path, monkeypatch):
    """Its footer may be of either version, so the table keeps what it had until the next synchronisation."""
    settings = Settings(store=str(tmp_path / "store"), table_catalog=f"sqlite:///{tmp_path.as_posix()}/c.db")
    store_days(None, [0, 1], settings=settings)
    described = iceberg._described

    def late(*args):
        files = described(*args)
        if args[2].name == "samples":
            store_days(None, [1], settings=settings, every_min=11)
        return files

    with monkeypatch.context() as patched:
        patched.setattr(iceberg, "_described", late)
        (change,) = synced_tables(settings, None, ())
    assert change.waiting == [object_key("s", FIRST + timedelta(days=1))]
    assert change.added == 1
    assert counts(synced_tables(settings, None, ())) == (1, 0, 0, 1, 0)
    assert holds(settings)


def test_a_site_alone_leaves_the_others(settings):
    """With a site, objects of other sites are neither added nor removed, whatever characters a name has."""
    store = settings_store(settings)
    odd = "Straße/1: 50%"
    for site in ("s", odd):
        put_day(store, day_of(1.5, site))
    synced_tables(settings, None, [odd])
    assert set(scanned(settings)[0]["site_name"].to_pylist()) == {odd}
    synced_tables(settings, None, ())
    for site in ("s", odd):
        store.delete(object_key(site, FIRST))
    assert counts(synced_tables(settings, None, ["s"])) == (0, 0, 1, 0, 0)
    planned = opened(settings).load_table("backfill.samples").scan().plan_files()
    assert [task.file.partition[0] for task in planned] == [odd]


def test_an_unknown_site_is_refused_before_any_site_is_changed(settings):
    """Neither is a table made, nor a known site registered, beside a site that has neither object nor row."""
    store = settings_store(settings)
    put_day(store, day_of(1.5))
    with pytest.raises(UsageError, match="'nope'"):
        synced_tables(settings, None, ["s", "nope"])
    assert opened(settings).list_namespaces() == []
    synced_tables(settings, None, ["s"])
    put_day(store, day_of(2.5))
    with pytest.raises(UsageError, match="'nope'"):
        synced_tables(settings, None, ["nope", "s"])
    assert opened(settings).load_table("backfill.samples").scan("value > 2").count() == 0
    store.delete(object_key("s", FIRST))
    assert counts(synced_tables(settings, None, ["s"])) == (0, 0, 1, 0, 0)


def test_a_day_without_rows_and_a_damaged_object(settings):
    """A day without rows is counted and not registered; a damaged object is reported, and the others are registered."""
    store = settings_store(settings)
    put_day(store, DayRows("s", FIRST, ["a"], [], Counts(0, 0)))
    store_days(None, [1], settings=settings)
    assert counts(synced_tables(settings, None, ())) == (1, 0, 0, 0, 1)
    assert counts(synced_tables(settings, None, ())) == (0, 0, 0, 1, 1)
    key = object_key("s", FIRST + timedelta(days=2))
    data = store.get(object_key("s", FIRST + timedelta(days=1)))
    store.put(key, data, "")  # the rows of another day
    cut = object_key("s", FIRST + timedelta(days=3))
    store.put(cut, data[:-9], "")
    (change,) = synced_tables(settings, None, ())
    assert change.failed.keys() == {key, cut}
    assert "another site or day" in change.failed[key]
    assert change.unchanged == 1


def test_points_texts_and_hourly_values_are_tables(settings):
    """One query joins samples with units; points have the site from their partition."""
    store = settings_store(settings)
    store_days(None, [0], settings=settings)
    build_rollup(store, "s", FIRST.replace(day=1))
    since = datetime(2020, 1, 1, tzinfo=UTC)
    points = [{"name": name, "valid_from": since, "unit": unit} for name, unit in (("a", "degF"), ("b", "kW"))]
    rows = pa.Table.from_pylist(points, POINT_COLUMNS)
    noon = int(datetime(FIRST.year, FIRST.month, FIRST.day, 12, tzinfo=UTC).timestamp()) * 1000
    text = pa.table([[noon], ["a"], ["on"], ["s"]], schema=TEXT_SCHEMA)
    for key, table in ((points_key("s"), rows), (text_key("s", FIRST), text)):
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink)
        store.put(key, sink.getvalue().to_pybytes(), "")
    changes = synced_tables(settings, None, ())
    assert [one.table.split(".")[1] for one in changes] == ["samples", "texts", "hourly", "points"]
    assert [one.added for one in changes] == [1, 1, 1, 1]
    assert [one.failed for one in changes] == [{}] * 4
    assert scanned(settings, "points")[0].select(["name", "unit", "site_name"]).to_pylist() == [
        {"name": "a", "unit": "degF", "site_name": "s"},
        {"name": "b", "unit": "kW", "site_name": "s"},
    ]
    assert scanned(settings, "texts")[0]["text"].to_pylist() == ["on"]
    assert scanned(settings, "hourly")[1] == 48
    connection = opened(settings).load_table("backfill.samples").scan().to_duckdb("samples")
    opened(settings).load_table("backfill.points").scan().to_duckdb("points", connection)
    page = (Path(__file__).parents[2] / "docs" / "tables.md").read_text(encoding="utf-8")
    query = next(block for block in re.findall(r"```sql\n(.*?)```", page, re.DOTALL) if "FROM samples" in block)
    joined = connection.sql(query)
    found = joined.aggregate("unit, count(*) AS samples").order("unit").fetchall()
    assert found == [("degF", 206), ("kW", 206)]
    assert {one.unchanged for one in synced_tables(settings, None, ())} == {1}


def test_a_rest_catalogue_is_used_with_its_token_and_warehouse(tmp_path):
    """The same tables through the REST protocol; a wrong token or warehouse is an error that shows no token."""
    store = tmp_path / "store"
    with rest_catalogue(tmp_path, (store / "table").as_posix()) as url:
        access = {"store": str(store), "table_catalog": url, "table_warehouse": WAREHOUSE}
        settings = Settings(table_token=TOKEN, **access)
        store_days(None, [0, 1], settings=settings)
        assert counts(synced_tables(settings, None, ())) == (2, 0, 0, 0, 0)
        store_days(None, [1], settings=settings, every_min=11)
        assert counts(synced_tables(settings, None, ())) == (0, 1, 0, 1, 0)
        assert holds(settings)
        reader = load_catalog("x", type="rest", uri=url, token=TOKEN, warehouse=WAREHOUSE)
        assert reader.load_table("backfill.samples").scan().count() == len(stored(settings))
        with pytest.raises(StoreRefusedError, match="BACKFILL_TABLE_TOKEN") as done:
            synced_tables(Settings(table_token="hush-hush", **access), None, ())
        assert "hush-hush" not in str(done.value)
        with pytest.raises(StoreRefusedError, match="no warehouse other"):
            synced_tables(Settings(table_token=TOKEN, **access | {"table_warehouse": "other"}), None, ())


def test_a_postgres_catalogue_is_used(tmp_path):
    """The catalogue for several machines: the same tables, in a real Postgres."""
    with postgres_server() as url:
        settings = Settings(store=str(tmp_path / "store"), table_catalog=url)
        store_days(None, [0, 1], settings=settings)
        assert counts(synced_tables(settings, None, ())) == (2, 0, 0, 0, 0)
        store_days(None, [1], settings=settings, every_min=11)
        assert counts(synced_tables(settings, None, ())) == (0, 1, 0, 1, 0)
        assert holds(settings)


def test_the_command_prints_counts_and_ends_with_an_exit_code(tmp_path, monkeypatch):
    """Facts for scripts with --json; exit code 1 when an object cannot be registered."""
    settings = Settings(store=str(tmp_path / "store"))
    store_days(None, [0], settings=settings)
    monkeypatch.setenv("BACKFILL_STORE", settings.store)
    monkeypatch.chdir(tmp_path)
    words = ["table", "sync", "--catalog", f"sqlite:///{tmp_path.as_posix()}/c.db"]
    done = CliRunner().invoke(backfill, words)
    assert (done.exit_code, done.output) == (0, "backfill.samples: 1 added; 412 rows\n")
    done = CliRunner().invoke(backfill, [*words, "--json"])
    assert (done.exit_code, json.loads(done.output)[0]["unchanged"]) == (0, 1)
    settings_store(settings).put("timeseries/2024/03/31/t.parquet", b"PAR1", "")
    assert CliRunner().invoke(backfill, words).exit_code == 1


@pytest.mark.parametrize("url", ["mysql://me:hush@host/x", "sqlite:///", "nonsense"])
def test_a_wrong_catalogue_is_refused_without_its_password(tmp_path, url):
    """The error names the option and the accepted forms."""
    with pytest.raises(UsageError, match="--catalog") as done:
        synced_tables(Settings(store=str(tmp_path)), url, ())
    assert "hush" not in str(done.value)


def test_without_a_catalogue_or_the_extra_the_error_names_what_to_do(tmp_path, monkeypatch):
    """Both are settings faults: exit code 2 and one line."""
    with pytest.raises(SettingError, match="BACKFILL_TABLE_CATALOG"):
        synced_tables(Settings(store=str(tmp_path)), None, ())
    for name in [name for name in sys.modules if name.split(".")[0] == "pyiceberg"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "backfill_pipeline.dataset.iceberg")
    monkeypatch.delattr("backfill_pipeline.dataset.iceberg")
    with monkeypatch.context() as absent:
        absent.setitem(sys.modules, "psycopg2", None)
        with pytest.raises(SettingError, match=r"backfill-pipeline\[postgres\]"):
            synced_tables(Settings(store=str(tmp_path)), "postgresql://127.0.0.1:1/x", ())
    monkeypatch.setitem(sys.modules, "pyiceberg", None)
    with pytest.raises(SettingError, match=r"backfill-pipeline\[table\]"):
        synced_tables(Settings(store=str(tmp_path)), "sqlite:///c.db", ())


def test_killed_synchronisations_end_with_the_rows_of_the_store(tmp_path, monkeypatch):
    """After random heals with a kill in between, pyiceberg, polars and DuckDB count the rows of the footers."""
    monkeypatch.setenv("POLARS_ICEBERG_PLANNER", "pyiceberg")
    found = killed_heals(tmp_path, 4)
    assert found["footers"] > 0
    assert set(found.values()) == {found["footers"]}
