"""From a bucket to a year of several points, found by words: mean, and the band from minimum to maximum.

    python examples/year.py my_site "zone temp" 2025-01-01 2026-01-01 Europe/Berlin year.png

Run it as a script, or cell by cell in an editor that knows `# %%`. The store is the one that the settings name
(`BACKFILL_STORE` and the `AWS_...` variables, or `.env`). Needs `pip install 'backfill-pipeline[read]'`.
"""

# %% What to draw: days are local days of the time zone
import sys
from datetime import datetime
from zoneinfo import ZoneInfo

from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure

from backfill_pipeline import read

MOST = 8
site, words, first, end, zone, out = sys.argv[1:]
start, stop = (datetime.fromisoformat(day).replace(tzinfo=ZoneInfo(zone)) for day in (first, end))

# %% Find the points
found = read.points(site, words=words)
names = found["name"].to_pylist()[:MOST]
if not names:
    sys.exit(f"no point of site {site!r} has the words {words!r} in its name, description, unit, tags or device")

# %% Read the chart: from stored hourly values where they are current, else from samples
chart = read.chart(site, names, start, stop, width=1000, tz=zone)
print(f"{list(chart.sources.values()).count('rollup')} of {len(chart.sources)} days from hourly values")  # noqa: T201 - a script
for day in chart.missing:
    print(f"{day} is not stored", file=sys.stderr)  # noqa: T201 - a script

# %% Draw it: a row without figures is a gap, and the line breaks there
figure = Figure(figsize=(12, 2.2 * len(names)), layout="constrained")
for axes, series in zip(figure.subplots(len(names), sharex=True, squeeze=False)[:, 0], chart.series, strict=True):
    rows = series.rows.to_pandas()
    axes.fill_between(rows["timestamp"], rows["min"], rows["max"], color="#9ecae1", linewidth=0)
    axes.plot(rows["timestamp"], rows["mean"], color="#08519c", linewidth=1)
    axes.set_title((series.description or series.point).replace("$", r"\$"), loc="left", fontsize=9)
    axes.set_ylabel((series.unit or "value").replace("$", r"\$"))
    axes.grid(alpha=0.3)
locator = AutoDateLocator(tz=ZoneInfo(zone))
axes.xaxis.set_major_locator(locator)
axes.xaxis.set_major_formatter(ConciseDateFormatter(locator, tz=ZoneInfo(zone)))
axes.set_xlim(start, stop)
axes.set_xlabel(f"time ({zone})")
figure.savefig(out, dpi=120)
