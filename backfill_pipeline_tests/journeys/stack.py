"""A whole installation for journeys: the project's own `dagster.yaml`, its real daemon, and an API of our own.

Put here: how it is started, killed and looked at. Keep out: what a journey expects.
"""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path

import dagster as dg
import psutil
from dagster._core.storage.tags import BACKFILL_ID_TAG

import backfill_pipeline
from backfill_pipeline.control.dagster_instance import Gateway
from backfill_pipeline.control.service import Control
from backfill_pipeline.orchestration.checks import CHECKS
from backfill_pipeline.orchestration.partitions import asset_key
from backfill_pipeline.settings import Settings
from backfill_pipeline.simulator.world import SiteSpec
from backfill_pipeline_tests.services import HANGS_S, T, free_port, until, wait_for

TOP = Path(backfill_pipeline.__file__).parent.parent
FIRST = date(2025, 1, 1)
MARK_US = 300_000_000
OVER = ("COMPLETED_SUCCESS", "COMPLETED_FAILED", "FAILED", "CANCELED")


def day(number: int) -> str:
    return str(FIRST + timedelta(days=number))


@dataclass
class Spoilt:
    """A site of which some days come aggregated, which is refused, as long as they stand in `bad`."""

    site: SiteSpec
    bad: set[date] = field(default_factory=set)
    archived: bool = False

    @property
    def name(self):
        return self.site.name

    def points(self):
        return self.site.points()

    def samples(self, wanted):
        rows = self.site.samples(wanted)
        return [(at // MARK_US * MARK_US, name, value) for at, name, value in rows] if wanted in self.bad else rows


class Stack:
    """One installation below `home`; its environment is the process's own while the journey lasts."""

    def __init__(
        self, home: Path, url: str, sites: Sequence[str], monkeypatch, instance="dagster.yaml", **variables: str
    ) -> None:
        self.home = home
        self.sites = tuple(sites)
        home.mkdir(parents=True, exist_ok=True)
        yaml = (TOP / instance).read_text(encoding="utf-8")
        yaml = yaml.replace("poll_interval_seconds: 30", "poll_interval_seconds: 2")
        (home / "dagster.yaml").write_text(yaml, encoding="utf-8")
        (home / "workspace.yaml").write_text((TOP / "workspace.yaml").read_text(encoding="utf-8"), encoding="utf-8")
        ours = {
            "ACE_API_URL": url,
            "ACE_API_KEY": "hush-hush",
            "ACE_SITES": ",".join(sites),
            "ACE_REQUESTS_PER_MINUTE": "5000",
            "BACKFILL_FIRST_DAY": str(FIRST),
            "BACKFILL_NEW_DAYS": "0",
            "BACKFILL_STORE": str(home / "data"),
            "BACKFILL_DAYS_PER_RUN": "10",
            "DAGSTER_HOME": str(home),
            "PYTHONPATH": os.pathsep.join([str(TOP), os.environ.get("PYTHONPATH", "")]),
            **variables,
        }
        for name, value in ours.items():
            monkeypatch.setenv(name, value)
        settings = Settings.load(folder=home)
        self.gateway = Gateway(settings)
        self.control = Control(self.gateway, settings, all_sites=lambda: self.sites)
        self.instance = self.gateway.instance
        self.process: subprocess.Popen | None = None

    def start(self) -> None:
        self.process = self._started("backfill_pipeline_tests.journeys.daemon", "run")

    def _started(self, *words: str) -> subprocess.Popen:
        with (self.home / "daemon.log").open("a", encoding="utf-8") as log:
            return subprocess.Popen(
                [sys.executable, "-m", *words, "-w", str(self.home / "workspace.yaml")],
                stdout=log, stderr=subprocess.STDOUT, cwd=self.home,
            )  # fmt: skip

    @contextmanager
    def webserver(self) -> Iterator[str]:
        """Dagster's webserver, beside the daemon: its URL."""
        port = free_port()
        server = self._started("backfill_pipeline.control.webserver", "-h", "127.0.0.1", "-p", str(port))
        try:
            wait_for(port, server)
            yield f"http://127.0.0.1:{port}/"
        finally:
            kill(server)

    def kill(self) -> None:
        """Kill -9 of everything: what a power cut leaves."""
        kill(self.process)

    def stop(self) -> None:
        if self.process is None or self.process.poll() is not None:
            return
        self.kill()

    def launch(self, first: int, last: int) -> str:
        return self.gateway.launch(self.sites, [FIRST + timedelta(days=n) for n in range(first, last + 1)])

    def status(self, backfill_id: str) -> str:
        return self.instance.get_backfill(backfill_id).status.value

    def runs(self, backfill_id: str) -> list[dg.DagsterRun]:
        return list(self.instance.get_runs(dg.RunsFilter(tags={BACKFILL_ID_TAG: backfill_id})))

    def run_statuses(self, backfill_id: str) -> set[str]:
        return {run.status.value for run in self.runs(backfill_id)}

    def done(self, site: str) -> set[str]:
        return set(self.instance.get_materialized_partitions(asset_key(site)))

    def checked(self, site: str) -> set[str]:
        """The days of which Dagster takes every check to be evaluated, and of the newest materialisation."""
        keys = [dg.AssetCheckKey(asset_key(site), name) for name in CHECKS]
        infos = self.instance.event_log_storage.get_asset_check_partition_info(keys)
        told = [one for one in infos if one.is_current and one.latest_execution_status.value in ("SUCCEEDED", "FAILED")]
        counts = Counter(one.partition_key for one in told)
        return {one for one, count in counts.items() if count == len(CHECKS)}

    def times_stored(self) -> dict[tuple[str, str], int]:
        """How often each site-day was recorded."""
        found: dict[tuple[str, str], int] = {}
        for site in self.sites:
            for record in self.instance.fetch_materializations(asset_key(site), limit=5000).records:
                one = (site, record.partition_key)
                found[one] = found.get(one, 0) + 1
        return found

    def stored_by(self, run: dg.DagsterRun) -> list[tuple[str, str]]:
        """The site-days that a run recorded, in order."""
        logged = self.instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
        made = [entry.dagster_event.step_materialization_data.materialization for entry in logged]
        return [(one.asset_key.path[-1], one.partition) for one in made if one.partition is not None]

    def pid(self, run: dg.DagsterRun) -> int:
        """The process that executes a run."""
        events = self.instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ENGINE_EVENT)
        about = [event.dagster_event.engine_event_data.metadata for event in events]
        return int([metadata["pid"].value for metadata in about if "pid" in metadata][-1])

    def until(self, what: Callable[[], T]) -> T:
        """What `what` answers once it is true; waited for as long as the daemon lives."""
        return until(what, self.process, said=lambda: (self.home / "daemon.log").read_text("utf-8"), every_s=0.2)

    def until_over(self, backfill_id: str) -> str:
        self.until(lambda: self.status(backfill_id) in OVER)
        return self.status(backfill_id)


def kill(process: subprocess.Popen) -> None:
    """Kill -9 of a process and of all that it started."""
    root = psutil.Process(process.pid)
    family = [*root.children(recursive=True), root]
    for one in family:
        with suppress(psutil.NoSuchProcess):
            one.kill()
    psutil.wait_procs(family, timeout=HANGS_S)
    process.wait()


@contextmanager
def stack(home: Path, url: str, sites: Sequence[str], monkeypatch, **variables: str) -> Iterator[Stack]:
    """An installation whose daemon runs; nothing of it is left when the block ends."""
    made = Stack(home, url, sites, monkeypatch, **variables)
    made.start()
    try:
        yield made
    finally:
        made.stop()
        made.instance.dispose()
