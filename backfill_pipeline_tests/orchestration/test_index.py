"""The asset `index`: a partition of each year, made from the objects of all sites, continued after an interruption."""

from datetime import date

import dagster as dg
import pytest

from backfill_pipeline.core.object_keys import ROOT, index_key, object_key
from backfill_pipeline.coverage import footers
from backfill_pipeline.errors import StoreBusyError
from backfill_pipeline.orchestration.partitions import INDEX_JOB
from backfill_pipeline.storage.day_index import read_indexes
from backfill_pipeline.storage.days import put_day, settings_store
from backfill_pipeline_tests.orchestration.fakes import FakeFetcher, Runs, day_rows

DAYS = [date(2024, 12, 30), date(2024, 12, 31), date(2025, 1, 1)]


@pytest.fixture
def runs(tmp_path):
    with Runs(tmp_path, FakeFetcher(), first_day=DAYS[0]) as made:
        store = settings_store(made.settings)
        for site in made.settings.sites:
            for day in DAYS:
                put_day(store, day_rows(site, day))
        yield made


def build(runs, year):
    job = runs.defs.resolve_job_def(INDEX_JOB)
    return job.execute_in_process(instance=runs.instance, partition_key=str(year), raise_on_error=False)


def indexed(runs, site="north"):
    return sorted(read_indexes(settings_store(runs.settings), [site], [2024, 2025])[site])


def test_a_partition_indexes_a_year_of_all_sites(runs):
    """Its event has the number of days; other years and days of runs are not touched."""
    done = build(runs, 2024)
    assert done.success
    (event,) = done.get_asset_materialization_events()
    metadata = event.materialization.metadata
    assert (event.partition, metadata["dagster/row_count"].value, metadata["days_damaged"].value) == ("2024", 4, 0)
    assert [indexed(runs, site) for site in runs.settings.sites] == [DAYS[:2]] * 2
    assert build(runs, 2025).success
    assert indexed(runs) == DAYS


def test_an_interrupted_partition_continues_with_the_other_days(runs, monkeypatch):
    """After a failure of the store, only the objects of the days without a row are read."""
    store, read = settings_store(runs.settings), footers.read_footers

    def busy(store, sites, days):
        if sites == ["south"]:
            raise StoreBusyError("slow down")
        return read(store, sites, days)

    monkeypatch.setattr(footers, "read_footers", busy)
    monkeypatch.setattr("backfill_pipeline.orchestration.index._RETRIES", None)
    assert not build(runs, 2024).success
    assert (indexed(runs), indexed(runs, "south")) == (DAYS[:2], [])
    seen = []
    monkeypatch.setattr(footers, "read_footers", lambda *about: seen.append(about[1:]) or read(*about))
    assert build(runs, 2024).success
    assert [sites for sites, days in seen if days] == [["south"]]
    assert indexed(runs, "south") == DAYS[:2]
    assert store.head(index_key("south", 2024)) is not None


def test_damaged_objects_are_counted_and_have_no_row(runs):
    """The partition is made; its event has the number of damaged objects, and the log names the site."""
    (runs.settings.home / object_key("north", DAYS[0])).write_bytes(b"PAR1 nothing PAR1")
    done = build(runs, 2024)
    metadata = done.get_asset_materialization_events()[0].materialization.metadata
    assert (metadata["dagster/row_count"].value, metadata["days_damaged"].value) == (3, 1)
    assert indexed(runs) == DAYS[1:2]


def test_each_year_is_listed_once_for_all_sites(runs, monkeypatch):
    """The number of sites does not multiply the listings of a year."""
    store, listings = settings_store(runs.settings), []
    listed = type(store).list
    monkeypatch.setattr(
        type(store), "list", lambda self, prefix, **more: listings.append(prefix) or listed(self, prefix, **more)
    )
    assert build(runs, 2024).success
    assert sum(prefix.startswith(ROOT) for prefix in listings) == 1


def test_the_partitions_are_years_from_the_first_day_to_this_year(runs):
    """So a Dagster backfill of all partitions makes the index of the whole store."""
    (asset,) = (one for one in runs.defs.assets if dg.AssetKey("index") in getattr(one, "keys", ()))
    years = asset.partitions_def.get_partition_keys()
    assert (years[0], years[-1]) == ("2024", str(date.today().year))  # noqa: DTZ011 - the year is enough
