"""From a bucket to a chart: the hourly mean of a point, and its least and greatest value around it.

    python examples/chart.py my_site client/my_site/10.0.0.7-107/analogInput/3 2025-06-01 2025-07-01 june.png

The store is the one that the settings name (`BACKFILL_STORE` and the `AWS_...` variables, or `.env`). Needs
`pip install 'backfill-pipeline[read]'`.
"""

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure

from backfill_pipeline import read


def main(site: str, point: str, first: str, end: str, out: str) -> None:
    """Draw `first <= time < end`, both days in UTC, into the file `out`."""
    start, stop = (datetime.fromisoformat(day).replace(tzinfo=UTC) for day in (first, end))
    found = read.samples(site, start, stop, points=point)
    hours = found.resampled(timedelta(hours=1), ["mean", "min", "max"]).to_pandas()
    hours = hours.set_index("timestamp").asfreq("h")  # an hour without a sample is a hole in the line, not a bridge

    figure = Figure(figsize=(10, 4), layout="constrained")
    axes = figure.subplots()
    axes.fill_between(hours.index, hours["min"], hours["max"], color="#9ecae1", label="least to greatest")
    axes.plot(hours.index, hours["mean"], color="#08519c", linewidth=1.2, label="mean of the hour")
    locator = AutoDateLocator(tz=UTC)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator, tz=UTC))
    known = [row for row in read.points(site, at=start).to_pylist() if row["name"] == point]
    title, unit = (known[0]["description"] or point, known[0]["unit"]) if known else (point, None)
    axes.set(title=title.replace("$", r"\$"), xlabel="time (UTC)", ylabel=unit or "value", xlim=(start, stop))
    axes.grid(alpha=0.3)
    axes.legend(loc="upper right")
    figure.savefig(Path(out), dpi=120)
    for day in found.missing:
        print(f"{day} is not stored", file=sys.stderr)  # noqa: T201 - a script


if __name__ == "__main__":
    main(*sys.argv[1:])
