"""The assets of the snapshots, and the sensor that materialises today's partition.

The API answers for the present only, so that a run stores today's partition or none. One op materialises all kinds,
since several kinds need the same lists.

Put here: partitions, events and the refusal of other days. Keep out: requests (`ace/snapshots.py`), documents
(`core/snapshots.py`) and the store (`dataset/snapshots.py`).
"""

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, date, datetime

import dagster as dg

from backfill_pipeline.ace.snapshots import SnapshotSource
from backfill_pipeline.core.day import partition_key
from backfill_pipeline.core.snapshots import KINDS, Kind, State, document, state_of
from backfill_pipeline.core.text import printable
from backfill_pipeline.dataset.snapshots import put_snapshot, stored_state
from backfill_pipeline.errors import (
    ApiDownError,
    BackfillError,
    BudgetUnavailableError,
    KeyRefusedError,
    StoppedError,
    StoreRefusedError,
    UsageError,
)
from backfill_pipeline.orchestration.dagster_internals import IN_PROGRESS_RUN_STATUSES, PARTITION_NAME_TAG, PRIORITY_TAG
from backfill_pipeline.orchestration.io_manager import DayIOManager
from backfill_pipeline.orchestration.json_logs import logged_to
from backfill_pipeline.orchestration.partitions import SNAPSHOTS_JOB, days_of
from backfill_pipeline.orchestration.resources import AceResource
from backfill_pipeline.settings import Settings
from backfill_pipeline.storage.store import Store

PREFIX = "snapshots"
EVERY_S = 900
"""Seconds between two ticks of the sensor."""

HOURS_BETWEEN = 3
"""Hours after which the sensor launches another run for kinds that failed: at most eight runs a day."""

PRIORITY = "3"
"""Above new days (2) and backfills (0): a run takes a few requests, and a day that it misses is lost."""

_STOPS_ALL = (ApiDownError, BudgetUnavailableError, KeyRefusedError, StoppedError, StoreRefusedError)
_ACTIVE = [dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.QUEUED, *IN_PROGRESS_RUN_STATUSES]


def snapshot_key_of(kind: Kind) -> dg.AssetKey:
    """The key of a kind's asset, `snapshots/<kind>`."""
    return dg.AssetKey([PREFIX, kind.name])


def snapshot_partitions(first: date) -> dg.DailyPartitionsDefinition:
    """Every UTC day from the first one to today, today included."""
    return dg.DailyPartitionsDefinition(start_date=first.isoformat(), timezone="UTC", end_offset=1)


def snapshot_assets(settings: Settings, sites: Sequence[str], *, now: Callable[[], datetime]) -> dg.AssetsDefinition:
    """One day-partitioned asset for each kind of snapshot, all of one op.

    Args:
        settings: the settings; `snapshots_from` is set.
        sites: site names.
        now: the instant, aware.
    """
    partitions = snapshot_partitions(settings.snapshots_from or now().date())
    kinds = {snapshot_key_of(kind): kind for kind in KINDS}

    @dg.multi_asset(
        name="snapshots",
        specs=[
            dg.AssetSpec(
                key,
                group_name=PREFIX,
                partitions_def=partitions,
                skippable=True,
                kinds={"json", "python"},
                description=f"{kind.description} One JSON object for each {kind.subject} and day. Only today's "
                "partition can be materialised: the API has no earlier answers.",
                metadata={"store": settings.store},
            )
            for key, kind in kinds.items()
        ],
        can_subset=True,
    )
    def snapshots(
        context: dg.AssetExecutionContext, ace: AceResource, objects: dg.ResourceParam[DayIOManager]
    ) -> Iterator[dg.MaterializeResult]:  # type: ignore[type-arg]  # Dagster knows only the bare one
        try:
            day = _today(days_of(context.op_execution_context), now())
            source = SnapshotSource(ace.client(), sites)
        except BackfillError as error:
            raise dg.Failure(str(error), allow_retries=False) from None
        run = _Run(source, objects.store, day, now)
        failed: list[str] = []
        for key, kind in kinds.items():
            if key not in context.selected_asset_keys:
                continue
            with logged_to(context.log):
                found, errors = run.stored(kind)
            for line in errors:
                context.log.warning(line)
            failed += errors
            if not errors:
                yield dg.MaterializeResult(asset_key=key, metadata=_metadata(objects.store, kind, day, found))
        if failed:
            raise dg.Failure(
                f"{len(failed)} snapshots of {day} failed: {'; '.join(failed[:3])}. The other snapshots are stored",
                allow_retries=False,
            )

    return snapshots


