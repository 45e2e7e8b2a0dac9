"""The API at its worst for hours, in compressed time: each fault alone, then all of them together, again and again.

Nothing waits: an hour is what the budget lets leave in one, 3,000 requests. What fails is asked for again, as an
operator would, until it is stored; then it is held against the truth. Put here: the weather and the count of what it
cost. Keep out: processes that die (`fire.py`), what the suite runs of it (`test_storm.py`). For longer runs:

    python -m backfill_pipeline_tests.journeys.storm --hours 8
"""

import argparse
import json
import random
import tempfile
import threading
from collections import Counter
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path

import pyarrow.parquet as pq

from backfill_pipeline.ace.client import AceClient
from backfill_pipeline.ace.fetch import Fetcher
from backfill_pipeline.ace.outage import OutageGate
from backfill_pipeline.ace.retry import Retries
from backfill_pipeline.core.backoff import Backoff
from backfill_pipeline.core.object_keys import object_key
from backfill_pipeline.core.rows import UNREADABLE
from backfill_pipeline.errors import BackfillError
from backfill_pipeline.simulator.app import Simulator
from backfill_pipeline.simulator.faults import KINDS, Fault
from backfill_pipeline.simulator.world import SiteSpec, World
from backfill_pipeline.storage.days import put_day
from backfill_pipeline.storage.local import LocalStore
from backfill_pipeline_tests.ace.test_client import FreeBudget
from backfill_pipeline_tests.builders import listed

FIRST = date(2025, 3, 1)
SITES = ("north", "Büro 1")
SIZES = (100, 500, 1_000)
AN_HOUR = 3_000
"""Requests that 50 a minute let leave in an hour."""

WEATHER = sorted(set(KINDS) - {"bucketed", "rfc822"})
"""Faults that strike; an aggregated page of a single time, such as a window's last, cannot be told from a raw one, and
dates of HTTP headers have no milliseconds."""

AT_MOST = dict.fromkeys(("no_rows", "expire", "forbid", "stall"), 1) | {"other_site": 2}
"""How often some strike in a weather: what comes twice, or three times in a row, is believed."""

ALWAYS = frozenset(
    {
        "cursor_field",
        "more_at_end",
        "max_page",
        "slow_page",
        "late_cursor",
        "no_data",
        "numbers",
        "zulu",
        "offset",
        "epoch_ms",
        "padded",
    }
)
"""Faults that are there or not for as long as a weather lasts."""

WORST = 0.15
"""No fault among many strikes a larger share of the requests: together, one request in two still fails."""


@dataclass
class Toll:
    """What it came to.

    Attributes:
        days: site-days that were stored.
        requests: sample requests that were answered, or cut.
        failed: by error, how often a day, or all of a site, had to be asked for again.
        struck: kinds of fault that were among those of a weather.
        wrong: objects that are not what the world holds (they may lack rows that they count as unreadable).
        given_up: site-days that failed however often they were asked for.
    """

    days: int = 0
    requests: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    struck: set[str] = field(default_factory=set)
    wrong: list[str] = field(default_factory=list)
    given_up: list[str] = field(default_factory=list)


class _Hurried(threading.Event):
    """Waits of a client, shortened to `seconds`."""

    def __init__(self, seconds: float = 0) -> None:
        super().__init__()
        self._seconds = seconds

    def wait(self, timeout: float | None = None) -> bool:
        return super().wait(self._seconds if timeout else timeout)


def storm(folder: Path, *, hours: float, seed: int = 1) -> Toll:
    """Fetch and store days in one weather after another; each fault alone comes first, however short the time."""
    rng, toll, store = random.Random(seed), Toll(), LocalStore(folder / "data")  # noqa: S311 - a weather, no secret
    world = World([SiteSpec(name, 12, interval_s=600) for name in SITES])
    day = FIRST
    alone = [[_fault(kind, rng, 0.3)] for kind in WEATHER]
    while alone or toll.requests < hours * AN_HOUR:
        faults = alone.pop(0) if alone else [_fault(kind, rng, rng.random() * WORST) for kind in _some(rng)]
        toll.struck.update(fault.kind for fault in faults)
        _sail(world, store, folder, day, faults, rng, toll)
        day += timedelta(days=2)
    return toll


