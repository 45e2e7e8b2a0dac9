"""Checks: what makes a day good, and the figures that say so."""

from dataclasses import replace
from datetime import date, timedelta

import dagster as dg
import pytest

from backfill_pipeline.ace.fetch import FetchedDay
from backfill_pipeline.core.quality import quality
from backfill_pipeline.core.rows import Counts
from backfill_pipeline.orchestration.checks import Judge
from backfill_pipeline.orchestration.site_runner import Stored
from backfill_pipeline.storage.days import StoredDay
from backfill_pipeline_tests.orchestration.fakes import FakeFetcher, Runs, day_rows

DAY = date(2025, 1, 8)
AROUND = {DAY + timedelta(days=number): 432 for number in (-3, -2, -1, 1, 2)}


def stored(*, seen=3, configured=4, every_s=600, interval_s=600.0, dropped=None, day=DAY, unreadable=None):
    rows = day_rows("north", day, every_s=every_s, points=seen, dropped=dropped)
    fetched = FetchedDay(
        "north", day, None, None, 2, 0, 0.5, configured, seen, interval_s=interval_s, unreadable=unreadable
    )
    state = "stored" if rows.counts.kept else "empty"
    put = StoredDay("key", "url", rows.counts.kept, 1, "hash", state, changed=True)
    return Stored(fetched, put, rows.counts, quality(rows), 0.1)


def failed(verdict):
    return {name for name, (passed, _) in verdict.checks.items() if not passed}


@pytest.mark.parametrize(
    ("day", "names", "thin"),
    [
        (stored(), set(), False),
        (stored(seen=0), {"has_samples", "complete"}, True),
        (stored(every_s=1800), {"complete", "interval"}, True),
        (stored(every_s=10800, interval_s=10800.0), {"complete"}, True),
        (stored(configured=9), {"complete"}, False),
        (stored(interval_s=300.0), {"interval"}, False),
        (stored(interval_s=None), set(), False),
        (stored(dropped={"not_numeric": 400}), {"clean"}, False),
        (stored(dropped={"not_configured": 4000}), set(), False),
        (stored(dropped={"bad_time": 1}), {"clean"}, False),
        (stored(dropped={"no_name": 1}), {"clean"}, False),
        (stored(seen=0, dropped={"null_value": 1440}), {"has_samples", "complete", "clean"}, True),
    ],
)
def test_each_fault_has_its_check(day, names, thin):
    """Nothing, few rows, a long silence, few points, slow points and unusable values are told apart."""
    verdict = Judge(AROUND).verdict(day)
    assert (failed(verdict), verdict.thin) == (names, thin)


def test_the_figures_can_be_plotted():
    """Points, interval, rows and drops by reason stand as numbers beside what they are held against."""
    checks = Judge(AROUND).verdict(stored(dropped={"not_numeric": 48, "duplicate": 8})).checks
    assert checks["complete"][1] == {
        "points_seen": 3, "points_configured": 4, "coverage": 0.75, "longest_gap_min": 9,
        "rows": 432, "rows_around": 432, "rows_share": 1.0,
    }  # fmt: skip
    assert checks["interval"][1] == {"interval_s": 600.0, "interval_configured_s": 600.0, "interval_share": 1.0}
    assert checks["clean"][1] == {
        "unusable_share": round(48 / 488, 4), "unreadable": 0,
        "samples": 488, "rows": 432, "texts": 0, "unaccounted": 0,
        "dropped_not_numeric": 48, "share_not_numeric": round(48 / 488, 4),
        "dropped_duplicate": 8, "share_duplicate": round(8 / 488, 4), "first_ms": 0, "last_ms": 85_800_000,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("day", "check", "line"),
    [
        (stored(seen=0), "has_samples", "0 rows: the API returned no samples for 2025-01-08"),
        (
            stored(seen=0, dropped={"null_value": 1440}),
            "has_samples",
            "0 rows: none of the 1,440 samples that the API returned for 2025-01-08 can be stored",
        ),
        (
            stored(dropped={"bad_time": 2, "no_name": 1}, unreadable=("time", '"01/03/2025"')),
            "clean",
            '3 of 435 rows cannot be read: the `time` of one is "01/03/2025"',
        ),
    ],
)
def test_a_check_that_does_not_pass_says_what_was_found(day, check, line):
    """The line is the description of Dagster's evaluation; a check that passes has none."""
    found = {
        one.check_name: (one.passed, one.description)
        for one in Judge(AROUND).verdict(day).evaluations("north", DAY, dg.AssetCheckSeverity.WARN, of=None)
    }
    assert found[check] == (False, line)
    assert found["interval"] == (True, None)


