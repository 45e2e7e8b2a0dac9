"""The list "Needs you": what an operator has to look at."""

from datetime import date, timedelta

from backfill_pipeline.coverage.attention import needs_operator
from backfill_pipeline.coverage.table import SiteDay, State

FIRST = date(2025, 1, 1)


def test_an_error_that_is_long_is_cut_between_two_words():
    """The line has the first words of the latest error, and the command that fetches the days again."""
    note = "HTTP 500 " + "from a proxy between here and there " * 10
    days = [SiteDay("north", FIRST + timedelta(days=n), State.FAILED, note=note) for n in range(2)]
    (line,) = needs_operator({"north": days})
    shown = line.partition("The latest error: ")[2].partition(" \u2026")[0]
    assert shown
    assert note.startswith(shown + " ")
    assert "backfill start --from 2025-01-01 --to 2025-01-02 --site north" in line
