"""A site's days out of a slow and faulty API: requests and seconds against the least possible.

Every scenario fetches the same days (some 5,000 points, a sample in five minutes: 1.4 million rows a day) from a
simulator in a process of its own, which refuses pages above 50,000 rows, and compares them with the truth. `least` is
a full page for every 50,000 rows; `one walk` is how long these pages take in sequence at the scenario's latency.

    python benchmarks/day.py
    python benchmarks/day.py --only slow --days 2
"""

import argparse
import multiprocessing
import multiprocessing.connection
import tempfile
import time
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

from backfill_pipeline.ace.budget import open_budget
from backfill_pipeline.ace.client import AceClient
from backfill_pipeline.ace.fetch import Fetcher
from backfill_pipeline.ace.retry import Retries
from backfill_pipeline.simulator.app import DEFAULT_KEY, Simulator
from backfill_pipeline.simulator.faults import Fault
from backfill_pipeline.simulator.world import demo_world

SITE, POINTS, LARGEST = "site", 4_565, 50_000
DAY = date(2025, 10, 12)


@dataclass(frozen=True)
class Scenario:
    """How the API behaves: seconds an answer takes, seconds more for each row, and the share of requests that fail."""

    latency_s: float = 0.0
    per_row_s: float = 0.0
    broken: float = 0.0
    per_minute: int = 50


SCENARIOS = {
    "loopback": Scenario(per_minute=100_000),
    "slow": Scenario(per_row_s=7 / 50_000),
    "distant": Scenario(latency_s=2.0),
    "faulty": Scenario(latency_s=1.0, broken=0.02),
    "broken": Scenario(latency_s=2.0, broken=0.10),
}


def serve(scenario: Scenario, days: list[date], pipe: "multiprocessing.connection.Connection") -> None:
    """A process: the API; sends its address, then, when asked, what it was asked and the truth's size."""
    kinds = ("truncate", "status", "html")
    faults = [Fault("max_page", options={"rows": LARGEST})]
    faults += [Fault(kind, share=scenario.broken / len(kinds)) for kind in kinds if scenario.broken]
    world = demo_world({SITE: POINTS})
    truth = [len(world.truth(SITE, day)) for day in days]
    with Simulator(world, faults=faults, latency_s=scenario.latency_s, latency_per_row_s=scenario.per_row_s) as api:
        pipe.send((api.url, truth))
        pipe.recv()
        pipe.send([request.status for request in api.requests if request.path.endswith("/paginated")])


def measure(name: str, days: list[date]) -> None:
    """Fetch the days in one scenario, and print a line a day."""
    scenario = SCENARIOS[name]
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    server = spawn.Process(target=serve, args=(scenario, days, theirs), daemon=True)
    server.start()
    url, truth = ours.recv()
    with tempfile.TemporaryDirectory() as folder:
        ledger = f"sqlite:///{(Path(folder) / 'budget.sqlite').as_posix()}"
        budget = open_budget(ledger, key_id="bench", per_minute=scenario.per_minute)
        client = AceClient(url, DEFAULT_KEY, budget, retries=Retries())
        fetcher = Fetcher(client, spool=Path(folder) / "spool", requests_per_minute=scenario.per_minute)
        started = time.monotonic()
        for day, expected in zip(fetcher.days(SITE, days), truth, strict=True):
            if day.rows is None:
                raise SystemExit(f"{day.day}: {day.error}")
            seconds, started = time.monotonic() - started, time.monotonic()
            counts = day.rows.counts
            least = -(-counts.fetched // LARGEST)
            walk = least * scenario.latency_s + counts.fetched * scenario.per_row_s
            ratio = f", {seconds / walk:.2f} of one walk's {walk:.0f} s" if walk else ""
            print(
                f"{name:<9} {day.day} {counts.fetched:,} rows, {counts.kept - expected} off the truth; "
                f"{day.requests} requests ({day.retries} failed, least {least}); {seconds:.1f} s, "
                f"{counts.fetched / seconds:,.0f} rows/s{ratio}",
                flush=True,
            )
            day.discard()
    ours.send("done")
    ours.recv()
    server.join(10)


def main() -> None:
    """Measure the scenarios in turn."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--only", choices=SCENARIOS, action="append")
    arguments.add_argument("--days", type=int, default=2)
    chosen = arguments.parse_args()
    for name in chosen.only or SCENARIOS:
        measure(name, [DAY + timedelta(days=number) for number in range(chosen.days)])


if __name__ == "__main__":
    main()