def _some(rng: random.Random) -> list[str]:
    """All kinds at once every other time, else some of them."""
    return WEATHER if rng.random() < 0.5 else rng.sample(WEATHER, rng.randrange(2, len(WEATHER)))


def _fault(kind: str, rng: random.Random, share: float) -> Fault:
    options = {"rows": str(rng.choice(SIZES[:-1]))} if kind in ("max_page", "slow_page") else {}
    if kind == "outage":
        options = {"seconds": "0.3", "code": rng.choice(["0", "502", "503", "504"])}
    if kind == "stall":
        options = {"seconds": "3"}
    if kind == "throttle":
        options = {"retry_after": rng.choice(["0", "7", "none", "Wed, 21 Oct 2015 07:28:00 GMT"])}
    if kind == "status":
        options = {"code": rng.choice(["500", "502", "503", "504", "520", "408"])}
    share = 1.0 if kind in ALWAYS or kind in AT_MOST else share
    return Fault(kind, share, rng.randrange(12), AT_MOST.get(kind), None, options)


def _sail(
    world: World, store: LocalStore, folder: Path, day: date, faults: list[Fault], rng: random.Random, toll: Toll
) -> None:
    """Two days of each site in one weather, asked for until they are stored."""
    days = [day, day + timedelta(days=1)]
    with Simulator(world, api_key="k", faults=faults) as api:
        for site in SITES:
            left = list(days)
            for _ in range(30):
                retries = Retries(Backoff(first_s=0, most_s=0), _Hurried())
                outage = OutageGate(minutes=60, answered=True, stop=_Hurried(0.02))
                client = AceClient(api.url, "k", FreeBudget(), retries=retries, patience=0.05, outage=outage)
                fetcher = Fetcher(client, spool=folder / "spool", max_page_size=rng.choice(SIZES))
                left = _asked(fetcher, store, site, left, toll)
                if not left:
                    break
            toll.given_up += [f"{site} {one}: {[fault.kind for fault in faults]}" for one in left]
            for one in set(days) - set(left):
                toll.days += 1
                if not _is_true(folder / "data" / object_key(site, one), world.truth(site, one)):
                    toll.wrong.append(f"{site} {one}: {[fault.kind for fault in faults]}")
        toll.requests += sum(request.path.endswith("/paginated") for request in api.requests)


def _is_true(path: Path, truth: list[tuple[int, str, float]]) -> bool:
    """Whether an object has the rows of the truth; it may lack those that its footer counts as unreadable."""
    dropped = json.loads(pq.read_metadata(path).metadata[b"dropped"])
    unreadable = sum(dropped.get(fault.name.lower(), 0) for fault in UNREADABLE)
    rows = listed(pq.read_table(path))
    return len(truth) - len(rows) <= unreadable and set(rows) <= set(truth) and len(set(rows)) == len(rows)


def _asked(fetcher: Fetcher, store: LocalStore, site: str, days: list[date], toll: Toll) -> list[date]:
    """Ask for days once, and store those that come; those that are left."""
    left = list(days)
    try:
        for fetched in fetcher.days(site, days):
            if fetched.rows is None:
                toll.failed[type(fetched.error).__name__] += 1
            else:
                put_day(store, fetched.rows, facts=fetched.facts)
                fetched.discard()
                left.remove(fetched.day)
    except BackfillError as error:  # it ends the run: a key or a site that was refused
        toll.failed[type(error).__name__] += 1
    return left


def main() -> None:
    """Run it, and print what came out; exit code 1 when anything was lost."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--hours", type=float, default=1)
    options.add_argument("--seed", type=int, default=1)
    asked = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        toll = storm(Path(folder), hours=asked.hours, seed=asked.seed)
    for name, value in vars(toll).items():
        print(f"{name:<10} {value}")  # noqa: T201 - what was asked for
    if toll.wrong or toll.given_up:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
