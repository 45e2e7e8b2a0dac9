"""Real programs for tests: Postgres, Redis and Chromium as Debian packages them; servers on a free port each.

Put here: how a program is found, how a server is started and stopped. Keep out: what is tested with it.
"""

import multiprocessing
import multiprocessing.process
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Empty
from typing import Any, TypeVar

import psycopg2
import pytest

T = TypeVar("T")

Process = subprocess.Popen | multiprocessing.process.BaseProcess

HANGS_S = 900
"""No test waits for a time: a wait ends with what it waits for, or with the process. In seconds, this ends a hang."""


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def program(name: str) -> str:
    """Where a program lies; without it the test is skipped, except in CI, which has to have it."""
    debian = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    found = shutil.which(name) or (str(debian[-1]) if debian else None)
    if found is None:
        message = f"{name} is not installed (Debian: apt-get install postgresql redis-server chromium)"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return found


@contextmanager
def ended(process: subprocess.Popen, by: signal.Signals = signal.SIGTERM) -> Iterator[None]:
    """End a server with a signal when the block ends; kill it if it still runs ten seconds later."""
    try:
        yield
    finally:
        process.send_signal(by)
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)
        process.kill()
        process.wait()


def until(
    what: Callable[[], T],
    *processes: Process | None,
    said: Callable[[], str] = str,
    every_s: float = 0.05,
) -> T:
    """What `what` answers once it is true. A busy machine may take long: the wait ends when all processes have ended.

    Args:
        what: asked again and again.
        processes: the programs that make it true; None, or none at all: this process does.
        said: what to show when it does not become true, such as a log.
        every_s: seconds between two looks.
    """
    ceiling = time.monotonic() + HANGS_S
    while time.monotonic() < ceiling:
        ended = bool(processes) and all(process is not None and _ended(process) for process in processes)
        if answer := what():  # after the look at the processes: what they did last counts
            return answer
        if ended:
            break
        time.sleep(every_s)
    raise AssertionError(f"it did not happen, and all has {'ended' if ended else 'hung'}: {said()[-5000:]}")


def _ended(process: Process) -> bool:
    return process.poll() is not None if isinstance(process, subprocess.Popen) else not process.is_alive()


def received(queue: Any, *processes: Process) -> Any:
    """What one of the processes puts into a queue: waited for as long as one of them lives."""
    found: list[Any] = []

    def look() -> bool:
        with suppress(Empty):
            found.append(queue.get(timeout=0.2))
        return bool(found)

    until(look, *processes, every_s=0)
    return found[0]


def wait_for(port: int, process: subprocess.Popen, host: str = "127.0.0.1") -> None:
    def answers() -> bool:
        with suppress(OSError), socket.create_connection((host, port), 10):
            return True
        return False

    until(answers, process)


@contextmanager
def redis_server(host: str = "127.0.0.1") -> Iterator[str]:
    """A Redis server at one of this machine's addresses; its URL."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        command = [program("redis-server"), "--port", str(port), "--bind", host, "--save", "", "--dir", folder]
        command += ["--protected-mode", "no"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        with ended(process):
            wait_for(port, process, host)
            yield f"redis://{host}:{port}/0"


def _debian_user():
    import pwd  # noqa: PLC0415 - not on Windows

    return pwd.getpwnam("postgres")


def _takes_connections(host: str, port: int) -> bool:
    """Whether Postgres has started: it listens before it does."""
    with suppress(psycopg2.OperationalError):
        psycopg2.connect(host=host, port=port, user="backfill", dbname="postgres", password="hush").close()
        return True
    return False


@contextmanager
def postgres_server(host: str = "127.0.0.1") -> Iterator[str]:
    """A Postgres server with one database, at one of this machine's addresses; its URL."""
    initdb, postgres = program("initdb"), program("postgres")
    port = free_port()
    # Postgres does not run as root; Debian's package makes a user for it.
    user = _debian_user() if os.geteuid() == 0 else None
    as_user = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if user else {}
    folder = Path(tempfile.mkdtemp())
    try:
        if user:
            os.chown(folder, user.pw_uid, user.pw_gid)
        data = str(folder / "data")
        subprocess.run(
            [initdb, "-D", data, "-U", "backfill", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C"],
            check=True, stdout=subprocess.DEVNULL, cwd=folder, **as_user,
        )  # fmt: skip
        with (folder / "data" / "pg_hba.conf").open("a", encoding="utf-8") as who:
            who.write(f"host all all {host}/24 trust\n")
        process = subprocess.Popen(
            [postgres, "-D", data, "-p", str(port), "-h", host, "-k", str(folder), "-F"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder, **as_user,
        )  # fmt: skip
        with ended(process, signal.SIGINT):  # after a SIGTERM, Postgres waits for its clients to disconnect
            until(lambda: _takes_connections(host, port), process)
            yield f"postgresql://backfill:hush@{host}:{port}/postgres"
    finally:
        shutil.rmtree(folder, ignore_errors=True)
