"""A backfill under fire: its processes are killed at random instants until every day is stored, then all is counted.

Put here: the killing, the operator who starts again what died, and what is held against the truth afterwards. Keep out:
what the suite runs of it (`test_fire.py`). For longer runs:

    python -m backfill_pipeline_tests.journeys.fire --days 30 --sites 3 --kills 20
"""

import argparse
import os
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path

import dagster as dg
import psutil
import pyarrow.parquet as pq
import pytest
from filelock import FileLock

from backfill_pipeline.core.object_keys import ROOT, object_key, parse_key
from backfill_pipeline.simulator.app import Simulator
from backfill_pipeline.simulator.world import SiteSpec, World
from backfill_pipeline_tests.builders import listed
from backfill_pipeline_tests.journeys.stack import FIRST, Stack, kill
from backfill_pipeline_tests.services import HANGS_S, free_port, wait_for

RUNS_AT_ONCE = 2
"""As `dagster.yaml` has it."""

WINDOWS = 1
"""Windows of a site at once: each of these small days is one."""

LOCK = "lock"
"""In place of a kill: every SQLite file of the home is locked for some seconds, which fails no day."""

REFUSED = 2
"""Exit code of a command that was set up wrongly."""

OUTAGE = "outage"
"""In place of a kill: the API answers no request for some seconds, which fails no day."""

SECOND_UP = "second up"
"""Instead of a kill: `backfill up` is started again with the same `DAGSTER_HOME`; it must refuse and change nothing."""

TARGETS = ("run worker", "daemon", "code server", "webserver", LOCK, OUTAGE, SECOND_UP, "all")


@dataclass
class Fire:
    """An installation, its two servers started again as soon as they are down, as a service manager would.

    Attributes:
        made: the installation.
        days: its days, oldest first.
        killed: how often each target was killed.
        starts: backfills that were asked for.
        lock_s: how many seconds a lock, or an outage, lasts.
        refused: exit codes of each second `backfill up`.
        untrue: days that were on record and not in the store, whenever that was looked at.
    """

    made: Stack
    api: Simulator
    days: list[date]
    port: int = field(default_factory=free_port)
    killed: Counter[str] = field(default_factory=Counter)
    starts: int = 0
    lock_s: float = 7.0
    refused: list[int] = field(default_factory=list)
    untrue: set[tuple[str, date]] = field(default_factory=set)
    web: subprocess.Popen | None = None

    def tend(self) -> None:
        """Start what is down."""
        if self.made.process is None or self.made.process.poll() is not None:
            self.made.start()
        if self.web is None or self.web.poll() is not None:
            self.web = self.made._started(
                "backfill_pipeline.control.webserver", "-h", "127.0.0.1", "-p", str(self.port)
            )

    def operate(self) -> bool:
        """Ask for what is missing unless a backfill is at work; whether all is on record."""
        if not self.missing():
            return True
        if not self.made.gateway.running():
            self.made.gateway.launch(self.made.sites, self.days, skip=self.recorded())
            self.starts += 1
        return False

    def recorded(self) -> dict[str, set[date]]:
        return self.made.gateway.days_stored(self.made.sites)

    def missing(self) -> set[tuple[str, date]]:
        known = self.recorded()
        return {(site, one) for site in self.made.sites for one in self.days if one not in known[site]}

    def look(self) -> None:
        """Whatever is on record has its object."""
        for site, known in self.recorded().items():
            self.untrue |= {(site, one) for one in known if not self.path(site, one).is_file()}

    def path(self, site: str, one: date) -> Path:
        return self.made.home / "data" / object_key(site, one)

    def shoot(self, target: str) -> None:
        """Kill -9 of one kind of process, or of all at once; or what else befalls an installation."""
        self.killed[target] += 1
        if target == LOCK:
            self.lock()
            return
        if target == OUTAGE:
            self.api.down_until = time.monotonic() + self.lock_s
            return
        if target == SECOND_UP:
            command = [sys.executable, "-m", "backfill_pipeline.control.cli", "up", "--port", str(free_port())]
            self.refused.append(subprocess.run(command, cwd=self.made.home, timeout=HANGS_S, check=False).returncode)
            return
        for process in self.found(target):
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def lock(self) -> None:
        """Keep every SQLite file of the home locked, as a backup does."""
        with ExitStack() as held:
            for file in [*self.made.home.rglob("*.db"), *self.made.home.rglob("*.sqlite")]:
                connection = held.enter_context(closing(sqlite3.connect(file, timeout=HANGS_S, isolation_level=None)))
                connection.execute("BEGIN EXCLUSIVE")
            time.sleep(self.lock_s)

    def failures(self) -> int:
        """Site-days that were recorded as failed."""
        return sum(event.error is not None for site in self.made.sites for event in self.made.gateway.events(site))

    def found(self, target: str) -> list[psutil.Process]:
        """The processes of a kind."""
        with suppress(psutil.NoSuchProcess):
            daemon, web = psutil.Process(self.made.process.pid), psutil.Process(self.web.pid)
            family = [*daemon.children(recursive=True), *web.children(recursive=True)]
            if target == "daemon":
                return [daemon]
            if target == "webserver":
                return [web]
            if target == "code server":
                return [one for one in family if "api grpc" in " ".join(one.cmdline())]
            if target == "run worker":
                return self.workers()
            return [daemon, web, *family, *self.workers()]
        return []

    def workers(self) -> list[psutil.Process]:
        """The processes that execute runs; they outlive the server that started them."""
        found = []
        started = dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED])
        for run in self.made.instance.get_runs(started):
            with suppress(psutil.NoSuchProcess, IndexError):
                found.append(psutil.Process(self.made.pid(run)))
        return found

    def end(self) -> None:
        """Leave nothing running."""
        for process in (self.made.process, self.web):
            if process is not None and process.poll() is None:
                kill(process)
        for one in psutil.process_iter():
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                if one.pid != os.getpid() and one.environ().get("DAGSTER_HOME") == str(self.made.home):
                    one.kill()
        self.made.instance.dispose()


