"""Two tenants on one machine and one Postgres server: neither finds anything of the other's, nor waits for it."""

import subprocess
import sys
from contextlib import ExitStack
from datetime import date

import psycopg2
import pyarrow.parquet as pq

from backfill_pipeline.core.object_keys import object_key
from backfill_pipeline.simulator.app import DEFAULT_KEY, Simulator
from backfill_pipeline.simulator.world import SiteSpec, World
from backfill_pipeline_tests.builders import listed
from backfill_pipeline_tests.journeys.stack import day, kill, stack
from backfill_pipeline_tests.services import postgres_server, redis_server

SHARED = "north"
"""Both have a site of this name."""

DAYS = [day(number) for number in range(3)]


def everything(url: str) -> str:
    """All rows of all tables of a database, as text."""
    with psycopg2.connect(url) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'")
        tables = [name for (name,) in cursor.fetchall()]
        said = []
        for table in tables:
            cursor.execute(f'SELECT t::text FROM "{table}" t')  # noqa: S608 - names that Postgres gave
            said += [row for (row,) in cursor.fetchall()]
    connection.close()
    return "\n".join(said)


def create(url: str, names) -> None:
    """A database for each."""
    connection = psycopg2.connect(url)
    connection.autocommit = True
    with connection.cursor() as cursor:
        for name in names:
            cursor.execute(f"CREATE DATABASE {name}")
    connection.close()


def test_no_tenant_finds_anything_of_another(tmp_path, monkeypatch):
    """Same site name, own key, database, prefix and home: what is stored or logged is the tenant's own."""
    worlds = {
        "acme": World([SiteSpec(SHARED, 8, seed=1), SiteSpec("acme-tower", 8)]),
        "bolt": World([SiteSpec(SHARED, 12, seed=2), SiteSpec("bolt-works", 8)]),
    }
    with (
        postgres_server() as url,
        Simulator(worlds["acme"], api_key="key-of-acme") as acme_api,
        Simulator(worlds["bolt"], api_key="key-of-bolt") as bolt_api,
    ):
        server = url.removesuffix("postgres")
        create(url, worlds)

        def tenant(name, api):
            sites = [site.name for site in worlds[name].sites]
            return stack(
                tmp_path / name, api.url, sites, monkeypatch, ACE_API_KEY=f"key-of-{name}",
                BACKFILL_RUN_STORAGE=f"{server}{name}", BACKFILL_LIMITER=url,
                BACKFILL_STORE=str(tmp_path / "bucket" / name),
            )  # fmt: skip

        with tenant("acme", acme_api) as acme, tenant("bolt", bolt_api) as bolt:
            backfills = [(one, one.launch(0, len(DAYS) - 1)) for one in (acme, bolt)]
            assert [one.until_over(backfill) for one, backfill in backfills] == ["COMPLETED_SUCCESS"] * 2
            for one in (acme, bolt):
                assert one.times_stored() == {(site, each): 1 for site in one.sites for each in DAYS}

        budget = everything(url)
        for name, other in (("acme", "bolt"), ("bolt", "acme")):
            for site in worlds[name].sites:
                for one in DAYS:
                    path = tmp_path / "bucket" / name / object_key(site.name, date.fromisoformat(one))
                    assert listed(pq.read_table(path)) == worlds[name].truth(site.name, date.fromisoformat(one))
            stored = everything(f"{server}{name}")
            assert name in stored
            assert other not in stored
            assert f"key-of-{name}" not in stored + budget
            for path in (path for path in (tmp_path / name).rglob("*") if path.is_file()):
                held = path.read_bytes()
                assert other.encode() not in held, path
                assert f"key-of-{name}".encode() not in held, path


def test_a_day_of_one_tenant_does_not_wait_behind_the_backlog_of_another(tmp_path, monkeypatch):
    """On one host and one Redis server, each tenant with a worker and a database number of its own there."""
    worlds = {name: World([SiteSpec(f"{name}-tower", 8)]) for name in ("acme", "bolt")}
    with (
        postgres_server() as url,
        redis_server() as redis,
        Simulator(worlds["acme"], latency_s=0.2) as acme_api,
        Simulator(worlds["bolt"]) as bolt_api,
        ExitStack() as undo,
    ):
        server = url.removesuffix("postgres")
        create(url, worlds)

        def tenant(name, api, number):
            made = stack(
                tmp_path / name, api.url, [f"{name}-tower"], monkeypatch, instance="deploy/dagster.yaml",
                ACE_API_KEY=DEFAULT_KEY, BACKFILL_RUN_STORAGE=f"{server}{name}", BACKFILL_LIMITER=url,
                BACKFILL_BROKER=redis.removesuffix("0") + str(number), BACKFILL_DAYS_PER_RUN="1",
            )  # fmt: skip
            found = undo.enter_context(made)
            with (found.home / "worker.log").open("wb") as log:
                worker = subprocess.Popen(
                    [sys.executable, "-m", "backfill_pipeline.control.cli", "worker"],
                    stdout=log, stderr=subprocess.STDOUT, cwd=found.home,
                )  # fmt: skip
            undo.callback(kill, worker)
            return found

        acme, bolt = tenant("acme", acme_api, 0), tenant("bolt", bolt_api, 1)
        backlog = acme.launch(0, 99)
        acme.until(acme.times_stored)
        bolt.launch(0, 0)
        assert bolt.until(bolt.times_stored) == {("bolt-tower", day(0)): 1}
        assert acme.status(backlog) == "REQUESTED"
        assert len(acme.times_stored()) < 90
        ours = {run.run_id for run in acme.runs(backlog)}
        for home, theirs in ((tmp_path / "bolt", ours), (tmp_path / "acme", set(bolt.instance.get_run_ids()))):
            assert not {path.name for path in (home / ".dagster" / "compute_logs").glob("*")} & theirs
