"""The index of stored days at 1,000 sites x 10 years: what figures, coverage, a start and healing cost.

The store is made up in memory: it lists the objects of every site-day and contains the index that runs would have
written. Each request waits `--latency` seconds, and at most 32 run at once. The CPU of a real client is not part of it;
`--parsing` measures the largest part of it, the parser of a listing.

    python -m benchmarks.index                        # 1,000 sites x 10 years
    python -m benchmarks.index --sites 100 --years 1
    python -m benchmarks.index --parsing
"""

import argparse
import bisect
import resource
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import botocore.session
import dagster as dg
from botocore.parsers import create_parser

from backfill_pipeline.core.day import days_between, partition_key
from backfill_pipeline.core.object_keys import INDEX_ROOT, ROOT, file_name, index_key
from backfill_pipeline.coverage.footers import read_figures
from backfill_pipeline.coverage.site_figures import FigureReader
from backfill_pipeline.coverage.table import coverage
from backfill_pipeline.orchestration.history import Launched, first_event_since, read_due
from backfill_pipeline.orchestration.partitions import asset_key
from backfill_pipeline.orchestration.stored_records import stored_days
from backfill_pipeline.storage.current_rows import CurrentRows
from backfill_pipeline.storage.day_index import IndexedDay, encode
from backfill_pipeline.storage.index_cache import IndexCache
from backfill_pipeline.storage.s3_listing import parse_objects
from backfill_pipeline.storage.store import Stat, Versioned

NEWEST = date(2025, 5, 31)
PAGE = 1_000


class MadeUpStore:
    """A store of site-days that answers listings and index objects after a while.

    Args:
        sites: site names.
        first: the first stored day.
        latency_s: seconds of a request.
    """

    def __init__(self, sites: list[str], first: date, latency_s: float) -> None:
        self.sites, self.first, self.latency_s = sites, first, latency_s
        self.names = sorted(map(file_name, sites))
        self.requests = 0
        self.at_once = threading.BoundedSemaphore(32)
        self.days = list(days_between(first, NEWEST))
        self.prefixes = [f"{ROOT}/{day:%Y/%m/%d}/" for day in self.days]
        self.index: dict[str, bytes] = {}
        for year in range(first.year, NEWEST.year + 1):
            rows = [self.row(day) for day in self.days if day.year == year]
            for site in sites:
                self.index[index_key(site, year)] = encode(rows, site, year)

    def row(self, day: date) -> IndexedDay:
        """A row of an ordinary day, which every site has."""
        at = datetime(day.year, day.month, day.day, 14, tzinfo=UTC) + timedelta(days=1)
        return IndexedDay(
            day, "stored", 1_316_736 + day.day, 2_345_678, self.etag(day), "0" * 64, 1_316_736, 4570, 4572, 6, 60.0, at
        )

    def etag(self, day: date) -> str:
        """The ETag of a day's objects."""
        return f"{day.toordinal():032x}"

    def wait(self) -> None:
        """Be one request."""
        with self.at_once:
            self.requests += 1
            time.sleep(self.latency_s)

    def list(self, prefix: str, *, after: str = "") -> Iterator[Stat]:
        """Yield keys of days or of the index; a request for each 1,000."""
        found = self._index_stats(prefix) if prefix.startswith(INDEX_ROOT) else self._day_stats(prefix, after)
        for number, stat in enumerate(found):
            if number % PAGE == 0:
                self.wait()
            yield stat

    def _index_stats(self, prefix: str) -> Iterator[Stat]:
        return (
            Stat(key, len(data), etag=str(hash(data)))
            for key, data in sorted(self.index.items())
            if key.startswith(prefix)
        )

    def _day_stats(self, prefix: str, after: str) -> Iterator[Stat]:
        for number in range(max(0, bisect.bisect_right(self.prefixes, after) - 1), len(self.days)):
            head, etag = self.prefixes[number], self.etag(self.days[number])
            if not (head.startswith(prefix) or prefix.startswith(head)):
                continue
            for name in self.names:
                key = head + name
                if key > after and key.startswith(prefix):
                    yield Stat(key, 2_345_678, etag=etag)

    def read(self, key: str) -> Versioned | None:
        """Return an index object."""
        self.wait()
        data = self.index.get(key)
        return Versioned(data, str(hash(data))) if data is not None else None

    def url(self, key: str) -> str:
        """Name the place."""
        return f"made-up://{key}"