@dataclass
class Outcome:
    """What is held against the truth.

    Attributes:
        wrong: objects that are not what the world holds.
        untrue: days on record that were not in the store.
        unrecorded: days in the store that nobody has on record at the end.
        twice: site-days recorded more than once.
        again: rows that were sent more than once, in site-days.
        bound: site-days that may have been in flight when something was killed.
        killed: kills by target.
        refused: exit codes of each second `backfill up`.
        failures: site-days that were recorded as failed.
        starts: backfills that were asked for.
        seconds: in all.
    """

    wrong: list[str]
    untrue: list[tuple[str, date]]
    unrecorded: list[str]
    twice: int
    again: float
    bound: int
    killed: dict[str, int]
    refused: list[int]
    failures: int
    starts: int
    seconds: float


def fire(
    home: Path,
    variables: pytest.MonkeyPatch,
    targets: list[str],
    *,
    days: int,
    sites: int,
    seed: int = 1,
    latency_s: float = 1.5,
    lock_s: float = 7.0,
) -> Outcome:
    """Backfill `days` x `sites` of small days, killing `targets` in turn at random instants, and count.

    Args:
        home: an empty folder.
        variables: takes the installation's environment.
        targets: what is killed, one after the other; each while a run is at work.
        days: days a site.
        sites: sites.
        seed: of the instants.
        latency_s: seconds an answer takes: a day's worth of a site, so that a backfill lasts long enough.
        lock_s: seconds that a lock of the files, or an outage, lasts.
    """
    rng, began = random.Random(seed), time.monotonic()  # noqa: S311 - instants, no secret
    names = [f"site-{number}" for number in range(sites)]
    wanted = [FIRST + timedelta(days=number) for number in range(days)]
    world = World([SiteSpec(name, 10) for name in names])
    with Simulator(world, api_key="hush-hush", latency_s=latency_s) as api:
        # Few windows at once, so that a backfill lasts long enough to be killed in the middle.
        made = Stack(home, api.url, names, variables, ACE_MAX_WINDOWS=str(WINDOWS), BACKFILL_DAYS_PER_RUN="10")
        site = Fire(made, api, wanted, lock_s=lock_s)
        first_up = FileLock(made.home / ".dagster" / "up.lock")  # held as the first `backfill up` holds it
        Path(first_up.lock_file).parent.mkdir(exist_ok=True)
        first_up.acquire()
        try:
            left = list(targets)
            ceiling, before, aim = time.monotonic() + HANGS_S, None, None
            while not site.operate() or made.gateway.running():
                progress = (len(left), len(api.requests))
                if progress != before:
                    before, ceiling = progress, time.monotonic() + HANGS_S
                if time.monotonic() > ceiling:
                    raise AssertionError((made.home / "daemon.log").read_text(encoding="utf-8")[-8000:])
                site.tend()
                if left and aim is None and site.workers():
                    aim = time.monotonic() + rng.uniform(0.2, 3.0)
                if aim is not None and time.monotonic() > aim:
                    site.shoot(left.pop(0))
                    site.look()
                    aim = None
                time.sleep(0.2)
            site.look()
            site.tend()
            wait_for(site.port, site.web)
            return _counted(site, world, api, began)
        finally:
            first_up.release()
            site.end()


