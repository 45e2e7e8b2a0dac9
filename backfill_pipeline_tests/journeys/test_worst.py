"""The worst that others can do to a run: hostile names, a store that fails in the middle, secrets that get about."""

import os
import subprocess
import sys
from datetime import date
from pathlib import Path

import dagster as dg
import pytest
from dagster._serdes import serialize_value

from backfill_pipeline.core.object_keys import object_key
from backfill_pipeline.orchestration.partitions import asset_key
from backfill_pipeline.settings import Settings
from backfill_pipeline.simulator.app import Simulator
from backfill_pipeline.simulator.faults import Fault
from backfill_pipeline.simulator.world import SiteSpec, TableSite, World, midnight_us
from backfill_pipeline.storage.days import get_day, settings_store
from backfill_pipeline_tests.builders import listed
from backfill_pipeline_tests.journeys.stack import TOP
from backfill_pipeline_tests.journeys.test_days import materialised, rows_of, settings_of
from backfill_pipeline_tests.storage.bucket import BUCKET, KEY, answers, bucket_server, client, slow

FIRST, LAST = date(2025, 3, 1), date(2025, 3, 4)
API_KEY, SECRET = "made-up-api-key-4711", "made-up-store-secret-0815"


def test_hostile_names_are_text_and_nothing_else(tmp_path):
    """Of sites and points: each day is the truth, no file lies elsewhere; a name that can have no place is refused."""
    names = ["../../../escape", "a\"b'c", "a\nb\x1b[31m\x7f", "..", "C:\\x", "%2e%2e/", "x" * 10_000]
    at = midnight_us(FIRST)
    rows = [(at + n * 61_000_001, point, f'"{n}"') for n, point in enumerate(names)]
    world = World([TableSite(name, rows, interval=60) for name in names])
    with Simulator(world, api_key="hush-hush") as simulator, dg.DagsterInstance.ephemeral() as instance:
        settings = Settings(
            ACE_API_URL=simulator.url, ACE_API_KEY="hush-hush", ACE_SITES=tuple(names), DAGSTER_HOME=tmp_path / "home",
            BACKFILL_STORE=str(tmp_path / "data"), ACE_REQUESTS_PER_MINUTE=5000,
        )  # fmt: skip
        result = materialised(settings, instance, FIRST)
        told = " ".join(event.message or "" for event in result.all_events if event.is_step_failure)
        asked = {request.path for request in simulator.requests}
        refused = {"..", "x" * 10_000}
        for name in set(names) - refused:
            assert rows_of(tmp_path, name, FIRST) == world.truth(name, FIRST) != []
            assert str(FIRST) in instance.get_materialized_partitions(asset_key(name))
    assert not result.success
    assert [path for path in asked if path.startswith("/sites/")] != []
    assert not any("x" * 300 in path for path in asked)
    assert "so long a name" in str([event.event_specific_data for event in result.all_events if event.is_step_failure])
    assert len(told) < 20_000
    objects = list(tmp_path.rglob("timeseries/**/*.parquet"))
    assert len(objects) == len(names) - len(refused)
    assert {path.parent for path in objects} == {tmp_path / "data" / "timeseries" / "2025" / "03" / "01"}


