"""The assets `points/<site>` in real Dagster runs: what the UI shows of a catalogue, and what a rebuild adds."""

from datetime import UTC, date, datetime, timedelta

import dagster as dg
import pytest

from backfill_pipeline.core.object_keys import object_key
from backfill_pipeline.core.point_catalogue import described
from backfill_pipeline.dataset.point_catalogue import read_catalogue, update_catalogue
from backfill_pipeline.orchestration.build import build_defs
from backfill_pipeline.orchestration.partitions import asset_key
from backfill_pipeline.orchestration.point_catalogues import points_asset_key
from backfill_pipeline.settings import Settings
from backfill_pipeline.storage.days import put_day, settings_store
from backfill_pipeline_tests.orchestration.fakes import day_rows

FIRST = date(2025, 1, 1)
SITES = ("a-b", "a.b", "a_b", "Büro 1")


@pytest.fixture
def settings(tmp_path):
    return Settings(sites=SITES, store=str(tmp_path / "data"), home=tmp_path, first_day=FIRST)


def rebuilt(settings, *sites):
    """Materialise the catalogues of some sites: the run, and the metadata of each by site."""
    defs = build_defs(settings, now=lambda: datetime(2025, 1, 9, tzinfo=UTC))
    keys = [points_asset_key(site) for site in sites]
    with dg.DagsterInstance.ephemeral() as instance:
        job = defs.resolve_implicit_global_asset_job_def()
        result = job.execute_in_process(instance=instance, asset_selection=keys, raise_on_error=False)
        shown = {}
        for site, key in zip(sites, keys, strict=True):
            records = instance.fetch_materializations(key, limit=9).records
            shown[site] = [one.asset_materialization.metadata for one in records]
        return result, shown


def test_each_site_has_an_asset_downstream_of_its_days_alone(settings):
    """Every site has one catalogue asset, for any name, in the group `points`, downstream of its own days."""
    graph = build_defs(settings).resolve_asset_graph()
    for site in SITES:
        node = graph.get(points_asset_key(site))
        assert (node.group_name, node.parent_keys, node.partitions_def) == ("points", {asset_key(site)}, None)


def test_a_materialisation_adds_what_stored_days_say(settings, tmp_path):
    """Materialising the asset reads the days' footers: points that left are rows, and the UI shows figures and rows."""
    store = settings_store(settings)
    for number in range(4):
        put_day(store, day_rows("a-b", FIRST + timedelta(days=number), points=3 if number < 2 else 2))
    at = datetime(2025, 1, 5, tzinfo=UTC)
    about = {"units": "percent", "object_description": "Valve \x1bposition", "device_id": 7}
    update_catalogue(store, "a-b", described([{"name": "a-b/p0", "bacnet_data": about}], at), at)
    result, shown = rebuilt(settings, "a-b")
    assert result.success
    (metadata,) = shown["a-b"]
    spans = read_catalogue(store, "a-b")
    assert metadata["dagster/row_count"].value == metadata["points"].value == len(spans) > 1
    assert [metadata[name].value for name in ("points_listed", "units", "devices", "points_with_unit")] == [1, 1, 1, 1]
    assert metadata["path"].value == str(tmp_path / "data" / "points" / "a-b.parquet")
    (row,) = [one.data for one in metadata["first_rows"].records]
    assert (row["name"], row["description"], row["unit"]) == ("a-b/p0", "Valve \\x1bposition", "percent")
    left = next(span for span in spans if span.name == "a-b/p3")
    assert (left.first_seen, left.valid_to) == (FIRST, datetime(2025, 1, 3, tzinfo=UTC))


def test_a_site_without_stored_days_fails_alone(settings):
    """A catalogue that would have no row is a failure that names the site; other catalogues are rebuilt."""
    put_day(settings_store(settings), day_rows("a_b", FIRST))
    (settings_store(settings)).put(object_key("a_b", FIRST + timedelta(days=1)), b"damaged", "")
    result, shown = rebuilt(settings, "Büro 1", "a_b")
    assert not result.success
    assert (len(shown["Büro 1"]), len(shown["a_b"])) == (0, 1)
    (failed,) = [event for event in result.all_events if event.is_step_failure]
    assert "Büro 1: no stored day names its points" in failed.step_failure_data.user_failure_data.description
