"""`backfill demo`: everything once, for real, on made-up sites.

Put here: what the demonstration sets up, shows and clears away. Keep out: anything that a real backfill needs.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import psutil
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from backfill_pipeline.core.day import days_between
from backfill_pipeline.errors import BackfillError, UsageError
from backfill_pipeline.settings import Settings
from backfill_pipeline.simulator.app import DEFAULT_KEY, Simulator
from backfill_pipeline.simulator.world import demo_world

if TYPE_CHECKING:
    from backfill_pipeline.control.gateway import DayDone, Gateway

SITES = ("demo-north", "demo_south")
FIRST = date(2025, 3, 1)
LONGEST_S = 300.0

_INSTANCE = """\
# The demo's Dagster: the project's own storages, and runs that start at once.
storage:
  custom: {module: backfill_pipeline.orchestration.home, class: HomeStorage, config: {}}
local_artifact_storage: {module: backfill_pipeline.orchestration.home, class: HomeArtifacts, config: {}}
compute_logs: {module: backfill_pipeline.orchestration.home, class: HomeComputeLogs, config: {}}
run_coordinator: {module: dagster._core.run_coordinator, class: DefaultRunCoordinator}
telemetry: {enabled: false}
"""
_WORKSPACE = "load_from:\n  - python_module: backfill_pipeline.definitions\n"


def run_demo(folder: Path | None, *, days: int, points: int) -> int:
    """Simulator, Dagster's daemon, a partition backfill, a query; the exit code.

    Args:
        folder: where everything is kept; None: a throw-away folder.
        days: how many.
        points: of each of two sites.
    """
    console = Console(highlight=False)
    signal.signal(signal.SIGTERM, _interrupt)
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
    from backfill_pipeline.control.gateway import Gateway  # noqa: PLC0415 - Dagster takes long to import

    wanted = list(days_between(FIRST, date.fromordinal(FIRST.toordinal() + days - 1)))
    gateway = Gateway(Settings.load(folder=home))
    before = {(day.site, day.day) for day in gateway.days_done(SITES)} if keep else set()
    backfill_id = gateway.launch(SITES, wanted)
    console.print(f"Dagster backfill {backfill_id}: {FIRST} to {wanted[-1]}, {len(SITES) * days} site-days.")
    with _daemon(home):
        done = _watched(console, gateway, backfill_id, len(SITES) * days, refetch=bool(before))
    _show(console, done)
    if keep:
        console.print(f"\nEverything is kept in {home}. What to try next:")
        console.print(
            f"  DAGSTER_HOME={home} dagster dev -w {home / 'workspace.yaml'}   (set ACE_SITES={','.join(SITES)})"
        )
    else:
        console.print("\nThe folder is cleared away now. What to try next:")
        console.print("  backfill demo --folder demo             keep the files and look at them")
    console.print("  backfill simulate --port 8900           an ACE API of your own, or --replay your exports")
    console.print("  DAGSTER_HOME=$PWD dagster dev           the real thing: set ACE_API_KEY and ACE_SITES first")
    return 0 if len({(day.site, day.day) for day in done}) >= len(SITES) * days else 1


def _watched(console: Console, gateway: "Gateway", backfill_id: str, total: int, *, refetch: bool) -> "list[DayDone]":
    """Show progress until the backfill is over."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("days, {task.fields[speed]:,.0f} samples/s,"),
        TimeRemainingColumn(),
        TextColumn("left"),
    )
    started, first, plain = time.monotonic(), None, not console.is_terminal
    shown = -1
    with Progress(*columns, console=console, disable=plain) as progress:
        task = progress.add_task("Dagster starts", total=total, speed=0.0)
        while True:
            over = gateway.is_over(backfill_id)
            done = gateway.days_done(SITES)
            now = time.monotonic()
            if done and first is None:
                first = now
            speed = sum(day.rows for day in done) / max(now - first + 1, 1.0) if first else 0.0
            progress.update(
                task, completed=len(done), speed=speed, description="Backfill" if done else "Dagster starts"
            )
            if plain and len(done) != shown:
                shown = len(done)
                left = (total - shown) * (now - first + 1) / shown if first and shown else 0.0
                console.print(f"{shown} of {total} days, {speed:,.0f} samples/s, {left:.0f} s left")
            error = gateway.failure(backfill_id)
            if error:
                raise BackfillError(f"the demo's backfill failed: {error}")
            if over and (len(done) >= total or refetch):
                return done
            if now - started > LONGEST_S:
                raise BackfillError(f"the demo's backfill did not end within {LONGEST_S:.0f} s")
            time.sleep(0.5)


def _show(console: Console, done: "list[DayDone]") -> None:
    import duckdb  # noqa: PLC0415 - only here

    table = Table("site", "day", "rows", "bytes", "bytes/row", "requests", title="What was written")
    for day in done:
        per_row = f"{day.bytes / day.rows:.2f}" if day.rows else "-"
        table.add_row(day.site, day.day, f"{day.rows:,}", f"{day.bytes:,}", per_row, str(day.requests))
    console.print(table)
    root = Path(done[0].path).parents[4]
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


@contextmanager
def _environment(home: Path, url: str) -> Iterator[None]:
    """The demo's own settings, for this process and those it starts; the user's are left out, `.env` too."""
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
    """Dagster's daemon for the demo; nothing that it started is left when the block ends."""
    with (home / "daemon.log").open("w", encoding="utf-8") as log:
        daemon = subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, "-m", "dagster._daemon", "run", "-w", str(home / "workspace.yaml")],
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=home,
        )
        try:
            yield
        finally:
            _end(daemon.pid)
            daemon.wait()


def _end(pid: int) -> None:
    """End a process and all that it started."""
    try:
        root = psutil.Process(pid)
        family = [*root.children(recursive=True), root]
    except psutil.NoSuchProcess:
        return
    for process in family:
        try:
            process.terminate()
        except psutil.NoSuchProcess:
            continue
    _, alive = psutil.wait_procs(family, timeout=3)
    for process in alive:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(alive, timeout=3)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
