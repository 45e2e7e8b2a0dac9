"""Dagster's SQLite files: created by one process at a time, and waited for while another process has them locked.

Dagster creates its files without a lock between processes, so that several processes on a fresh home fail. It waits 5 s
for a locked file of runs or schedules, 30 s for one of events. Neither can be configured.

Put here: what is added to Dagster's storage. Keep out: where the files are (`instance_storages.py`).

Of Dagster, this relies on `DagsterSqliteStorage` setting `_event_log_storage`, and on two parts of
`SqliteEventLogStorage`: `_initdb`, which creates the file of a run, and `_initialized_dbs`, the set of created files.
The waiting uses SQLAlchemy's public events alone.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from filelock import FileLock, Timeout
from sqlalchemy.engine.interfaces import ExceptionContext

from backfill_pipeline.ace.budget_storage import LOCK_WAIT_S, is_locked
from backfill_pipeline.errors import DatabaseLockedError
from backfill_pipeline.orchestration.dagster_internals import (
    ConfigurableClassData,
    DagsterSqliteStorage,
    SqliteEventLogStorage,
)

LOCK_FILE = "storage.lock"
"""In Dagster's folder: the process that has it locked creates files there. It stays, empty; the system frees the lock
of a process that dies."""


class LockingSqliteStorage(DagsterSqliteStorage):
    """Runs, events and schedules in SQLite files of one folder.

    Args:
        base_dir: the folder; created when missing.
        inst_data: Dagster's record of how it was configured.

    Raises:
        DatabaseLockedError: another process keeps the files locked.
    """

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        folder = Path(base_dir)
        folder.mkdir(parents=True, exist_ok=True)
        wait_for_locked_files(folder)
        with creating(folder):
            super().__init__(base_dir, inst_data)
        self._event_log_storage = _LockingEventLogStorage(folder)  # its index file is there now


class _LockingEventLogStorage(SqliteEventLogStorage):
    """Events, a file for each run; the files are created by one process at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        super().__init__(str(folder / "history" / "runs"))

    def _initdb(self, engine: sa.Engine, for_index_shard: bool = False) -> None:  # noqa: FBT001, FBT002 - Dagster's signature
        with creating(self._folder):
            super()._initdb(engine, for_index_shard)

    def run_connection(self, run_id: str | None = None) -> Any:
        """Connect to the file of a run; create it again if another process deleted it with its run."""
        if run_id is not None and not Path(self.path_for_shard(run_id)).exists():
            self._initialized_dbs.discard(run_id)
        return super().run_connection(run_id)

    def delete_events(self, run_id: str) -> None:
        """Delete the events of a run and its file, which Dagster would leave behind without rows."""
        super().delete_events(run_id)
        path = Path(self.path_for_shard(run_id))
        for file in (path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")):
            with suppress(OSError):  # Windows: another process has it open
                file.unlink(missing_ok=True)


@contextmanager
def creating(folder: Path) -> Iterator[None]:
    """Keep every other process from creating files in `folder` meanwhile.

    Raises:
        DatabaseLockedError: another process has been creating files for too long.
    """
    lock = FileLock(folder / LOCK_FILE)
    try:
        # The process that has the lock may itself wait for a locked file, or for two.
        lock.acquire(timeout=3 * LOCK_WAIT_S)
    except Timeout:
        raise DatabaseLockedError(
            f"Dagster's storage in {folder} cannot be opened: another process has {LOCK_FILE} locked",
            hint="end the process that has the file open, then try again",
        ) from None
    try:
        yield
    finally:
        lock.release()


_folders: set[Path] = set()
"""Folders whose SQLite files are waited for.

SQLAlchemy's events are for all engines of the process, since Dagster makes a new engine for each connection.
"""


def wait_for_locked_files(folder: Path) -> None:
    """Make every SQLAlchemy connection to a file below `folder` wait for a lock.

    After `LOCK_WAIT_S` it fails with an error that names the file.
    """
    if not _folders:
        sa.event.listen(sa.Engine, "do_connect", _wait)
        sa.event.listen(sa.Engine, "handle_error", _named)
    _folders.add(Path(os.path.abspath(folder)))  # noqa: PTH100 - as Dagster does; `absolute` keeps `..`


def _wait(_dialect: Any, _record: Any, arguments: Any, options: dict[str, Any]) -> None:
    if arguments and _is_ours(arguments[0]):
        options["timeout"] = LOCK_WAIT_S


def _named(context: ExceptionContext) -> DatabaseLockedError | None:
    """A lock that lasted too long, with the file's path and what to do; None for any other error."""
    error = context.original_exception
    path = context.engine.url.database if context.engine is not None else None
    if not isinstance(error, sqlite3.Error) or not is_locked(error) or not path or not _is_ours(path):
        return None
    return DatabaseLockedError(
        f"Dagster's storage {path} is locked by another process ({error})",
        hint="end the process that has the file open (a backup, a file sync, a virus scanner), then start again",
    )


def _is_ours(path: object) -> bool:
    return isinstance(path, str) and not _folders.isdisjoint(Path(path).parents)
