"""The points' catalogue through client, simulator and Dagster: odd lists, two runs at once, a year away."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any

import dagster as dg
import pytest

from backfill_pipeline import read
from backfill_pipeline.ace.client import AceClient, open_client
from backfill_pipeline.dataset.point_catalogue import read_catalogue, update_catalogue
from backfill_pipeline.orchestration.point_catalogues import points_asset_key
from backfill_pipeline.simulator.app import Simulator
from backfill_pipeline.simulator.world import Sample, SiteSpec, World, midnight_us
from backfill_pipeline.storage.days import settings_store
from backfill_pipeline.storage.local import LocalStore
from backfill_pipeline_tests.journeys.test_days import materialised, rows_of, settings_of

DAY = date(2025, 3, 1)


@dataclass
class ListedSite:
    """A site whose list of points can be changed while the simulator serves it.

    Attributes:
        name: the site.
        items: the list, as the API sends it.
        names: points that have a sample each ten minutes.
    """

    name: str
    items: list[dict[str, Any]]
    names: Sequence[str] = ()
    archived: bool = False
    asked: int = field(default=0)

    def points(self) -> list[dict[str, Any]]:
        self.asked += 1
        return self.items

    def samples(self, day: date) -> Sequence[Sample]:
        start = midnight_us(day)
        times = range(start + 1_234_567, start + 86_400_000_000, 600_000_000)
        return [(at, name, f'"{at % 97 / 10}"') for at in times for name in sorted(self.names)]


def item(name, **more):
    about = {"units": "degreesCelsius", "object_description": f"What {name} is", "device_name": "AHU-1", "device_id": 7}
    return {"name": name, "collect_enabled": True, "collect_interval": 600, "bacnet_data": about} | more


ODD = [
    item("s/plain"),
    item("s/PLAIN"),
    item("s/Plain ", bacnet_data={"units": "percent"}),
    {"name": "s/bare", "collect_enabled": True},
    item("s/list", bacnet_data=[1, "two"], kv_tags=["a"], marker_tags={"b": 1}),
    item("s/null", bacnet_data=None, kv_tags=None, marker_tags=None, collect_config=None, id=None, created=None),
    item("s/text", bacnet_data="None", kv_tags="None", marker_tags="None", collect_interval="None"),
    item("s/types", kv_tags={"n": 1, "deep": {"x": [None]}}, marker_tags=[1, None, {"x": 2}], id=2**70, created=17),
    item("s/unknown", more={"never": "seen"}, collect_config={"password": "hunter2", "cov": True}),
    item("s/é\u0301\U0001f600\x1b[2J", bacnet_data={"object_description": "odd \ud800 text"}),
]


@pytest.fixture
def site():
    return ListedSite("s", list(ODD), ["s/plain", "s/PLAIN", "s/bare"])


@pytest.fixture
def journey(site, tmp_path):
    """The settings of a store, and what a run stores and records, with the site served by the simulator."""
    with Simulator(World([site]), api_key="hush-hush") as simulator, dg.DagsterInstance.ephemeral() as instance:
        yield settings_of(simulator, tmp_path), instance, simulator


def test_an_odd_list_fails_no_day_and_every_point_of_it_is_kept(site, journey, tmp_path):
    """Missing, odd and mistyped fields, and names that differ in case: the day is stored, each point is a row."""
    settings, instance, simulator = journey
    assert materialised(settings, instance, DAY).success
    assert {name for _, name, _ in rows_of(tmp_path, "s", DAY)} == set(site.names)
    table = read.points("s", settings=settings)
    assert set(table["name"].to_pylist()) == {one["name"] for one in ODD}
    found = {row["name"]: row for row in table.to_pylist()}
    assert (found["s/plain"]["unit"], found["s/Plain "]["unit"], found["s/bare"]["unit"]) == (
        "degreesCelsius",
        "percent",
        None,
    )
    assert '"more"' not in found["s/unknown"]["raw"]
    assert "hunter2" not in str(found)
    lists = [one for one in simulator.requests if one.path.endswith("configured_points")]
    assert len(lists) == 1


def test_a_run_records_its_update_as_a_materialisation_of_the_catalogue(site, journey):
    """The first run of a site records the catalogue with its figures; a run with an equal list records nothing."""
    settings, instance, _ = journey
    assert materialised(settings, instance, DAY, DAY + timedelta(days=1)).success
    assert materialised(settings, instance, DAY + timedelta(days=2)).success
    (record,) = instance.fetch_materializations(points_asset_key("s"), limit=9).records
    metadata = record.asset_materialization.metadata
    assert record.partition_key is None
    assert metadata["dagster/row_count"].value == len(ODD)
    assert metadata["devices"].value == 1
    rows = {one.data["name"]: one.data for one in metadata["first_rows"].records}
    assert rows["s/plain"]["description"] == "What s/plain is"
    site.items = [item("s/plain", collect_interval=60), *ODD[1:]]
    assert materialised(settings, instance, DAY + timedelta(days=3)).success
    records = instance.fetch_materializations(points_asset_key("s"), limit=9).records
    assert [one.asset_materialization.metadata["dagster/row_count"].value for one in records] == [
        len(ODD) + 1,
        len(ODD),
    ]


def test_a_point_that_comes_back_after_a_year_has_a_row_for_each_stay(site, journey):
    """Lists of three instants through the real client: two stays of one point, and nothing in between."""
    settings, _, _ = journey
    store, first = settings_store(settings), datetime(2024, 3, 1, tzinfo=UTC)
    for days, items in ((0, ODD), (10, ODD[1:]), (375, ODD)):
        site.items = items
        at = first + timedelta(days=days)
        client = AceClient(settings.api_url, "hush-hush", open_client(settings).budget, now=at.timestamp)
        points = client.configured_points("s")
        assert points.listed_at == at
        update_catalogue(store, "s", points.described(), at)
    stays = [(span.valid_from, span.valid_to) for span in read_catalogue(store, "s") if span.name == "s/plain"]
    assert stays == [(first, first + timedelta(days=10)), (first + timedelta(days=375), None)]
    at = [read.points("s", at=first + timedelta(days=days), settings=settings)["name"] for days in (5, 100, 400)]
    assert ["s/plain" in names.to_pylist() for names in at] == [True, False, True]


def test_a_list_that_changes_while_days_are_fetched_is_a_history(tmp_path):
    """Runs against a simulator whose list changes four times: each change of a point is a row, and none overlaps."""
    now, start = [0.0], datetime(2025, 3, 1, tzinfo=UTC)
    world = World([SiteSpec("s", 20)])
    with Simulator(world, api_key="hush-hush", points_change_s=1, clock=lambda: now[0]) as simulator:
        settings = settings_of(simulator, tmp_path)
        store = settings_store(settings)
        for now[0] in range(5):
            at = start + timedelta(days=now[0])
            client = AceClient(simulator.url, "hush-hush", open_client(settings).budget, now=at.timestamp)
            update_catalogue(store, "s", client.configured_points("s").described(), at)
    spans = read_catalogue(store, "s")
    of = {point["name"]: [] for point in world.sites[0].points()}
    for span in spans:
        of.setdefault(span.name, []).append(span)
    first, second, third, fourth, *_ = of.values()
    assert [span.device_name for span in first] == ["AHU-100", "AHU-100 east"]
    assert [span.unit for span in second][-2:] == [second[0].unit, "degreesFahrenheit"]
    assert [span.collect_interval for span in third] == [300, 300, 600]
    assert [span.valid_to for span in fourth] == [start + timedelta(days=n) for n in (1, 3)] + [None]
    (new,) = [span for span in spans if span.description == "Carbon dioxide"]
    assert (new.first_seen, new.unit) == (date(2025, 3, 4), "partsPerMillion")
    for one, two in pairwise(spans):
        assert one.name != two.name or one.valid_to <= two.valid_from


def test_two_runs_at_once_lose_no_point(tmp_path):
    """Two runs that list different points at the same moment: the catalogue has the points of both."""
    sites = [ListedSite("s", [item("s/shared"), item(f"s/{number}")], ["s/shared"]) for number in range(2)]
    failed = []

    def run(site, day):
        with Simulator(World([site]), api_key="hush-hush") as simulator, dg.DagsterInstance.ephemeral() as instance:
            settings = settings_of(simulator, tmp_path, DAGSTER_HOME=str(tmp_path / site.items[1]["name"][2:]))
            if not materialised(settings, instance, day).success:
                failed.append(day)

    threads = [threading.Thread(target=run, args=(site, DAY + timedelta(days=n))) for n, site in enumerate(sites)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    spans = read_catalogue(LocalStore(tmp_path / "data"), "s")
    assert {span.name for span in spans} == {"s/shared", "s/0", "s/1"}


def test_a_list_of_forty_thousand_points_is_kept_whole(tmp_path):
    """40,000 points take five requests, 10 MB at most while a run lasts, and a row each in the catalogue."""
    with Simulator(World([SiteSpec("large", 40_000)]), api_key="hush-hush") as simulator:
        settings = settings_of(simulator, tmp_path)
        points = open_client(settings).configured_points("large")
        assert len(simulator.requests) == 5
    assert len(points.names) == 40_009
    assert len(points.packed) < 10_000_000
    store = settings_store(settings)
    spans = update_catalogue(store, "large", points.described(), points.listed_at)
    assert len(spans) == 40_009
    assert [span.name for span in read_catalogue(store, "large")] == list(points.names)
    assert len(store.get("points/large.parquet")) < 40_009 * 70
