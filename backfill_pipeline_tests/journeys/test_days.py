"""From an API to the store through Dagster: every value of the source is in the object, and nothing else."""

from datetime import date

import dagster as dg
import pyarrow.parquet as pq
import pytest

from backfill_pipeline.core.object_keys import object_key
from backfill_pipeline.orchestration.build import build_defs
from backfill_pipeline.orchestration.partitions import asset_key
from backfill_pipeline.settings import Settings
from backfill_pipeline.simulator.app import Simulator
from backfill_pipeline.simulator.exports import replayed
from backfill_pipeline.simulator.faults import Fault
from backfill_pipeline.simulator.world import SiteSpec, World
from backfill_pipeline_tests.builders import listed

EXPORT_DAYS = [date(2024, 2, 28), date(2024, 2, 29), date(2024, 3, 1)]


def settings_of(simulator, folder, **more) -> Settings:
    names = ",".join(site.name for site in simulator.world.sites)
    return Settings.load(
        {
            "ACE_API_URL": simulator.url,
            "ACE_API_KEY": "hush-hush",
            "ACE_SITES": names,
            "ACE_REQUESTS_PER_MINUTE": "1000",
            "BACKFILL_STORE": str(folder / "data"),
            "DAGSTER_HOME": str(folder),
            **more,
        },
        folder=folder,
    )


def materialised(settings, instance, day, last=None, sites=None):
    """Run the job for one day, or for a range of days, in this process."""
    defs = build_defs(settings)
    tags = (
        {"dagster/asset_partition_range_start": str(day), "dagster/asset_partition_range_end": str(last)}
        if last
        else None
    )
    return defs.resolve_job_def("backfill_job").execute_in_process(
        partition_key=None if last else str(day),
        tags=tags,
        instance=instance,
        raise_on_error=False,
        asset_selection=[asset_key(site) for site in sites] if sites else None,
    )


def rows_of(folder, site, day) -> list[tuple[int, str, float]]:
    return listed(pq.read_table(folder / "data" / object_key(site, day)))


