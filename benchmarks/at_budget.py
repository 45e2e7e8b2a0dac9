"""At the budget: an API that allows 50 requests a minute, takes a second for each and fails one in fifty.

Whole days of 1, 3 and 10 sites through fetching and storing, side by side as in a run, in real minutes. A day has as
many pages as a real one of 1.3 M rows (some 28), each a tenth as large, since here requests are counted and not rows.
Printed: requests against the least possible (full pages, and one list of points a site), refusals (429), and the share
of the budget that was used, from the first request on over whole minutes' worth of requests.

    python benchmarks/at_budget.py
    python benchmarks/at_budget.py --sites 3 --days 4
"""

import argparse
import multiprocessing
import multiprocessing.connection
import tempfile
import threading
import time
from collections import Counter
from datetime import date, timedelta
from pathlib import Path

from backfill_pipeline.ace.budget import MARGIN_S, SPAN_S, open_budget
from backfill_pipeline.ace.client import AceClient
from backfill_pipeline.ace.fetch import Fetcher
from backfill_pipeline.orchestration.site_runner import Stored, Work
from backfill_pipeline.simulator.app import DEFAULT_KEY, Simulator
from backfill_pipeline.simulator.faults import Fault
from backfill_pipeline.simulator.world import demo_world
from backfill_pipeline.storage.days import put_day
from backfill_pipeline.storage.local import LocalStore

PER_MINUTE, LATENCY_S, BROKEN = 50, 1.0, 0.02
POINTS, PAGE = 448, 5_000
FIRST = date(2025, 3, 1)
KINDS = ("truncate", "status", "html")


def serve(sites: list[str], pipe: "multiprocessing.connection.Connection") -> None:
    """A process: the API; sends its address and the rows of a day, then, when asked, what it was asked and when."""
    faults = [Fault(kind, share=BROKEN / len(KINDS)) for kind in KINDS]
    world = demo_world(dict.fromkeys(sites, POINTS))
    rows = len(world.sites[0].samples(FIRST))
    with Simulator(world, faults=faults, requests_per_minute=PER_MINUTE, latency_s=LATENCY_S) as api:
        pipe.send((api.url, rows))
        pipe.recv()
        pipe.send([(request.arrival, request.status) for request in api.requests])


def measure(sites: int, days: int) -> None:
    """Fetch and store so many days of so many sites, and print a line."""
    names = [f"site-{number}" for number in range(sites)]
    wanted = [FIRST + timedelta(days=number) for number in range(days)]
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    server = spawn.Process(target=serve, args=(names, theirs), daemon=True)
    server.start()
    url, rows = ours.recv()
    with tempfile.TemporaryDirectory() as folder:
        ledger = f"sqlite:///{(Path(folder) / 'budget.sqlite').as_posix()}"
        stop = threading.Event()
        client = AceClient(url, DEFAULT_KEY, open_budget(ledger, key_id="bench", per_minute=PER_MINUTE, stop=stop))
        fetcher = Fetcher(client, spool=Path(folder) / "spool", max_page_size=PAGE, requests_per_minute=PER_MINUTE)
        store = LocalStore(Path(folder))
        began = time.monotonic()
        work = Work(fetcher, lambda day, facts: put_day(store, day, facts=facts), names, wanted, at_once=4, stop=stop)
        stored = sum(isinstance(result, Stored) for result in work.results())
        work.close()
        seconds = time.monotonic() - began
    ours.send("done")
    log = sorted(ours.recv())
    server.join(10)
    least = sites * (1 + days * -(-rows // PAGE))
    status = Counter(code for _, code in log)
    spans = (len(log) - 1) // PER_MINUTE
    used = spans * SPAN_S / (log[spans * PER_MINUTE][0] - log[0][0]) if spans else float("nan")
    most = SPAN_S / (SPAN_S + MARGIN_S)
    print(
        f"{sites:2} sites x {days} days: {stored} stored in {seconds:.0f} s; {len(log)} requests, "
        f"{len(log) / least - 1:.1%} above the least {least}; 429s {status[429]}; {used:.1%} of the budget over "
        f"{spans} minutes' worth ({most:.1%} is the most that the margin leaves)",
        flush=True,
    )


def main() -> None:
    """Measure one case, or the three in turn."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--sites", type=int)
    arguments.add_argument("--days", type=int, default=2)
    chosen = arguments.parse_args()
    for sites, days in [(chosen.sites, chosen.days)] if chosen.sites else [(1, 4), (3, 2), (10, 1)]:
        measure(sites, days)


if __name__ == "__main__":
    main()
