"""The assets: one per site, day by day.

Put here: how Dagster's run becomes fetched and stored days, and what each day's materialisation says. Keep out: how a
day is fetched (`ace/fetch.py`), stored (`storage/days.py`), judged (`checks.py`).

One op stands for the assets of all sites: a run pays for a process and a step once, whatever the number of sites
(`docs/decisions/0001-one-op-for-all-sites.md`). Sites run side by side in threads.
"""

import queue
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime

import dagster as dg

from backfill_pipeline.ace.fetch import FetchedDay
from backfill_pipeline.errors import (
    BackfillError,
    KeyRefusedError,
    SettingError,
    SiteRefusedError,
    StoppedError,
    StoreRefusedError,
)
from backfill_pipeline.orchestration.checks import check_specs, checked
from backfill_pipeline.orchestration.io_manager import DayIOManager
from backfill_pipeline.orchestration.partitions import asset_key, day_partitions, days_of, site_of
from backfill_pipeline.orchestration.resources import AceResource
from backfill_pipeline.settings import Settings
from backfill_pipeline.storage.days import StoredDay

GROUP = "timeseries"

GRACE_S = 60.0
"""After a cancel, days at work may complete for so many seconds."""

_STOPS_ALL = (KeyRefusedError, StoreRefusedError, SettingError)


def timeseries_assets(settings: Settings, sites: tuple[str, ...]) -> dg.AssetsDefinition:
    """One day-partitioned asset for each of `sites`."""
    partitions = day_partitions(settings)

    @dg.multi_asset(
        name="timeseries",
        specs=[_spec(site, partitions) for site in sites],
        check_specs=[spec for site in sites for spec in check_specs(site)],
        can_subset=True,
        backfill_policy=dg.BackfillPolicy.multi_run(settings.days_per_run),
    )
    def timeseries(context: dg.AssetExecutionContext, ace: AceResource, objects: DayIOManager) -> Iterator[object]:
        wanted = [site_of(key.path[-1]) for key in sorted(context.selected_asset_keys)]
        yield from _Run(context, ace, objects, wanted, days_of(context)).events()

    return timeseries


def _spec(site: str, partitions: dg.PartitionsDefinition) -> dg.AssetSpec:
    return dg.AssetSpec(
        asset_key(site),
        group_name=GROUP,
        partitions_def=partitions,
        skippable=True,
        kinds={"parquet", "python"},
        description=f"Raw samples of site `{site}`, one Parquet object per UTC day, read back and verified.",
        metadata={"site": site},
    )


