"""One run of the op: days are fetched and stored, and Dagster's events of each day are yielded.

Put here: how Dagster's run becomes work, and the events and log lines of each day. Keep out: threads
(`site_runner.py`), the checks (`checks.py`), the texts of failures (`failures.py`), and how a day is fetched (`ace/`)
and stored (`storage/`).
"""

import time
from collections import deque
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta

import dagster as dg

from backfill_pipeline.ace.client import PointList
from backfill_pipeline.core.day import days_between, partition_key
from backfill_pipeline.core.log_fields import fields
from backfill_pipeline.core.point_states import States
from backfill_pipeline.core.quality import DAYS_AROUND, no_rows
from backfill_pipeline.core.text import printable
from backfill_pipeline.errors import BackfillError, UsageError
from backfill_pipeline.orchestration.checks import Judge, Verdict, severity
from backfill_pipeline.orchestration.dagster_internals import BACKFILL_ID_TAG, RETRY_NUMBER_TAG
from backfill_pipeline.orchestration.day_materialization import materialization
from backfill_pipeline.orchestration.failures import Failures
from backfill_pipeline.orchestration.freshness import freshness_evaluations
from backfill_pipeline.orchestration.io_manager import DayIOManager
from backfill_pipeline.orchestration.partitions import (
    API_DOWN_TAG,
    DAYS_TAG,
    asset_key,
    site_of,
)
from backfill_pipeline.orchestration.point_catalogues import catalogue_metadata, points_asset_key
from backfill_pipeline.orchestration.resources import AceResource
from backfill_pipeline.orchestration.site_runner import Failed, Stored, Work
from backfill_pipeline.orchestration.stored_records import newest_record
from backfill_pipeline.orchestration.ui_links import explore_link
from backfill_pipeline.settings import Settings
from backfill_pipeline.storage.day_index import IndexWriter, describe_day
from backfill_pipeline.storage.store import Stat

_ASKED = 100
"""Partitions of one query of Dagster's storage."""


def backfill_has_succeeded(instance: dg.DagsterInstance, backfill_id: str | None) -> bool:
    """Whether a run of a backfill has succeeded: then the API has answered, on whatever host."""
    if backfill_id is None:
        return False
    filters = dg.RunsFilter(tags={BACKFILL_ID_TAG: backfill_id}, statuses=[dg.DagsterRunStatus.SUCCESS])
    return bool(instance.get_run_records(filters, limit=1))


