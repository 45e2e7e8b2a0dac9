"""A fetcher of made-up days, with the surface of the real one, and Dagster runs over it."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Self

import dagster as dg
import numpy as np

from backfill_pipeline.ace.fetch import FetchedDay
from backfill_pipeline.core.rows import Chunk, Counts, DayRows
from backfill_pipeline.errors import BackfillError, StoppedError
from backfill_pipeline.orchestration.build import JOB, build_defs
from backfill_pipeline.orchestration.resources import AceResource
from backfill_pipeline.settings import Settings

RANGE = ("dagster/asset_partition_range_start", "dagster/asset_partition_range_end")
NOW = datetime(2025, 6, 1, tzinfo=UTC)


def day_rows(site: str, day: date, *, points: int = 3, every_s: int = 600, dropped: Mapping[str, int] | None = None):
    """A day in one window, each of `points` with a row every `every_s` seconds, one point more being silent."""
    times = np.arange(0, 86_400_000, every_s * 1000, dtype=np.int32)
    code = np.repeat(np.arange(points, dtype=np.int32), len(times))
    ms = np.tile(times, points)
    rows = len(code)
    dropped = dict(dropped or {})
    counts = Counts(rows + sum(dropped.values()), rows, dropped)
    names = [f"{site}/p{number}" for number in range(points + 1)]
    return DayRows(site, day, names, [Chunk(code, ms, code + ms / 1e9)], counts)


@dataclass
class FakeFetcher:
    """Gives out days; `wrong` holds errors by site and day (None: the site's first question), raised or given out."""

    wrong: Mapping[tuple[str, date | None], Exception] = field(default_factory=dict)
    make: Callable[[str, date], DayRows] = day_rows
    before: Callable[[str, date, threading.Event], None] = lambda _site, _day, _stop: None
    asked: list[tuple[str, date]] = field(default_factory=list)
    is_waiting: bool = False

    def days(self, site: str, days: Sequence[date], *, stop: threading.Event | None = None) -> Iterator[FetchedDay]:
        stop = stop or threading.Event()
        if error := self.wrong.get((site, None)):
            raise error
        for day in days:
            if stop.is_set():
                raise StoppedError("stopped")
            self.asked.append((site, day))
            self.before(site, day, stop)
            error = self.wrong.get((site, day))
            if error is not None and not isinstance(error, BackfillError):
                raise error
            rows = None if error else self.make(site, day)
            seen = len({int(c) for chunk in rows.chunks for c in chunk.code}) if rows else 0
            yield FetchedDay(site, day, rows, error, 2, 0, 0.5, len(rows.points) if rows else 0, seen)


class FakeAce(AceResource):
    """The resource over a fake fetcher."""

    source: dg.ResourceDependency[FakeFetcher]

    def fetcher(self, *, stop, outage=None, has_answered=False):
        return self.source


class Runs:
    """Runs of the job over a fake fetcher, a real store, and an instance in memory."""

    def __init__(self, folder: Path, fetcher: FakeFetcher, *sites: str, now=lambda: NOW, **fields) -> None:
        fields = {"first_day": date(2025, 1, 1), **fields}
        self.settings = Settings(sites=sites or ("north", "south"), store=str(folder), home=folder, **fields)
        self.fetcher = fetcher
        hold = dg.ResourceDefinition.hardcoded_resource
        ace = FakeAce(source=hold(fetcher), settings=hold(self.settings))
        self.defs = build_defs(self.settings, resources={"ace": ace}, now=now)
        self._stack = ExitStack()
        self.instance = self._stack.enter_context(dg.DagsterInstance.ephemeral())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def run(self, first: str, last: str | None = None, **options) -> dg.ExecuteInProcessResult:
        tags = dict(zip(RANGE, (first, last or first), strict=True))
        job = self.defs.resolve_job_def(JOB)
        return job.execute_in_process(instance=self.instance, tags=tags, raise_on_error=False, **options)

    def materialized(self, result: dg.ExecuteInProcessResult) -> list[tuple[str, str]]:
        events = result.get_asset_materialization_events()
        return [(e.asset_key.path[-1], e.partition) for e in events]
