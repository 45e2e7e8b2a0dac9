"""Copy Dagster's runs and events from the embedded SQLite files to Postgres, through Dagster's storage classes.

Put here: what is copied, and in what order. Keep out: the command around it (`control/`).

Rows of runs, backfills, ticks and sensors are copied as they are: both storages share Dagster's table definitions.
Events are stored again one by one, oldest first: SQLite has one file of events for each run, with separate numbers.
"""

import heapq
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import dagster as dg
import sqlalchemy as sa

from backfill_pipeline.errors import SettingError, UsageError
from backfill_pipeline.orchestration.dagster_internals import (
    AssetCheckEvaluation,
    AssetCheckEvaluationTargetMaterializationData,
    RunStorageSqlMetadata,
    ScheduleStorageSqlMetadata,
)
from backfill_pipeline.orchestration.instance_storages import postgres_storage
from backfill_pipeline.orchestration.sqlite_storage import LockingSqliteStorage
from backfill_pipeline.settings import Settings

_LEFT = ("secondary_indexes", "daemon_heartbeats", "alembic_version")
"""Tables about the storage itself, and about a daemon that has ended."""

_BATCH = 1000

_UNDER_WAY = [status for status in dg.DagsterRunStatus if status.value not in ("SUCCESS", "FAILURE", "CANCELED")]


def move_storage(settings: Settings) -> dict[str, int]:
    """Copy the embedded storage of `settings` into the empty database of `BACKFILL_RUN_STORAGE`.

    The SQLite files stay as they are.

    Returns:
        rows by table; events as `events`.

    Raises:
        SettingError: no database is set, or it cannot be used.
        UsageError: the database has runs or events already, or runs are in progress.
    """
    if settings.run_storage is None:
        raise SettingError(
            "BACKFILL_RUN_STORAGE is not set", hint="Set it to the postgresql:// URL of an empty database"
        )
    if not (settings.private / "history" / "runs.db").is_file():
        raise UsageError(f"{settings.private} has no runs to copy")
    source: Any = LockingSqliteStorage(str(settings.private))
    target: Any = postgres_storage(settings.run_storage.get_secret_value())
    if busy := source.run_storage.get_runs(dg.RunsFilter(statuses=_UNDER_WAY), limit=1):
        raise UsageError(
            f"run {busy[0].run_id} is in progress",
            hint="Wait for the end of all runs or cancel them, stop the daemon, then run this command again",
        )
    with target.event_log_storage.index_connection() as to:
        events = to.execute(sa.text("SELECT count(*) FROM event_logs")).scalar()
    if events or target.run_storage.get_runs(limit=1):
        raise UsageError("the database of BACKFILL_RUN_STORAGE has runs or events already", hint="name an empty one")
    counts = Counter[str]()
    for metadata, ours, theirs in (
        (RunStorageSqlMetadata, source.run_storage.connect, target.run_storage.connect),
        (ScheduleStorageSqlMetadata, source.schedule_storage.connect, target.schedule_storage.connect),
    ):
        with ours() as read, theirs() as write:
            for table in metadata.sorted_tables:
                if table.name not in _LEFT:
                    counts[table.name] = _copied(table, read, write)
    counts["events"] = _told_again(source, target)
    return dict(counts)


def _copied(table: sa.Table, read: sa.Connection, write: sa.Connection) -> int:
    """Copy a table's rows with their numbers, and let the next number follow."""
    write.execute(table.delete())
    count = 0
    for rows in read.execute(sa.select(table)).mappings().partitions(_BATCH):
        write.execute(table.insert(), [dict(row) for row in rows])
        count += len(rows)
    if count and "id" in table.c:
        write.execute(
            sa.text(
                f"SELECT setval(pg_get_serial_sequence('{table.name}', 'id'), (SELECT max(id) FROM {table.name}))"  # noqa: S608 - Dagster's own names
            )
        )
    return count


def _told_again(source: Any, target: Any) -> int:
    """Store every event anew, oldest first; a check's pointer to its materialisation follows to the new number."""
    old, new = source.event_log_storage, target.event_log_storage
    newest: dict[tuple[str, str], int] = {}
    count = 0
    for entry in _oldest_first(old, _by_start(source)):
        event = entry.dagster_event
        if event is not None and isinstance(event.event_specific_data, AssetCheckEvaluation):
            pointed = _pointed(event.event_specific_data, newest)
            entry = entry._replace(dagster_event=event._replace(event_specific_data=pointed))  # noqa: PLW2901 - the same event
        new.store_event(entry)
        count += 1
        if event is not None and event.is_step_materialization and event.asset_key and event.partition:
            with new.index_connection() as connection:
                number = connection.execute(sa.text("SELECT max(id) FROM event_logs")).scalar()
            newest[event.asset_key.to_string(), event.partition] = number
    return count


def _pointed(evaluation: AssetCheckEvaluation, newest: dict[tuple[str, str], int]) -> AssetCheckEvaluation:
    judged = evaluation.target_materialization_data
    number = newest.get((evaluation.asset_key.to_string(), evaluation.partition or ""))
    if judged is None or number is None:
        return evaluation
    moved = AssetCheckEvaluationTargetMaterializationData(
        storage_id=number, run_id=judged.run_id, timestamp=judged.timestamp
    )
    return AssetCheckEvaluation(
        asset_key=evaluation.asset_key,
        check_name=evaluation.check_name,
        passed=evaluation.passed,
        metadata=evaluation.metadata,
        target_materialization_data=moved,
        severity=evaluation.severity,
        description=evaluation.description,
        blocking=evaluation.blocking,
        partition=evaluation.partition,
    )


def _by_start(source: Any) -> list[tuple[float, str]]:
    """Every run with the Unix seconds of its first event; that of events without a run is the empty one."""
    found = []
    for run_id in {*source.event_log_storage.get_all_run_ids(), *(run.run_id for run in source.run_storage.get_runs())}:
        first = source.event_log_storage.get_records_for_run(run_id, limit=1).records
        if first:
            found.append((first[0].timestamp, run_id))
    return sorted(found)


def _oldest_first(storage: Any, runs: Sequence[tuple[float, str]]) -> Iterator[dg.EventLogEntry]:
    """The events of all runs by time; a run's own in their order. Only runs that overlap are held at once."""
    heap: list[tuple[float, int, dg.EventLogEntry, Iterator[dg.EventLogEntry]]] = []
    order = 0
    waiting = list(reversed(runs))
    while heap or waiting:
        while waiting and (not heap or waiting[-1][0] <= heap[0][0]):
            log = iter(storage.get_logs_for_run(waiting.pop()[1]))
            first = next(log)
            heapq.heappush(heap, (first.timestamp, order, first, log))
            order += 1
        at, number, entry, log = heapq.heappop(heap)
        yield entry
        following = next(log, None)
        if following is not None:
            heapq.heappush(heap, (max(at, following.timestamp), number, following, log))
