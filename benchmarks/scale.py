"""A thousand sites over years: what Dagster's storage on Postgres, the definitions and the sensor cost at that size.

Events are made inside Postgres, as many as fit into a few minutes: each site-day has its materialisation, the newest
`--checked` days also their four checks. Printed: bytes an event, and the time of what looks at them.

What the store's index of days saves is measured by `benchmarks.index`.

    python -m benchmarks.scale                     # 1,000 sites x 1 year, its own Postgres server
    python -m benchmarks.scale --years 10          # 3.65 million site-days: ten minutes, 6 GB of disk
    python -m benchmarks.scale --database URL      # measured again in a database that was filled before
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import psutil
import requests
import sqlalchemy as sa
from dagster._core.remote_representation.external_data import RepositorySnap

from backfill_pipeline.control.dagster_instance import Gateway
from backfill_pipeline.control.metrics import metrics_text
from backfill_pipeline.control.service import Control
from backfill_pipeline.orchestration.adopt import adopt
from backfill_pipeline.orchestration.build import build_defs
from backfill_pipeline.orchestration.checks import CHECKS
from backfill_pipeline.orchestration.history import read_attempted
from backfill_pipeline.orchestration.instance_storages import postgres_storage
from backfill_pipeline.orchestration.partitions import asset_key
from backfill_pipeline.orchestration.sensors import HEALING, SENSOR
from backfill_pipeline.settings import Settings
from backfill_pipeline_tests.journeys.stack import TOP, kill
from backfill_pipeline_tests.services import free_port, postgres_server

NOW = datetime(2025, 6, 1, 13, tzinfo=UTC)
NEWEST = NOW.date() - timedelta(days=1)


def told(what: str, work: Callable[[], Any]) -> Any:
    """Do it, and print how long it took."""
    started = time.perf_counter()
    found = work()
    print(f"{what:58} {time.perf_counter() - started:8.2f} s", flush=True)
    return found


def template(site: str) -> dict[str, Any]:
    """A materialisation as our runs tell it."""
    return {
        "dagster/row_count": 1_316_736,
        "path": dg.MetadataValue.path(f"s3://bucket/prefix/timeseries/2025/05/31/{site}.parquet"),
        "bytes": 2_345_678,
        "state": "stored",
        "thin": False,
        "changed": True,
        "samples_fetched": 1_316_736,
        "dropped": dg.MetadataValue.json({"not_configured": 12}),
        "conflicts": 0,
        "points_configured": 4572,
        "points_seen": 4570,
        "coverage": 0.999,
        "longest_gap_min": 6,
        "requests": 14,
        "retries": 0,
        "duration_s": 31.4,
        "sha256": "0" * 64,
    }


def fill(storage: Any, instance: dg.DagsterInstance, sites: list[str], days: int, checked: int) -> None:
    """Events of every site and day, copied from one of each kind that Dagster itself has stored."""
    day, pattern = "2999-12-31", "site-pattern"
    instance.report_runless_asset_event(
        dg.AssetMaterialization(asset_key(pattern), partition=day, metadata=template(pattern))
    )
    for check in CHECKS:
        figures = {"coverage": 0.999, "points_seen": 4570, "rows": 1_316_736, "median_rows": 1_316_000}
        instance.report_runless_asset_event(
            dg.AssetCheckEvaluation(
                asset_key=asset_key(pattern), check_name=check, passed=True, partition=day, metadata=figures
            )
        )
    spread = {
        "sites": sites,
        "last": NEWEST,
        "asset": json.dumps(asset_key(pattern).path),
        "pattern": pattern,
        "day": day,
    }
    names = "unnest(CAST(:sites AS text[])) AS site"
    with storage.event_log_storage.index_connection() as to:
        for kind, back in (("ASSET_MATERIALIZATION", days), ("ASSET_CHECK_EVALUATION", checked)):
            to.execute(
                sa.text(
                    f"""
                    INSERT INTO event_logs
                      (run_id, event, dagster_event_type, timestamp, step_key, asset_key, partition)
                    SELECT 'run-' || (d / 30),
                      replace(replace(event, :pattern, site), :day, (CAST(:last AS date) - d)::text),
                      dagster_event_type, (CAST(:last AS date) - d) + interval '36 hours', step_key,
                      replace(asset_key, :pattern, site), replace(partition, :day, (CAST(:last AS date) - d)::text)
                    FROM event_logs, generate_series({back - 1}, 0, -1) AS d, {names}
                    WHERE dagster_event_type = :kind AND event LIKE '%' || :pattern || '%'
                    """  # noqa: S608 - numbers of our own
                ),
                spread | {"kind": kind},
            )
        to.execute(
            sa.text(
                f"""
                INSERT INTO asset_keys (asset_key, last_materialization, last_run_id, last_materialization_timestamp)
                SELECT replace(asset_key, :pattern, site), replace(last_materialization, :pattern, site),
                  last_run_id, now()
                FROM asset_keys, {names} WHERE asset_key = :asset
                """  # noqa: S608 - as above
            ),
            spread,
        )
        to.execute(sa.text("ANALYZE"))


def healed(repository: dg.RepositoryDefinition, instance: dg.DagsterInstance) -> None:
    """Ticks of the sensor `healing` until each site has had its turn, the pauses left out."""
    sensor, cursor, begun, ticks = repository.get_sensor_def(HEALING), None, [], []
    while len(begun) < 2 or begun[-1] > begun[-2]:
        context = dg.build_sensor_context(instance, repository_def=repository, sensor_name=HEALING, cursor=cursor)
        started = time.perf_counter()
        kept = json.loads(sensor.evaluate_tick(context).cursor)
        ticks.append(time.perf_counter() - started)
        begun.append(kept["site"])
        cursor = json.dumps(kept | {"not_before": "2000-01-01T00:00:00+00:00"})
    print(f"{'  its ticks; the longest':58} {len(ticks):3}; {max(ticks):.2f} s", flush=True)


PAGES = {
    "the list of all assets": """{assetNodes{assetKey{path} groupName isPartitioned}}""",
    "days of a site, by state (its partitions page)": """{assetNodeOrError(assetKey:{path:["timeseries",SITE]}){...on
      AssetNode{partitionStats{numMaterialized numFailed numPartitions}
      assetPartitionStatuses{...on TimePartitionStatuses{ranges{status startKey endKey}}}}}}""",
    "the newest 50 events of a site": """{assetOrError(assetKey:{path:["timeseries",SITE]}){...on
      Asset{assetMaterializations(limit:50){timestamp partition}}}}""",
    "newest event of every site (the catalogue)": "{assetsLatestInfo(assetKeys:ALL){latestMaterialization{partition}}}",
    "days by state of every site (the graph)": "{assetNodes{partitionStats{numMaterialized numFailed numPartitions}}}",
}
"""What Dagster's pages ask the webserver for."""


