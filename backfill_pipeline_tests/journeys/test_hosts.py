"""Two worker hosts of their own network, one Postgres, one broker, one bucket, one daemon: one dies, one is cut off.

A host is a network namespace with an address of its own behind a bridge, and a folder of its own: what it shares with
the others goes over the network. Needs root and iproute2; skipped without.
"""

import os
import shutil
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import boto3
import pyarrow.parquet as pq
import pytest
from moto.server import ThreadedMotoServer

from backfill_pipeline.core.object_keys import object_key
from backfill_pipeline.simulator.app import Simulator
from backfill_pipeline.simulator.world import SiteSpec, World
from backfill_pipeline_tests.builders import listed
from backfill_pipeline_tests.journeys.stack import TOP, day, kill, stack
from backfill_pipeline_tests.services import free_port, postgres_server, redis_server

SITES = ("north", "a-b")
DAYS = [day(number) for number in range(24)]
BUDGET = 50


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)  # noqa: S607 - wherever it lies


@dataclass
class Host:
    """A worker host."""

    name: str
    address: str
    home: Path
    process: subprocess.Popen | None = None

    def start(self) -> None:
        self.home.mkdir(exist_ok=True)
        shutil.copy(TOP / "deploy" / "dagster.yaml", self.home)
        with (self.home / "worker.log").open("a", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                ["ip", "netns", "exec", self.name, sys.executable, "-m", "backfill_pipeline.control.cli", "worker"],  # noqa: S607
                stdout=log, stderr=subprocess.STDOUT, cwd=self.home,
                env=os.environ | {"DAGSTER_HOME": str(self.home)},
            )  # fmt: skip

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            kill(self.process)

    def cut(self) -> None:
        """Its cable is pulled: its processes live, and reach nobody."""
        ip("-n", self.name, "link", "set", "eth0", "down")

    def runs(self) -> set[str]:
        """The runs that were executed here."""
        return {path.name for path in (self.home / ".dagster" / "compute_logs").glob("*") if path.is_dir()}


@contextmanager
def hosts(folder: Path):
    """Two hosts behind a bridge; the bridge's address, which is this machine's, and the hosts."""
    if shutil.which("ip") is None or not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("needs root and iproute2, for hosts with a network of their own")
    mark = f"bf{os.getpid() % 100_000}"
    net = f"10.213.{os.getpid() % 250}"
    made = [Host(f"{mark}{n}", f"{net}.{n + 1}", folder / f"host{n}") for n in (1, 2)]
    with ExitStack() as undo:
        try:
            ip("link", "add", mark, "type", "bridge")
        except subprocess.CalledProcessError:
            pytest.skip("this kernel lets nobody make a bridge")
        undo.callback(ip, "link", "del", mark)
        ip("addr", "add", f"{net}.1/24", "dev", mark)
        ip("link", "set", mark, "up")
        for host in made:
            ip("netns", "add", host.name)
            undo.callback(ip, "netns", "del", host.name)
            ip("link", "add", f"{host.name}v", "type", "veth", "peer", "name", "eth0", "netns", host.name)
            ip("link", "set", f"{host.name}v", "master", mark, "up")
            ip("-n", host.name, "addr", "add", f"{host.address}/24", "dev", "eth0")
            ip("-n", host.name, "link", "set", "eth0", "up")
            ip("-n", host.name, "link", "set", "lo", "up")
            undo.callback(host.kill)
        yield f"{net}.1", made


@contextmanager
def bucket(address: str):
    """A bucket over the network: its variables, and a client."""
    server = ThreadedMotoServer(ip_address=address, port=free_port(), verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    client = boto3.client(
        "s3", endpoint_url=url, region_name="us-east-1", aws_access_key_id="made", aws_secret_access_key="up"
    )
    client.create_bucket(Bucket="far")
    variables = {"AWS_ENDPOINT_URL_S3": url, "AWS_ACCESS_KEY_ID": "made", "AWS_SECRET_ACCESS_KEY": "up"}
    try:
        yield {"BACKFILL_STORE": "s3://far/days", "AWS_REGION": "us-east-1", **variables}, client
    finally:
        server.stop()


def test_a_backfill_outlives_a_killed_host_and_one_that_is_cut_off(tmp_path, monkeypatch):
    """It finishes by itself; each day is recorded once and right; one budget holds over all hosts; both had work."""
    world = World([SiteSpec(site, 10) for site in SITES])
    with (
        hosts(tmp_path) as (address, (first, second)),
        postgres_server(address) as database,
        redis_server(address) as broker,
        bucket(address) as (variables, client),
        Simulator(world, api_key="hush-hush", host=address, latency_s=0.3, requests_per_minute=BUDGET) as simulator,
        stack(
            tmp_path / "home", simulator.url, SITES, monkeypatch, instance="deploy/dagster.yaml",
            BACKFILL_RUN_STORAGE=database, BACKFILL_LIMITER=database, BACKFILL_BROKER=broker,
            ACE_REQUESTS_PER_MINUTE=str(BUDGET), BACKFILL_DAYS_PER_RUN="4", **variables,
        ) as made,
    ):  # fmt: skip
        first.start()
        second.start()
        backfill = made.launch(0, len(DAYS) - 1)
        told = made.until(lambda: [run for run in made.runs(backfill) if run.run_id in first.runs()])
        made.until(lambda: made.stored_by(told[0]))
        first.kill()
        made.until(lambda: made.instance.get_run_by_id(told[0].run_id).status.value == "FAILURE")
        first.start()
        made.until(lambda: len(first.runs()) > 1)
        here = made.until(
            lambda: [
                run for run in made.runs(backfill) if run.run_id in second.runs() and run.status.value == "STARTED"
            ]
        )
        second.cut()
        made.until(lambda: made.instance.get_run_by_id(here[0].run_id).status.value == "FAILURE")
        made.until(lambda: made.status(backfill).startswith("COMPLETED"))
        assert made.status(backfill) == "COMPLETED_SUCCESS"
        assert made.times_stored() == {(site, one): 1 for site in SITES for one in DAYS}
        for site in SITES:
            for one in DAYS:
                key = f"days/{object_key(site, date.fromisoformat(one))}"
                body = client.get_object(Bucket="far", Key=key)["Body"].read()
                (tmp_path / "object").write_bytes(body)
                assert listed(pq.read_table(tmp_path / "object")) == world.truth(site, date.fromisoformat(one))
        assert first.runs()
        assert second.runs()
        assert len(simulator.requests) > BUDGET
        assert {one.status for one in simulator.requests} == {200}  # its own limit, over any minute, refused nobody
