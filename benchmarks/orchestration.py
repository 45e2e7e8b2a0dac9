"""What Dagster costs: CPU seconds a day for small days through the real daemon, against the same work without it.

For each number of days a run: a backfill of `--days` x `--sites` in a throw-away installation with the project's own
`dagster.yaml`, the API in a process of its own, which is not counted. Printed: CPU of daemon, code server and runs
together, from launch to the backfill's end, less what the idle stack takes and less what the work alone takes, by day
(all sites of it); wall time; the most memory of all processes and of one; the size of the run storage; seconds in which
the webserver answers for the status of all partitions of one asset, as its page asks, for the first time and again.

    python benchmarks/orchestration.py --days 30 --per-run 1 10 30 90
    python benchmarks/orchestration.py --days 365 --per-run 30
"""

import argparse
import json
import multiprocessing
import multiprocessing.connection
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import date, timedelta
from pathlib import Path

import psutil

TOP = Path(__file__).parent.parent
FIRST = date(2024, 1, 1)


def serve(sites: list[str], pipe: "multiprocessing.connection.Connection") -> None:
    """A process: the API, until it is told to end."""
    from backfill_pipeline.simulator.app import Simulator  # noqa: PLC0415 - not in this process
    from backfill_pipeline.simulator.world import demo_world  # noqa: PLC0415

    with Simulator(demo_world(dict.fromkeys(sites, 20), interval_s=1800)) as api:
        pipe.send(api.url)
        pipe.recv()


def work_alone(days: int) -> None:
    """The same work without Dagster, in this process; prints its CPU seconds, imports left out."""
    from backfill_pipeline.ace.client import open_client  # noqa: PLC0415
    from backfill_pipeline.ace.fetch import Fetcher  # noqa: PLC0415
    from backfill_pipeline.orchestration.site_runner import Stored, Work  # noqa: PLC0415
    from backfill_pipeline.settings import Settings  # noqa: PLC0415
    from backfill_pipeline.storage.days import put_day, settings_store  # noqa: PLC0415

    settings = Settings.load()
    store = settings_store(settings)
    began = time.process_time()
    stop = threading.Event()
    fetcher = Fetcher(open_client(settings, stop=stop), spool=settings.private / "spool")
    wanted = [FIRST + timedelta(days=number) for number in range(days)]
    work = Work(
        fetcher, lambda day, facts: put_day(store, day, facts=facts), settings.sites, wanted, at_once=4, stop=stop
    )
    done = sum(isinstance(result, Stored) for result in work.results())
    work.close()
    if done != len(settings.sites) * days:
        raise SystemExit(f"only {done} site-days were stored")
    print(time.process_time() - began)


STATUS = """
query Status($key: AssetKeyInput!) { assetNodeOrError(assetKey: $key) { ... on AssetNode {
  partitionStats { numMaterialized numPartitions numFailed numMaterializing }
  assetPartitionStatuses { ... on TimePartitionStatuses { ranges { status startKey endKey } } }
} } }
"""
"""What the asset page asks for the bar of its partitions."""


def status_of(url: str, path: list[str]) -> tuple[float, int]:
    """Seconds in which the webserver tells an asset's partitions apart, and how many it says are materialised."""
    body = json.dumps({"query": STATUS, "variables": {"key": {"path": path}}}).encode()
    asked = urllib.request.Request(url, body, {"Content-Type": "application/json"})  # noqa: S310 - our own server
    began = time.monotonic()
    with urllib.request.urlopen(asked, timeout=60) as answer:  # noqa: S310 - as above
        found = json.load(answer)
    return time.monotonic() - began, found["data"]["assetNodeOrError"]["partitionStats"]["numMaterialized"]


@contextmanager
def webserver(home: Path) -> Iterator[str]:
    """Dagster's webserver over an installation; the URL of its GraphQL."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
    command = [sys.executable, "-m", "dagster_webserver", "-w", str(home / "workspace.yaml"), "-p", str(port)]
    with (home / "webserver.log").open("w") as log:
        server = subprocess.Popen(command, cwd=home, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/graphql"
    finally:
        for one in [*psutil.Process(server.pid).children(recursive=True), psutil.Process(server.pid)]:
            with suppress(psutil.NoSuchProcess):
                one.kill()
        server.wait()


class Meter(threading.Thread):
    """CPU and memory of a process and all that it ever started, looked at five times a second."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.root = psutil.Process(pid)
        self.cpu: dict[tuple[int, float], float] = {}
        self.most = self.most_of_one = 0
        self.ended = threading.Event()

    def run(self) -> None:
        """Look, until told to end."""
        while not self.ended.wait(0.2):
            total = 0
            try:
                family = [self.root, *self.root.children(recursive=True)]
            except psutil.NoSuchProcess:
                return
            for one in family:
                try:
                    times, memory = one.cpu_times(), one.memory_info().rss
                except psutil.NoSuchProcess:
                    continue
                self.cpu[one.pid, one.create_time()] = times.user + times.system
                total += memory
                self.most_of_one = max(self.most_of_one, memory)
            self.most = max(self.most, total)

    @property
    def seconds(self) -> float:
        """CPU seconds so far."""
        return sum(self.cpu.values())


