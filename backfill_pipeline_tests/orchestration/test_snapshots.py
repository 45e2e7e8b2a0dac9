"""The snapshots in real Dagster runs against the simulator: today or nothing, no secret, nothing claimed."""

import json
import re
from contextlib import ExitStack
from datetime import UTC, date, datetime, timedelta

import dagster as dg
import duckdb
import pytest

from backfill_pipeline.core.snapshots import KINDS, document
from backfill_pipeline.orchestration.build import build_defs
from backfill_pipeline.orchestration.history import read_launched
from backfill_pipeline.orchestration.partitions import SNAPSHOTS_JOB
from backfill_pipeline.orchestration.snapshots import snapshot_key_of, snapshots_sensor
from backfill_pipeline.settings import Settings
from backfill_pipeline.simulator.app import Simulator
from backfill_pipeline.simulator.descriptions import SECRETS
from backfill_pipeline.simulator.world import SiteSpec, World
from backfill_pipeline_tests.test_architecture import ROOT

TODAY = datetime.now(UTC).date()
NAMES = [kind.name for kind in KINDS]


class Installation:
    """Definitions over a simulator, a folder as store, and an instance in memory."""

    def __init__(self, folder, **fields):
        self.stack = ExitStack()
        self.simulator = self.stack.enter_context(Simulator(World([SiteSpec("north", 12), SiteSpec("south", 12)])))
        self.instance = self.stack.enter_context(dg.DagsterInstance.ephemeral())
        self.folder = folder / "data"
        self.at = datetime.combine(TODAY, datetime.now(UTC).time(), UTC)
        fields = {"snapshots_from": TODAY - timedelta(days=3), "sites": ("north", "south"), **fields}
        self.settings = Settings(
            api_key="simulator-key",
            api_url=self.simulator.url,
            store=str(self.folder),
            home=folder,
            requests_per_minute=10_000,
            **fields,
        )
        self.defs = build_defs(self.settings, now=lambda: self.at)

    def run(self, day=TODAY, **options):
        job = self.defs.resolve_job_def(SNAPSHOTS_JOB)
        return job.execute_in_process(
            instance=self.instance, partition_key=day.isoformat(), raise_on_error=False, **options
        )

    def tick(self):
        context = dg.build_sensor_context(instance=self.instance, definitions=self.defs)
        return snapshots_sensor(self.settings, now=lambda: self.at).evaluate_tick(context)

    def objects(self):
        return {
            path.relative_to(self.folder).as_posix(): path.read_bytes()
            for path in self.folder.rglob("*")
            if path.is_file()
        }


@pytest.fixture
def made(tmp_path, request):
    installation = Installation(tmp_path, **getattr(request, "param", {}))
    with installation.stack:
        yield installation


def key(kind, subject, day=TODAY):
    return f"snapshots/{kind}/{day:%Y/%m/%d}/{subject}.json"


def materialised(result):
    return {event.asset_key.path[-1]: event.partition for event in result.get_asset_materialization_events()}


def message_of(result):
    (failed,) = [event for event in result.all_events if event.is_step_failure]
    return failed.step_failure_data.user_failure_data.description


def test_a_run_stores_each_kind_of_today_without_any_secret(made):
    """One object for each kind, site or client and day; no byte of the store contains a secret of the API."""
    result = made.run()
    assert result.success, message_of(result)
    assert materialised(result) == dict.fromkeys(NAMES, TODAY.isoformat())
    stored = made.objects()
    sites = [key(kind, site) for kind in NAMES if kind != "der_events" for site in ("north", "south")]
    assert sorted(stored) == sorted([*sites, key("der_events", "demo")])
    events = "".join(entry.to_json() for entry in made.instance.all_logs(result.run_id))
    for secret in SECRETS:
        assert not [name for name, data in stored.items() if secret.encode() in data]
        assert secret not in events
    documents = {name: json.loads(data) for name, data in stored.items()}
    assert {document["state"] for document in documents.values()} == {"present"}
    (site,) = documents[key("sites", "north")]["items"]
    assert (site["name"], site["latitude"], site["longitude"]) == ("north", 40.7, -74.0)
    assert len(documents[key("weather", "south")]["items"]) == 9
    assert len(documents[key("der_events", "demo")]["items"]) == 2
    blobs = {item["config_name"]: item.get("blob") for item in documents[key("agent_configs", "north")]["items"]}
    assert blobs["devices/ahu1"] == {"driver_type": "bacnet", "interval": 300, "driver_config": {"device_id": 1001}}
    assert blobs["config"] is blobs["registry.csv"] is None