def ask_webserver(home: Path, sites: Sequence[str]) -> None:
    """Start Dagster's webserver on the installation of this process's variables, and time what its pages ask for."""
    port = free_port()
    with (home / "webserver.log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "dagster_webserver", "-p", str(port), "-w", str(home / "workspace.yaml")],
            stdout=log, stderr=subprocess.STDOUT, cwd=home,
        )  # fmt: skip
    url = f"http://127.0.0.1:{port}"

    def up() -> None:
        while True:
            with suppress(requests.ConnectionError):
                if requests.get(f"{url}/server_info", timeout=5).ok:
                    return
            time.sleep(0.2)

    def page(question: str) -> None:
        keys = ",".join(f'{{path:["timeseries",{json.dumps(site)}]}}' for site in sites)
        asked = question.replace("SITE", json.dumps(sites[0])).replace("ALL", f"[{keys}]")
        answer = requests.post(f"{url}/graphql", json={"query": asked}, timeout=1800).json()
        if "errors" in answer:
            raise SystemExit(str(answer["errors"])[:500])

    try:
        told("webserver: until it answers", up)
        for name, question in PAGES.items():
            told(f"webserver: {name}", lambda question=question: page(question))
            told("  the same, asked again", lambda question=question: page(question))
        family = [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]
        print(f"webserver and code server: {sum(one.memory_info().rss for one in family) / 1e6:,.0f} MB")
    finally:
        kill(server)


def ask_commands(settings: Settings, sites: Sequence[str], some: int) -> None:
    """What `backfill start`, `status` and `/metrics` take, the two last for some of the sites alone."""
    gateway = Gateway(settings)
    me = psutil.Process()
    days = [settings.first_day + timedelta(days=n) for n in range((NEWEST - settings.first_day).days + 1)]

    def start() -> None:
        stored = gateway.days_stored(sites)
        gateway.launch(sites, days, skip=stored)

    told(f"backfill start: all {len(sites)} sites, {len(days)} days, all stored", start)
    told("backfill start --force: the same, all to do", lambda: gateway.launch(sites, days))
    told("  and what of it the newest one is (read by each status)", gateway.newest)
    before = me.memory_info().rss
    few = settings.model_copy(update={"sites": tuple(sites[:some])})
    gateway.sites = lambda: list(sites[:some])  # type: ignore[method-assign]
    gateway.launch(sites[:some], days)
    control = Control(gateway, few, all_sites=lambda: sites[:some])
    told(f"backfill status and all figures: {some} sites, first time", control.status)
    told(f"/metrics: {some} sites, after it", lambda: metrics_text(control, lambda: None))
    events = some * len(days)
    print(f"memory for them: {(me.memory_info().rss - before) / events:,.0f} bytes an event, {events:,} events")


