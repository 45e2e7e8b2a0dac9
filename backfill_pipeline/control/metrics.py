"""Figures for Prometheus, made of Dagster's events at the moment of asking.

Put here: which figures there are, and what they mean. Keep out: how events are read (`gateway.py`).
"""

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from backfill_pipeline.control.service import Control

PHASES = ("fetch", "put")


def metrics_text(control: Control) -> str:
    """All figures in Prometheus's text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Figures(control))
    return generate_latest(registry).decode()


class _Figures(Collector):
    def __init__(self, control: Control) -> None:
        self.control = control

    def collect(self) -> Iterator[Metric]:
        gateway, settings = self.control.gateway, self.control.settings
        site = ["site"]
        days = GaugeMetricFamily("backfill_days", "Days by state; missing: ready, and never stored", labels=["site", "state"])
        rows = GaugeMetricFamily("backfill_rows", "Rows of the days that are stored", labels=site)
        size = GaugeMetricFamily("backfill_bytes", "Bytes of the objects that are stored", labels=site)
        counters = {
            "samples_fetched": CounterMetricFamily("backfill_samples_fetched", "Samples that arrived", labels=site),
            "requests": CounterMetricFamily("backfill_requests", "Requests for samples of stored days", labels=site),
            "retries": CounterMetricFamily("backfill_retries", "How many of them failed and were repeated", labels=site),
            "throttled": CounterMetricFamily("backfill_throttled", "How many of them met a 429", labels=site),
        }
        failures = CounterMetricFamily("backfill_day_failures", "Days that failed, each time", labels=site)
        seconds = CounterMetricFamily("backfill_seconds", "Seconds by phase of stored days", labels=["site", "phase"])
        now = datetime.now(UTC)
        for name in sorted({*settings.sites, *gateway.sites()}):
            events = gateway.events(name)
            newest = {event.day: event for event in events if event.error is None}
            failed = {event.day for event in events if event.error is not None} - newest.keys()
            states: Counter[str] = Counter({"stored": 0, "thin": 0, "empty": 0, "failed": len(failed), "missing": 0})
            for event in newest.values():
                thin = event.about.get("thin") is True
                states["thin" if thin and event.rows else str(event.about.get("state", "stored"))] += 1
            ready = (now.date() - settings.first_day).days
            while ready and settings.ready_at(settings.first_day.fromordinal(settings.first_day.toordinal() + ready - 1)) > now:
                ready -= 1
            states["missing"] = max(ready - len(newest) - len(failed), 0)
            for state, count in states.items():
                days.add_metric([name, state], count)
            rows.add_metric([name], sum(event.rows for event in newest.values()))
            size.add_metric([name], sum(event.number("bytes") for event in newest.values()))
            for key, counter in counters.items():
                counter.add_metric([name], sum(event.number(key) for event in events))
            failures.add_metric([name], sum(event.error is not None for event in events))
            for phase in PHASES:
                spent = (event.about.get(f"{phase}_s", 0.0) for event in events)
                seconds.add_metric([name, phase], sum(float(s) for s in spent if isinstance(s, int | float)))
        yield from (days, rows, size, *counters.values(), failures, seconds)
        alive = gateway.daemon_is_alive()
        yield GaugeMetricFamily("backfill_daemon_alive", "1: Dagster's daemon gives signs of life", value=float(alive))
        status = self.control.status()
        at_work = status.word == "in_progress"
        yield GaugeMetricFamily("backfill_running", "1: a backfill is at work", value=float(at_work))
        yield GaugeMetricFamily("backfill_progress_percent", "Progress of the newest backfill", value=status.percent)