def test_the_page_reads_the_positions_with_duckdb(made):
    """The query of `docs/snapshots.md` gives each site's position, also when another day has no items."""
    made.run()
    empty = made.folder / "snapshots/sites/2025/03/01/north.json"
    empty.parent.mkdir(parents=True)
    empty.write_bytes(document(KINDS[0], "north", date(2025, 3, 1), datetime(2025, 3, 1, tzinfo=UTC), None))
    page = (ROOT.parent / "docs" / "snapshots.md").read_text(encoding="utf-8")
    (query,) = re.findall(r"```sql\n(.*?)```", page, re.DOTALL)
    rows = duckdb.sql(query.replace("data/", f"{made.folder.as_posix()}/")).fetchall()
    assert sorted(row[1:] for row in rows) == [("north", 40.7, -74.0), ("south", 40.7, -74.0)]


def test_the_page_names_each_stored_field():
    """The table of `docs/snapshots.md` lists each kind with its fields."""
    page = (ROOT.parent / "docs" / "snapshots.md").read_text(encoding="utf-8")
    for kind in KINDS:
        (row,) = [line for line in page.splitlines() if line.startswith(f"| `snapshots/{kind.name}` |")]
        named = set(re.findall(r"`(\w+)`", row.rsplit("|", 2)[1]))
        assert named - {f"{kind.configuration}_kept"} == set(kind.kept)


def test_a_run_takes_few_requests_and_a_second_run_takes_fewer(made):
    """Lists are requested once a run; what is stored today stays as it is, and is not requested again."""
    made.run()
    assert len(made.simulator.requests) == 10  # sites, 2 weather, 2 events, gateways, 2 agents, 2 Hawke
    before = made.objects()
    assert made.run().success
    assert [request.path for request in made.simulator.requests[10:]] == ["/sites/"]
    assert made.objects() == before


@pytest.mark.parametrize("day", [TODAY - timedelta(days=1), TODAY - timedelta(days=3)])
def test_a_past_partition_is_refused(made, day):
    """Today's answer is never stored under an earlier day, and no request is sent for it."""
    result = made.run(day)
    assert not result.success
    assert f"the snapshots of {day} are not stored: the API answers only for today, {TODAY}" in message_of(result)
    assert f"Launch only the partition {TODAY}" in message_of(result)
    assert (made.objects(), made.simulator.requests) == ({}, [])


def test_an_answer_that_arrives_after_the_day_is_not_stored(made):
    """A run that passes midnight stores nothing under the day that ended."""
    times = iter([made.at])
    made.defs = build_defs(made.settings, now=lambda: next(times, made.at + timedelta(days=1)))
    result = made.run()
    assert "the day ended before the API answered" in message_of(result)
    assert (made.objects(), materialised(result)) == ({}, {})


def test_what_the_key_may_not_read_is_recorded_as_absent_and_requested_again(made):
    """403 and 404 are answers, not failures; the next run requests them again and stores what is there now."""
    made.simulator.refused = {"weather": 404, "gateways": 403, "der_events": 403}
    result = made.run()
    assert result.success
    assert set(materialised(result)) == set(NAMES)
    states = {name.split("/")[1]: json.loads(data)["state"] for name, data in made.objects().items()}
    assert states == dict.fromkeys(NAMES, "absent") | {"sites": "present"}
    made.simulator.refused = {}
    made.run()
    assert {json.loads(data)["state"] for data in made.objects().values()} == {"present"}


