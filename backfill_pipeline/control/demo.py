"""`backfill demo`: simulator, backfill and query, on simulated sites.

Put here: what the demonstration sets up, shows and clears away. Keep out: anything that a real backfill needs.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from backfill_pipeline.control.output import show
from backfill_pipeline.control.processes import Child, end, interrupts
from backfill_pipeline.core.day import days_between
from backfill_pipeline.errors import BackfillError, UsageError
from backfill_pipeline.settings import Settings
from backfill_pipeline.simulator.app import DEFAULT_KEY, Simulator
from backfill_pipeline.simulator.world import demo_world

if TYPE_CHECKING:
    from backfill_pipeline.control.backfill_records import DayEvent

SITES = ("demo-north", "demo_south")
FIRST = date(2025, 3, 1)
LONGEST_S = 300.0

_INSTANCE = """\
# The demo's Dagster: the project's own storages, and runs that start at once.
storage:
  custom: {module: backfill_pipeline.orchestration.instance_storages, class: HomeStorage, config: {}}
local_artifact_storage: {module: backfill_pipeline.orchestration.instance_storages, class: HomeArtifacts, config: {}}
compute_logs: {module: backfill_pipeline.orchestration.instance_storages, class: HomeComputeLogs, config: {}}
run_coordinator: {module: dagster._core.run_coordinator, class: DefaultRunCoordinator}
telemetry: {enabled: false}
"""
_WORKSPACE = "load_from:\n  - python_module: backfill_pipeline.definitions\n"


def run_demo(folder: Path | None, *, days: int, points: int) -> int:
    """Run simulator, Dagster's daemon, a partition backfill and a query; return the exit code.

    Args:
        folder: where everything is kept; None: a throw-away folder.
        days: how many.
        points: of each of two sites.
    """
    console = Console(highlight=False)
    with TemporaryDirectory(prefix="backfill-demo-", ignore_cleanup_errors=True) as temporary:
        home = (folder or Path(temporary)).absolute()
        try:
            home.mkdir(parents=True, exist_ok=True)
            (home / "dagster.yaml").write_text(_INSTANCE, encoding="utf-8")
            (home / "workspace.yaml").write_text(_WORKSPACE, encoding="utf-8")
        except OSError as error:
            raise UsageError(f"--folder {home} cannot be used: {error.strerror}") from None
        world = demo_world(dict.fromkeys(SITES, points), interval_s=60)
        with Simulator(world) as simulator, _environment(home, simulator.url):
            console.print(
                f"An ACE API on {simulator.url}: {len(SITES)} sites, {points} points each, a sample a minute."
            )
            return _backfilled(console, home, days, keep=folder is not None)


def _backfilled(console: Console, home: Path, days: int, *, keep: bool) -> int:
    from backfill_pipeline.control.progress import watch  # noqa: PLC0415
    from backfill_pipeline.control.service import open_control  # noqa: PLC0415 - Dagster takes long to import

    wanted = list(days_between(FIRST, date.fromordinal(FIRST.toordinal() + days - 1)))
    control = open_control(Settings.load(folder=home))
    backfill_id = control.gateway.launch(SITES, wanted)
    console.print(f"Dagster backfill {backfill_id}: {FIRST} to {wanted[-1]}, {len(SITES) * days} site-days.")
    with interrupts() as stop, _daemon(home):
        late = threading.Timer(LONGEST_S, stop.set)
        late.start()
        try:
            status = watch(control, backfill_id, console, stop, every_s=0.5)
        except KeyboardInterrupt:
            if late.finished.is_set():
                raise BackfillError(
                    f"the demo did not end within {LONGEST_S:.0f} s", hint=f"read {home / 'daemon.log'}"
                ) from None
            raise
        finally:
            late.cancel()
    newest = {(event.site, event.day): event for site in SITES for event in control.gateway.events(site)}
    if status.word != "completed":
        for failure in control.errors(backfill_id):
            show(console, f"{failure.site} {failure.day}: {failure.error}")
        raise BackfillError(f"the demo's backfill ended as {status.word}")
    if not status.rows:
        raise BackfillError(f"the demo's backfill has no data: {status.message}")
    _show(console, [newest[key] for key in sorted(newest)])
    if keep:
        console.print(f"\nEverything is kept in {home}. What to try next:")
        console.print(
            f"  DAGSTER_HOME={home} dagster dev -w {home / 'workspace.yaml'}   (set ACE_SITES={','.join(SITES)})"
        )
    else:
        console.print("\nThe folder is cleared away now. What to try next:")
        console.print("  backfill demo --folder demo             keep the files and look at them")
    console.print("  backfill simulate --port 8900           an ACE API of your own, or --replay your exports")
    console.print("  backfill up                             the real thing: set ACE_API_KEY and ACE_SITES first")
    return 0


def _show(console: Console, done: "list[DayEvent]") -> None:
    import duckdb  # noqa: PLC0415 - only here

    table = Table("site", "day", "rows", "bytes", "bytes/row", "requests", title="What was written")
    for day in done:
        size = day.number("bytes")
        per_row = f"{size / day.rows:.2f}" if day.rows else "-"
        requests = str(day.number("requests"))
        table.add_row(day.site, day.day.isoformat(), f"{day.rows:,}", f"{size:,}", per_row, requests)
    console.print(table)
    root = Path(str(done[0].about["path"])).parents[4]
    query = (
        "SELECT site_name, count(DISTINCT point_name) AS points, count(*) AS samples, round(avg(value), 2) AS mean\n"
        f"FROM '{(root / 'timeseries/*/*/*/*.parquet').as_posix()}' GROUP BY site_name ORDER BY site_name"
    )
    console.print(f"\nDuckDB: {query}", markup=False)
    answer = duckdb.sql(query)
    result = Table(*answer.columns)
    for row in answer.fetchall():
        result.add_row(*(f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row))
    console.print(result)
    for catalogue in sorted(root.glob("points/*.parquet"))[:1]:
        rows = duckdb.read_parquet(catalogue.as_posix()).project("name, description, unit, device_name, id").order("id")
        name, description, unit, device, _ = rows.limit(1).fetchall()[0]
        show(
            console,
            f"One of the points: {name} is {description} [{unit}] of {device}. "
            f"points/{catalogue.name} describes all points.",
        )


@contextmanager
def _environment(home: Path, url: str) -> Iterator[None]:
    """Set the settings of the demo for this process and its child processes; the user's settings are ignored."""
    names = [str(field.alias) for field in Settings.model_fields.values()]
    ours = dict.fromkeys(names, "") | {
        "ACE_API_URL": url,
        "ACE_API_KEY": DEFAULT_KEY,
        "ACE_SITES": ",".join(SITES),
        "ACE_REQUESTS_PER_MINUTE": "600",
        "BACKFILL_FIRST_DAY": "2025-01-01",
        "BACKFILL_NEW_DAYS": "0",
        "BACKFILL_STORE": str(home / "data"),
        "DAGSTER_HOME": str(home),
    }
    before = {name: value for name, value in os.environ.items() if name in ours}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            os.environ.pop(name, None)
        os.environ.update(before)


@contextmanager
def _daemon(home: Path) -> Iterator[None]:
    """Run Dagster's daemon for the demo; end it and its child processes with the block."""
    daemon = Child(
        "daemon",
        ["dagster._daemon", "run", "-w", str(home / "workspace.yaml")],
        home / "daemon.log",
        cwd=home,
    )
    try:
        yield
    finally:
        end([daemon], patience_s=3)
