"""`backfill up`: Dagster's webserver and daemon together, on loopback, until Ctrl-C.

Put here: which programs are started, when they are ready, and the error about a program that ended. Keep out: how a
program is started and ended (`processes.py`), and other processes of the home (`home_lock.py`).
"""

import os
import socket
import threading
from collections.abc import Sequence
from pathlib import Path

import requests

from backfill_pipeline.control.home_lock import home_locked
from backfill_pipeline.control.output import echo
from backfill_pipeline.control.processes import Child, end, interrupts
from backfill_pipeline.errors import BackfillError, UsageError
from backfill_pipeline.orchestration.exposed_secrets import exposed_secrets
from backfill_pipeline.settings import Settings

HOST = "127.0.0.1"

LOOK_S = 0.3
"""Seconds between two checks of the programs and their child processes."""

ENDING_S = 15.0
"""Seconds that servers get to stop; days in progress get `BACKFILL_GRACE_SECONDS` in addition."""


def run_up(settings: Settings, port: int) -> None:
    """Run webserver and daemon until one of them ends, or until Ctrl-C.

    Raises:
        SettingError: the folder `DAGSTER_HOME` cannot be used.
        UsageError: the port is taken, or another process uses the home.
        BackfillError: webserver or daemon ended unexpectedly.
        KeyboardInterrupt: Ctrl-C, once both programs have ended.
    """
    home = settings.require_home()

    def daemon_is_alive() -> bool:
        from backfill_pipeline.control.dagster_instance import Gateway  # noqa: PLC0415 - Dagster takes long to import

        return Gateway(settings).daemon_is_alive()

    with home_locked(home, settings.private, daemon_is_alive=daemon_is_alive):
        require_free_port(port)
        for exposure in exposed_secrets(settings):
            echo(f"warning: {exposure}", err=True)
        _run(settings, home, port)
    raise KeyboardInterrupt


def _run(settings: Settings, home: Path, port: int) -> None:
    workspace = home / "workspace.yaml"
    source = ["-w", str(workspace)] if workspace.is_file() else ["-m", "backfill_pipeline.definitions"]
    # For lines that are logged before the settings are read, mostly by code servers.
    logs = ["--log-format", "json", "--code-server-log-level", "warning"] if settings.log == "json" else []
    programs = {
        "webserver": ["backfill_pipeline.control.webserver", "-h", HOST, "-p", str(port), *source, *logs],
        "daemon": ["dagster._daemon", "run", *source, *logs],
    }
    # With the port, which only this process knows, alerts link to the UI.
    environment = os.environ | {
        "DAGSTER_HOME": str(home),
        "BACKFILL_UI_URL": settings.ui_url or f"http://{HOST}:{port}",
    }
    children: list[Child] = []
    with interrupts() as stop:
        try:
            for name, arguments in programs.items():
                children.append(Child(name, arguments, settings.private / f"{name}.log", environment=environment))
            earlier = [str(child.earlier_log) for child in children if child.earlier_log]
            if earlier:
                echo(f"the logs of the previous start are kept: {', '.join(earlier)}", err=True)
            _watch(children, port, stop)
            echo("stopping; press Ctrl-C again to stop at once, without completing the days in progress", err=True)
        finally:
            end(children, settings.grace_seconds + ENDING_S)


def _watch(children: Sequence[Child], port: int, stop: threading.Event) -> None:
    """Watch the programs until the stop event; print the URL once it answers.

    Raises:
        BackfillError: webserver or daemon ended unexpectedly.
    """
    url, told = f"http://{HOST}:{port}", False
    while not stop.wait(LOOK_S):
        require_running(children, stop)
        if not told and server_answers(url):
            told = True
            logs = ", ".join(str(child.log) for child in children)
            echo(f"{url}  webserver and daemon are up; Ctrl-C ends both; logs: {logs}")


def require_running(children: Sequence[Child], stop: threading.Event) -> None:
    """Check that each program runs, unless the stop event is set.

    Raises:
        BackfillError: a program ended.
    """
    for child in children:
        child.look()
        code = child.ended_with
        if code is not None and not stop.is_set():
            raise BackfillError(
                f"Dagster's {child.name} ended unexpectedly (exit code {code})",
                hint=f"read {child.log}, which the next start renames to {child.log.name}.1",
            )


def server_answers(url: str) -> bool:
    """Whether Dagster's webserver answers at this URL."""
    with requests.Session() as session:
        session.trust_env = False  # no proxy for loopback
        try:
            return session.get(f"{url}/server_info", timeout=5).ok
        except requests.RequestException:
            return False


def require_free_port(port: int) -> None:
    """Check that a server can listen on the port.

    Raises:
        UsageError: the port cannot be used.
    """
    try:
        socket.create_server((HOST, port)).close()
    except OSError as error:
        why = (error.strerror or type(error).__name__).partition(" (while")[0]  # which repeats the address
        raise UsageError(f"port {port} cannot be used ({why})", hint="choose another --port") from None
