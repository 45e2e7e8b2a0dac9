"""`backfill up`: webserver and daemon together, ended together, nothing left behind."""

import os
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager, suppress

import psutil
import pytest
import requests

from backfill_pipeline.control.dagster_instance import Gateway
from backfill_pipeline.settings import Settings
from backfill_pipeline_tests.journeys.stack import TOP
from backfill_pipeline_tests.services import HANGS_S, free_port, until

COMMAND = [sys.executable, "-m", "backfill_pipeline.control.cli", "up"]


@pytest.fixture
def home(tmp_path, monkeypatch):
    for name in ("dagster.yaml", "workspace.yaml"):
        (tmp_path / name).write_text((TOP / name).read_text(encoding="utf-8"), encoding="utf-8")
    for name, value in {
        "ACE_SITES": "a",
        "ACE_API_KEY": "hush-hush",
        "ACE_API_URL": "http://127.0.0.1:9/api",
        "BACKFILL_NEW_DAYS": "0",
        "DAGSTER_HOME": str(tmp_path),
        "PYTHONPATH": os.pathsep.join([str(TOP), os.environ.get("PYTHONPATH", "")]),
    }.items():
        monkeypatch.setenv(name, value)
    return tmp_path


def refused(home, *words):
    """The command, which is expected to end at once; its one line on standard error."""
    done = subprocess.run([*COMMAND, *words], cwd=home, capture_output=True, text=True, check=False)
    (line,) = done.stderr.strip().splitlines()
    assert (done.returncode, done.stdout) == (2, "")
    return line


@contextmanager
def up(home, port):
    """The command, as far as its URL; every process that it was seen to have started."""
    # A shell's background jobs ignore SIGINT, and hand that down to what they start; a handler is not handed down.
    if os.name != "nt":
        signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        [*COMMAND, "--port", str(port)], cwd=home, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    family: set[psutil.Process] = set()
    try:
        assert f"http://127.0.0.1:{port}" in process.stdout.readline(), process.stderr.read()
        family |= set(psutil.Process(process.pid).children(recursive=True))
        yield process, family
    finally:
        for one in [*family, psutil.Process(process.pid)] if process.poll() is None else family:
            with suppress(psutil.NoSuchProcess):
                one.kill()
        process.communicate()


def at_work(family):
    """Those that are there, and no dead ones that nobody asked after."""
    return [one for one in family if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]


def words_of(one):
    """The command line of a process; empty for one that has just ended."""
    with suppress(psutil.Error):
        return one.cmdline()
    return []


def program(family, word):
    return next(one for one in family if any(word in part for part in words_of(one)))


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for another process")
def test_both_are_up_on_loopback_and_ctrl_c_ends_both(home):
    """The URL answers, the daemon gives signs of life; then exit code 130, and no process is left.

    A `.env` that others can read is reported once.
    """
    port = free_port()
    (home / ".env").touch(0o644)
    with up(home, port) as (process, family):
        assert requests.get(f"http://127.0.0.1:{port}/server_info", timeout=HANGS_S).json()["dagster_version"]
        gateway = Gateway(Settings.load(folder=home))
        until(gateway.daemon_is_alive, process, said=(home / ".dagster" / "daemon.log").read_text)
        gateway.instance.dispose()
        family |= set(psutil.Process(process.pid).children(recursive=True))
        process.send_signal(signal.SIGINT)
        _, told = process.communicate()
        assert process.returncode == 130
        assert "Traceback" not in told
        assert told.count("warning: ") == told.count(".env can be read") == 1
        assert len(family) >= 2
        assert not at_work(family)


def test_when_one_dies_the_other_is_ended_and_it_is_said_which(home):
    """Exit code 1, and one line that names the daemon and its log."""
    with up(home, free_port()) as (process, family):
        program(family, "_daemon").kill()
        _, told = process.communicate()
        assert process.returncode == 1
        assert len(told.strip().splitlines()) == 1
        assert "daemon ended unexpectedly" in told
        assert str(home / ".dagster" / "daemon.log") in told
        assert not at_work(family)


def test_a_port_that_is_taken_and_a_home_without_dagster_yaml_are_refused(home, tmp_path_factory, monkeypatch):
    """Exit code 2 and one line, before anything is started; the reason is in it once."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = refused(home, "--port", str(port))
        assert line.count(str(port)) == line.count("in use") == 1
    bare = tmp_path_factory.mktemp("bare")
    monkeypatch.setenv("DAGSTER_HOME", str(bare))
    assert "dagster.yaml" in refused(bare)
    assert not list((home / ".dagster").glob("*.log"))


def test_a_second_up_is_refused_and_a_killed_one_does_not_block_the_next(home):
    """The first continues, and its log is complete. After kill -9 of everything the next start keeps its logs."""
    log = home / ".dagster" / "daemon.log"
    with up(home, free_port()) as (process, family):
        line = refused(home, "--port", str(free_port()))
        assert str(home) in line
        assert f"process {process.pid} (" in line
        assert " up --port " in line
        assert process.poll() is None
        assert len(at_work(family)) == len(family)
        assert not log.with_name("daemon.log.1").exists()
        process.kill()
        # What it had started may outlive it: the daemon is then the process that is named.
        daemon = program(family, "dagster._daemon")
        process.wait()
        assert f"process {daemon.pid} (" in refused(home, "--port", str(free_port()))
    said = log.read_text(encoding="utf-8")
    assert said
    with up(home, free_port()):
        assert log.with_name("daemon.log.1").read_text(encoding="utf-8").startswith(said)


def test_a_home_that_dagster_dev_uses_is_refused(home):
    """It takes no lock of ours: its daemon is found among the processes, and it is named itself."""
    command = [sys.executable, "-m", "dagster", "dev", "-p", str(free_port()), "-w", str(home / "workspace.yaml")]
    process = subprocess.Popen(command, cwd=home, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until(
            lambda: [
                one
                for one in psutil.Process(process.pid).children(recursive=True)
                if "dagster._daemon" in words_of(one)
            ],
            process,
        )
        line = refused(home, "--port", str(free_port()))
        assert f"process {process.pid} (" in line
        assert "dagster dev" in line
    finally:
        for one in [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                one.kill()
        process.wait()
