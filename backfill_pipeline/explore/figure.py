"""The figure of a chart as a Bokeh document, and the figures that fill it.

Put here: glyphs, axes, colours, and the JSON of a chart. Keep out: HTTP (`app.py`) and the page around it (`page/`).
"""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

from bokeh.core.types import ID
from bokeh.embed import json_item
from bokeh.models import ColumnDataSource, DataRange1d, FixedTicker, HoverTool, LinearAxis, PlainText, Range1d, VStrip
from bokeh.plotting import figure

from backfill_pipeline.core.text import printable
from backfill_pipeline.coverage.table import SiteDay, State
from backfill_pipeline.dataset.chart import Chart
from backfill_pipeline.explore.ticks import time_ticks

COLORS = {
    "light": ("#0b63ce", "#c2410c", "#15803d", "#7e22ce", "#b91c1c", "#0e7490", "#a16207", "#be185d"),
    "dark": ("#6cb2ff", "#ff9d5c", "#5fd38d", "#c79bff", "#ff8a8a", "#5ad1e6", "#e6c34a", "#ff8cc3"),
}
"""Colours of the series by theme, in the order of the points; the page shows them beside the names."""

TICK_WIDTH = 110
"""Pixels for each tick of the time axis."""

MOST_POINTS = len(COLORS["light"])

_THEMES = {"light": ("#ffffff", "#1b1b1b", "#dddddd"), "dark": ("#15181c", "#e6e6e6", "#3a3f45")}
"""Background, text and grid."""


def chart_item(chart: Chart, theme: str) -> dict[str, Any]:
    """The figure of a chart without rows, as BokehJS embeds it; its sources are named `series-0`, `series-1`, ...

    Each unit has an axis: the first one on the left, further ones on the right.
    """
    background, text, grid = _THEMES[theme]
    units = list(dict.fromkeys(one.unit or "" for one in chart.series))
    ranges = {unit: DataRange1d(range_padding=0.05) for unit in units}
    plot = figure(
        x_range=Range1d(start=_ms(chart.start), end=_ms(chart.end)),
        y_range=ranges[units[0]],
        tools="xpan,xwheel_zoom",
        active_scroll="xwheel_zoom",
        toolbar_location="above",
        sizing_mode="stretch_both",
        min_height=320,
        output_backend="canvas",
        background_fill_color=background,
        border_fill_color=background,
        outline_line_color=grid,
    )
    plot.toolbar.logo = None
    plot.xaxis.ticker = FixedTicker(ticks=[], name="ticks")
    plot.xaxis.name = "time-axis"
    plot.yaxis.axis_label = PlainText(text=printable(units[0]) or "no unit")
    plot.extra_y_ranges = {unit: ranges[unit] for unit in units[1:]}
    for unit in units[1:]:
        label = PlainText(text=printable(unit) or "no unit")
        plot.add_layout(LinearAxis(y_range_name=unit, axis_label=label), "right")
    shade = ColumnDataSource({"x0": [], "x1": [], "alpha": []}, name="days")
    strip = VStrip(x0="x0", x1="x1", fill_color=text, fill_alpha="alpha", line_alpha=0.0)
    plot.add_glyph(shade, strip, level="underlay")
    drawn: dict[str, list[Any]] = {unit: [] for unit in units}
    for number, (one, color) in enumerate(zip(chart.series, COLORS[theme], strict=False)):
        unit = one.unit or ""
        on_axis: Any = {"y_range_name": unit} if unit != units[0] else {}
        source = ColumnDataSource(
            {"x": [], "mean": [], "min": [], "max": [], "count": [], "when": [], "name": [], "size": []},
            name=f"series-{number}",
        )
        band = plot.segment(
            x0="x", y0="min", x1="x", y1="max", source=source, line_color=color, line_alpha=0.3, line_width=2, **on_axis
        )
        line = plot.line("x", "mean", source=source, line_color=color, line_width=1.5, **on_axis)
        dots = plot.scatter("x", "mean", source=source, size="size", color=color, **on_axis)
        drawn[unit] += [band, line]
        tips = [("point", "@name"), ("time", "@when"), ("mean", "@mean"), ("min", "@min"), ("max", "@max")]
        plot.add_tools(HoverTool(renderers=[dots], tooltips=[*tips, ("samples", "@count")], visible=number == 0))
    for unit in units:
        ranges[unit].renderers = drawn[unit]
    for axis in plot.axis:
        axis.update(major_label_text_color=text, axis_label_text_color=text, axis_line_color=text)
        axis.update(major_tick_line_color=text, minor_tick_line_color=None)
    plot.grid.grid_line_color = grid
    return dict(json_item(plot, ID("chart")))


def chart_figures(chart: Chart, tz: str, width: int) -> dict[str, Any]:
    """The rows of a chart as JSON: a list for each column, null where there is a gap."""
    start, end = _ms(chart.start), _ms(chart.end)
    ticks = time_ticks(start, end, tz, max(2, width // TICK_WIDTH))
    series = []
    for one in chart.series:
        rows = one.rows.to_pydict()
        times = rows.pop("timestamp")
        series.append(
            {
                "name": printable(one.point),
                "unit": printable(one.unit or ""),
                "x": [_ms(at) for at in times],
                "when": [at.strftime("%Y-%m-%d %H:%M:%S %Z") for at in times],
                **{name: rows[name] for name in ("mean", "min", "max", "count")},
            }
        )
    return {
        "series": series,
        "start": start,
        "end": end,
        "column_ms": chart.column_ms,
        "missing": len(chart.missing),
        "rollup_days": sum(source == "rollup" for source in chart.sources.values()),
        "ticks": list(ticks),
        "labels": list(ticks.values()),
    }


def day_spans(days: Sequence[SiteDay]) -> list[dict[str, Any]]:
    """The spans of days that are not completely stored, as Unix milliseconds; neighbours of one state are one span."""
    spans: list[dict[str, Any]] = []
    for one in days:
        if one.state is State.STORED:
            continue
        start = _midnight_ms(one.day)
        if spans and spans[-1]["end"] == start and spans[-1]["state"] == one.state:
            spans[-1]["end"] = start + 86_400_000
        else:
            spans.append({"start": start, "end": start + 86_400_000, "state": str(one.state)})
    return spans


def _midnight_ms(day: date) -> int:
    return _ms(datetime(day.year, day.month, day.day, tzinfo=UTC))


def _ms(instant: datetime) -> int:
    return (instant - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
