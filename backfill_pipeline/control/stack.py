"""Processes that the command starts, and `backfill up`: Dagster's webserver and daemon together.

Put here: how a program of ours is started, watched and ended so that nothing of it is left, and what a Ctrl-C does.
Keep out: what such a program works on.
"""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import click
import psutil
import requests

from backfill_pipeline.errors import BackfillError, UsageError
from backfill_pipeline.settings import Settings

HOST = "127.0.0.1"

LOOK_S = 0.3
"""How often it is seen whether all goes on, and who has started whom."""

ENDING_S = 15.0
"""Seconds that servers get to end by themselves; days at work get `BACKFILL_GRACE_SECONDS` on top."""


class Child:
    """A Python program that was started, and all that it starts.

    Args:
        name: for messages.
        arguments: after `python -m`.
        log: file for what it prints, made anew.
        cwd: its working directory.
        environment: its variables; those of this process when None.
    """

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        log: Path,
        *,
        cwd: Path | None = None,
        environment: dict[str, str] | None = None,
    ) -> None:
        self.name = name
        self.log = log
        with log.open("w", encoding="utf-8") as file:
            self._process = subprocess.Popen(  # noqa: S603 - our own program
                [sys.executable, "-m", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                cwd=cwd,
                env=environment,
            )
        self._root = psutil.Process(self._process.pid)
        self._family = {self._root}

    @property
    def ended_with(self) -> int | None:
        """Its exit code; None while it goes on."""
        return self._process.poll()

    def look(self) -> None:
        """See whom it has started: what a program that is gone had started can not be found any more."""
        try:
            self._family.update(self._root.children(recursive=True))
        except psutil.NoSuchProcess:
            return

    def family(self) -> list[psutil.Process]:
        """Whoever of it is still at work."""
        self._process.poll()
        self.look()
        return [process for process in self._family if _works(process)]


def end(children: Sequence[Child], patience_s: float) -> None:
    """End programs and all that they started: asked first, and killed when they have not ended in time."""

    def family() -> list[psutil.Process]:
        return [process for child in children for process in child.family()]

    for process in family():
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    until = time.monotonic() + patience_s
    try:
        while family() and time.monotonic() < until:
            time.sleep(0.1)
    finally:  # asked once more by an impatient user: then at once
        until = time.monotonic() + 5
        while (left := family()) and time.monotonic() < until:
            for process in left:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            time.sleep(0.1)


def _works(process: psutil.Process) -> bool:
    """Whether it is there, and is no dead one that nobody has asked after."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@contextmanager
def interrupts() -> Iterator[threading.Event]:
    """The first Ctrl-C or SIGTERM sets the event, the second one interrupts wherever the process is.

    An exception in the midst of a library's own work leaves a traceback, or half of what it was at.
    """
    asked = threading.Event()

    def ask(*_: object) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run_up(settings: Settings, port: int) -> None:
    """The command: webserver and daemon on loopback until one of them ends, or Ctrl-C.

    Raises:
        SettingError: no installation can work in `DAGSTER_HOME`.
        UsageError: the port is taken.
        BackfillError: one of the two ended by itself.
        KeyboardInterrupt: asked to end, and all has ended.
    """
    home = settings.require_home()
    _see_port_free(port)
    workspace = home / "workspace.yaml"
    source = ["-w", str(workspace)] if workspace.is_file() else ["-m", "backfill_pipeline.definitions"]
    # What is said before the settings are read, by servers of code above all.
    logs = ["--log-format", "json", "--code-server-log-level", "warning"] if settings.log == "json" else []
    programs = {
        "webserver": ["dagster_webserver", "-h", HOST, "-p", str(port), *source, *logs],
        "daemon": ["dagster._daemon", "run", *source, *logs],
    }
    environment = os.environ | {"DAGSTER_HOME": str(home)}
    children: list[Child] = []
    with interrupts() as stop:
        try:
            for name, arguments in programs.items():
                children.append(Child(name, arguments, settings.private / f"{name}.log", environment=environment))
            _watch(children, port, stop)
            click.echo("ending; once more Ctrl-C to end at once, without the days at work", err=True)
        finally:
            end(children, settings.grace_seconds + ENDING_S)
    raise KeyboardInterrupt


def _watch(children: Sequence[Child], port: int, stop: threading.Event) -> None:
    """Look on until asked to end; tell the URL once it answers.

    Raises:
        BackfillError: one of them ended by itself.
    """
    url, told = f"http://{HOST}:{port}", False
    while not stop.wait(LOOK_S):
        for child in children:
            child.look()
            code = child.ended_with
            if code is not None and not stop.is_set():
                raise BackfillError(f"Dagster's {child.name} ended by itself (exit code {code}): see {child.log}")
        if not told and _answers(url):
            told = True
            logs = ", ".join(str(child.log) for child in children)
            click.echo(f"{url}  webserver and daemon are up; Ctrl-C ends both; logs: {logs}")


def _answers(url: str) -> bool:
    with requests.Session() as session:
        session.trust_env = False  # loopback is nobody's proxy's business
        try:
            return session.get(f"{url}/server_info", timeout=5).ok
        except requests.RequestException:
            return False


def _see_port_free(port: int) -> None:
    try:
        socket.create_server((HOST, port)).close()
    except OSError as error:
        raise UsageError(f"port {port} cannot be used ({error.strerror}); choose another --port") from None
