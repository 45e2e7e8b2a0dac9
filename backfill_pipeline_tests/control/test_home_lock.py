"""One `backfill up` per home: a live process blocks it and is named, a dead one does not."""

import os
import subprocess
import sys
from contextlib import contextmanager

import psutil
import pytest

from backfill_pipeline.control import home_lock
from backfill_pipeline.control.home_lock import home_locked
from backfill_pipeline.errors import UsageError

SLEEP = "import time; print('here', flush=True); time.sleep(120)"
LOCK = (
    "import sys, time; from pathlib import Path; from backfill_pipeline.control.home_lock import home_locked\n"
    "with home_locked(Path(sys.argv[1]), Path(sys.argv[1]), daemon_is_alive=lambda: False):\n"
    f"    {SLEEP}"
)


@contextmanager
def running(*words, home):
    """A process with these words in its command line, and this home in its environment."""
    environment = os.environ | {"DAGSTER_HOME": str(home)}
    command = [sys.executable, "-c", *words]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "here\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def locked(home, *, daemon_is_alive=lambda: False):
    return home_locked(home, home, daemon_is_alive=daemon_is_alive)


def test_a_live_holder_is_named_and_a_killed_one_does_not_block(tmp_path):
    """By its number, its command and since when it runs, in UTC; the lock of a killed process is free at once."""
    with running(LOCK, str(tmp_path), home=tmp_path) as process:
        with pytest.raises(UsageError, match=rf"process {process.pid} \(.*, since \d{{4}}-.* UTC\)") as refusal, \
                locked(tmp_path):  # fmt: skip
            pass
        assert refusal.value.hint
        process.kill()
        process.wait()
        with locked(tmp_path):
            pass
    with locked(tmp_path):
        pass


@pytest.mark.parametrize("words", [["dagster._daemon", "run"], ["-m", "dagster._daemon", "run", "-w", "w.yaml"]])
def test_a_daemon_of_this_home_blocks_and_one_of_another_home_does_not(tmp_path, words):
    """Whatever started it; a process that only mentions a daemon is not one."""
    home, other = tmp_path / "home", tmp_path / "other"
    home.mkdir()
    other.mkdir()
    with running(SLEEP, *words, home=home) as daemon:
        with pytest.raises(UsageError, match=f"process {daemon.pid} "), locked(home):
            pass
        with locked(other):
            pass
    with running(SLEEP, "about dagster._daemon run", home=home), locked(home):
        pass


def test_a_daemon_whose_variables_are_hidden_blocks_while_the_storage_has_a_heartbeat(tmp_path, monkeypatch):
    """It belongs to another user: what it works on cannot be read."""

    def hidden(self):
        raise psutil.AccessDenied(self.pid)

    with running(SLEEP, "dagster._daemon", "run", home=tmp_path) as daemon:
        monkeypatch.setattr(home_lock.psutil.Process, "environ", hidden)
        with locked(tmp_path):
            pass
        with pytest.raises(UsageError) as refusal, locked(tmp_path, daemon_is_alive=lambda: True):
            pass
        # Another test's daemon may be the one that is found first.
        assert f"process {daemon.pid} " in str(refusal.value) or "dagster" in str(refusal.value)


@pytest.mark.parametrize(
    "record", [b"", b"{}", b"[]", b'{"pid": "x", "created": 1}', b'{"pid": 1, "created": 1}', b"\xff"]
)
def test_a_record_that_cannot_be_read_changes_the_name_alone(tmp_path, record):
    """The lock decides; the record is for the message."""
    with running(LOCK, str(tmp_path), home=tmp_path):
        (tmp_path / "up.json").write_bytes(record)
        with pytest.raises(UsageError, match="in use by another `backfill up`"), locked(tmp_path):
            pass