class DayRun:
    """One run: some sites, some days.

    Args:
        context: of the run's op.
        settings: the settings.
        ace: starts the work.
        objects: stores days.
        days: UTC days, oldest first.
        now: the instant, aware.
    """

    def __init__(
        self,
        context: dg.OpExecutionContext,
        settings: Settings,
        ace: AceResource,
        objects: DayIOManager,
        days: list[date],
        now: datetime,
    ) -> None:
        self.context = context
        self.settings = settings
        self.ace = ace
        self.now = now
        self.objects = objects
        self.sites = sorted(site_of(key.path[-1]) for key in context.selected_asset_keys)
        self.early = tuple(day for day in days if settings.ready_at(day) > now)
        self.days = [day for day in days if day not in self.early]
        self.failures = Failures(context, total=len(self.sites) * len(days))
        self.before = {site: self._rows_before(site) for site in self.sites} if self.days else {}
        self.skip = self._stored_by_forerunners() if self.days else {}
        self.total = sum(len(set(self.days) - self.skip.get(site, set())) for site in self.sites)
        self.told = 0
        self.rows = 0
        self.samples = 0
        self.texts = 0
        self.recorded: Stored | None = None
        self.catalogues: deque[dg.AssetMaterialization] = deque()  # filled by the sites' threads
        self.index = IndexWriter(objects.store, self._not_indexed)
        self.started = time.monotonic()

    def events(self) -> Iterator[object]:
        """Fetch and store every day, giving out its events as soon as its object is verified.

        Raises:
            dagster.Failure: at the end, naming each site-day that failed; at once when nothing can go on.
            dagster.DagsterExecutionInterruptedError: cancelled; days at work were given their grace.
        """
        if named := [*self.days, *self.early]:
            self._tag(DAYS_TAG, f"{min(named)}" if len(named) == 1 else f"{min(named)} to {max(named)}")
        for site, day in ((site, day) for site in self.sites for day in self.early):
            ready = f"{self.settings.ready_at(day):%Y-%m-%d %H:%M}"
            error = UsageError(f"not ready before {ready} UTC (ACE_RAW_LAG_HOURS)", hint="fetch the day after that")
            yield from self.failures.record(Failed(site, (day,), error), {})
        if self.days:
            try:
                work = self.ace.work(
                    self.objects.put,
                    self.sites,
                    self.days,
                    log=self.context.log,
                    left=self._record_late,
                    skip=self.skip,
                    describe=self._describe,
                    learn=self._learn,
                    index=self._index,
                    indexed=self.index.flush,
                    outage=self._outage,
                    has_answered=backfill_has_succeeded(
                        self.context.instance, self.context.run.tags.get(BACKFILL_ID_TAG)
                    ),
                )
            except BackfillError as error:
                self.failures.end_backfill(str(error))
                raise dg.Failure(str(error), allow_retries=False) from None
            yield from self._worked(work)
        if self.told and not self.rows:
            self.context.log.warning(no_rows(self.samples, texts=self.texts))
        yield from freshness_evaluations(self.context, self.settings, self.now)
        self.failures.raise_if_any()

    def _outage(self, since: datetime | None) -> None:
        """Show on the run since when the API has not answered: status, metrics and the UI read its tag."""
        self._tag(API_DOWN_TAG, "" if since is None else since.isoformat(timespec="seconds"))

    def _tag(self, name: str, text: str) -> None:
        try:
            self.context.instance.add_run_tags(self.context.run_id, {name: text})
        except Exception as error:  # noqa: BLE001 - a tag that cannot be written must not end the run
            self.context.log.warning(f"the run has no tag {name}: {error}")

    def _describe(self, points: PointList) -> None:
        """Update the points' catalogue; derived data, so that a store that refuses it costs no day."""
        try:
            spans = self.objects.describe(points)
            if spans is not None:
                self.context.log.info(
                    f"{printable(points.site)}: updated the catalogue of its {len(points.names):,} points"
                )
                self.catalogues.append(
                    dg.AssetMaterialization(
                        points_asset_key(points.site), metadata=catalogue_metadata(self.objects, points.site, spans)
                    )
                )
        except Exception as error:  # noqa: BLE001 - whatever it is, the days are stored, and the next run tries again
            self.context.log.warning(printable(f"{points.site}: the catalogue of points is not updated: {error}"))

    def _learn(self, site: str, states: Mapping[str, States], day: date) -> None:
        """Add the states of points to the catalogue; derived data, as above."""
        try:
            self.objects.learn_states(site, states, day)
        except Exception as error:  # noqa: BLE001 - as above; the texts themselves are stored
            self.context.log.warning(printable(f"{site}: the catalogue lacks states of {day}: {error}"))

    def _index(self, day: Stored) -> None:
        """Add a stored day to the index; derived data, as above."""
        stored = day.stored
        stat = Stat(stored.key, stored.bytes, stored.sha256, stored.etag)
        row = describe_day(day.fetched.day, stored.rows, stored.about, stat, datetime.now(UTC))
        self.index.add(day.fetched.site, row)

    def _not_indexed(self, site: str, error: Exception) -> None:
        self.context.log.warning(printable(f"{site}: the index of stored days is not updated: {error}"))

    def _worked(self, work: Work) -> Iterator[object]:
        judges = {site: Judge(self.before[site]) for site in self.sites}
        try:
            for result in work.results():
                yield from self._events_of(result, judges)
            yield from self._catalogue_events()
        except dg.DagsterExecutionInterruptedError:
            self.context.log.warning(
                f"asked to end: days at work may complete within {self.settings.grace_seconds:.0f} s; "
                "days that are stored stay, and starting again goes on from there"
            )
            work.finish(self.settings.grace_seconds)
            for result in work.results():
                yield from self._events_of(result, judges)
            yield from self._catalogue_events()
            raise

    def _catalogue_events(self) -> Iterator[object]:
        """The catalogues that the sites' threads updated since the last call."""
        while self.catalogues:
            yield self.catalogues.popleft()

    def _record_late(self, result: Stored | Failed) -> None:
        """Record a day that was stored after Dagster had stopped listening to the op.

        The first of them may be on record: nobody can say whether Dagster was interrupted before it wrote or after.
        """
        if not isinstance(result, Stored):
            return
        instance, site = self.context.instance, result.fetched.site
        verdict = Judge(self.before[site]).verdict(result)
        known = self._newest(site, result.fetched.day)
        if known is None or known.run_id != self.context.run_id:
            instance.report_runless_asset_event(self._materialization(result, verdict))
        result.fetched.discard()
        for evaluation in self._evaluations(result, verdict):
            instance.report_runless_asset_event(evaluation)

    def _newest(self, site: str, day: date) -> dg.EventLogRecord | None:
        """The newest materialisation of a site-day, as it is on record."""
        return newest_record(self.context.instance, site, day)

    def _events_of(self, result: Stored | Failed, judges: dict[str, Judge]) -> Iterator[object]:
        if isinstance(result, Failed):
            yield from self.failures.record(result, self.before[result.site])
            return
        verdict = judges[result.fetched.site].verdict(result)
        if result is not self.recorded:  # it is when a cancel came between its record and its checks
            yield from self._record(result, verdict)
            self.recorded = result
        # Only now that the day is on record: a death before costs no request, since the day is put together again.
        result.fetched.discard()
        yield from self._evaluations(result, verdict)
        yield from self._catalogue_events()

    def _record(self, result: Stored, verdict: Verdict) -> Iterator[object]:
        fetched, stored = result.fetched, result.stored
        self.told += 1
        self.rows += stored.rows
        self.samples += result.counts.fetched
        self.texts += stored.texts
        before = self.before[fetched.site].get(fetched.day)
        replaced = f", replacing {before:,} rows" if stored.changed and before is not None else ""
        texts = f"{stored.texts:,} texts, " if stored.texts else ""
        self.context.log.info(
            f"{printable(fetched.site)} {fetched.day} {stored.state}: {stored.rows:,} rows{replaced}, {texts}"
            f"{stored.bytes:,} bytes, {fetched.requests} request{'s' * (fetched.requests != 1)}, "
            f"{fetched.seconds:.1f} s; {self._progress()}",
            extra=fields(site=fetched.site, day=fetched.day),
        )
        yield self._materialization(result, verdict)

    def _evaluations(self, result: Stored, verdict: Verdict) -> Iterator[dg.AssetCheckEvaluation]:
        """The checks that were asked for, of a day whose materialisation is on record."""
        wanted = self.context.selected_asset_check_keys
        if not wanted:
            return
        site, day = result.fetched.site, result.fetched.day
        for evaluation in verdict.evaluations(site, day, severity(self.settings), of=self._newest(site, day)):
            if evaluation.asset_check_key in wanted:
                yield evaluation

    def _progress(self) -> str:
        total = self.total
        done = self.told + self.failures.count
        if done == total:
            return f"all {total} site-days are through, {self.failures.count or 'none'} failed"
        left = (time.monotonic() - self.started) / self.told * (total - done)
        return f"{done} of {total} site-days, about {timedelta(seconds=round(left))} left"

    def _materialization(self, result: Stored, verdict: Verdict) -> dg.AssetMaterialization:
        before = self.before[result.fetched.site].get(result.fetched.day)
        links = explore_link(self.settings, result.fetched.site, result.fetched.day)
        return materialization(result, thin=verdict.thin, rows_before=before, links=links)

    def _stored_by_forerunners(self) -> dict[str, set[date]]:
        """By site, the days that a run stored whose process was lost, and of which this run is Dagster's own retry."""
        if RETRY_NUMBER_TAG not in self.context.run.tags:
            return {}
        group = self.context.instance.get_run_group(self.context.run.run_id)
        ours = {run.run_id for run in group[1]} if group else set()
        stored: dict[str, set[date]] = {}
        for site in self.sites:
            for at in range(0, len(self.days), _ASKED):
                keys = [partition_key(day) for day in self.days[at : at + _ASKED]]
                filters = dg.AssetRecordsFilter(asset_key=asset_key(site), asset_partitions=keys)
                for record in self.context.instance.fetch_materializations(filters, limit=4 * _ASKED).records:
                    if record.run_id in ours and record.partition_key:
                        stored.setdefault(site, set()).add(date.fromisoformat(record.partition_key))
        if stored:
            count = sum(map(len, stored.values()))
            self.context.log.info(f"the run before this one was lost; {count} site-days that it stored are left out")
        return stored

    def _rows_before(self, site: str) -> dict[date, int]:
        """Rows of the run's own days and of those around them, as far as they were stored before this run."""
        around = timedelta(days=DAYS_AROUND)
        days = list(days_between(self.days[0] - around, self.days[-1] + around))
        stored = self.context.instance.get_materialized_partitions(asset_key(site))
        keys = [key for key in map(partition_key, days) if key in stored]
        rows: dict[date, int] = {}
        for at in range(0, len(keys), _ASKED):
            filters = dg.AssetRecordsFilter(asset_key=asset_key(site), asset_partitions=keys[at : at + _ASKED])
            records = self.context.instance.fetch_materializations(filters, limit=4 * _ASKED).records
            for record in reversed(records):  # newest first as they come: the newest of a day is kept
                event = record.asset_materialization
                count = event.metadata.get("dagster/row_count") if event else None
                if event and event.partition and count and isinstance(count.value, int):
                    rows[date.fromisoformat(event.partition)] = count.value
        return rows
