"""Peak memory and speed of whole days, fetched over loopback and stored: flat in pages, bounded in rows.

Each size runs in a process of its own, from the first request to the verified object.

    python benchmarks/memory.py
"""

import multiprocessing
import resource
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

import psutil
from feeder import Feed, served

from backfill_pipeline.ace.budget import open_budget
from backfill_pipeline.ace.client import AceClient
from backfill_pipeline.ace.fetch import Fetcher
from backfill_pipeline.storage.days import put_day
from backfill_pipeline.storage.local import LocalStore

SITES = {"1.3 M": Feed(4_572, 4_572, 300), "6.6 M": Feed(4_583, 4_583), "20 M": Feed(13_889, 13_889)}
DAY = date(2025, 3, 1)


def one_day(url: str, results: "multiprocessing.Queue[tuple[int, float, float, float]]") -> None:
    """A process: fetch a day and store it; reports rows, seconds, CPU seconds and peak MB."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        budget = open_budget(f"sqlite:///{(home / 'b.sqlite').as_posix()}", key_id="bench", per_minute=100_000)
        fetcher = Fetcher(AceClient(url, "key", budget), spool=home / "spool")
        started = time.monotonic()
        (day,) = fetcher.days("site", [DAY])
        if day.rows is None:
            raise SystemExit(str(day.error))
        stored = put_day(LocalStore(home / "data"), day.rows, facts=day.facts)
        seconds = time.monotonic() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform != "darwin" else 1024**2)
    cpu = psutil.Process().cpu_times()
    results.put((stored.rows, seconds, cpu.user + cpu.system, peak))


def main() -> None:
    """Measure each size, and print a table."""
    spawn = multiprocessing.get_context("spawn")
    for title, feed in SITES.items():
        with served(feed) as url:
            results = spawn.Queue()
            process = spawn.Process(target=one_day, args=(url, results))
            process.start()
            rows, seconds, cpu, peak = results.get()
            process.join()
        print(
            f"{title:>6}: {rows:,} rows, {seconds:.1f} s, {rows / seconds:,.0f} rows/s, "
            f"CPU {cpu:.1f} s, peak {peak:,.0f} MB"
        )


if __name__ == "__main__":
    main()