@pytest.fixture
def export(tmp_path):
    """Three days of a wide export of our own making, blanks, words and a leap day among them."""
    folder = tmp_path / "exports"
    folder.mkdir()
    lines = ["Time,AHU: Supply Temp ,Fan,Mode"]
    for number, day in enumerate(EXPORT_DAYS):
        for minute in range(0, 1440, 7):
            fan = "" if minute % 3 else str(minute % 2)
            mode = "auto" if minute % 5 else "NaN"
            stamp = f"{day.month}/{day.day}/{day.year} {minute // 60}:{minute % 60:02}"
            lines.append(f"{stamp},{20 + number + minute / 1441!r},{fan},{mode}")
    (folder / "My Büro-1.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def test_a_replayed_export_arrives_value_by_value(export, tmp_path):
    """Every finite number of every cell is in the object of its day, none missing and none added."""
    with Simulator(replayed(export), api_key="hush-hush") as simulator, dg.DagsterInstance.ephemeral() as instance:
        settings = settings_of(simulator, tmp_path)
        result = materialised(settings, instance, EXPORT_DAYS[0], EXPORT_DAYS[-1])
        assert result.success
        for day in EXPORT_DAYS:
            truth = simulator.world.truth("My Büro-1", day)
            assert rows_of(tmp_path, "My Büro-1", day) == truth
            assert len(truth) == 206 + 69


def test_each_day_is_recorded_with_its_figures(tmp_path):
    """One materialisation per site and day, with rows, path, bytes, samples, requests and seconds."""
    world = World([SiteSpec("a-b", 20), SiteSpec("c d.e", 20)])
    days = [date(2025, 3, 1), date(2025, 3, 2)]
    with Simulator(world, api_key="hush-hush") as simulator, dg.DagsterInstance.ephemeral() as instance:
        assert materialised(settings_of(simulator, tmp_path), instance, days[0], days[1]).success
        for site in ("a-b", "c d.e"):
            records = instance.fetch_materializations(asset_key(site), limit=10).records
            assert sorted(record.partition_key for record in records) == [str(day) for day in days]
            for record in records:
                facts = {name: value.value for name, value in record.asset_materialization.metadata.items()}
                rows = rows_of(tmp_path, site, date.fromisoformat(record.partition_key))
                assert facts["dagster/row_count"] == len(rows) > 0
                assert facts["samples_fetched"] >= len(rows)
                assert facts["bytes"] > 0
                assert facts["requests"] >= 1
                assert facts["duration_s"] >= 0
                assert str(facts["path"]).endswith(".parquet")


def test_an_end_that_promises_more_is_recorded_and_changes_no_byte_of_the_object(tmp_path):
    """`has_more` true without a cursor on each last page: the materialisation counts it, the object is the same."""
    world, day = World([SiteSpec("a", 20)]), date(2025, 3, 1)
    objects = []
    for faults in ([], [Fault("more_at_end"), Fault("cursor_field")]):
        folder = tmp_path / str(len(faults))
        with (
            Simulator(world, api_key="hush-hush", faults=faults) as simulator,
            dg.DagsterInstance.ephemeral() as instance,
        ):
            assert materialised(settings_of(simulator, folder), instance, day).success
            (record,) = instance.fetch_materializations(asset_key("a"), limit=10).records
            assert (record.asset_materialization.metadata["more_at_end"].value > 0) == bool(faults)
        objects.append((folder / "data" / object_key("a", day)).read_bytes())
    assert objects[0] == objects[1]


def test_a_single_day_can_be_materialised(tmp_path):
    """A partition by its key, for one of two sites."""
    world = World([SiteSpec("a", 20), SiteSpec("b", 20)])
    with Simulator(world, api_key="hush-hush") as simulator, dg.DagsterInstance.ephemeral() as instance:
        result = materialised(settings_of(simulator, tmp_path), instance, date(2025, 3, 1), sites=["b"])
        assert result.success
        assert rows_of(tmp_path, "b", date(2025, 3, 1)) == world.truth("b", date(2025, 3, 1))
        assert not (tmp_path / "data" / object_key("a", date(2025, 3, 1))).exists()


def test_an_empty_day_is_stored_as_empty_and_its_check_does_not_pass(tmp_path):
    """The bucket says by itself what was asked and what came."""
    day = date(2025, 3, 1)
    world = World([SiteSpec("a", 20, empty_days=frozenset({day}))])
    with Simulator(world, api_key="hush-hush") as simulator, dg.DagsterInstance.ephemeral() as instance:
        result = materialised(settings_of(simulator, tmp_path), instance, day)
        assert result.success
        assert pq.read_schema(tmp_path / "data" / object_key("a", day)).metadata[b"state"] == b"empty"
        verdicts = {check.check_name: check.passed for check in result.get_asset_check_evaluations()}
        assert verdicts["has_samples"] is False


def test_a_refused_key_fails_the_run_with_one_line_and_is_in_no_event(tmp_path):
    """The run stops at once; neither events nor files hold the key."""
    with (
        Simulator(World([SiteSpec("a", 20)]), api_key="other") as simulator,
        dg.DagsterInstance.ephemeral() as instance,
    ):
        result = materialised(settings_of(simulator, tmp_path), instance, date(2025, 3, 1), date(2025, 3, 9))
        assert not result.success
        assert len(simulator.requests) <= 2
        told = " ".join(event.message or "" for event in result.all_events)
        assert "hush-hush" not in told + str([event.event_specific_data for event in result.all_events])
    assert not any(b"hush-hush" in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_definitions_load_without_the_network_when_the_sites_are_set(tmp_path):
    """No request leaves, and no key is needed."""
    settings = Settings.load(
        {"ACE_SITES": "a,b", "ACE_API_URL": "http://127.0.0.1:9/api", "DAGSTER_HOME": str(tmp_path)}, folder=tmp_path
    )
    keys = build_defs(settings).resolve_asset_graph().get_all_asset_keys()
    assert {asset_key("a"), asset_key("b")} <= keys