def _counted(site: Fire, world: World, api: Simulator, began: float) -> Outcome:
    made = site.made
    wrong = [
        f"{name} {one}"
        for name in made.sites
        for one in site.days
        if listed(pq.read_table(site.path(name, one))) != world.truth(name, one)
    ]
    known = site.recorded()
    objects = [path.relative_to(made.home / "data").as_posix() for path in (made.home / "data" / ROOT).rglob("*.*")]
    unrecorded = [key for key in objects if parse_key(key)[1] not in known.get(parse_key(key)[0], ())]
    sent = Counter(dict.fromkeys(made.sites, 0))
    for request in api.requests:
        if request.path.endswith("/paginated"):
            sent[request.path.split("/")[-3]] += request.rows
    whole = {name: sum(len(world.site(name).samples(one)) for one in site.days) for name in made.sites}
    again = sum((sent[name] - whole[name]) / (whole[name] / len(site.days)) for name in made.sites)
    deadly = sum(site.killed[target] for target in ("run worker", "code server", "daemon", "all"))
    return Outcome(
        wrong,
        sorted(site.untrue),
        unrecorded,
        sum(count > 1 for count in made.times_stored().values()),
        round(again, 2),
        deadly * RUNS_AT_ONCE * len(made.sites) * WINDOWS,
        dict(site.killed),
        site.refused,
        site.failures(),
        site.starts,
        round(time.monotonic() - began, 1),
    )


def main() -> None:
    """Run it, and print what came out; exit code 1 when anything was lost."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--days", type=int, default=30)
    options.add_argument("--sites", type=int, default=3)
    options.add_argument("--kills", type=int, default=20)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--latency", type=float, default=1.5)
    options.add_argument(
        "--lock", type=float, default=40.0, help="seconds that the SQLite files are locked, and an outage"
    )
    asked = options.parse_args()
    rng = random.Random(asked.seed)  # noqa: S311 - an order, no secret
    targets = [TARGETS[number % len(TARGETS)] for number in range(asked.kills)]
    rng.shuffle(targets)
    size = {
        "days": asked.days,
        "sites": asked.sites,
        "seed": asked.seed,
        "latency_s": asked.latency,
        "lock_s": asked.lock,
    }
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as variables:
        told = fire(Path(folder) / "home", variables, targets, **size)
    for name, value in vars(told).items():
        print(f"{name:<12} {value}")  # noqa: T201 - what was asked for
    accepted = [code for code in told.refused if code != REFUSED]
    if told.wrong or told.untrue or told.unrecorded or told.failures or accepted or told.again > told.bound:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
