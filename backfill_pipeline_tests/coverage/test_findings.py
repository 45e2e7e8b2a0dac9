"""What needs a person is found on the day it can be told, and named alike however long it lasts."""

from datetime import date, timedelta

import pytest

from backfill_pipeline.coverage.findings import findings
from backfill_pipeline.coverage.table import SiteDay, State


def site(*shares):
    """A day for each share of 100 points; None: not stored."""
    days = []
    for number, share in enumerate(shares):
        day = date(2024, 2, 20) + timedelta(days=number)
        if share is None:
            days.append(SiteDay("s", day, State.NEVER_ASKED))
        else:
            state = State.STORED if share else State.EMPTY
            days.append(SiteDay("s", day, state, share * 10, share, 100))
    return days


@pytest.mark.parametrize(
    ("shares", "kind", "since"),
    [
        ([90] * 9 + [0, 0], "silent", "2024-02-29"),
        ([90] * 9 + [0, 0, 0, None], "silent", "2024-02-29"),
        ([90] * 9 + [50, 50, 50], "fell", "2024-02-29"),
        ([90] * 9 + [50, 50, 50, 50, 40], "fell", "2024-02-29"),
    ],
)
def test_a_silence_and_a_fall_are_told_with_their_first_day(shares, kind, since):
    """However long it lasts, and whatever days are not stored after it."""
    (one,) = findings(site(*shares))
    assert (one.kind, one.site, one.since) == (kind, "s", since)
    assert "\n" not in one.text


@pytest.mark.parametrize(
    "shares",
    [[], [None] * 5, [90] * 12, [0] * 12, [90] * 9 + [0], [90] * 9 + [50, 50], [90] * 9 + [80] * 3, [90, 20, 20, 20]],
)
def test_otherwise_it_is_quiet(shares):
    """One late day, two low ones, a site that never spoke, a site too new to judge."""
    assert findings(site(*shares)) == []