def timed(what: str, store: MadeUpStore, work: Callable[[], Any]) -> Any:
    """Do it; print seconds, CPU seconds and requests."""
    before, began, cpu = store.requests, time.perf_counter(), time.process_time()
    found = work()
    spent, used = time.perf_counter() - began, time.process_time() - cpu
    print(f"{what:62} {spent:8.2f} s {used:8.2f} s CPU {store.requests - before:8,} requests", flush=True)
    return found


def record(instance: dg.DagsterInstance, sites: list[str], days: list[date]) -> None:
    """Make the events of stored days, in one insert for each site."""
    from dagster._core.storage.event_log.schema import SqlEventLogStorageTable  # noqa: PLC0415

    storage: Any = instance.event_log_storage
    day = partition_key(days[0])
    instance.report_runless_asset_event(
        dg.AssetMaterialization(asset_key(sites[0]), partition=day, metadata={"dagster/row_count": 5, "requests": 14})
    )
    with storage.index_connection() as to:
        table = SqlEventLogStorageTable
        pattern = dict(to.execute(table.select().limit(1)).mappings().one())
        del pattern["id"]
        for site in sites:
            to.execute(
                table.insert(),
                [
                    pattern
                    | {
                        "asset_key": asset_key(site).to_string(),
                        "partition": partition_key(one),
                        "event": pattern["event"].replace(sites[0], site).replace(day, partition_key(one)),
                        "timestamp": datetime.now(UTC).replace(tzinfo=None),
                    }
                    for one in days
                ],
            )


def healed(instance: dg.DagsterInstance, store: MadeUpStore, cache: IndexCache, *, by_index: bool) -> int:
    """Look at every site once; return the number of events that were read."""
    now = datetime.now(UTC) + timedelta(hours=1)
    rows = CurrentRows(lambda: store, store.sites, lambda _: cache, print)  # type: ignore[arg-type,return-value]
    since = first_event_since(instance, now - timedelta(days=30))
    more = {"rows_of": rows.read} if by_index else {}
    return sum(read_due(instance, site, Launched(), now, since=since, **more)[1] for site in store.sites)


def parsing() -> None:
    """CPU of a real client that is not in the other figures: the answer of a listing with 1,000 objects, parsed."""
    item = (
        "<Contents><Key>timeseries/2024/01/01/site-{:04}.parquet</Key><LastModified>2024-01-01T00:00:00.000Z"
        "</LastModified><ETag>&quot;0123456789abcdef0123456789abcdef&quot;</ETag><Size>2345678</Size>"
        "<StorageClass>STANDARD</StorageClass></Contents>"
    )
    place = "http://s3.amazonaws.com/doc/2006-03-01/"
    items = "".join(map(item.format, range(PAGE)))
    body = f'<?xml version="1.0"?><ListBucketResult xmlns="{place}"><Name>b</Name>{items}</ListBucketResult>'.encode()
    shape = botocore.session.Session().get_service_model("s3").operation_model("ListObjectsV2").output_shape
    parser = create_parser("rest-xml")

    def plain() -> None:
        parser.parse({"status_code": 200, "headers": {}, "body": body}, shape)

    def ours() -> None:
        answer: dict[str, Any] = {"status_code": 200, "headers": {}, "body": body}
        parse_objects(answer, {})
        parser.parse(answer, shape)

    for what, work in (("botocore's parser", plain), ("the parser of s3_listing", ours)):
        work()
        cpu = time.process_time()
        for _ in range(20):
            work()
        print(f"1,000 objects of a listing, {what:28} {(time.process_time() - cpu) * 50:8.1f} ms CPU")