@pytest.mark.parametrize(
    ("fault", "word", "others_go_on"),
    [
        (answers(400, "ExpiredToken"), "expired", False),
        (answers(404, "NoSuchBucket"), "no such bucket", False),
        (answers(403, "AccessDenied"), "no right to list", False),
        (answers(507, "XMinioStorageFull"), "full", False),
        (answers(503, "SlowDown"), "slow down", True),
        (answers(500, "InternalError"), "busy", True),
    ],
)
def test_a_store_that_fails_in_the_middle_loses_nothing(tmp_path, monkeypatch, fault, word, others_go_on):
    """What is on record is stored, the cause is named; once it is gone, the rest is stored without a request."""
    monkeypatch.setattr("botocore.endpoint.time.sleep", lambda _: None)
    world = World([SiteSpec("north", 10)])
    days = [date(2025, 3, number) for number in (1, 2, 3, 4)]
    with (
        bucket_server() as proxy,
        Simulator(world, api_key="hush-hush") as simulator,
        dg.DagsterInstance.ephemeral() as instance,
    ):
        settings = settings_of(
            simulator, tmp_path, BACKFILL_STORE=f"s3://{BUCKET}", AWS_ENDPOINT_URL_S3=proxy.url, AWS_REGION="auto",
            AWS_ACCESS_KEY_ID=KEY, AWS_SECRET_ACCESS_KEY=SECRET,
        )  # fmt: skip
        assert materialised(settings, instance, days[0], days[1]).success
        proxy.always = fault
        result = materialised(settings, instance, days[0], days[-1])
        assert not result.success
        assert word in str([event.event_specific_data for event in result.all_events if event.is_step_failure])
        tried = {request.query.get("start_time", "")[:10] for request in simulator.requests} - {""}
        assert (str(days[-1]) in tried) or not others_go_on
        proxy.reset()
        known = instance.get_materialized_partitions(asset_key("north"))
        assert known == {str(one) for one in days[:2]}
        fetched = {one for one in days[2:] if (tmp_path / ".dagster" / "spool").glob(f"{one}-*")}
        before = len(simulator.requests)
        assert materialised(settings, instance, days[2], days[3]).success
        again = [one for one in simulator.requests[before:] if one.path.endswith("/paginated")]
        assert not again or not others_go_on
        assert fetched
        for one in days:
            assert listed(get_day(settings_store(settings), "north", one)) == world.truth("north", one)


def test_a_slow_link_to_the_store_is_slow_and_no_more(tmp_path):
    """Every answer of the store late: days are stored all the same."""
    with (
        bucket_server() as proxy,
        Simulator(World([SiteSpec("north", 10)]), api_key="hush-hush") as simulator,
        dg.DagsterInstance.ephemeral() as instance,
    ):
        proxy.always = slow(0.3)
        settings = settings_of(
            simulator, tmp_path, BACKFILL_STORE=f"s3://{BUCKET}", AWS_ENDPOINT_URL_S3=proxy.url, AWS_REGION="auto",
            AWS_ACCESS_KEY_ID=KEY, AWS_SECRET_ACCESS_KEY=SECRET,
        )  # fmt: skip
        assert materialised(settings, instance, FIRST, LAST).success
        assert len(client(proxy.direct).list_objects_v2(Bucket=BUCKET, Prefix="timeseries/")["Contents"]) == 4


@pytest.mark.skipif(not sys.platform.startswith("linux") or os.geteuid() != 0, reason="mounts a small disk")
def test_a_disk_that_fills_in_the_middle_loses_nothing(tmp_path):
    """A real disk of one megabyte: days before are stored and on record, and the rest once there is room."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], check=False).returncode:  # noqa: S607 - the system's own
        pytest.skip("may not mount")
    try:
        world = World([SiteSpec("north", 10)])
        with Simulator(world, api_key="hush-hush") as simulator, dg.DagsterInstance.ephemeral() as instance:
            settings = settings_of(simulator, tmp_path, BACKFILL_STORE=str(disk / "data"))
            (disk / "ballast").write_bytes(bytes(900_000))
            result = materialised(settings, instance, date(2025, 3, 1), date(2025, 3, 20))
            assert not result.success
            text = str([event.event_specific_data for event in result.all_events if event.is_step_failure])
            assert "the disk is full. Free disk space" in text
            known = instance.get_materialized_partitions(asset_key("north"))
            assert 0 < len(known) < 20
            on_disk = {path.parent.name for path in (disk / "data" / "timeseries").rglob("north.parquet")}
            assert on_disk == {one[-2:] for one in known}
            (disk / "ballast").unlink()
            assert materialised(settings, instance, date(2025, 3, 1), date(2025, 3, 20)).success
            one = date(2025, 3, 20)
            assert (disk / "data" / object_key("north", one)).is_file()
            assert not list((disk / "data").rglob("*.part"))
    finally:
        subprocess.run(["umount", str(disk)], check=True)  # noqa: S607 - as above


@pytest.mark.skipif(not sys.platform.startswith("linux") or os.geteuid() != 0, reason="mounts a small disk")
def test_a_disk_that_is_full_under_the_spool_loses_nothing(tmp_path):
    """`DAGSTER_HOME` on a real disk of one megabyte: the run ends with a hint, and resumes when there is space."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], check=False).returncode:  # noqa: S607 - the system's own
        pytest.skip("may not mount")
    try:
        world = World([SiteSpec("north", 20)])
        with Simulator(world, api_key="hush-hush") as simulator, dg.DagsterInstance.ephemeral() as instance:
            settings = settings_of(simulator, tmp_path, DAGSTER_HOME=disk, BACKFILL_STORE=str(tmp_path / "data"))
            (disk / "ballast").write_bytes(bytes(850_000))
            result = materialised(settings, instance, date(2025, 3, 1), date(2025, 3, 4))
            assert not result.success
            text = str([event.event_specific_data for event in result.all_events if event.is_step_failure])
            assert "cannot keep a fetched window" in text
            assert "Free disk space" in text
            assert len(instance.get_materialized_partitions(asset_key("north"))) < 4
            (disk / "ballast").unlink()
            assert materialised(settings, instance, date(2025, 3, 1), date(2025, 3, 4)).success
            for number in (1, 2, 3, 4):
                one = date(2025, 3, number)
                assert listed(get_day(settings_store(settings), "north", one)) == world.truth("north", one)
    finally:
        subprocess.run(["umount", str(disk)], check=True)  # noqa: S607 - as above


