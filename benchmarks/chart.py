"""Ten points over a year from a bucket at 50 ms a request: `read.chart`, and what it replaces.

A made-up site in moto's S3 server, behind a proxy that delays each request and counts them. Printed for each way:
seconds and requests, of the first call and of the second, in one process.

    python benchmarks/chart.py
    python benchmarks/chart.py --days 90 --controllers 3 --every 60
"""

import argparse
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import duckdb

from backfill_pipeline import read
from backfill_pipeline.dataset.rollup import build_rollup
from backfill_pipeline.settings import Settings
from backfill_pipeline.storage.days import put_day, settings_store
from backfill_pipeline_tests.storage.bucket import BUCKET, KEY, SECRET, bucket_server, slow
from backfill_pipeline_tests.storage.reading import SITE, day_of

FIRST = date(2025, 1, 1)
START = datetime(2025, 1, 1, tzinfo=UTC)


def settings_for(url: str) -> Settings:
    """Settings that name the bucket at a URL."""
    return Settings.load(
        {
            "BACKFILL_STORE": f"s3://{BUCKET}", "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_ENDPOINT_URL_S3": url, "AWS_REGION": "us-east-1",
        }
    )  # fmt: skip


def with_duckdb(settings: Settings, names: list[str]) -> Any:
    """Hourly figures of the points from the raw objects, by DuckDB alone."""
    objects = f"{settings.store}/timeseries/2025/*/*/*.parquet"
    with read.duckdb_connection(settings) as database:
        return database.execute(
            "SELECT timestamp // 3600000, point_name, avg(value), min(value), max(value) FROM read_parquet(?) "
            "WHERE list_contains(?, point_name) GROUP BY ALL",
            [objects, names],
        ).fetchall()


def main() -> None:
    """Fill the bucket, build the hourly values, and time each way."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in {"days": 365, "controllers": 1, "every": 300, "delay-ms": 50}.items():
        arguments.add_argument(f"--{name}", type=int, default=value)
    chosen = arguments.parse_args()
    day, end = day_of(chosen.controllers, chosen.every), START + timedelta(days=chosen.days)
    names = list(day.points)[:10]
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    with bucket_server() as proxy:
        store = settings_store(settings_for(proxy.direct))
        for number in range(chosen.days):
            put_day(store, replace(day, day=FIRST + timedelta(days=number)))
        months = sorted({(FIRST + timedelta(days=number)).replace(day=1) for number in range(chosen.days)})
        began = time.process_time()
        built = [one for month in months if (one := build_rollup(store, SITE, month)) is not None]
        rows = sum(one.rows for one in built)
        print(
            f"hourly values: {rows:,} rows, {sum(one.bytes for one in built) / rows:.2f} bytes each, "
            f"{time.process_time() - began:.1f} s of CPU (the S3 server runs in this process)"
        )
        settings = settings_for(proxy.url)
        ways: dict[str, Callable[[], Any]] = {
            "read.chart, the whole span": lambda: read.chart(SITE, names, START, end, settings=settings),
            "read.chart, one day": lambda: read.chart(SITE, names, START, START + timedelta(days=1), settings=settings),
            "read.samples(...).resampled": lambda: read.samples(
                SITE, START, end, points=names, settings=settings
            ).resampled(timedelta(hours=1), ["mean", "min", "max"]),
            "DuckDB over the raw objects": lambda: with_duckdb(settings, names),
        }
        for title, way in ways.items():
            for call in ("first", "second"):
                proxy.reset()
                proxy.always = slow(chosen.delay_ms / 1000)
                at = time.monotonic()
                try:
                    way()
                except (read.StoreRefusedError, duckdb.Error) as error:
                    print(f"{title}: not available: {str(error).splitlines()[0]}")
                    break
                print(f"{title}, {call} call: {time.monotonic() - at:.2f} s, {len(proxy.asked)} requests")


if __name__ == "__main__":
    main()
