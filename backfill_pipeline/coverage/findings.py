"""What in a site's coverage needs a person: it went silent, or hears of fewer points than before.

Put here: what counts as one. Keep out: who is told (`orchestration/alerts.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

from backfill_pipeline.coverage.table import SiteDay, State

SILENT_DAYS = 2
"""Newest days without a row that make a silence: one may be late."""

FELL_DAYS = 3
"""Newest stored days that are held against those before."""

BEFORE_DAYS = 14
FELL_TO = 0.8
"""Share of the points usually heard of, below which coverage fell."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a person should know of a site.

    Attributes:
        kind: `silent` or `fell`.
        site: the site.
        since: the first day that shows it, as text: it names the finding, told once however long it lasts.
        text: one line.
    """

    kind: Literal["silent", "fell"]
    site: str
    since: str
    text: str


def findings(days: Sequence[SiteDay]) -> list[Finding]:
    """What one site's days show, ascending; days that were never asked for or are not ready say nothing."""
    known = [one for one in days if one.rows is not None]
    if not known:
        return []
    site, spoke = known[0].site, [number for number, one in enumerate(known) if one.rows]
    quiet = len(known) - 1 - (spoke[-1] if spoke else len(known))
    if spoke and quiet >= SILENT_DAYS:
        since = known[spoke[-1] + 1].day
        text = f"site {site!r} is silent: no sample since {since}, on {quiet} stored days"
        return [Finding("silent", site, str(since), text)]
    heard = [(one, one.share) for one in known if one.share is not None and one.state is not State.EMPTY]
    newest, before = heard[-FELL_DAYS:], [share for _, share in heard[:-FELL_DAYS][-BEFORE_DAYS:]]
    if len(newest) < FELL_DAYS or len(before) < FELL_DAYS:
        return []
    usual, best = median(before), max(share for _, share in newest)
    if usual == 0 or best >= FELL_TO * usual:
        return []
    low = len(heard)
    while low and heard[low - 1][1] < FELL_TO * usual:
        low -= 1
    since = heard[low][0].day
    text = (
        f"site {site!r}: coverage fell to {best:.0%} of the configured points or less since {since}, from {usual:.0%}"
    )
    return [Finding("fell", site, str(since), text)]
