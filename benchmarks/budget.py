"""The request budget under load: four processes of four threads each, against an API that enforces the limit.

Printed for each ledger: requests that the API let through in a minute against those allowed, the most that arrived in
any 60 seconds, how many were refused with 429, and each process's share.

    python benchmarks/budget.py                    # SQLite, 200 seconds
    python benchmarks/budget.py postgresql://... redis://... --seconds 400
"""

import argparse
import multiprocessing
import tempfile
import threading
import time
from collections import Counter
from datetime import date
from pathlib import Path

from backfill_pipeline.ace.budget import open_budget
from backfill_pipeline.ace.client import AceClient
from backfill_pipeline.core.day import day_window
from backfill_pipeline.errors import ThrottledError
from backfill_pipeline.simulator.app import DEFAULT_KEY, Simulator
from backfill_pipeline.simulator.world import demo_world

PER_MINUTE = 50
PROCESSES = 4
THREADS = 4


def ask(url: str, ledger: str, until: float, number: int, counts: "multiprocessing.Queue[tuple[int, int]]") -> None:
    """A process: ask for pages until `until` (Unix seconds), and report how many were answered."""
    client = AceClient(url, DEFAULT_KEY, open_budget(ledger, key_id=f"bench {url}", per_minute=PER_MINUTE))
    window = day_window(date(2025, 3, 1))
    answered: list[int] = []

    def work() -> None:
        while time.time() < until:
            try:
                client.page("site", window, 10, None)
            except ThrottledError:
                continue
            answered.append(1)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, until - time.time()) + 1)
    counts.put((number, len(answered)))


def measure(ledger: str, seconds: float) -> None:
    """Run one ledger, and print what the API saw."""
    spawn = multiprocessing.get_context("spawn")
    counts = spawn.Queue()
    with Simulator(demo_world({"site": 5}), requests_per_minute=PER_MINUTE, latency_s=0.2) as api:
        until = time.time() + seconds
        workers = [spawn.Process(target=ask, args=(api.url, ledger, until, n, counts)) for n in range(PROCESSES)]
        for worker in workers:
            worker.start()
        shares = sorted(counts.get() for _ in workers)
        for worker in workers:
            worker.terminate()
        log = list(api.requests)
    times = sorted(request.arrival for request in log)
    most = max(sum(first <= other < first + 60 for other in times) for first in times)
    status = Counter(request.status for request in log)
    # Requests leave in bursts of N a span apart: the share of the budget is read off over whole ones.
    spans = (len(times) - 1) // PER_MINUTE
    used = spans * 60 / (times[spans * PER_MINUTE] - times[0])
    print(
        f"{ledger.partition(':')[0]:<11} {len(times)} requests, {used:.1%} of the budget over {spans} spans, "
        f"most in 60 s {most}, 429s {status[429]}, by process {[count for _, count in shares]}"
    )


def main() -> None:
    """Measure each ledger in turn."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("ledgers", nargs="*")
    arguments.add_argument("--seconds", type=float, default=200)
    chosen = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for ledger in chosen.ledgers or [f"sqlite:///{(Path(folder) / 'budget.sqlite').as_posix()}"]:
            measure(ledger, chosen.seconds)


if __name__ == "__main__":
    main()