def test_a_kind_that_failed_is_not_materialised_and_the_others_are(made):
    """400 for one kind: the run fails with its name, nothing is claimed for it, and the sensor requests it again."""
    made.simulator.refused = {"weather": 400}
    result = made.run()
    assert "2 snapshots" in message_of(result)
    assert "weather of north" in message_of(result)
    assert set(materialised(result)) == set(NAMES) - {"weather"}
    assert not [name for name in made.objects() if "weather" in name]
    (request,) = made.tick().run_requests
    assert request.asset_selection == [snapshot_key_of(kind) for kind in KINDS if kind.name == "weather"]


def test_a_refused_key_stops_the_run_at_once(made):
    """401: one request, no object, no materialisation."""
    made.simulator.keys = {"another"}
    result = made.run()
    assert "the API refused the key" in message_of(result)
    assert (len(made.simulator.requests), made.objects(), materialised(result)) == (1, {}, {})


def test_a_failed_run_of_snapshots_is_not_a_failure_of_a_sites_day(made):
    """The sensors for days of samples do not count runs of snapshots as requests for these days."""
    made.simulator.refused = {"weather": 400}
    assert not made.run().success
    launched = read_launched(made.instance, ("north", "south"), None, made.at - timedelta(days=1))
    assert not any(launched.ended.values())


def test_a_list_that_fails_is_requested_for_one_kind_only(made):
    """The gateways cannot be listed: three kinds fail, and the list was requested once."""
    made.simulator.refused = {"gateways": 400}
    assert set(materialised(made.run())) == {"sites", "weather", "der_events"}
    assert [request.path for request in made.simulator.requests].count("/gateways/") == 1


def test_the_sensor_launches_today_once(made):
    """One run for today, above backfills in the queue; none once today is stored, and one on the next day."""
    (request,) = made.tick().run_requests
    assert request.tags["dagster/partition"] == TODAY.isoformat()
    assert int(request.tags["dagster/priority"]) > 2
    assert {key.path[-1] for key in request.asset_selection} == set(NAMES)
    made.run()
    assert made.tick().run_requests == []
    made.at += timedelta(days=1)
    (request,) = made.tick().run_requests
    assert request.tags["dagster/partition"] == (TODAY + timedelta(days=1)).isoformat()


@pytest.mark.parametrize("made", [{"snapshots_from": TODAY + timedelta(days=2)}], indirect=True)
def test_nothing_is_launched_before_the_first_day(made):
    """The setting names a later day: the sensor waits for it."""
    assert made.tick().run_requests == []


@pytest.mark.parametrize("made", [{"snapshots_from": date(2025, 3, 1)}], indirect=True)
def test_partitions_begin_with_the_day_of_the_setting(made):
    """The first partition is the day on which the snapshots were switched on; the last one is today."""
    keys = made.defs.resolve_asset_graph().get(snapshot_key_of(KINDS[0])).partitions_def.get_partition_keys()
    assert (keys[0], keys[-1]) == ("2025-03-01", datetime.now(UTC).date().isoformat())


def test_snapshots_are_off_by_default(tmp_path):
    """Without the setting there is no asset, no job and no sensor of the snapshots."""
    defs = build_defs(Settings(sites=("north",), store=str(tmp_path), home=tmp_path))
    assert Settings().snapshots_from is None
    keys = {key.path[0] for key in defs.resolve_asset_graph().get_all_asset_keys()}
    assert "timeseries" in keys
    assert "snapshots" not in keys
    assert SNAPSHOTS_JOB not in {job.name for job in defs.jobs or ()}
    assert "snapshots" not in {sensor.name for sensor in defs.sensors or ()}