def main() -> None:
    """Make the store, and measure."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--sites", type=int, default=1000)
    arguments.add_argument("--years", type=int, default=10)
    arguments.add_argument("--latency", type=float, default=0.05)
    arguments.add_argument("--parsing", action="store_true")
    asked = arguments.parse_args()
    if asked.parsing:
        parsing()
        return
    sites = [f"site-{number:04}" for number in range(asked.sites)]
    store: Any = MadeUpStore(sites, NEWEST - timedelta(days=365 * asked.years - 1), asked.latency)
    print(
        f"{len(sites)} sites x {len(store.days)} days, {len(store.index):,} index objects, {asked.latency} s a request"
    )
    with tempfile.TemporaryDirectory() as folder:
        cache = IndexCache(Path(folder) / "copies", store.url(""))
        reader = FigureReader(store, cache)
        first = timed("figures of all sites (/metrics), first", store, lambda: reader.read(sites, store.first, NEWEST))
        if sum(one.stored for one in first.values()) != len(sites) * len(store.days):
            raise SystemExit("the figures are wrong")
        timed("  the same again", store, lambda: reader.read(sites, store.first, NEWEST))

        def compared(reader: FigureReader = reader) -> None:
            while not all(one.is_compared for one in reader.read(sites, store.first, NEWEST).values()):
                time.sleep(0.5)

        timed("  until the days of all years are listed and compared", store, compared)
        timed("  the same after that", store, lambda: reader.read(sites, store.first, NEWEST))
        key = index_key(sites[0], NEWEST.year)
        rows = [replace(store.row(day), rows=5) for day in store.days if day.year == NEWEST.year]
        store.index[key] = encode(rows, sites[0], NEWEST.year)
        timed("  after a run stored days of one site", store, lambda: reader.read(sites, store.first, NEWEST))
        store.index[key] = encode(
            map(store.row, [day for day in store.days if day.year == NEWEST.year]), sites[0], NEWEST.year
        )
        again = FigureReader(store, cache)
        timed("  another process, with the copies on disk", store, lambda: again.read(sites, store.first, NEWEST))
        compared(again)
        some, year = sites[:100], store.days[-365:]
        found = timed("coverage of a year of 100 sites: reading", store, lambda: read_figures(store, some, year))
        ready = lambda day: datetime(day.year, day.month, day.day, tzinfo=UTC)  # noqa: E731
        now = datetime(2025, 6, 3, tzinfo=UTC)
        timed("  its table", store, lambda: coverage(some, year, found, {}, ready_at=ready, now=now))
        (Path(folder) / "dagster").mkdir()
        with dg.DagsterInstance.local_temp(str(Path(folder) / "dagster")) as instance:
            lately = store.days[-365:]
            timed(f"making {len(sites) * len(lately):,} events", store, lambda: record(instance, sites, lately))
            kept, lost = timed(
                "start: a year of all sites, all stored",
                store,
                lambda: stored_days(instance, store, sites, lately, cache),
            )
            if sum(map(len, kept.values())) != len(sites) * len(lately):
                raise SystemExit(f"{len(lost)} days are lost")
            events = timed(
                "healing: a round by the index, a year stored lately",
                store,
                lambda: healed(instance, store, cache, by_index=True),
            )
            print(f"  events read: {events:,}")
            store.sites, part = sites[: max(1, len(sites) // 50)], len(sites) / max(1, len(sites) // 50)
            events = timed(
                f"healing: 1/{part:.0f} of a round by events",
                store,
                lambda: healed(instance, store, cache, by_index=False),
            )
            print(f"  events read: {events:,}")
    print(f"most memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3:,.0f} MB")


if __name__ == "__main__":
    main()
