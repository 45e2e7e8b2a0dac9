"""Counters of each site's days, from Dagster's events: what no object contains.

Put here: which events are read, and their sums. Keep out: figures that the objects have (`coverage/site_figures.py`),
and events of single days (`day_events.py`).
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from threading import Lock

import dagster as dg

from backfill_pipeline.control.backfill_records import Backfill
from backfill_pipeline.control.day_events import ReadEvents
from backfill_pipeline.core.day import parse_day, partition_key
from backfill_pipeline.orchestration.failures import observed_error
from backfill_pipeline.orchestration.partitions import PREFIX, asset_key, site_of
from backfill_pipeline.orchestration.stored_records import removed_day

FIRST_EVENTS = 20_000
"""Events that the first reading counts, the latest ones: some ten seconds."""

_BATCH = 1_000

COUNTED = ("samples_fetched", "requests", "retries", "throttled", "duration_s", "put_s")
"""Metadata of a materialisation that is added up."""


class SiteCounters:
    """Sums of the events of all sites: the latest events at the first reading, and each new event afterwards.

    Two queries read the events of all sites, so that a reading costs as much as there are new events.

    Args:
        instance: where events are.
    """

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self._instance = instance
        self._lock = Lock()
        self._stored = _NewEvents(dg.DagsterEventType.ASSET_MATERIALIZATION)
        self._seen = _NewEvents(dg.DagsterEventType.ASSET_OBSERVATION)
        self._sums: Mapping[str, Counter[str]] = defaultdict(Counter)
        self._failed: Mapping[str, set[date]] = defaultdict(set)
        self._backfill: str | None = None
        self._own: set[tuple[str, date]] = set()

    def sums(self) -> Mapping[str, Mapping[str, float]]:
        """Return the sums of `COUNTED`, and the number of `failures`, by site."""
        with self._lock:
            self._refresh(None)
            return {site: dict(sums) for site, sums in self._sums.items()}

    def failed(self, site: str) -> set[date]:
        """Return the days of a site whose latest event, of those that were read, is a failure."""
        with self._lock:
            return set(self._failed.get(site, ()))

    def stored_of(self, backfill: Backfill) -> int:
        """Return the number of site-days that a backfill was to fetch and that were stored since it started."""
        with self._lock:
            if self._backfill != backfill.id:
                self._backfill, self._own = backfill.id, self._stored_since(backfill)
            self._refresh(backfill)
            return len(self._own)

    def _refresh(self, backfill: Backfill | None) -> None:
        new = [*self._stored.read(self._instance), *self._seen.read(self._instance)]
        for site, record in sorted(new, key=lambda one: one[1].timestamp):
            if record.asset_materialization is not None:
                self._add_stored(site, record, record.asset_materialization, backfill)
            elif record.asset_observation is not None:
                self._add_seen(site, record.asset_observation)

    def _add_stored(
        self, site: str, record: dg.EventLogRecord, made: dg.AssetMaterialization, backfill: Backfill | None
    ) -> None:
        for name in COUNTED:
            value = made.metadata[name].value if name in made.metadata else None
            if isinstance(value, int | float):
                self._sums[site][name] += value  # type: ignore[assignment]  # seconds are not whole numbers
        if made.partition is not None:
            day = parse_day(made.partition)
            self._failed[site].discard(day)
            self._count(backfill, site, day, record.timestamp)

    def _add_seen(self, site: str, seen: dg.AssetObservation) -> None:
        gone, failure = removed_day(seen), observed_error(seen)
        if gone is not None:
            self._failed[site].discard(gone[1])
        elif failure is not None:
            self._sums[site]["failures"] += 1
            self._failed[site].add(parse_day(failure.day))

    def _count(self, backfill: Backfill | None, site: str, day: date, at: float) -> None:
        if backfill is not None and day in backfill.todo.get(site, ()) and at >= backfill.started:
            self._own.add((site, day))

    def _stored_since(self, backfill: Backfill) -> set[tuple[str, date]]:
        """The site-days that were stored since a backfill started: an indexed query for each site, no event is read."""
        log = self._instance.event_log_storage
        filters = dg.EventRecordsFilter(dg.DagsterEventType.ASSET_MATERIALIZATION, after_timestamp=backfill.started)
        first = next(iter(log.get_event_records(filters, limit=1, ascending=True)), None)
        if first is None:
            return set()
        found = set()
        for site, days in backfill.todo.items():
            latest = log.get_latest_storage_id_by_partition(
                asset_key(site), dg.DagsterEventType.ASSET_MATERIALIZATION, set(map(partition_key, days))
            )
            found |= {(site, parse_day(key)) for key, number in latest.items() if number >= first.storage_id}
        return found


class _NewEvents:
    """Events of one kind, of all sites, each returned once."""

    def __init__(self, kind: dg.DagsterEventType) -> None:
        self._kind = kind
        self._read = ReadEvents()
        self._oldest: int | None = None

    def read(self, instance: dg.DagsterInstance) -> Iterator[tuple[str, dg.EventLogRecord]]:
        """Yield site and event of the events that were not returned yet."""
        log = instance.event_log_storage
        if self._oldest is None:
            latest = list(log.get_event_records(dg.EventRecordsFilter(self._kind), limit=FIRST_EVENTS))
            self._oldest = latest[-1].storage_id if len(latest) == FIRST_EVENTS else 0
            yield from self._of_sites(reversed(latest))
            return
        after = max(self._oldest - 1, self._read.after())
        while True:
            filters = dg.EventRecordsFilter(self._kind, after_cursor=after)
            records = list(log.get_event_records(filters, limit=_BATCH, ascending=True))
            yield from self._of_sites(records)
            if len(records) < _BATCH:
                break
            after = records[-1].storage_id
        self._read.forget_old()

    def _of_sites(self, records: Iterable[dg.EventLogRecord]) -> Iterator[tuple[str, dg.EventLogRecord]]:
        for record in self._read.unread(records):
            key = record.asset_key
            if key is not None and key.path[0] == PREFIX:
                yield site_of(key.path[-1]), record
