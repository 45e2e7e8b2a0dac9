"""Row groups, codecs and timestamp encodings against the seed's layout: size, encoding time, readers' time.

A day has the seed's shape: 2,600 points (26 controllers of 100), a sample a minute, 3.74 million rows. A controller's
sweep has one timestamp, up to a second late. With `--jitter sample` every sample has its own timestamp, with `--jitter
none` every sample has the exact minute, and with `--jitter second` 43 points have a sample each second. Of the points
30 % are states and setpoints that seldom change, 68 % measurements in steps of 0.1 of which two in five samples differ
from the one before, 2 % carry every digit of a float64.

`--distinct` days are made; the others are further names of the same files. Each layout is encoded in a process of its
own; a query's time is the best of three, files in the page cache. `point KB` is what a reader of one point's times and
values has to read of a day, by the footer: the row groups that may hold it, and the footer.

    python benchmarks/layouts.py
    python benchmarks/layouts.py --days 3 --distinct 1 --jitter sample --sizes-only
    python benchmarks/layouts.py --only "65k delta" --only "65k dictionary" --only 65k
"""

import argparse
import multiprocessing
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import psutil
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from backfill_pipeline.core.day import DAY_MS
from backfill_pipeline.core.rows import Chunk, Counts, DayRows
from backfill_pipeline.core.schema import SCHEMA
from backfill_pipeline.storage.parquet import Encoding, decode, encode

DAY = date(2025, 3, 1)
CONTROLLERS, POINTS, MINUTES = 26, 100, 1_440
WINDOWS = 12
KINDS = ("analogInput", "analogValue", "binaryInput")


@dataclass(frozen=True)
class Layout:
    """A way to lay out a day; without an encoding the seed's: time order, no dictionary, groups of 10,000."""

    title: str
    encoding: Encoding | None


LAYOUTS = [
    Layout("seed 10k", None),
    *(Layout(f"{rows // 1000}k", Encoding(row_group_rows=rows)) for rows in (10_000, 65_536, 131_072, 262_144)),
    Layout("1M", Encoding(row_group_rows=1_048_576)),
    Layout("131k zstd", Encoding("zstd", 131_072)),
    Layout("65k delta", Encoding(timestamps="delta")),
    Layout("65k dictionary", Encoding(timestamps="dictionary")),
]


