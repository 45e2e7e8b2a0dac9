"""The report: one self-contained HTML file, and the same pictures as a PNG.

Put here: the texts and tables around the pictures. Keep out: pictures (`pictures.py`) and the source of the figures.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from html import escape
from itertools import groupby

import pyarrow as pa
import pyarrow.parquet as pq

from backfill_pipeline.core.point_catalogue import PointSpan
from backfill_pipeline.core.point_summaries import PointDays
from backfill_pipeline.core.text import printable
from backfill_pipeline.coverage.attention import SilentPoints, by_trouble, needs_operator
from backfill_pipeline.coverage.canvas import Canvas, png_of
from backfill_pipeline.coverage.pictures import calendar, points_map
from backfill_pipeline.coverage.point_changes import PointChange
from backfill_pipeline.coverage.silent_points import never_reported
from backfill_pipeline.coverage.table import SiteDay, State, to_arrow

MOST_REPLACED = 200
"""Replaced days that a page lists, latest first."""

MOST_CHANGES = 2000
"""Changes and points that a page lists; `backfill points` has all."""

MOST_LINES = 200
"""Lines of the list "Needs you"."""

_STYLE = """
:root { color-scheme: light dark; background: #fff }
body { font: 15px/1.45 Helvetica, Arial, sans-serif; color: #1b1b1b }
body { margin: 24px auto; max-width: 900px; padding: 0 12px }
.wide { overflow-x: auto } svg { max-width: 100%; min-width: 700px; height: auto; display: block; margin: 18px 0 }
section { content-visibility: auto; contain-intrinsic-size: auto 240px; scroll-margin-top: 12px }
table { border-collapse: collapse; margin: 12px 0; font-size: 14px } th, td { padding: 3px 10px; text-align: left }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums } tr { border-bottom: 1px solid #ddd }
td { overflow-wrap: anywhere; min-width: 8em } td.n, td.d { white-space: nowrap; min-width: 0 } .grey { color: #5c5c5c }
li { overflow-wrap: anywhere; margin: 4px 0 } a { color: #08519c }
@media (prefers-color-scheme: dark) {
  :root { background: #15181b } body { color: #e6e6e6 } .grey { color: #a8a8a8 } tr { border-color: #3a3f45 }
  a { color: #8ab4f8 } svg text[fill="#1b1b1b"] { fill: #e6e6e6 } svg text[fill="#5c5c5c"] { fill: #a8a8a8 }
  section rect[fill="none"] { stroke: #26292d } section rect[fill="#d9d9d9"] { fill: #43484e }
  section rect[fill="#f4f4f4"] { fill: #22262a; stroke: #4d5259 }
  section rect[fill="#ffffff"] { fill: #15181b; stroke: #e6e6e6 }
  section rect[fill="#ffffff"] + line { stroke: #e6e6e6 }
}
""".strip()


@dataclass(frozen=True, slots=True)
class Replaced:
    """A day that was fetched again and changed.

    Attributes:
        site: its site.
        day: its day.
        at: when it was replaced, aware.
        before: rows that it had.
        rows: rows that it has since.
    """

    site: str
    day: date
    at: datetime
    before: int
    rows: int


@dataclass(frozen=True)
class Report:
    """What one report shows.

    Attributes:
        table: coverage, site by site, days ascending.
        made: when it was generated, aware.
        points: the site whose points are shown; None: none.
        each: the summaries of its points, by day.
        changes: of its points.
        note: what the reader has to know about the source of the figures.
        replaced: days that were fetched again and changed, in that order.
        known: what the site's points are, by name, from its catalogue.
        silent: points without a row on the checked days, by site.
    """

    table: Sequence[SiteDay]
    made: datetime
    points: str | None = None
    each: Mapping[date, PointDays] = field(default_factory=dict)
    changes: Sequence[PointChange] = ()
    note: str = ""
    replaced: Sequence[Replaced] = ()
    known: Mapping[str, PointSpan] = field(default_factory=dict)
    silent: Mapping[str, SilentPoints] = field(default_factory=dict)

    def by_site(self) -> dict[str, list[SiteDay]]:
        """The table by site, the worst site first."""
        found = {site: list(days) for site, days in groupby(self.table, key=lambda one: one.site)}
        return {site: found[site] for site in by_trouble(found)}

    def canvases(self) -> dict[str, Canvas]:
        """Every picture, by what it shows."""
        drawn = {f"Calendar of {site}": calendar(site, days) for site, days in self.by_site().items()}
        if self.points is not None:
            days = [one.day for one in self.table if one.site == self.points]
            drawn[f"Points of {self.points} by day"] = points_map(self.points, days, self.each)
        return drawn


KINDS = ("html", "png", "parquet")
"""What a report can be written as; also the files' suffixes."""


def rendered(report: Report, kind: str) -> bytes:
    """The report as one of `KINDS`."""
    if kind == "html":
        return html(report).encode()
    if kind == "png":
        return png(report)
    sink = pa.BufferOutputStream()
    pq.write_table(to_arrow(report.table, report.made), sink)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def png(report: Report) -> bytes:
    """All pictures, below each other."""
    return png_of(list(report.canvases().values()))


def html(report: Report) -> str:
    """Write the page; names of sites and points are escaped."""
    first, last = report.table[0].day, report.table[-1].day
    span = f"{first}" if first == last else f"{first} to {last}"
    by_site = report.by_site()
    calendars = "\n".join(
        f'<section id="site-{number}">{_wide(calendar(site, days).to_svg(f"Calendar of {site}"))}</section>'
        for number, (site, days) in enumerate(by_site.items())
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<title>Coverage {span}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>Coverage, {span}</h1>
<p class="grey">Days are UTC days. Generated on {report.made.astimezone(UTC):%Y-%m-%d %H:%M} UTC from the stored
days and the recorded failures. {_text(report.note)}</p>
{_needs_you(report, by_site)}
{_sites(by_site)}
{calendars}
{_points(report)}
{_failed(report)}
{_replaced(report)}
{_changes(report)}
</body>
</html>
"""


def _needs_you(report: Report, by_site: Mapping[str, Sequence[SiteDay]]) -> str:
    lines = needs_operator(by_site, report.silent)
    if not lines:
        return '<h2>Needs you</h2><p class="grey">Nothing: no failed day, no silent site.</p>'
    left = len(lines) - MOST_LINES
    more = f"<p>and {left:,} more lines</p>" if left > 0 else ""
    return f"<h2>Needs you</h2><ul>{''.join(f'<li>{_text(line)}</li>' for line in lines[:MOST_LINES])}</ul>{more}"


def _sites(by_site: Mapping[str, Sequence[SiteDay]]) -> str:
    head = "".join(f'<th class="n">{state}</th>' for state in State)
    rows = []
    for number, (site, days) in enumerate(by_site.items()):
        states = Counter(one.state for one in days)
        total = sum(one.rows or 0 for one in days)
        cells = "".join(f'<td class="n">{states[state]:,}</td>' for state in State)
        link = f'<a href="#site-{number}">{_text(site)}</a>'
        rows.append(f'<tr><td>{link}</td>{cells}<td class="n">{total:,}</td></tr>')
    return "<h2>Sites</h2>" + _table(f'<th>site, days</th>{head}<th class="n">rows</th>', "".join(rows))


def _points(report: Report) -> str:
    """The map of one site's points, and the names of those that never reported."""
    if report.points is None:
        return ""
    days = [one.day for one in report.table if one.site == report.points]
    drawn = _wide(points_map(report.points, days, report.each).to_svg(f"Points of {report.points} by day"))
    silent = never_reported(report.each)
    if not silent:
        return drawn
    left = len(silent) - MOST_CHANGES
    more = f" and {left:,} more" if left > 0 else ""
    names = ", ".join(_text(name) for name in silent[:MOST_CHANGES])
    return f"{drawn}<h2>Points of {_text(report.points)} that never reported</h2><p>{len(silent):,}: {names}{more}</p>"


def _failed(report: Report) -> str:
    failed = [one for one in report.table if one.state is State.FAILED]
    rows = "".join(
        f'<tr><td>{_text(o.site)}</td><td class="d">{o.day}</td><td>{_text(o.note)}</td></tr>' for o in failed[:200]
    )
    more = f"<p>and {len(failed) - 200:,} more</p>" if len(failed) > 200 else ""  # noqa: PLR2004 - as above
    if not failed:
        return ""
    return f"<h2>Failed days</h2>{_table('<th>site</th><th>day</th><th>why</th>', rows)}{more}"


def _replaced(report: Report) -> str:
    if not report.replaced:
        return ""
    rows = "".join(
        f'<tr><td>{_text(o.site)}</td><td class="d">{o.day}</td><td class="n">{o.before:,}</td>'
        f'<td class="n">{o.rows:,}</td><td class="d">{o.at.astimezone(UTC):%Y-%m-%d %H:%M}</td></tr>'
        for o in reversed(report.replaced[-MOST_REPLACED:])
    )
    left = len(report.replaced) - MOST_REPLACED
    more = f"<p>and {left:,} before these</p>" if left > 0 else ""
    head = '<th>site</th><th>day</th><th class="n">rows before</th><th class="n">rows after</th><th>replaced, UTC</th>'
    return f"<h2>Replaced days</h2>{_table(head, rows)}{more}"


def _changes(report: Report) -> str:
    if report.points is None:
        return ""
    title = f"<h2>Points of {_text(report.points)} over time</h2>"
    if not report.changes:
        return f"{title}<p>No change on the stored days.</p>"
    rows = "".join(
        f'<tr><td class="d">{one.day}</td><td class="d">{one.change}</td><td>{_text(one.point)}</td>'
        f"{_description(report.known.get(one.point))}<td>{_text(about(one))}</td></tr>"
        for one in report.changes[:MOST_CHANGES]
    )
    left = len(report.changes) - MOST_CHANGES
    more = f"<p>and {left:,} more: <code>backfill points</code> has all</p>" if left > 0 else ""
    head = "".join(f"<th>{name}</th>" for name in ("from", "what", "point", "description", "unit", ""))
    return f"{title}{_table(head, rows)}{more}"


def _description(span: PointSpan | None) -> str:
    """Two cells: what a point is, and its unit; blank when the catalogue has none."""
    name, unit = (span.description or span.object_name or "", span.unit or "") if span else ("", "")
    return f'<td>{_text(name)}</td><td class="d">{_text(unit)}</td>'


def about(one: PointChange) -> str:
    """Describe a change beyond its name: its end, or its note."""
    return f"until {one.until}" if one.until else one.note


def _table(head: str, rows: str) -> str:
    return _wide(f"<table><tr>{head}</tr>{rows}</table>")


def _wide(inner: str) -> str:
    """Wrap what keeps a readable size on a small screen and is scrolled separately."""
    return f'<div class="wide">{inner}</div>'


def _text(text: str) -> str:
    return escape(printable(text))