def main() -> None:
    """Fill a server of its own, and measure."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--sites", type=int, default=1000)
    arguments.add_argument("--years", type=float, default=1)
    arguments.add_argument("--checked", type=int, default=30, help="days with checks")
    arguments.add_argument("--database", help="a database that was filled before, by the same --sites and --years")
    arguments.add_argument("--some", type=int, default=20, help="sites whose every event is read")
    asked = arguments.parse_args()
    sites = [f"site-{number:04}" for number in range(asked.sites)]
    days = round(asked.years * 365)
    server = nullcontext(asked.database) if asked.database else postgres_server()
    with tempfile.TemporaryDirectory() as folder, server as url:
        home, first = Path(folder), NEWEST - timedelta(days=days - 1)
        for name in ("dagster.yaml", "workspace.yaml"):
            shutil.copy(TOP / name, home)
        os.environ |= {
            "DAGSTER_HOME": folder,
            "ACE_API_KEY": "made-up",
            "ACE_API_URL": "http://127.0.0.1:1",
            "ACE_SITES": ",".join(sites),
            "BACKFILL_STORE": folder,
            "BACKFILL_FIRST_DAY": str(first),
            "BACKFILL_RUN_STORAGE": url,
            "PYTHONPATH": str(TOP),
        }
        settings = Settings.load(folder=home)
        defs = told(f"definitions of {len(sites)} sites", lambda: build_defs(settings, now=lambda: NOW))
        repository = told("  as a repository", defs.get_repository_def)
        told("  as the webserver and daemon get them", lambda: RepositorySnap.from_def(repository))
        storage = postgres_storage(url)
        instance = dg.DagsterInstance.ephemeral()
        instance._event_storage = storage.event_log_storage  # noqa: SLF001 - an instance on these storages
        instance._run_storage = storage.run_storage  # noqa: SLF001
        for one in (storage.event_log_storage, storage.run_storage):
            one.register_instance(instance)
        if not asked.database:
            told(
                f"making {len(sites) * days:,} materialisations, {len(sites) * min(asked.checked, days) * 4:,} checks",
                lambda: fill(storage, instance, sites, days, min(asked.checked, days)),
            )
        with storage.event_log_storage.index_connection() as to:
            for kind in ("ASSET_MATERIALIZATION", "ASSET_CHECK_EVALUATION"):
                statement = sa.text(
                    "SELECT count(*), avg(length(event)) FROM event_logs WHERE dagster_event_type = :kind"
                )
                count, size = to.execute(statement, {"kind": kind}).one()
                print(f"{kind.lower():40} {count:>12,} events, {float(size):8,.0f} bytes each as JSON")
            whole, rows = to.execute(
                sa.text("SELECT pg_total_relation_size('event_logs'), count(*) FROM event_logs")
            ).one()
            print(f"{'event_logs with its indexes':40} {whole / 1e6:12,.0f} MB, {whole / rows:8,.0f} bytes a row")
        log = storage.event_log_storage
        told("days stored of one site", lambda: log.get_materialized_partitions(asset_key(sites[0])))
        told(
            f"days stored of {len(sites)} sites, one by one (a start)",
            lambda: [instance.get_materialized_partitions(asset_key(site)) for site in sites],
        )
        told(
            "all events of one site (status, figures)",
            lambda: instance.fetch_materializations(asset_key(sites[0]), limit=10_000).records,
        )
        for back in (0, 6, 29, 89):
            told(
                f"which of the newest {back + 1} days were asked for (new_days)",
                lambda back=back: read_attempted(instance, sites, NEWEST - timedelta(days=back), NEWEST),
            )
        sensor = repository.get_sensor_def(SENSOR)
        context = dg.build_sensor_context(instance, repository_def=repository, sensor_name=SENSOR)
        told("a whole tick of new_days, first one", lambda: sensor.evaluate_tick(context))
        context = dg.build_sensor_context(
            instance, repository_def=repository, sensor_name=SENSOR, cursor=context.cursor
        )
        told("a whole tick of new_days, the next", lambda: sensor.evaluate_tick(context))
        told(f"a round of healing over {len(sites)} sites, days new for a month", lambda: healed(repository, instance))
        told(
            "adopting a day of each site that is not there",
            lambda: list(adopt(instance, settings, sites, [NOW.date()])),
        )
        ask_webserver(home, sites)
        ask_commands(settings, sites, min(asked.some, len(sites)))


if __name__ == "__main__":
    main()
