"""Real programs for tests: Postgres, Redis and Chromium as Debian packages them; servers on a free port each.

Put here: how a program is found, how a server is started and stopped. Keep out: what is tested with it.
"""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest


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
def ended(process: subprocess.Popen) -> Iterator[None]:
    try:
        yield
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)
        process.kill()
        process.wait()


def wait_for(port: int, process: subprocess.Popen, host: str = "127.0.0.1") -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(OSError), socket.create_connection((host, port), 1):
            return
        time.sleep(0.05)
    raise AssertionError("the server did not come up")


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
        with ended(process):
            wait_for(port, process, host)
            yield f"postgresql://backfill:hush@{host}:{port}/postgres"
    finally:
        shutil.rmtree(folder, ignore_errors=True)
