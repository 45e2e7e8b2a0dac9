"""Which sites need an operator, in which order, and why.

Put here: the order of sites and the lines of the list "Needs you". Keep out: when a site is silent (`findings.py`) and
who receives an alert (`orchestration/alerts.py`).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from textwrap import shorten

from backfill_pipeline.core.command_lines import named_days, start_command
from backfill_pipeline.core.text import natural_key, printable
from backfill_pipeline.coverage.findings import findings
from backfill_pipeline.coverage.table import SiteDay, State

_NOTE = 200
"""Characters of an error in a line."""

_POINTS = 10
"""Points that a line names."""


@dataclass(frozen=True, slots=True)
class SilentPoints:
    """Configured points without a row on all checked days of a site.

    Attributes:
        first: the first checked day.
        last: the last checked day.
        days: how many stored days were checked.
        names: the points, in natural order.
    """

    first: date
    last: date
    days: int
    names: Sequence[str]


def by_trouble(by_site: Mapping[str, Sequence[SiteDay]]) -> list[str]:
    """Sort sites: silent sites and falls in coverage first, then failed, thin, empty and missing days, then by name."""

    def order(site: str) -> tuple[object, ...]:
        days = by_site[site]
        states = Counter(one.state for one in days)
        worst = (State.FAILED, State.THIN, State.EMPTY, State.NEVER_ASKED)
        return (-len(findings(days)), *(-states[state] for state in worst), natural_key(site))

    return sorted(by_site, key=order)


def needs_operator(
    by_site: Mapping[str, Sequence[SiteDay]], silent: Mapping[str, SilentPoints] | None = None
) -> list[str]:
    """Describe what an operator has to look at, one line each, worst site first.

    Args:
        by_site: the coverage of each site, days ascending.
        silent: points that never reported, by site.
    """
    lines = []
    for site in by_trouble(by_site):
        lines += [one.text for one in findings(by_site[site])]
        failed = [one for one in by_site[site] if one.state is State.FAILED]
        if failed:
            days = [(site, one.day) for one in failed]
            latest = shorten(failed[-1].note, _NOTE, placeholder=" \u2026").removesuffix(".")
            lines.append(
                f"site {site!r}: {len(failed):,} failed day{'s' * (len(failed) > 1)}, "
                f"{named_days(days).replace(f'{site} ', '')}. The latest error: {latest}. "
                f"Run: {start_command(days)}"
            )
        if silent and site in silent:
            lines.append(_silent_line(site, silent[site]))
    return [printable(line) for line in lines]


def _silent_line(site: str, silent: SilentPoints) -> str:
    count = len(silent.names)
    more = f" and {count - _POINTS:,} more" if count > _POINTS else ""
    span = f"{silent.first}" if silent.days == 1 else f"{silent.first} to {silent.last}"
    return (
        f"site {site!r}: {count:,} configured point{'s' * (count > 1)} without a row on the {silent.days} checked "
        f"stored day{'s' * (silent.days > 1)}, {span}: {', '.join(silent.names[:_POINTS])}{more}"
    )
