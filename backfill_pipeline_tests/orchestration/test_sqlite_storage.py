"""Dagster's SQLite files: one process at a time creates them, and a lock shorter than two minutes is waited for."""

import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteInstigatorOrigin, RemoteRepositoryOrigin
from dagster._core.scheduler.instigation import InstigatorState, InstigatorStatus, InstigatorType
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError

from backfill_pipeline.errors import DatabaseLockedError
from backfill_pipeline.orchestration import sqlite_storage
from backfill_pipeline.orchestration.sqlite_storage import LockingSqliteStorage
from backfill_pipeline_tests.test_architecture import ROOT

YAML = ROOT.parent / "dagster.yaml"

OPEN_AND_WRITE = """
import sys
import dagster as dg
print("ready", flush=True)
sys.stdin.readline()
instance = dg.DagsterInstance.get()
instance.all_logs("shared-run")
instance.add_run(dg.DagsterRun(job_name="j", run_id=sys.argv[1]))
"""


@contextmanager
def locked(files, seconds: float | None = None):
    """Another connection has each file locked; for so many seconds, or until the block ends."""
    with ExitStack() as stack:
        holders = [sqlite3.connect(file, isolation_level=None, check_same_thread=False) for file in files]
        for holder in holders:
            stack.callback(holder.close)
            holder.execute("BEGIN EXCLUSIVE")

        def let_go():
            for holder in holders:
                holder.execute("ROLLBACK")

        if seconds is not None:
            timer = threading.Timer(seconds, let_go)
            timer.start()
            stack.callback(timer.join)
        yield


def files_of(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.db"))


def every_write(storage) -> list:
    """A write to each kind of file."""
    run = dg.DagsterRun(job_name="j")
    event = dg.EventLogEntry(
        error_info=None, level="debug", user_message="", run_id="held", timestamp=0.0, dagster_event=None
    )
    return [
        lambda: storage.run_storage.add_run(run),
        lambda: storage.event_log_storage.store_event(event),
        lambda: storage.event_log_storage.add_dynamic_partitions("days", ["2025-01-01"]),
        lambda: storage.schedule_storage.add_instigator_state(
            InstigatorState(ORIGIN, InstigatorType.SENSOR, InstigatorStatus.RUNNING)
        ),
    ]


ORIGIN = RemoteInstigatorOrigin(RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("here"), "repository"), "sensor")


@pytest.fixture
def storage(tmp_path):
    """An own storage with a file of each kind."""
    made = LockingSqliteStorage(str(tmp_path))
    with dg.DagsterInstance.ephemeral() as instance:
        made.register_instance(instance)
        made.event_log_storage.get_logs_for_run("held")
        yield made


def test_processes_that_start_together_on_a_fresh_home_all_work(tmp_path):
    """Six Dagster processes open a home without files at one instant, and one run's events: all succeed."""
    shutil.copy(YAML, tmp_path)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", OPEN_AND_WRITE, f"run-{number}"], env=os.environ | {"DAGSTER_HOME": str(tmp_path)},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for number in range(6)
    ]  # fmt: skip
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    ends = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0] * 6, ends
    runs = LockingSqliteStorage(str(tmp_path / ".dagster")).run_storage.get_runs()
    assert {run.run_id for run in runs} == {f"run-{number}" for number in range(6)}


def test_a_lock_that_ends_fails_nothing(storage, tmp_path):
    """Each kind of file, locked for longer than Dagster waits by itself (5 s for runs and schedules), is waited for."""
    files = files_of(tmp_path)
    assert len(files) == 4
    with ThreadPoolExecutor() as pool, locked(files, 7.0):
        writes = [pool.submit(write) for write in every_write(storage)]
        for write in writes:
            write.result()


def test_no_lock_shorter_than_two_minutes_fails_anything():
    """All waits for a locked file last two minutes at least."""
    assert sqlite_storage.LOCK_WAIT_S >= 120


def test_a_lock_that_stays_is_named(storage, tmp_path, monkeypatch):
    """The error names the file and what to do, for a write to each kind of file."""
    monkeypatch.setattr(sqlite_storage, "LOCK_WAIT_S", 0.2)
    with locked(files_of(tmp_path)):
        for write in every_write(storage):
            with pytest.raises(DatabaseLockedError, match="is locked by another process") as caught:
                write()
            assert str(tmp_path) in caught.value.message
            assert "end the process" in caught.value.hint


def test_opening_a_locked_home_names_the_file(tmp_path, monkeypatch):
    """A process that has the folder's lock for too long, and a locked file, are both named."""
    monkeypatch.setattr(sqlite_storage, "LOCK_WAIT_S", 0.2)
    with sqlite_storage.creating(tmp_path), pytest.raises(DatabaseLockedError, match=sqlite_storage.LOCK_FILE):
        LockingSqliteStorage(str(tmp_path))


def test_other_databases_keep_their_own_waits(storage, tmp_path_factory):
    """A SQLite file outside of the home, which another library opens with SQLAlchemy, is not touched."""
    file = tmp_path_factory.mktemp("other") / "other.db"
    engine = create_engine(f"sqlite:///{file.as_posix()}", connect_args={"timeout": 0.1})
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE t (x)"))
    with locked([file]), pytest.raises(OperationalError), engine.begin() as connection:
        connection.execute(text("INSERT INTO t VALUES (1)"))
    engine.dispose()


def test_the_file_of_a_deleted_run_is_deleted(storage, tmp_path):
    """Dagster would leave a file without rows; other files stay, and a process that knew the run finds no events."""
    other = LockingSqliteStorage(str(tmp_path)).event_log_storage
    assert len(files_of(tmp_path)) == 4
    other.get_logs_for_run("held")
    storage.event_log_storage.delete_events("held")
    assert not [path for path in tmp_path.rglob("*.db*") if path.name.startswith("held")]
    assert len(files_of(tmp_path)) == 3
    assert other.get_logs_for_run("held") == storage.event_log_storage.get_logs_for_run("held") == []
