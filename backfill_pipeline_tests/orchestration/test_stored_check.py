"""The check `has_samples` without its asset: the record compared with the store, nothing fetched."""

from datetime import date

import dagster as dg
import pytest

from backfill_pipeline.core.object_keys import object_key
from backfill_pipeline.orchestration.build import JOB
from backfill_pipeline.orchestration.partitions import asset_key
from backfill_pipeline_tests.orchestration.fakes import RANGE, FakeFetcher, Runs, day_rows

SITES = ("north", "a b")


def made(site, day):
    return day_rows(site, day, points=0 if (site, day.day) == ("north", 3) else 3)


@pytest.fixture
def runs(tmp_path):
    with Runs(tmp_path, FakeFetcher(make=made), *SITES) as runs:
        assert runs.run("2025-01-01", "2025-01-04").success
        (tmp_path / object_key("north", date(2025, 1, 1))).unlink()
        (tmp_path / object_key("a b", date(2025, 1, 2))).write_bytes(b"PAR1")
        runs.fetcher.asked.clear()
        yield runs


def evaluated(runs, **tags):
    checks = {dg.AssetCheckKey(asset_key(site), "has_samples") for site in SITES}
    job = runs.defs.resolve_job_def(JOB).get_subset(asset_selection=set(), asset_check_selection=checks)
    result = job.execute_in_process(instance=runs.instance, tags=tags)
    return [one for one in result.get_asset_check_evaluations() if one.check_name == "has_samples"]


def test_each_day_of_the_run_is_compared_with_the_store(runs):
    """Missing, changed and empty days do not pass, each with what was found; no request is sent."""
    found = {
        (one.asset_key, one.partition): (one.passed, one.description)
        for one in evaluated(runs, **dict(zip(RANGE, ("2025-01-01", "2025-01-03"), strict=True)))
    }
    assert len(found) == 6
    wrong = {key: text for key, (passed, text) in found.items() if not passed}
    assert set(wrong) == {
        (asset_key("north"), "2025-01-01"), (asset_key("north"), "2025-01-03"), (asset_key("a b"), "2025-01-02"),
    }  # fmt: skip
    assert "not in the store" in wrong[asset_key("north"), "2025-01-01"]
    assert "bytes" in wrong[asset_key("a b"), "2025-01-02"]
    assert "no rows" in wrong[asset_key("north"), "2025-01-03"]
    assert runs.fetcher.asked == []


def test_without_partitions_a_site_is_one_evaluation(runs):
    """It names the days that are missing or changed, and the command that fetches them again."""
    found = {one.asset_key: one for one in evaluated(runs)}
    assert len(found) == 2
    assert not any(one.passed for one in found.values())
    text = found[asset_key("a b")].description
    assert "a b 2025-01-02; run: backfill verify --from 2025-01-02 --to 2025-01-02" in text
