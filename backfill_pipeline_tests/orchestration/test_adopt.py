"""Adopting: a lost Dagster storage is filled again from the store, and only by what the store can show."""

import os
from datetime import date, timedelta

import dagster as dg
import pytest

from backfill_pipeline.core.object_keys import object_key
from backfill_pipeline.orchestration.adopt import adopt
from backfill_pipeline.orchestration.partitions import asset_key
from backfill_pipeline_tests.orchestration.fakes import FakeFetcher, Runs, day_rows

DAYS = [date(2025, 1, 1) + timedelta(days=number) for number in range(4)]


def made(site, day):
    return day_rows(site, day, points=0 if day == DAYS[1] else 3, dropped={} if day == DAYS[1] else {"not_numeric": 2})


def facts(instance, site):
    records = instance.fetch_materializations(asset_key(site), limit=100).records
    return {
        record.partition_key: {k: v.value for k, v in record.asset_materialization.metadata.items()}
        for record in records
    }


@pytest.mark.parametrize("deep", [False, True])
def test_what_the_store_holds_is_recorded_again(tmp_path, deep):
    """Each good object becomes a materialisation with its figures; a missing and a damaged one do not."""
    with Runs(tmp_path, FakeFetcher(make=made), "north", "a b") as runs, dg.DagsterInstance.ephemeral() as lost:
        assert runs.run("2025-01-01", "2025-01-03").success
        (tmp_path / object_key("a b", DAYS[2])).write_bytes(b"PAR1 cut off")
        found = {(one.site, one.day): one for one in adopt(lost, runs.settings, ("north", "a b"), DAYS, deep=deep)}
        results = {key: one.result for key, one in found.items()}
        assert results == {
            **{(site, day): "adopted" for site in ("north", "a b") for day in DAYS[:3]},
            **{(site, DAYS[3]): "missing" for site in ("north", "a b")},
            ("a b", DAYS[2]): "damaged",
        }
        assert found["a b", DAYS[2]].wrong
        before, after = facts(runs.instance, "north"), facts(lost, "north")
        same = {"dagster/row_count", "bytes", "state", "samples_fetched", "samples_dropped", "path", "sha256"}
        assert after.keys() == before.keys()
        for day, known in before.items():
            assert {name: after[day][name] for name in same} == {name: known[name] for name in same}
        assert set(after["2025-01-01"]) >= {"requests", "duration_s"}
        assert lost.get_materialized_partitions(asset_key("a b")) == {"2025-01-01", "2025-01-02"}


def test_an_adopted_day_without_rows_does_not_pass(tmp_path):
    """Its check `has_samples` is recorded with it, and is of the materialisation that adopting made."""
    with Runs(tmp_path, FakeFetcher(make=made), "north") as runs, dg.DagsterInstance.ephemeral() as lost:
        assert runs.run("2025-01-01", "2025-01-02").success
        assert [one.rows for one in adopt(lost, runs.settings, ["north"], DAYS[:2])] == [432, 0]
        key = dg.AssetCheckKey(asset_key("north"), "has_samples")
        records = lost.event_log_storage.get_asset_check_execution_history(key, limit=10)
        found = {
            (one := record.event.dagster_event.event_specific_data).partition: (one.passed, one.description)
            for record in records
        }
        assert found == {
            "2025-01-01": (True, None),
            "2025-01-02": (False, "0 rows: the API returned no samples for 2025-01-02"),
        }


def test_adopting_twice_records_once(tmp_path):
    """Days that Dagster knows are not recorded again."""
    with Runs(tmp_path, FakeFetcher(), "north") as runs:
        assert runs.run("2025-01-01", "2025-01-02").success
        results = [one.result for one in adopt(runs.instance, runs.settings, ["north"], DAYS[:2])]
        assert results == ["known", "known"]
        assert len(runs.instance.fetch_materializations(asset_key("north"), limit=100).records) == 2


@pytest.mark.parametrize("deep", [False, True])
def test_recorded_days_are_compared_with_the_store(tmp_path, deep):
    """A recorded day whose object is gone, cut or another site's is reported, not recorded again; a copy is known."""
    with Runs(tmp_path, FakeFetcher(), "north", "a b") as runs:
        assert runs.run("2025-01-01", "2025-01-04").success
        paths = [tmp_path / object_key("north", day) for day in DAYS]
        other = tmp_path / object_key("a b", DAYS[2])
        paths[0].unlink()
        paths[1].write_bytes(paths[1].read_bytes()[:-9])
        paths[2].write_bytes(other.read_bytes())
        os.utime(paths[3], (1, 1))
        found = list(adopt(runs.instance, runs.settings, ["north"], DAYS, deep=deep))
        assert [one.result for one in found] == ["missing", "damaged", "damaged", "known"]
        assert all(one.recorded for one in found)
        assert "not in the store" in found[0].wrong[0]
        assert "bytes" in found[1].wrong[0]
        assert len(runs.instance.fetch_materializations(asset_key("north"), limit=100).records) == 4


def test_a_byte_that_no_listing_shows_is_found_by_reading_all(tmp_path):
    """The size and the time of the last write are as recorded: `deep` compares the recorded hash."""
    with Runs(tmp_path, FakeFetcher(), "north") as runs:
        assert runs.run("2025-01-01").success
        path = tmp_path / object_key("north", DAYS[0])
        before = path.stat()
        path.write_bytes(path.read_bytes().replace(b"parquet-cpp-arrow", b"parquet-cpp-brrow"))
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        for deep, result in ((False, "known"), (True, "damaged")):
            (found,) = adopt(runs.instance, runs.settings, ["north"], DAYS[:1], deep=deep)
            assert found.result == result
