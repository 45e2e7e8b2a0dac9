"""The lines of `docs/reading.md`, run over a made-up store, and the bytes that they read.

Put here: how the lines are found, run and watched. Keep out: what is asserted (`test_reading.py`). Over a whole year of
seed-shaped days (2,600 points, a sample a minute), which takes some minutes and 2 GB of disk:

    python -m backfill_pipeline_tests.storage.reading
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np

from backfill_pipeline.core.rows import Chunk, Counts, DayRows
from backfill_pipeline.storage.days import put_day
from backfill_pipeline.storage.local import LocalStore
from backfill_pipeline.storage.parquet import Encoding

DOCUMENT = Path(__file__).parents[2] / "docs" / "reading.md"
SITE, POINT, TWIN = "my_site", "client/my_site/10.0.0.7-107/analogInput/3", "warm"
READERS = ("duckdb", "polars", "pandas")
_TIME = {
    "duckdb": " AND timestamp >= {FROM} AND timestamp < {TO}",
    "polars": ', pl.col("timestamp") >= FROM, pl.col("timestamp") < TO',
    "pandas": ', ("timestamp", ">=", FROM), ("timestamp", "<", TO)',
}

_WATCHED = """
import json, sys
from pathlib import Path

def read_so_far():
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(lines[0].split()[1])

setup, code, warm = json.loads(sys.argv[1])
exec(setup)
exec(warm)  # what a library reads of itself when it is first used does not count
before = read_so_far() if Path("/proc/self/io").exists() else 0
exec(code)
after = read_so_far() if Path("/proc/self/io").exists() else 0
frame = rows.to_pandas() if hasattr(rows, "to_pandas") else rows
print(json.dumps([after - before, frame["timestamp"].astype("int64").tolist(), frame["value"].tolist()]))
"""


def blocks() -> dict[str, str]:
    """The document's titled blocks of code."""
    return dict(re.findall(r"```python (\w+)\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL))


def run(reader: str, folder: Path, *, timed: bool = True) -> tuple[int, list[int], list[float]]:
    """Run a reader's line where `data/` is a store: bytes read (Linux alone knows), times and values.

    polars maps local files into memory, where no reading can be counted: it is told to read them as it reads a bucket.
    """
    code = blocks()[reader]
    if not timed:
        assert _TIME[reader] in code
        code = code.replace(_TIME[reader], "")
    warm = code.replace(f"{SITE}.parquet", f"{TWIN}.parquet")
    done = subprocess.run(
        [sys.executable, "-c", _WATCHED, json.dumps([blocks()["setup"], code, warm])],
        capture_output=True,
        text=True,
        cwd=folder,
        env=os.environ | {"POLARS_FORCE_ASYNC": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    count, times, values = json.loads(done.stdout.splitlines()[-1])
    return count, times, values


def day_of(controllers: int, every_s: int) -> DayRows:
    """A day of controllers with 100 points each, one of them the document's."""
    names = sorted(
        {f"client/my_site/10.0.0.{c}-{100 + c}/analogInput/{p}" for c in range(controllers) for p in range(100)}
        | {POINT}
    )
    rng = np.random.default_rng(7)
    times = np.arange(0, 86_400, every_s) * 1000
    late = rng.integers(0, 1000, (controllers, len(times)))
    ms = (times + late[np.arange(len(names)) * controllers // len(names)]).astype(np.int32)
    values = (200 + np.cumsum(rng.choice([0, 0, 0, 1, -1], ms.shape), axis=1)) / 10
    code = np.repeat(np.arange(len(names), dtype=np.int32), len(times))
    return DayRows(SITE, date(2025, 1, 1), names, [Chunk(code, ms.ravel(), values.ravel())], Counts(ms.size, ms.size))


def fill(folder: Path, day: DayRows, days: list[date], encoding: Encoding | None = None) -> int:
    """Store the same rows as each of `days`, and a small twin of the site to warm the readers up; the bytes."""
    store = LocalStore(folder / "data")
    small = day_of(1, 3600)
    put_day(store, replace(small, site=TWIN, day=date(2025, 6, 15)))
    return sum(put_day(store, replace(day, day=day_), encoding=encoding).bytes for day_ in days)


def main() -> None:
    """Fill a year, and print what each line reads of it."""
    with tempfile.TemporaryDirectory() as name:
        year = [date(2025, 1, 1) + timedelta(days=number) for number in range(365)]
        stored = fill(Path(name), day_of(26, 60), year)
        print(f"stored {stored / 1e6:,.0f} MB")  # noqa: T201
        for reader in READERS:
            for title, timed in (("year", False), ("June", True)):
                count, times, _ = run(reader, Path(name), timed=timed)
                print(f"{reader} {title}: {count / 1e6:,.1f} MB read for {len(times):,} rows")  # noqa: T201


if __name__ == "__main__":
    main()