def measured(days: int, sites: list[str], per_run: int, url: str) -> dict[str, float]:
    """One backfill in an installation of its own."""
    home = Path(tempfile.mkdtemp(prefix="backfill-bench-"))
    shutil.copy(TOP / "dagster.yaml", home)
    shutil.copy(TOP / "workspace.yaml", home)
    os.environ.update(
        {
            "ACE_API_URL": url, "ACE_API_KEY": "demo-key", "ACE_SITES": ",".join(sites),
            "ACE_REQUESTS_PER_MINUTE": "100000", "BACKFILL_FIRST_DAY": str(FIRST), "BACKFILL_NEW_DAYS": "0",
            "BACKFILL_DAYS_PER_RUN": str(per_run), "BACKFILL_STORE": str(home / "data"), "DAGSTER_HOME": str(home),
            "PYTHONPATH": str(TOP),
        }
    )  # fmt: skip
    from backfill_pipeline.control.dagster_instance import Gateway  # noqa: PLC0415 - reads the environment that was set
    from backfill_pipeline.orchestration.partitions import asset_key  # noqa: PLC0415
    from backfill_pipeline.settings import Settings  # noqa: PLC0415
    from backfill_pipeline.simulator.app import DEFAULT_KEY  # noqa: PLC0415

    os.environ["ACE_API_KEY"] = DEFAULT_KEY
    alone = subprocess.run(
        [sys.executable, __file__, "--alone", "--days", str(days)], check=True, capture_output=True, text=True, cwd=home
    )
    shutil.rmtree(home / "data")
    gateway = Gateway(Settings.load(folder=home))
    with (home / "daemon.log").open("w") as log:
        daemon = subprocess.Popen(
            [sys.executable, "-m", "dagster._daemon", "run", "-w", str(home / "workspace.yaml")],
            cwd=home, stdout=log, stderr=log,
        )  # fmt: skip
    meter = Meter(daemon.pid)
    meter.start()
    try:
        time.sleep(30)
        before = meter.seconds
        time.sleep(20)
        idle = (meter.seconds - before) / 20
        began, before = time.monotonic(), meter.seconds
        backfill_id = gateway.launch(sites, [FIRST + timedelta(days=number) for number in range(days)])
        while gateway.instance.get_backfill(backfill_id).status.value in ("REQUESTED", "FAILING"):
            time.sleep(0.5)
        wall = time.monotonic() - began
        meter.ended.wait(1)
        total = meter.seconds - before
        done = sum(len(gateway.instance.get_materialized_partitions(asset_key(site))) for site in sites)
        with webserver(home) as graphql:
            looks = [status_of(graphql, list(asset_key(sites[0]).path)) for _ in range(2)]
        if {materialised for _, materialised in looks} != {days}:
            raise SystemExit(f"the webserver shows {looks} of {days} days")
    finally:
        meter.ended.set()
        family = [*psutil.Process(daemon.pid).children(recursive=True), psutil.Process(daemon.pid)]
        for one in family:
            one.kill()
        daemon.wait()
    storage = sum(path.stat().st_size for path in (home / ".dagster").rglob("*") if path.is_file())
    shutil.rmtree(home, ignore_errors=True)
    work = float(alone.stdout.split()[-1])
    return {
        "done": done, "total": total, "idle": idle, "work": work, "wall": wall,
        "over": (total - idle * wall - work) / days, "storage": storage,
        "most": meter.most, "one": meter.most_of_one, "first": looks[0][0], "again": looks[1][0],
    }  # fmt: skip


def main() -> None:
    """Measure, and print a table."""
    options = argparse.ArgumentParser()
    options.add_argument("--days", type=int, default=30)
    options.add_argument("--sites", type=int, default=3)
    options.add_argument("--per-run", type=int, nargs="+", default=[30])
    options.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    asked = options.parse_args()
    if asked.alone:
        work_alone(asked.days)
        return
    sites = [f"site-{number}" for number in range(asked.sites)]
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    api = multiprocessing.get_context("spawn").Process(target=serve, args=(sites, theirs), daemon=True)
    api.start()
    theirs.close()
    url = ours.recv()
    print(f"{asked.days} days x {asked.sites} sites; CPU-s a day over idle stack and work; MB, MB, kB a site-day, s")
    print("days/run  site-days  over  (total  idle/s  work)  wall s/day  most  one process  storage  status")
    for per_run in asked.per_run:
        m = measured(asked.days, sites, per_run, url)
        print(
            f"{per_run:8}  {m['done']:9.0f}  {m['over']:.2f}  ({m['total']:.0f}  {m['idle']:.2f}  {m['work']:.1f})  "
            f"{m['wall'] / asked.days:.2f}  {m['most'] / 1e6:.0f}  {m['one'] / 1e6:.0f}  "
            f"{m['storage'] / 1e3 / max(m['done'], 1):.1f}  {m['first']:.2f}, {m['again']:.2f}",
            flush=True,
        )
    ours.send(None)
    api.join(5)


if __name__ == "__main__":
    main()