def _today(days: Sequence[date], at: datetime) -> date:
    """Today, if it is the only day of the run.

    Raises:
        UsageError: the run has another day.
    """
    today = at.astimezone(UTC).date()
    others = [day for day in days if day != today]
    if others:
        raise UsageError(
            f"the snapshots of {others[0]} are not stored: the API answers only for today, {today}",
            hint=f"launch only the partition {today}",
        )
    return today


class _Run:
    """The snapshots of one day.

    Args:
        source: the API's answers.
        store: where the snapshots are stored.
        day: today.
        now: the instant, aware.
    """

    def __init__(self, source: SnapshotSource, store: Store, day: date, now: Callable[[], datetime]) -> None:
        self._source = source
        self._store = store
        self._day = day
        self._now = now

    def stored(self, kind: Kind) -> tuple[dict[str, State], list[str]]:
        """Store the snapshots of a kind.

        Returns:
            The state of each subject whose snapshot is stored, and a line for each failure.

        Raises:
            dagster.Failure: no further request can succeed.
        """
        found: dict[str, State] = {}
        errors: list[str] = []
        try:
            subjects = self._source.subjects(kind)
        except BackfillError as error:
            return found, [_line(kind, "", error)]
        for subject in subjects:
            try:
                found[subject] = self._stored(kind, subject)
            except BackfillError as error:
                errors.append(_line(kind, subject, error))
        return found, errors

    def _stored(self, kind: Kind, subject: str) -> State:
        """Store one snapshot; one with items that an earlier run of today stored stays as it is."""
        if stored_state(self._store, kind, subject, self._day) == "present":
            return "present"
        items = self._source.items(kind, subject)
        at = self._now().astimezone(UTC)
        if at.date() != self._day:
            raise UsageError(
                f"the day ended before the API answered at {at:%Y-%m-%d %H:%M} UTC",
                hint=f"launch the partition {at.date()}",
            )
        data = document(kind, subject, self._day, at, items)
        put_snapshot(self._store, kind, subject, self._day, data)
        return state_of(data) or "empty"


def _line(kind: Kind, subject: str, error: BackfillError) -> str:
    """A failure as one line.

    Raises:
        dagster.Failure: the error stops the whole run.
    """
    line = printable(f"{kind.name}{f' of {subject}' if subject else ''}: {error}")
    if isinstance(error, _STOPS_ALL):
        raise dg.Failure(line, allow_retries=False)
    return line


def _metadata(store: Store, kind: Kind, day: date, found: dict[str, State]) -> dict[str, dg.MetadataValue]:
    states: dict[State, list[str]] = {"present": [], "empty": [], "absent": []}
    for subject, state in found.items():
        states[state].append(printable(subject))
    url = store.url(f"{PREFIX}/{kind.name}/{day:%Y/%m/%d}/")
    is_link = url.startswith(("http://", "https://"))
    return {
        "path": dg.MetadataValue.url(url) if is_link else dg.MetadataValue.path(url),
        "state": dg.MetadataValue.text(next((state for state, names in states.items() if names), "absent")),
        **{state: dg.MetadataValue.json(names) for state, names in states.items()},
    }


def snapshots_sensor(settings: Settings, *, now: Callable[[], datetime]) -> dg.SensorDefinition:
    """The sensor that launches a run for the kinds of today that are not stored.

    Args:
        settings: the settings; `snapshots_from` is set.
        now: the instant, aware.
    """

    @dg.sensor(
        name=PREFIX,
        job_name=SNAPSHOTS_JOB,
        minimum_interval_seconds=EVERY_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Stores once a day what the API says of sites, weather, DER events and gateways. Kinds that "
        f"failed are requested again after {HOURS_BETWEEN} hours.",
    )
    def snapshots(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        at = now().astimezone(UTC)
        day = partition_key(at.date())
        if settings.snapshots_from is None or at.date() < settings.snapshots_from:
            return dg.SkipReason(f"the snapshots begin on {settings.snapshots_from}")
        missing = [key for key in map(snapshot_key_of, KINDS) if not _is_materialised(context.instance, key, day)]
        if not missing:
            return dg.SkipReason(f"the snapshots of {day} are stored")
        if context.instance.get_run_records(dg.RunsFilter(job_name=SNAPSHOTS_JOB, statuses=_ACTIVE), limit=1):
            return dg.SkipReason("a run is in progress")
        return dg.RunRequest(
            run_key=f"{day} {at.hour // HOURS_BETWEEN}",
            asset_selection=missing,
            tags={PARTITION_NAME_TAG: day, PRIORITY_TAG: PRIORITY},
        )

    return snapshots


def _is_materialised(instance: dg.DagsterInstance, key: dg.AssetKey, day: str) -> bool:
    filters = dg.AssetRecordsFilter(asset_key=key, asset_partitions=[day])
    return bool(instance.fetch_materializations(filters, limit=1).records)
