"""Days and sites in Dagster's words: whatever a site is called, it has one asset, and the asset has one site."""

import re
from datetime import UTC, date, datetime

import dagster as dg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backfill_pipeline.errors import UsageError
from backfill_pipeline.orchestration.partitions import asset_key, asset_name, day_partitions, output_name, site_of
from backfill_pipeline.settings import Settings

HOSTILE = st.text(st.sampled_from("ab_-. /\\\"'%:*é٣x20h\U0001f3e2\ud800"), min_size=1)
NAMES = st.one_of(st.text(min_size=1), HOSTILE)


@given(NAMES)
def test_a_site_comes_back_from_its_asset(site):
    """Every name, hyphens, dots, spaces, quotes, slashes and any script included, survives the way there and back."""
    assert site_of(asset_name(site)) == site


@given(NAMES)
def test_asset_names_are_what_dagster_takes(site):
    """Asset names hold characters that keys, selections and URLs take, outputs those of Dagster's own rule."""
    assert re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*", asset_name(site))
    assert re.fullmatch(r"site_h[A-Za-z0-9_]+", output_name(site))


@given(NAMES, NAMES)
def test_no_two_sites_share_an_asset_or_an_output(one, other):
    """Different sites have different keys and different outputs."""
    assert (asset_key(one) == asset_key(other)) == (one == other)
    assert (output_name(one) == output_name(other)) == (one == other)


@pytest.mark.parametrize("site", ["ses_falls_city", "demo-north", "site.one", "A1"])
def test_plain_names_stay_readable(site):
    """Names of letters, digits, hyphens, dots and underscores are the asset's name as they are."""
    assert asset_name(site) == site


@pytest.mark.parametrize("sites", [("a-b", "a.b", "a_b"), ("North", "north", "NORTH"), (" ", "  ", "_")])
def test_names_that_look_alike_stay_apart(sites):
    """Names which differ by case, or by a character that Dagster would fold, keep their own outputs."""
    assert len({output_name(site) for site in sites}) == len({asset_name(site) for site in sites}) == len(sites)


def test_every_asset_can_be_selected():
    """`--select timeseries/...`, as the UI and the commands take it, finds exactly the asset of the site."""
    sites = ["demo-north", "a.b", "a b", "Zürich", "x/y", 'q"q', "50%", "-", "...", "a__b", "A__B", " "]
    graph = dg.Definitions(assets=[dg.AssetSpec(asset_key(site)) for site in sites]).resolve_asset_graph()
    for site in sites:
        selection = dg.AssetSelection.from_string(asset_key(site).to_user_string())
        assert selection.resolve(graph) == {asset_key(site)}


@pytest.mark.parametrize("name", ["", "a b", "a__", "__zz_", "__41_", "__ffffffff_", ".a"])
def test_names_of_no_site_are_refused(name):
    """What `asset_name` never gives leads back to no site."""
    with pytest.raises(UsageError):
        site_of(name)


@pytest.mark.parametrize(
    ("lag", "last"), [(0, "2025-03-09"), (12, "2025-03-09"), (24, "2025-03-08"), (47, "2025-03-08")]
)
def test_days_exist_once_they_may_be_ready(lag, last):
    """The newest partition is at most a day ahead of what is ready, and no ready day is missing."""
    settings = Settings(raw_lag_hours=lag, first_day=date(2025, 3, 1))
    now = datetime(2025, 3, 10, 23, 30, tzinfo=UTC)
    keys = day_partitions(settings).get_partition_keys(current_time=now)
    assert (keys[0], keys[-1]) == ("2025-03-01", last)
    assert all(day.isoformat() in keys for day in map(date.fromisoformat, keys) if settings.ready_at(day) <= now)
