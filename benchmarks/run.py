"""A seed-sized day through this pipeline and through what people use instead: a table, and a plot.

6,500 points report every minute, 4,583 of them are configured: 9.4 million samples in 94 pages of 100,000, served over
loopback by a process that is not counted (`feeder.py`), without a limit. Every contender is a process of its own, from
its start to its end, imports included; they take turns, and medians are shown. dlt and the vendor's command are given a
tenth of the day (2.4 hours), since they would take too long for all of it; their figures are of that tenth.

    python benchmarks/run.py
    python benchmarks/run.py --times 5 --rivals /somewhere/venv --plot benchmarks.png

`--rivals` names an environment with `dlt[parquet]` and `aceiot-models-cli`, which this project does not need:

    python -m venv /somewhere/venv && /somewhere/venv/bin/pip install "dlt[parquet]" aceiot-models-cli pandas requests
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from feeder import Feed, served

HERE = Path(__file__).parent
FEED = Feed(6_500, 4_583)
DAY, DAYS = "2025-03-01T00:00:00Z", "2025-03-04T00:00:00Z"
ENDS = {"day": "2025-03-02T00:00:00Z", "tenth": "2025-03-01T02:24:00Z", "three days": DAYS}
SAMPLES = {"day": 6_500 * 1_440, "tenth": 6_500 * 144, "three days": 6_500 * 1_440 * 3}


@dataclass(frozen=True)
class Contender:
    """Who takes part: its title, its command less what is asked of it, and how much of the day it is given."""

    title: str
    command: tuple[str, ...]
    part: str = "day"


@dataclass(frozen=True)
class Measured:
    """One turn: seconds, CPU seconds, peak bytes of memory, bytes written."""

    seconds: float
    cpu: float
    peak: float
    written: float


def contenders(rivals: Path | None) -> list[Contender]:
    """All that can take part on this machine; who cannot is told."""
    script = (HERE / "contenders").joinpath
    found = [
        Contender("bare loop, same libraries", (sys.executable, str(script("bare.py")))),
        Contender("this pipeline, a day", (sys.executable, str(script("ours.py")))),
        Contender("this pipeline, three days", (sys.executable, str(script("ours.py"))), "three days"),
        Contender("requests + pandas", (sys.executable, str(script("plain.py")))),
    ]
    if node := shutil.which("node"):
        found.append(Contender("Node, as the old worker", (node, str(script("worker.js")))))
    else:
        print("left out: the Node script, since there is no node here")
    if rivals is None:
        print("left out: dlt and aceiot-models-cli, since --rivals names no environment that has them")
        return found
    return [
        *found,
        Contender("dlt rest_api", (str(rivals / "bin" / "python"), str(script("with_dlt.py"))), "tenth"),
        Contender("aceiot-models-cli", (str(rivals / "bin" / "aceiot-models-cli"),), "tenth"),
    ]


def turn(contender: Contender, url: str) -> Measured:
    """Let one run once."""
    end = ENDS[contender.part]
    folder = Path(tempfile.mkdtemp(prefix="backfill-bench-"))
    asked = [url, DAY, end, str(folder)]
    if contender.title.startswith("aceiot"):
        asked = ["--api-url", url, "--api-key", "key", "sites", "timeseries", "site", "--start", DAY, "--end", end]
        asked += ["--page-size", "100000", "--raw-data", "--output-file", str(folder / "site.parquet")]
    variables = os.environ | {"PYTHONPATH": str(HERE.parent), "HOME": str(folder), "DAGSTER_DISABLE_TELEMETRY": "1"}
    began = time.monotonic()
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([*contender.command, *asked], env=variables, cwd=folder, stdout=log, stderr=log)
        _, status, used = os.wait4(process.pid, 0)
    seconds = time.monotonic() - began
    if status:
        raise SystemExit(f"{contender.title}: {(folder / 'log').read_text(errors='replace')[-2000:]}")
    kinds = (".parquet", ".gz")
    written = sum(path.stat().st_size for path in folder.rglob("*") if path.suffix in kinds)
    shutil.rmtree(folder, ignore_errors=True)
    unit = 1 if sys.platform == "darwin" else 1024
    return Measured(seconds, used.ru_utime + used.ru_stime, used.ru_maxrss * unit, written)


def shown(contender: Contender, turns: list[Measured]) -> tuple[float, float]:
    """Print a line; samples a second, and peak MB."""
    samples = SAMPLES[contender.part]
    seconds, cpu, peak, written = (median(getattr(one, name) for one in turns) for name in vars(turns[0]))
    print(
        f"{contender.title:<26} {contender.part:<10} {seconds:>7.1f} {samples / seconds / 1e6:>8.3f} {cpu:>7.1f} "
        f"{peak / 1e6:>8,.0f} {written / samples * SAMPLES['day'] / 1e6:>8.1f}",
        flush=True,
    )
    return samples / seconds, peak / 1e6


def plotted(figures: dict[str, tuple[float, float]], path: Path) -> None:
    """Two bars for each: samples a second, and memory."""
    try:
        import matplotlib as mpl  # noqa: PLC0415 - not everybody has it
    except ImportError:
        print("no plot, since matplotlib is not installed: python -m pip install -e '.[bench]'")
        return

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415 - as above

    figure, axes = plt.subplots(1, 2, figsize=(11, 3.5), sharey=True, layout="constrained")
    titles = list(figures)[::-1]
    for axis, number, label in zip(axes, (0, 1), ("samples a second", "peak memory, MB"), strict=True):
        bars = axis.barh(titles, [figures[title][number] for title in titles])
        axis.bar_label(bars, fmt="{:,.0f}", padding=3)
        axis.set_xlabel(label)
        axis.margins(x=0.2)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Let all run in turn, as often as asked; print the medians."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--times", type=int, default=5)
    arguments.add_argument("--rivals", type=Path)
    arguments.add_argument("--plot", type=Path, default=Path("benchmarks.png"), help="needs the extra `bench`")
    chosen = arguments.parse_args()
    all_of_them = contenders(chosen.rivals)
    turns: dict[str, list[Measured]] = {one.title: [] for one in all_of_them}
    with served(FEED) as url:
        for _ in range(chosen.times):
            for one in all_of_them:
                turns[one.title].append(turn(one, url))
    title = f"medians of {chosen.times}"
    print(f"{title:<26} {'given':<10} {'s':>7} {'M/s':>8} {'CPU s':>7} {'MB':>8} {'MB/day':>8}")
    plotted({one.title: shown(one, turns[one.title]) for one in all_of_them}, chosen.plot)


if __name__ == "__main__":
    main()
