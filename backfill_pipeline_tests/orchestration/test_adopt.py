"""Adopting: a lost Dagster storage is filled again from the store, and only by what the store can show."""

from datetime import date, timedelta

import dagster as dg
import pytest

from backfill_pipeline.core.layout import object_key
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


def test_adopting_twice_records_once(tmp_path):
    """Days that Dagster knows are left alone: no second event, no look at the store."""
    with Runs(tmp_path, FakeFetcher(), "north") as runs:
        assert runs.run("2025-01-01", "2025-01-02").success
        (tmp_path / object_key("north", DAYS[0])).unlink()
        results = [one.result for one in adopt(runs.instance, runs.settings, ["north"], DAYS[:2])]
        assert results == ["known", "known"]
        assert len(runs.instance.fetch_materializations(asset_key("north"), limit=100).records) == 2