def seed_shaped(number: int, jitter: str) -> DayRows:
    """The day of that number, always the same."""
    rng = np.random.default_rng(number)
    controllers, each, sweeps = (1, 43, 86_400) if jitter == "second" else (CONTROLLERS, POINTS, MINUTES)
    count = controllers * each
    names = sorted(
        f"client/ses_falls_city/10.0.{c // 250}.{c % 250}-{100 + c}/{KINDS[p % 3]}/{p}"
        for c in range(controllers)
        for p in range(each)
    )
    late = np.zeros((count, sweeps), np.int64)
    if jitter == "sweep":
        late = np.repeat(rng.integers(0, 1000, (controllers, sweeps)), each, axis=0)
    if jitter == "sample":
        late = rng.integers(0, 1000, (count, sweeps))
    ms = (np.arange(sweeps) * (DAY_MS // sweeps) + late).astype(np.int32)
    kind = rng.random(count)
    steps = rng.choice([0, 0, 0, 1, -1], (count, sweeps))
    values = (200 + rng.integers(0, 300, (count, 1)) + np.cumsum(steps, axis=1)) / 10
    seldom = kind < 0.30
    values[seldom] = np.cumsum(rng.random((int(seldom.sum()), sweeps)) < 0.005, axis=1) % 2
    full = kind > 0.98
    values[full] += rng.random((int(full.sum()), sweeps))
    chunks = []
    for part in np.array_split(np.arange(sweeps), WINDOWS):
        code = np.repeat(np.arange(count, dtype=np.int32), len(part))
        chunks.append(Chunk(code, ms[:, part].ravel(), values[:, part].ravel()))
    return DayRows("ses_falls_city", DAY + timedelta(days=number), names, chunks, Counts(values.size, values.size))


def seed_file(day: DayRows) -> bytes:
    """The day as the worker that is replaced writes it."""
    table = decode(encode(day).data).sort_by([("timestamp", "ascending")])
    sink = pa.BufferOutputStream()
    pq.write_table(table.cast(SCHEMA), sink, row_group_size=10_000, use_dictionary=False, compression="snappy")
    return bytes(sink.getvalue().to_pybytes())


def write(layout: Layout, folder: Path, distinct: int, jitter: str, results: "multiprocessing.Queue[object]") -> None:
    """A process: encodes the days; reports bytes, rows, seconds of the fastest, and megabytes that encoding added."""
    best, size, rows, added = float("inf"), 0, 0, 0.0
    for number in range(distinct):
        day = seed_shaped(number, jitter)
        with watched() as peak:
            started = time.perf_counter()
            data = seed_file(day) if layout.encoding is None else encode(day, encoding=layout.encoding).data
            best = min(best, time.perf_counter() - started)
        added = max(added, peak[0])
        (folder / f"{number}.parquet").write_bytes(data)
        size, rows = len(data), day.counts.kept
    results.put((size, rows, best, added))


@contextmanager
def watched() -> Iterator[list[float]]:
    """The megabytes by which this process's resident memory grows at most, looked at every 2 ms."""
    process, peak, ended = psutil.Process(), [0.0], threading.Event()
    before = process.memory_info().rss

    def watch() -> None:
        while not ended.wait(0.002):
            peak[0] = max(peak[0], (process.memory_info().rss - before) / 1e6)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peak
    finally:
        ended.set()
        watcher.join()


def point_bytes(path: Path, point: str) -> int:
    """What a reader of one point's times and values has to read."""
    meta = pq.read_metadata(path)
    total = meta.serialized_size
    for number in range(meta.num_row_groups):
        columns = [meta.row_group(number).column(column) for column in range(3)]
        if columns[1].statistics.min <= point <= columns[1].statistics.max:
            total += sum(column.total_compressed_size for column in columns)
    return total


def queries(files: list[Path], point: str) -> dict[str, Callable[[], float]]:
    """One point's sum, and every point's mean, by each reader."""
    names = [str(file) for file in files]
    listed = "[" + ", ".join(f"'{name}'" for name in names) + "]"
    dataset = ds.dataset(names)

    def scanned() -> float:
        batches = dataset.to_batches(columns=["point_name", "value"])
        return float(sum(pc.sum(batch["value"]).as_py() or 0 for batch in batches))

    return {
        "duckdb point": lambda: duckdb.sql(
            f"SELECT sum(value) FROM read_parquet({listed}) WHERE point_name = '{point}'"  # noqa: S608 - our own names
        ).fetchall()[0][0],
        "polars point": lambda: (
            pl.scan_parquet(names).filter(pl.col("point_name") == point).select(pl.col("value").sum()).collect().item()
        ),
        "arrow point": lambda: pc.sum(
            dataset.to_table(columns=["timestamp", "value"], filter=pc.field("point_name") == point)["value"]
        ).as_py(),
        "duckdb scan": lambda: duckdb.sql(
            f"SELECT point_name, avg(value) FROM read_parquet({listed}) GROUP BY 1"  # noqa: S608 - our own names
        ).fetchall()[0][1],
        "polars scan": lambda: (
            pl.scan_parquet(names).group_by("point_name").agg(pl.col("value").mean()).collect()["value"][0]
        ),
        "arrow scan": scanned,
    }


def milliseconds(query: Callable[[], float]) -> float:
    """The best of three."""
    best = float("inf")
    for _ in range(3):
        started = time.perf_counter()
        query()
        best = min(best, time.perf_counter() - started)
    return best * 1000


def main() -> None:
    """Measure the layouts in turn, and print a table."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--days", type=int, default=30)
    arguments.add_argument("--distinct", type=int, default=3)
    arguments.add_argument("--jitter", choices=["sweep", "sample", "none", "second"], default="sweep")
    arguments.add_argument("--sizes-only", action="store_true")
    arguments.add_argument("--only", action="append", help="a layout's title; may be given several times")
    chosen = arguments.parse_args()
    spawn = multiprocessing.get_context("spawn")
    point = seed_shaped(0, chosen.jitter).points[12]
    print(f"{'layout':<14} {'B/row':>6} {'Mrows/s':>8} {'+MB':>6} {'groups':>6} {'point KB':>9}  milliseconds")
    for layout in LAYOUTS:
        if chosen.only and layout.title not in chosen.only:
            continue
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            results = spawn.Queue()
            process = spawn.Process(target=write, args=(layout, folder, chosen.distinct, chosen.jitter, results))
            process.start()
            size, rows, seconds, added = results.get()
            process.join()
            for number in range(chosen.distinct, chosen.days):
                (folder / f"{number}.parquet").hardlink_to(folder / f"{number % chosen.distinct}.parquet")
            files = sorted(folder.iterdir())
            groups = pq.read_metadata(files[0]).num_row_groups
            line = f"{layout.title:<14} {size / rows:>6.2f} {rows / seconds / 1e6:>8.2f} {added:>6.0f} {groups:>6}"
            line += f" {point_bytes(files[0], point) / 1000:>9,.0f} "
            if not chosen.sizes_only:
                for title, query in queries(files, point).items():
                    line += f" {title} {milliseconds(query):,.0f}"
            print(line, flush=True)


if __name__ == "__main__":
    main()
