"""Events of a site's days, read from Dagster's event log once and kept in memory.

Put here: which events are read, and what is kept of each. Keep out: what they mean for a backfill
(`backfill_state.py`).
"""

from collections.abc import Callable, Iterable, Iterator
from datetime import date

import dagster as dg

from backfill_pipeline.control.backfill_records import DayEvent
from backfill_pipeline.core.day import parse_day
from backfill_pipeline.orchestration.failures import observed_error
from backfill_pipeline.orchestration.partitions import (
    asset_key,
)
from backfill_pipeline.orchestration.stored_records import removed_day

_BATCH = 1000

LATE_EVENTS = 200
"""Events that are read a second time. A database numbers events before readers see them, so an event may become visible
after another one with a larger number."""


class ReadEvents:
    """The numbers of the latest events that were read, so that each event is returned once."""

    def __init__(self) -> None:
        self._newest = 0
        self._late: set[int] = set()

    def after(self) -> int:
        """The number after which events are read: some of them a second time."""
        return max(0, self._newest - LATE_EVENTS)

    def unread(self, records: Iterable[dg.EventLogRecord]) -> Iterator[dg.EventLogRecord]:
        """Yield the events that were not returned yet."""
        for record in records:
            if record.storage_id not in self._late:
                self._late.add(record.storage_id)
                self._newest = max(self._newest, record.storage_id)
                yield record

    def forget_old(self) -> None:
        """Forget the numbers that are not read a second time."""
        self._late = {number for number in self._late if number > self._newest - LATE_EVENTS}


_KEPT = (
    "dagster/row_count",
    "path",
    "bytes",
    "etag",
    "state",
    "thin",
    "samples_fetched",
    "samples_text",
    "requests",
    "retries",
    "throttled",
    "duration_s",
    "put_s",
    "replaced",
    "rows_before",
)
"""Metadata that is kept in memory: there may be millions of materialisations."""


class SiteEvents:
    """The events of one site that were read so far."""

    def __init__(self) -> None:
        self.events: list[DayEvent] = []
        self._stored, self._failed = _Feed(), _Feed()

    def refresh(self, instance: dg.DagsterInstance, site: str) -> None:
        """Read new events."""
        fresh: list[DayEvent] = []
        for record in self._stored.new(instance.fetch_materializations, site):
            made = record.asset_materialization
            if made is not None and made.partition is not None:
                about = {name: made.metadata[name].value for name in _KEPT if name in made.metadata}
                fresh.append(DayEvent(site, parse_day(made.partition), record.timestamp, record.run_id, None, about))
        removed: dict[date, float] = {}
        for record in self._failed.new(instance.fetch_observations, site):
            seen = record.asset_observation
            gone = removed_day(seen)
            if gone is not None:
                removed[gone[1]] = record.timestamp
            failure = observed_error(seen) if seen is not None else None
            if failure is not None:
                fresh.append(DayEvent(site, parse_day(failure.day), record.timestamp, record.run_id, failure))
        if fresh or removed:
            kept = (one for one in [*self.events, *fresh] if one.error or one.at > removed.get(one.day, 0.0))
            self.events = sorted(kept, key=lambda event: event.at)


class _Feed:
    """Events of one kind and site, each returned once."""

    def __init__(self) -> None:
        self._read = ReadEvents()

    def new(self, fetch: Callable[..., dg.EventRecordsResult], site: str) -> Iterator[dg.EventLogRecord]:
        """Yield the events that were not returned yet; reads them in batches."""
        after = self._read.after()
        while True:
            filters = dg.AssetRecordsFilter(asset_key=asset_key(site), after_storage_id=after)
            records = fetch(filters, limit=_BATCH, ascending=True).records
            yield from self._read.unread(records)
            if len(records) < _BATCH:
                break
            after = records[-1].storage_id
        self._read.forget_old()
