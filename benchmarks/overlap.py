"""Overlap: a day's wall time against the slower of its two sides, with an API that takes a second for each page.

One side is the API: the day's pages received by as many threads as there are windows at once, and thrown away. The
other is ours: the same days fetched, decoded, encoded and put while the API takes no time. Both together should take
hardly more than the slower one. No limit; each measurement is a process of its own.

    python benchmarks/overlap.py
    python benchmarks/overlap.py --days 5 --size 50000
    python benchmarks/overlap.py --only "1.3 M"
"""

import argparse
import multiprocessing
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import requests
from feeder import Feed, served

from backfill_pipeline.ace.budget import open_budget
from backfill_pipeline.ace.client import AceClient
from backfill_pipeline.ace.fetch import Fetcher
from backfill_pipeline.core.day import day_window, iso
from backfill_pipeline.storage.days import put_day
from backfill_pipeline.storage.local import LocalStore

FEEDS = {"1.3 M": Feed(4_572, 4_572, 300), "6.6 M": Feed(4_583, 4_583)}
FIRST, AT_ONCE = date(2025, 3, 1), 8


def ours(url: str, days: int, size: int, results: "multiprocessing.Queue[float]") -> None:
    """A process: fetch days and put them; seconds."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        budget = open_budget(f"sqlite:///{(home / 'b.sqlite').as_posix()}", key_id="bench", per_minute=100_000)
        fetcher = Fetcher(AceClient(url, "key", budget), spool=home / "spool", max_page_size=size, max_windows=AT_ONCE)
        store, began = LocalStore(home / "data"), time.monotonic()
        for day in fetcher.days("site", [FIRST + timedelta(days=number) for number in range(days)]):
            if day.rows is None:
                raise SystemExit(str(day.error))
            put_day(store, day.rows, facts=day.facts)
            day.discard()
        results.put(time.monotonic() - began)


def theirs(url: str, feed: Feed, days: int, size: int, results: "multiprocessing.Queue[float]") -> None:
    """A process: receive the same pages, and throw them away; seconds."""
    start = day_window(FIRST).start
    step = size // feed.points * feed.interval_s  # as many whole sweeps as a page holds
    asked = range(start, start + days * 86_400, step)

    def receive(at: int) -> None:
        query = {"start_time": iso(at), "end_time": iso(at + step), "page_size": str(size), "raw_data": "true"}
        requests.get(f"{url}/sites/site/timeseries/paginated", params=query, timeout=60).content  # noqa: B018 - received

    began = time.monotonic()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(receive, asked))
    results.put(time.monotonic() - began)


def measured(feed: Feed, target: object, *arguments: object) -> float:
    """Seconds that `target` takes against this feed, in a process of its own."""
    spawn = multiprocessing.get_context("spawn")
    results: multiprocessing.Queue[float] = spawn.Queue()
    with served(feed) as url:
        process = spawn.Process(target=target, args=(url, *arguments, results))  # type: ignore[arg-type]  # a function
        process.start()
        seconds = results.get()
        process.join()
    return seconds


def main() -> None:
    """Measure each size, and print a line."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--days", type=int, default=4)
    arguments.add_argument("--size", type=int, default=100_000)
    arguments.add_argument("--only", choices=list(FEEDS), help="one size of a day, in rows")
    chosen = arguments.parse_args()
    for title, feed in FEEDS.items():
        if chosen.only not in (None, title):
            continue
        slow = replace(feed, latency_s=1.0)
        found = []
        for days in (1, chosen.days):
            api = measured(slow, theirs, slow, days, chosen.size)
            own = measured(feed, ours, days, chosen.size)
            both = measured(slow, ours, days, chosen.size)
            found.append((api, own, both))
            tell(f"{title} x {days} days", api, own, both)
        tell(
            f"{title}, each day more", *((last - first) / (chosen.days - 1) for first, last in zip(*found, strict=True))
        )


def tell(what: str, api: float, own: float, both: float) -> None:
    """Print a line."""
    print(
        f"{what}: API alone {api:.1f} s, we alone {own:.1f} s, together {both:.1f} s, "
        f"{both / max(api, own) - 1:+.0%} of the slower",
        flush=True,
    )


if __name__ == "__main__":
    main()
