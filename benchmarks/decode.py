"""Decoding a page of 100,000 rows: this project's reader against `json` with pandas, and polars, on one core.

Each reader takes a page in turn, several rounds long; printed are raw samples a second, and how many times as fast as
`json` with pandas in the same run. What polars does here is less than the others: it leaves values and times as text.

    python benchmarks/decode.py
"""

import os

os.environ["POLARS_MAX_THREADS"] = "1"

import io
import json
import random
import time
from collections.abc import Callable
from datetime import datetime, timedelta

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa

from backfill_pipeline.ace.decode import decode_page

ROWS = 100_000
ROUNDS = 7


def page_of(*, shared: bool, mixed: bool) -> bytes:
    """A page of ACE's shape: 2,400 points; `shared`: all of a sweep at one timestamp; `mixed`: values of every kind."""
    draw = random.Random(1)  # noqa: S311 - a benchmark needs the same page each time
    names = sorted(f"client/ses_falls_city/8000:33-{n:06d}/analogInput/{n % 40}/{'x' * 50}" for n in range(2_400))
    rows = []
    start = datetime(2025, 10, 12)  # noqa: DTZ001 - ACE's times are naive
    for number in range(ROWS):
        sweep, point = divmod(number, len(names))
        own = timedelta(0) if shared else timedelta(microseconds=point * 997)
        text = repr(round(draw.uniform(-50, 1500), draw.choice([1, 2, 4, 14])))
        kind = draw.randrange(8) if mixed else 0
        value = [text, text, None, float(text), int(float(text)), True, "active", "NaN"][kind]
        when = start + sweep * timedelta(minutes=5, microseconds=55_960) + own
        rows.append({"name": names[point], "value": value, "time": when.isoformat()})
    return (
        json.dumps({"point_samples": rows, "next_cursor": "eyJvZmZzZXQiOiAxfQ==", "has_more": True}) + "\n"
    ).encode()


def with_pandas(body: bytes) -> object:
    """The same columns, with what most people reach for."""
    frame = pd.DataFrame(json.loads(body)["point_samples"])
    code, names = pd.factorize(frame["name"])
    time_us = pd.to_datetime(frame["time"], utc=True, format="ISO8601").astype("int64") // 1000
    value = pd.to_numeric(frame["value"], errors="coerce")
    return names, code, time_us, value.where(np.isfinite(value))


def with_polars(body: bytes) -> object:
    """The fastest reader of a library that was found, parsing alone."""
    row = pl.Struct({"name": pl.String, "value": pl.String, "time": pl.String})
    answer = pl.read_json(io.BytesIO(body), schema={"point_samples": pl.List(row)})
    return answer.explode("point_samples").unnest("point_samples")


READERS: dict[str, Callable[[bytes], object]] = {
    "json + pandas": with_pandas,
    "polars, parsing alone": with_polars,
    "decode_page": decode_page,
}


def main() -> None:
    """Measure, and print a table."""
    pa.set_cpu_count(1)
    pages = {
        "documented, sweeps share a timestamp": page_of(shared=True, mixed=False),
        "documented, every time different": page_of(shared=False, mixed=False),
        "values as text, number, word, bool, null, NaN": page_of(shared=True, mixed=True),
    }
    for title, body in pages.items():
        best = dict.fromkeys(READERS, float("inf"))
        for _ in range(ROUNDS):
            for name, reader in READERS.items():
                started = time.process_time()
                reader(body)
                best[name] = min(best[name], time.process_time() - started)
        print(f"{title}: {ROWS:,} rows, {len(body) / ROWS:.0f} bytes a row")
        for name, seconds in best.items():
            ratio = best["json + pandas"] / seconds
            print(f"  {name:<24}{ROWS / seconds / 1e6:6.2f} M samples a CPU second {ratio:6.1f} x")


if __name__ == "__main__":
    main()
