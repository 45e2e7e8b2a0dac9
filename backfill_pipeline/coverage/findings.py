"""Findings that need an operator: a site is silent, or fewer of its points report than before.

Put here: when a finding exists. Keep out: who receives an alert (`orchestration/alerts.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

from backfill_pipeline.coverage.table import SiteDay, State

SILENT_DAYS = 2
"""Latest stored days without a row after which a site is silent: the data of one day may be late."""

FELL_DAYS = 3
"""Latest stored days that are compared with the days before."""

BEFORE_DAYS = 14
"""Stored days before these: their median coverage is the usual one."""

FELL_TO = 0.8
"""Coverage fell when it is below this share of the usual coverage."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What an operator should know about a site.

    Attributes:
        kind: `silent` or `fell`.
        site: the site.
        since: the first day that shows it, as text. It identifies the finding, so that one alert is sent for it.
        text: one line.
    """

    kind: Literal["silent", "fell"]
    site: str
    since: str
    text: str


def findings(days: Sequence[SiteDay]) -> list[Finding]:
    """List the findings of one site; days that are not stored are skipped.

    Args:
        days: the coverage of the site, ascending.
    """
    known = [one for one in days if one.rows is not None]
    if not known:
        return []
    site, with_rows = known[0].site, [number for number, one in enumerate(known) if one.rows]
    quiet = len(known) - 1 - (with_rows[-1] if with_rows else len(known))
    if with_rows and quiet >= SILENT_DAYS:
        since = known[with_rows[-1] + 1].day
        text = f"site {site!r} is silent: no sample since {since}, on {quiet} stored days"
        return [Finding("silent", site, str(since), text)]
    shares = [(one, one.share) for one in known if one.share is not None and one.state is not State.EMPTY]
    latest, before = shares[-FELL_DAYS:], [share for _, share in shares[:-FELL_DAYS][-BEFORE_DAYS:]]
    if len(latest) < FELL_DAYS or len(before) < FELL_DAYS:
        return []
    usual, best = median(before), max(share for _, share in latest)
    if usual == 0 or best >= FELL_TO * usual:
        return []
    low = len(shares)
    while low and shares[low - 1][1] < FELL_TO * usual:
        low -= 1
    since = shares[low][0].day
    text = (
        f"site {site!r}: coverage fell to {best:.0%} of the configured points or less since {since}, from {usual:.0%}"
    )
    return [Finding("fell", site, str(since), text)]