def test_no_secret_is_anywhere_after_a_run_with_errors(tmp_path, capfd, caplog):
    """Neither the API key nor the store's secret in any file, event, tag, log line or output."""
    home = tmp_path / "home"
    home.mkdir()
    for name in ("dagster.yaml", "workspace.yaml"):
        (home / name).write_text((TOP / name).read_text(encoding="utf-8"), encoding="utf-8")
    faults = [
        Fault("status", share=0.2), Fault("html", share=0.1), Fault("message", share=0.1),
        Fault("throttle", times=1, options={"retry_after": "0"}), Fault("expire", after=25),
    ]  # fmt: skip
    with (
        bucket_server() as proxy,
        Simulator(World([SiteSpec("north", 10), SiteSpec("south", 10)]), api_key=API_KEY, faults=faults) as simulator,
    ):
        variables = os.environ | {
            "ACE_API_URL": simulator.url, "ACE_API_KEY": API_KEY, "ACE_SITES": "north,south,nowhere",
            "ACE_REQUESTS_PER_MINUTE": "5000", "BACKFILL_STORE": f"s3://{BUCKET}", "AWS_ENDPOINT_URL_S3": proxy.url,
            "AWS_REGION": "auto", "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "DAGSTER_HOME": str(home),
            "PYTHONPATH": os.pathsep.join([str(TOP), os.environ.get("PYTHONPATH", "")]),
        }  # fmt: skip
        proxy.faults.extend([None] * 4 + [answers(403, "SignatureDoesNotMatch"), answers(500, "InternalError")])
        tags = (
            '{"dagster/asset_partition_range_start": "2025-03-01", "dagster/asset_partition_range_end": "2025-03-20"}'
        )
        command = [sys.executable, "-m", "dagster", "job", "execute", "-m", "backfill_pipeline.definitions"]
        command += ["-j", "backfill_job", "--tags", tags]
        done = [
            subprocess.run(command, env=variables, cwd=home, capture_output=True, text=True, check=False)
            for _ in range(2)
        ]
    assert all(one.returncode for one in done)
    told = " ".join([one.stdout + one.stderr for one in done])
    with pytest.MonkeyPatch.context() as patched:
        for name in ("DAGSTER_HOME", "ACE_SITES", "ACE_API_URL"):
            patched.setenv(name, variables[name])
        with dg.DagsterInstance.from_config(str(home)) as instance:
            runs = instance.get_runs()
            assert len(runs) == 2
            for run in runs:
                told += serialize_value(run) + serialize_value(instance.get_job_snapshot(run.job_snapshot_id))
                told += " ".join(serialize_value(entry) for entry in instance.all_logs(run.run_id))
    assert "RUN_FAILURE" in told
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.suffix == ".db" for path in files)
    for secret in (API_KEY, SECRET):
        assert secret not in told + capfd.readouterr().out + caplog.text
        assert [path for path in files if holds(path, secret)] == []


def holds(path: Path, secret: str) -> bool:
    return secret.encode() in path.read_bytes()