def test_days_on_both_sides_count_as_neighbours():
    """A day that fills a gap is held against the days after it as well, and each judged day becomes a neighbour."""
    judge = Judge({DAY + timedelta(days=1): 432})
    assert "complete" in failed(judge.verdict(stored(every_s=1800)))
    assert judge.verdict(stored(day=DAY + timedelta(days=2))).checks["complete"][1]["rows_around"] == (432 + 144) / 2


def test_empty_days_are_no_measure():
    """A week without samples does not make a full day look wrong, nor an empty one right."""
    judge = Judge({DAY - timedelta(days=1): 0})
    verdict = judge.verdict(stored())
    assert failed(verdict) == set()
    assert "rows_share" not in verdict.checks["complete"][1]


def test_counts_of_nothing_are_no_division():
    """Shares of no samples are zero."""
    assert Counts().fetched == 0
    assert Judge({}).verdict(stored(seen=0, configured=0)).checks["clean"][1]["unusable_share"] == 0


@pytest.mark.parametrize("severity", ["warn", "error"])
def test_what_a_check_shows_is_a_setting(tmp_path, severity):
    """A check that does not pass warns, or shows as failed; the day is stored either way."""
    with Runs(tmp_path, FakeFetcher(make=lambda s, d: day_rows(s, d, points=0)), "north", checks=severity) as runs:
        result = runs.run("2025-01-01")
        assert result.success
        shown = {e.severity.value.lower() for e in result.get_asset_check_evaluations() if not e.passed}
        assert shown == {severity}


def test_a_sample_that_is_nowhere_does_not_pass():
    """Rows, texts and samples left out for one reason each are what the API returned, or `clean` says so."""
    day = stored(dropped={"not_numeric": 48, "null_value": 2})
    counts = replace(day.counts, texts=40, texts_dropped={"duplicate": 8})
    whole = replace(day, counts=counts, stored=replace(day.stored, texts=40))
    passed, figures = Judge(AROUND).verdict(whole).checks["clean"]
    assert (passed, figures["texts"], figures["dropped_duplicate"], figures["unaccounted"]) == (True, 40, 8, 0)
    assert "dropped_not_numeric" not in figures
    lost = replace(whole, stored=replace(day.stored, texts=39))
    verdict = Judge(AROUND).verdict(lost)
    assert verdict.checks["clean"][0] is False
    assert verdict.found["clean"] == (
        "the API returned 482 samples, but the 432 rows, the 39 texts and the samples left out are 481"
    )


def test_a_day_of_texts_alone_has_no_samples_and_says_so():
    """No row is never a success, and the line does not claim that nothing was stored."""
    day = stored(seen=0, dropped={"not_numeric": 5})
    worded = replace(day, counts=replace(day.counts, texts=5), stored=replace(day.stored, texts=5))
    verdict = Judge(AROUND).verdict(worded)
    assert verdict.checks["has_samples"][0] is False
    assert verdict.checks["clean"][0] is True
    assert verdict.found["has_samples"] == (
        "0 rows: the API returned 5 samples for 2025-01-08, 5 texts and no number for a row"
    )
