"""Commands about the installation: its settings, its processes and its Dagster storage.

Put here: `demo`, `init`, `check`, `probe-api`, `up`, `serve`, `explore`, `worker`, `move`. Keep out: what they do
(`control/`).

Heavy imports stay inside the commands, so that `--help` answers at once.
"""

import json
import sys
from datetime import date
from pathlib import Path

import click

from backfill_pipeline.control.cli.options import DayType, json_option
from backfill_pipeline.control.output import echo
from backfill_pipeline.settings import Settings


@click.command()
@click.option(
    "--folder", type=click.Path(path_type=Path), help="Keep everything in this folder; by default a temporary folder."
)
@click.option("--days", type=click.IntRange(1, 30), default=5, show_default=True)
@click.option("--points", type=click.IntRange(1, 2000), default=60, show_default=True, help="Points of each site.")
@click.option("--ui", is_flag=True, help="Then serve Dagster's UI with the demo's data, until Ctrl-C.")
@click.option(
    "--port", type=click.IntRange(1, 65535), default=3000, show_default=True, help="The port of the UI, for --ui."
)
def demo(folder: Path | None, days: int, points: int, *, ui: bool, port: int) -> None:
    """Try everything in under a minute: simulator, Dagster backfill, Parquet files, a query.

    Example: backfill demo --ui
    """
    from backfill_pipeline.control.demo import run_demo  # noqa: PLC0415 - see the module's docstring

    sys.exit(run_demo(folder, days=days, points=points, ui_port=port if ui else None))


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), default=Path())
def init(folder: Path) -> None:
    """Make FOLDER (this one by default) a home of the pipeline: `dagster.yaml`, `workspace.yaml` and `.env`.

    Files that are there stay as they are. The clone of the project is such a folder already.

    Example: backfill init my_buildings
    """
    from backfill_pipeline.control.new_home import write_home  # noqa: PLC0415 - see the module's docstring

    written = write_home(folder)
    for path in written:
        echo(f"{path} written")
    if not written:
        echo(f"{folder.absolute()} has all files already")
    echo(f"next: put your ACE API key into {folder / '.env'}, then run in that folder: backfill check, backfill up")


@click.command()
@json_option
def check(*, as_json: bool) -> None:
    """Check API key, sites, clock, store, budget, daemon and disk; exit code 1 when a check fails.

    Example: backfill check
    """
    from backfill_pipeline.control.check import run_check  # noqa: PLC0415 - see the module's docstring

    sys.exit(run_check(Settings.load(), as_json=as_json))


@click.command("probe-api")
@click.option("--site", help="The site; by default the first of ACE_SITES.")
@click.option("--day", type=DayType(), help="A day with samples; by default the latest day that is ready.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write the report to this file, as JSON.")
@json_option
def probe_api(site: str | None, day: date | None, out: Path | None, *, as_json: bool) -> None:
    """Check with about fifteen small requests which facts about the API hold.

    The report contains no API key, no name of a site or point, and no value.

    Example: backfill probe-api --out facts.json
    """
    from backfill_pipeline.control.probe_api import run_probe  # noqa: PLC0415 - see the module's docstring

    run_probe(Settings.load(), site, day, out=out, as_json=as_json)


@click.command()
@click.option(
    "--port", type=click.IntRange(1, 65535), default=3000, show_default=True, help="The port of the webserver."
)
def up(port: int) -> None:
    """Run Dagster's webserver and daemon together, on loopback, until Ctrl-C.

    Example: backfill up --port 3000
    """
    from backfill_pipeline.control.up import run_up  # noqa: PLC0415 - see the module's docstring

    run_up(Settings.load(), port)


@click.command()
@click.option("--runs", type=click.IntRange(1, 64), default=1, show_default=True, help="The number of concurrent runs.")
@click.option(
    "--alive", is_flag=True, help="Check whether a worker on this host answers; exit code 1: no worker answers."
)
def worker(runs: int, *, alive: bool) -> None:
    """Execute runs from BACKFILL_BROKER on this host until Ctrl-C. Needs Linux or macOS.

    Example: backfill worker --runs 2
    """
    from backfill_pipeline.orchestration.celery_launcher import run_worker, workers_here  # noqa: PLC0415 - see the module's docstring

    if alive:
        found = workers_here(Settings.load())
        echo(", ".join(found) or "no worker on this host answers")
        sys.exit(0 if found else 1)
    run_worker(Settings.load(), runs)


@click.command()
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="The address to listen on; any but loopback needs BACKFILL_TOKEN.",
)
@click.option("--port", type=click.IntRange(0, 65535), default=8642, show_default=True, help="0: any free port.")
def serve(host: str, port: int) -> None:
    """Serve the HTTP control API.

    Example: backfill serve --port 8642
    """
    from backfill_pipeline.control.http import run_server  # noqa: PLC0415 - see the module's docstring
    from backfill_pipeline.orchestration.exposed_secrets import exposed_secrets  # noqa: PLC0415 - see the module's docstring

    settings = Settings.load()
    for exposure in exposed_secrets(settings):
        echo(f"warning: {exposure}", err=True)
    run_server(settings, host, port)


@click.command()
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="The address to listen on; any but loopback needs BACKFILL_TOKEN.",
)
@click.option("--port", type=click.IntRange(0, 65535), default=8643, show_default=True, help="0: any free port.")
def explore(host: str, port: int) -> None:
    """Serve a page to find points by words and to look at their series, up to a year at once.

    Needs the extra `explore`.

    Example: backfill explore --port 8643
    """
    from backfill_pipeline.control.explore_server import run_explore  # noqa: PLC0415 - see the module's docstring

    run_explore(Settings.load(), host, port)


@click.command()
@json_option
def move(*, as_json: bool) -> None:
    """Copy Dagster's storage from the SQLite files to the empty database of BACKFILL_RUN_STORAGE.

    Copies runs, events, backfills, ticks and checks. Stop webserver and daemon first. The SQLite files stay unchanged.

    Example: backfill move
    """
    from backfill_pipeline.orchestration.migrate_storage import move_storage  # noqa: PLC0415 - see the module's docstring

    counts = move_storage(Settings.load())
    echo(json.dumps(counts) if as_json else ", ".join(f"{count} {what}" for what, count in counts.items()))
