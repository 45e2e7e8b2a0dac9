"""Puts that are killed at random instants, and what a listing of the store shows afterwards.

Put here: the killing and the looking. Keep out: what is asserted in the test suite (`test_kills.py`). For longer runs:

    python -m backfill_pipeline_tests.storage.kills --times 100
"""

import argparse
import logging
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from datetime import date
from pathlib import Path

import numpy as np

from backfill_pipeline.core.rows import Chunk, Counts, DayRows
from backfill_pipeline.storage.days import day_footer, get_day, put_day, wrong_object
from backfill_pipeline.storage.local import PARTS, LocalStore
from backfill_pipeline.storage.parquet import row_findings
from backfill_pipeline.storage.store import Store
from backfill_pipeline.storage.store_urls import open_store
from backfill_pipeline_tests.storage.bucket import BUCKET, KEY, SECRET, bucket_server, client

DAY, ROWS = date(2024, 2, 29), 400_000
OLD, NEW = "replaced", "new"
"""Two sites: the object of one is there before a put is killed, that of the other is not."""


def day_of(site: str, seed: int) -> DayRows:
    """Some megabytes that compress badly, so that a put takes its time."""
    values = np.random.default_rng(seed).random(ROWS)
    chunk = Chunk(np.zeros(ROWS, np.int32), np.arange(ROWS, dtype=np.int32), values)
    return DayRows(site, DAY, ["p"], [chunk], Counts(ROWS, ROWS))


def store_at(place: str) -> Store:
    """A folder, or the made-up bucket at an endpoint."""
    if place.startswith("http"):
        return open_store(f"s3://{BUCKET}", access_key=KEY, secret=SECRET, endpoint=place, region="auto")
    return open_store(place)


def putter(place: str, seed: int) -> None:
    """A process: says when it begins, puts both days, says when it is done."""
    store = store_at(place)
    days = [day_of(site, seed) for site in (NEW, OLD)]
    store.head("warm")
    print("begin", flush=True)  # noqa: T201 - what the killer waits for
    for day in days:
        put_day(store, day)
    print("done", flush=True)  # noqa: T201


def started(place: str, seed: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "backfill_pipeline_tests.storage.kills", "--put", place, "--seed", str(seed)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def kill_puts(place: str, times: int, rng: random.Random) -> Counter[str]:
    """Kill that many puts, look at the store after each, and count what was seen.

    `half` counts objects that are not whole days, `left` what is still beside the objects after the last put.
    """
    store, seen = store_at(place), Counter[str]()
    put_day(store, day_of(OLD, 0))
    with started(place, 0) as first:  # how long an undisturbed put takes
        first.stdout.readline()
        began = time.monotonic()
        first.stdout.readline()
        usual = time.monotonic() - began
    for number in range(times):
        for stat in list(store.list("")):
            if NEW in stat.key:
                store.delete(stat.key)
        with started(place, number + 1) as process:
            process.stdout.readline()
            time.sleep(rng.random() * usual)
            is_done = process.poll() is not None
            seen["done before the kill" if is_done else "killed"] += 1
            process.send_signal(getattr(signal, "SIGKILL", signal.SIGTERM))
        if is_done:  # the machine was busy while the first one was timed
            usual /= 2
        look(store, seen)
    put_day(store, day_of(NEW, times + 1))
    seen["left"] = left_beside(place, store)
    return seen


def look(store: Store, seen: Counter[str]) -> None:
    """Hold every object in the store against the contract, to the last row."""
    for stat in list(store.list("")):
        site = Path(stat.key).stem
        wrong = wrong_object(store, site, DAY, stat.bytes)
        if not wrong:
            wrong = row_findings(get_day(store, site, DAY), day_footer(store, site, DAY), site, DAY)
        seen["half" if wrong else f"whole, {site}"] += 1


def left_beside(place: str, store: Store) -> int:
    """Parts of files, or uploads that were begun."""
    if isinstance(store, LocalStore):
        return len(list((store.folder / PARTS).iterdir()))
    return len(client(place).list_multipart_uploads(Bucket=BUCKET).get("Uploads", []))


def main() -> None:
    """Kill puts into a folder and into a bucket, and print what was seen."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--times", type=int, default=100)
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--put", metavar="PLACE", help="be the process that puts")
    chosen = arguments.parse_args()
    if chosen.put:
        putter(chosen.put, chosen.seed)
        return
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        print("folder", dict(kill_puts(folder, chosen.times, random.Random(chosen.seed))))  # noqa: S311, T201
    with bucket_server() as proxy:
        print("bucket", dict(kill_puts(proxy.direct, chosen.times, random.Random(chosen.seed))))  # noqa: S311, T201


if __name__ == "__main__":
    main()
