"""`backfill demo`: simulator, backfill and query, on simulated sites.

Put here: what the demonstration sets up, shows and clears away. Keep out: anything that a real backfill needs.
"""

import os
import threading
import webbrowser
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from backfill_pipeline.control import new_home
from backfill_pipeline.control.output import show
from backfill_pipeline.control.processes import Child, end, interrupts
from backfill_pipeline.control.up import HOST, LOOK_S, require_free_port, require_running, server_answers
from backfill_pipeline.core.day import days_between
from backfill_pipeline.errors import BackfillError, UsageError
from backfill_pipeline.settings import Settings, has_desktop
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
_ENV_TITLE = "# Written by `backfill demo`: the settings of its sites."


def run_demo(folder: Path | None, *, days: int, points: int, ui_port: int | None = None) -> int:
    """Run simulator, Dagster's daemon, a partition backfill and a query; return the exit code.

    Args:
        folder: where everything is kept; None: a temporary folder.
        days: how many.
        points: of each of two sites.
        ui_port: the port of Dagster's UI, which is then served until Ctrl-C; None: no UI.

    Raises:
        UsageError: the folder or the port cannot be used.
        BackfillError: a program ended unexpectedly, or the backfill did not complete.
        KeyboardInterrupt: Ctrl-C.
    """
    console = Console(highlight=False)
    if ui_port is not None:
        require_free_port(ui_port)
    with TemporaryDirectory(prefix="backfill-demo-", ignore_cleanup_errors=True) as temporary:
        home = (folder or Path(temporary)).absolute()
        world = demo_world(dict.fromkeys(SITES, points), interval_s=60)
        with Simulator(world) as simulator:
            _write_home(home, simulator.url)
            with _environment(home, simulator.url), interrupts() as stop, _programs(home, ui_port) as programs:
                show(console, f"An ACE API on {simulator.url}: {len(SITES)} sites, {points} points each.")
                _backfilled(console, home, days, stop)
                if ui_port is None:
                    _next_steps(console, home if folder else None, days)
                else:
                    _serve_ui(console, home, days, ui_port, programs, stop)
    return 0


def _write_home(home: Path, url: str) -> None:
    """Write Dagster's files, and the settings for commands that are run in the folder."""
    env = home / ".env"
    try:
        home.mkdir(parents=True, exist_ok=True)
        if env.exists() and not env.read_text(encoding="utf-8").startswith(_ENV_TITLE):
            raise UsageError(
                f"--folder {home} contains a .env file that is not of the demo", hint="name an empty or new folder"
            )
        (home / "dagster.yaml").write_text(_INSTANCE, encoding="utf-8")
        (home / "workspace.yaml").write_text(new_home.text_of("workspace.yaml"), encoding="utf-8")
        env.touch(mode=0o600)
        lines = [f"{name}={value}" for name, value in {**_settings(url), "BACKFILL_STORE": "./data"}.items()]
        env.write_text("\n".join([_ENV_TITLE, *lines, ""]), encoding="utf-8")
    except OSError as error:
        raise UsageError(
            f"--folder {home} cannot be used: {error.strerror}", hint="name a folder that you may write"
        ) from None


def _backfilled(console: Console, home: Path, days: int, stop: threading.Event) -> None:
    """Backfill the demo's days, then show what was written.

    Raises:
        BackfillError: the backfill did not complete, or has no data.
        KeyboardInterrupt: `stop` was set.
    """
    from backfill_pipeline.control.progress import watch  # noqa: PLC0415
    from backfill_pipeline.control.service import open_control  # noqa: PLC0415 - Dagster takes long to import

    wanted = list(days_between(FIRST, _last(days)))
    control = open_control(Settings.load(folder=home))
    backfill_id = control.gateway.launch(SITES, wanted)
    show(console, f"Dagster backfill {backfill_id}: {FIRST} to {wanted[-1]}, {len(SITES) * days} site-days.")
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
    if status.word != "completed":
        for failure in control.errors(backfill_id):
            show(console, failure.line)
        raise BackfillError(f"the demo's backfill ended as {status.word}")
    if not status.rows:
        raise BackfillError(f"the demo's backfill has no data: {status.message}")
    newest = {(event.site, event.day): event for site in SITES for event in control.gateway.events(site)}
    _show(console, [newest[key] for key in sorted(newest)])