class _Run:
    """One run: some sites, some days."""

    def __init__(
        self,
        context: dg.AssetExecutionContext,
        ace: AceResource,
        objects: DayIOManager,
        sites: list[str],
        days: list[date],
    ) -> None:
        self.context = context
        self.ace = ace
        self.objects = objects
        self.sites = sites
        self.settings = ace.settings()
        now = datetime.now(UTC)
        self.early = [day for day in days if self.settings.ready_at(day) > now]
        self.days = [day for day in days if day not in self.early]
        self.cancel = threading.Event()  # no new day is begun
        self.stop = threading.Event()  # no further request leaves
        self.failed: list[str] = []
        self.done: queue.Queue[tuple[FetchedDay, StoredDay] | None] = queue.Queue()

    def events(self) -> Iterator[object]:
        """Fetch and store every day, giving out its events as soon as its object is verified.

        Raises:
            dagster.Failure: at the end, naming each site-day that failed; at once when nothing can go on.
        """
        log = self.context.log.info
        for day in self.early:
            self.failed.append(f"{day}: not ready before {self.settings.ready_at(day):%Y-%m-%d %H:%M} UTC")
        if not self.days:
            raise self._failure()
        try:
            fetcher = self.ace.fetcher(stop=self.stop, log=log)
        except BackfillError as error:
            raise dg.Failure(str(error), allow_retries=False) from None
        total = len(self.sites) * len(self.days)
        finished = 0
        with ThreadPoolExecutor(self.settings.sites_at_once, thread_name_prefix="site") as pool:
            work = [pool.submit(self._site, fetcher, site) for site in self.sites]
            try:
                while not all(future.done() for future in work) or not self.done.empty():
                    try:
                        item = self.done.get(timeout=0.2)
                    except queue.Empty:
                        continue
                    if item is not None:
                        finished += 1
                        yield from self._told(*item, f"{finished} of {total}")
            except BaseException:
                # Cancelled, or the run's process is asked to end: what is at work may complete, then all stops.
                self.cancel.set()
                timer = threading.Timer(GRACE_S, self.stop.set)
                timer.daemon = True
                timer.start()
                for future in work:
                    future.exception()
                timer.cancel()
                while not self.done.empty():
                    item = self.done.get()
                    if item is not None:
                        yield from self._told(*item, "after the cancel")
                raise
            for future in work:
                error = future.exception()
                if error is not None and not isinstance(error, BackfillError):
                    raise error
        if self.failed:
            raise self._failure()

    def _site(self, fetcher: object, site: str) -> None:
        """Thread: one site's days, oldest first."""
        days = fetcher.days(site, self.days, stop=self.stop)  # type: ignore[attr-defined]  # a Fetcher
        try:
            for day in days:
                if day.rows is None:
                    self._note(site, day.day, day.error or BackfillError("no rows and no error"))
                else:
                    stored = self.objects.put(day.rows, day.facts)
                    day.discard()
                    self.done.put((day, stored))
                if self.cancel.is_set():
                    days.close()
                    return
        except StoppedError:
            return
        except _STOPS_ALL as error:
            self._note(site, None, error)
            self.cancel.set()
            self.stop.set()
        except BackfillError as error:
            self._note(site, None, error)
        finally:
            self.done.put(None)

    def _note(self, site: str, day: date | None, error: BackfillError) -> None:
        where = f"site {site!r}, {day}" if day else f"site {site!r}"
        scope = "the site's remaining days" if isinstance(error, SiteRefusedError) else "this"
        line = str(error) if str(error).startswith("site") else f"{where}: {error}"
        self.failed.append(line)
        self.context.log.error(f"{line} [{type(error).__name__}; {scope} will show as failed]")

    def _failure(self) -> dg.Failure:
        shown = "; ".join(self.failed[:10])
        more = f"; and {len(self.failed) - 10} more" if len(self.failed) > 10 else ""  # noqa: PLR2004 - as above
        return dg.Failure(
            f"{len(self.failed)} failed: {shown}{more}. All other days of this run are stored; re-run `missing and "
            "failed only` when the cause is mended.",
            metadata={"failed": dg.MetadataValue.json(self.failed)},
            allow_retries=False,
        )

    def _told(self, day: FetchedDay, stored: StoredDay, progress: str) -> Iterator[object]:
        """The events of a stored day."""
        key = asset_key(day.site)
        partition = day.day.isoformat()
        counts = day.rows.counts if day.rows else None
        self.context.log.info(
            f"{day.site} {partition}: {stored.rows:,} rows, {stored.bytes:,} bytes, {day.requests} requests, "
            f"{day.seconds:.1f} s ({progress})"
        )
        yield dg.AssetMaterialization(
            key,
            partition=partition,
            metadata={
                "dagster/row_count": stored.rows,
                "path": dg.MetadataValue.path(stored.url),
                "bytes": stored.bytes,
                "samples_fetched": counts.fetched if counts else 0,
                "requests": day.requests,
                "retries": day.retries,
                "duration_s": round(day.seconds, 3),
                "points_configured": day.points_configured,
                "points_seen": day.points_seen,
                "coverage": round(day.points_seen / day.points_configured, 4) if day.points_configured else 0.0,
                "dropped": dg.MetadataValue.json(dict(counts.dropped) if counts else {}),
                "conflicts": counts.conflicts if counts else 0,
                "state": stored.state,
                "changed": stored.changed,
                "sha256": stored.sha256,
            },
        )
        yield from checked(self.context, day, stored)
