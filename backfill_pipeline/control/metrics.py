"""Metrics for Prometheus, from the index of stored days, Dagster's events and the request budget.

Put here: the metrics and their meaning. Keep out: how the index is read and compared with the objects
(`coverage/site_figures.py`), and how events are read (`site_counters.py`).
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from backfill_pipeline.ace.budget import SharedBudget, open_budget
from backfill_pipeline.ace.client import key_id
from backfill_pipeline.control.day_ranges import checked_sites
from backfill_pipeline.control.service import Control
from backfill_pipeline.core.new_days import newest_ready
from backfill_pipeline.errors import BackfillError, StoreBusyError, StoreRefusedError
from backfill_pipeline.settings import Settings

_LOG = logging.getLogger(__name__)

PHASES = {"fetch": "duration_s", "put": "put_s"}
"""Phases of a day, and the metadata of its materialisation that contain their duration."""


def metrics_text(control: Control, used: Callable[[], int | None], sites: Sequence[str] = ()) -> str:
    """Return all metrics in Prometheus's text format.

    Args:
        control: reads the days.
        used: returns the requests of the API key in the last minute; None when the number is not available.
        sites: show only these sites, and no metrics of the latest backfill; empty: all sites.

    Raises:
        UsageError: a name is not a known site.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Figures(control, used, sites))
    return generate_latest(registry).decode()


class BudgetMeter:
    """Reads how much of the request budget is in use.

    Args:
        settings: the API key, and where its budget is kept.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._budget: SharedBudget | None = None

    def used(self) -> int | None:
        """Requests in the last minute; None without an API key, or when the budget cannot be read."""
        settings = self._settings
        if settings.api_key is None:
            return None
        try:
            if self._budget is None:
                fingerprint = key_id(settings.api_key.get_secret_value())
                self._budget = open_budget(
                    settings.limiter_url, key_id=fingerprint, per_minute=settings.requests_per_minute
                )
            return self._budget.used()
        except BackfillError as error:
            _LOG.warning("the metrics do not contain the budget in use: %s", error)
            return None


class _Figures(Collector):
    def __init__(self, control: Control, used: Callable[[], int | None], sites: Sequence[str]) -> None:
        self.control = control
        self.used = used
        self.of_all = not sites
        known = sorted({*control.settings.sites, *control.gateway.sites()})
        self.sites = checked_sites(sites, known) if sites else known

    def collect(self) -> Iterator[Metric]:
        gateway, settings = self.control.gateway, self.control.settings
        site = ["site"]
        days = GaugeMetricFamily(
            "backfill_days",
            "Days by state; failed: or damaged; missing: ready and not stored; unread: the index lacks their figures",
            labels=["site", "state"],
        )
        rows = GaugeMetricFamily("backfill_rows", "Rows of stored days", labels=site)
        size = GaugeMetricFamily("backfill_bytes", "Bytes of stored objects", labels=site)
        about = "1: the store was read; 0: days, rows and bytes are left out"
        readable = GaugeMetricFamily("backfill_store_readable", about)
        counters = {
            "samples_fetched": CounterMetricFamily("backfill_samples_fetched", "Samples that arrived", labels=site),
            "requests": CounterMetricFamily("backfill_requests", "Requests for samples of stored days", labels=site),
            "retries": CounterMetricFamily("backfill_retries", "Requests that failed and were retried", labels=site),
            "throttled": CounterMetricFamily("backfill_throttled", "Requests with the answer 429", labels=site),
            "failures": CounterMetricFamily("backfill_day_failures", "Failures of days", labels=site),
        }
        seconds = CounterMetricFamily("backfill_seconds", "Seconds by phase of stored days", labels=["site", "phase"])
        sums = gateway.counters.sums()
        for name in self.sites:
            of_site = sums.get(name, {})
            for key, counter in counters.items():
                counter.add_metric([name], of_site.get(key, 0))
            for phase, key in PHASES.items():
                seconds.add_metric([name, phase], of_site.get(key, 0))
        first, last_ready = settings.first_day, newest_ready(datetime.now(UTC), settings.raw_lag_hours)
        try:
            figures = gateway.figures.read(self.sites, first, last_ready)
        except (StoreRefusedError, StoreBusyError) as error:
            _LOG.warning("the metrics do not contain the stored days: %s", error)
            figures = {}
        readable.add_metric([], float(bool(figures) or not self.sites))
        for name, found in figures.items():
            failed = {day for day in gateway.counters.failed(name) if first <= day <= last_ready}
            failed -= {day for day in failed if found.present[(day - first).days]}
            states = {"stored": found.stored, "thin": found.thin, "empty": found.empty, "unread": found.unread}
            states["failed"] = len(failed | found.damaged)
            if found.is_compared:  # before that, a day that the index lacks may be stored
                states["missing"] = len(found.present) - int(found.present.sum()) - states["failed"]
            for state, count in states.items():
                days.add_metric([name, state], count)
            rows.add_metric([name], found.rows)
            size.add_metric([name], found.bytes)
        yield from (days, rows, size, readable, *counters.values(), seconds)
        most = float(settings.requests_per_minute)
        yield GaugeMetricFamily("backfill_budget_limit", "Requests that may leave in a minute", value=most)
        used = self.used()
        if used is not None:
            about = "Requests of the API key in the last minute, of all processes"
            yield GaugeMetricFamily("backfill_budget_used", about, value=float(used))
        alive = gateway.daemon_is_alive()
        yield GaugeMetricFamily("backfill_daemon_alive", "1: Dagster's daemon runs", value=float(alive))
        down = gateway.api_down_since()
        silent = 0.0 if down is None else max(0.0, (datetime.now(UTC) - down).total_seconds())
        about = "Seconds since the API has not answered a run that waits for it; 0: no run waits"
        yield GaugeMetricFamily("backfill_api_down_seconds", about, value=silent)
        if not self.of_all:
            return  # the latest backfill would be read with all its sites
        running, percent = self.control.progress()
        yield GaugeMetricFamily("backfill_running", "1: a backfill runs", value=float(running))
        yield GaugeMetricFamily("backfill_progress_percent", "Progress of the latest backfill", value=percent)