def _serve_ui(
    console: Console, home: Path, days: int, port: int, programs: Sequence[Child], stop: threading.Event
) -> None:
    """Make the asset `coverage`, open the UI in a browser if there is one, and serve it until Ctrl-C.

    Raises:
        BackfillError: webserver or daemon ended unexpectedly.
        KeyboardInterrupt: `stop` was set.
    """
    url, shown, last = f"http://{HOST}:{port}", False, _last(days)
    console.print()
    show(console, "Making the asset coverage, and starting Dagster's UI ...")
    coverage = Child(
        "coverage",
        ["dagster", "asset", "materialize", "-m", "backfill_pipeline.definitions", "--select", "coverage"],
        home / "coverage.log",
        cwd=home,
    )
    try:
        while not stop.wait(LOOK_S):
            require_running(programs, stop)
            if coverage.ended_with:
                raise BackfillError("the asset coverage was not made", hint=f"read {coverage.log}")
            if not shown and coverage.ended_with is not None and server_answers(url):
                shown = True
                show(console, f"{url}  Dagster's UI; Ctrl-C ends everything.")
                show(console, f"  {url}/assets/timeseries/{SITES[0]}   days of a site")
                show(console, f"  {url}/assets/coverage   what has arrived")
                following = f"--from {_after(last, 1)} --to {_after(last, 3)}"
                show(console, "In another terminal, three more days:")
                show(console, f"  cd {home}")
                show(console, f"  backfill start {following} --wait")
                if _has_browser(console):
                    webbrowser.open(url)
    finally:
        end([coverage], patience_s=3)
    raise KeyboardInterrupt


def _has_browser(console: Console) -> bool:
    """Whether a person at a desktop runs the demo; a browser in the terminal would hide the output."""
    return console.is_terminal and has_desktop()


def _next_steps(console: Console, kept: Path | None, days: int) -> None:
    """Show commands to continue with.

    Args:
        console: shows them.
        kept: the folder of the demo; None: it is deleted.
        days: how many days it has.
    """
    console.print()
    if kept is None:
        show(console, "The folder is deleted now. What to try next:")
        show(console, "  backfill demo --ui               the same, with Dagster's UI")
        show(console, "  backfill demo --folder demo      keep the files")
        show(console, "  backfill simulate --port 8900    an ACE API of your own")
        return
    show(console, f"Everything is kept in {kept}. What to try next:")
    show(console, f"  cd {kept}")
    show(console, f"  backfill verify --from {FIRST} --to {_last(days)}")
    show(console, f"  backfill points --site {SITES[0]} --list wind")
    show(console, "  backfill demo --ui --folder .    the same folder, with Dagster's UI")


def _last(days: int) -> date:
    return _after(FIRST, days - 1)


def _after(day: date, days: int) -> date:
    return date.fromordinal(day.toordinal() + days)


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
        show(console, f"One of the points: {name}")
        show(console, f"  is {description} [{unit}] of {device}.")
        show(console, f"points/{catalogue.name} describes all points.")


def _settings(url: str) -> dict[str, str]:
    return {
        "ACE_API_URL": url,
        "ACE_API_KEY": DEFAULT_KEY,
        "ACE_SITES": ",".join(SITES),
        "ACE_REQUESTS_PER_MINUTE": "600",
        "BACKFILL_FIRST_DAY": "2025-01-01",
        "BACKFILL_NEW_DAYS": "0",
    }


@contextmanager
def _environment(home: Path, url: str) -> Iterator[None]:
    """Set the settings of the demo for this process and its child processes; the user's settings are ignored."""
    names = [str(field.alias) for field in Settings.model_fields.values()]
    ours = dict.fromkeys(names, "") | _settings(url)
    ours |= {"BACKFILL_STORE": str(home / "data"), "DAGSTER_HOME": str(home)}
    before = {name: value for name, value in os.environ.items() if name in ours}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            os.environ.pop(name, None)
        os.environ.update(before)


@contextmanager
def _programs(home: Path, ui_port: int | None) -> Iterator[list[Child]]:
    """Run Dagster's daemon, and its webserver if a port is given; end them and their child processes with the block."""
    workspace = ["-w", str(home / "workspace.yaml")]
    commands = {"daemon": ["dagster._daemon", "run", *workspace]}
    if ui_port is not None:
        commands["webserver"] = ["backfill_pipeline.control.webserver", "-h", HOST, "-p", str(ui_port), *workspace]
    programs: list[Child] = []
    try:
        for name, arguments in commands.items():
            programs.append(Child(name, arguments, home / f"{name}.log", cwd=home))
        yield programs
    finally:
        end(programs, patience_s=3)
