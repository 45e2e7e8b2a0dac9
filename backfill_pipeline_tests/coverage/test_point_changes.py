"""Points over time: each change is told once, with its first day, and nothing is told that did not happen."""

from datetime import date, timedelta

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from backfill_pipeline.core.point_summaries import PointDays
from backfill_pipeline.coverage.point_changes import Change, changes

DAYS = [date(2024, 2, 25) + timedelta(days=n) for n in range(10)]


def of(**points):
    """Days of points, a letter a day: `x` speaks, `s` slowly, `f` is flat, `.` silent, `-` not there."""
    each = {}
    for number, day in enumerate(DAYS):
        there = {name: letters[number] for name, letters in sorted(points.items()) if letters[number] != "-"}
        rows = np.array([0 if letter == "." else 288 for letter in there.values()])
        step = np.array([{".": 0, "s": 900}.get(letter, 300) for letter in there.values()])
        flat = np.array([letter == "f" for letter in there.values()])
        each[day] = PointDays(list(there), rows, rows, rows, step, flat)
    return each


def told(**points):
    return [(one.point, one.change, one.day, one.until) for one in changes(of(steady="x" * 10, **points))]


def test_a_point_that_begins_and_one_that_ends_are_told_with_their_days():
    """Still configured: vanished; no longer: switched off."""
    found = told(new="----xxxxxx", gone="xxxx......", off="xxx-------")
    assert found == [
        ("off", Change.SWITCHED_OFF, DAYS[3], None),
        ("gone", Change.VANISHED, DAYS[4], None),
        ("new", Change.APPEARED, DAYS[4], None),
    ]


def test_silences_and_flat_lines_have_a_first_and_a_last_day():
    """One odd day is none; what lasts has no end; a point that never moves has not gone flat."""
    found = told(hush="xx..xxx.xx", flat="xxxfffxxff", setpoint="ffffffffff")
    assert found == [
        ("hush", Change.SILENT, DAYS[2], DAYS[3]),
        ("flat", Change.FLAT, DAYS[3], DAYS[5]),
        ("flat", Change.FLAT, DAYS[8], None),
    ]


def test_another_interval_is_told_when_it_lasts():
    """From the first of two days on, with both intervals."""
    (only,) = changes(of(steady="x" * 10, pace="xxsxxsssss"))
    assert (only.change, only.day, only.note) == (Change.INTERVAL, DAYS[5], "300 s before, 900 s now")


def test_an_end_and_a_beginning_alike_are_a_new_name():
    """Alone of their kind, on one day, with one last part: renamed; two candidates are none."""
    moved = {"old/temp": "xxxx------", "new/temp": "----xxxxxx"}
    (only,) = changes(of(steady="x" * 10, **moved))
    assert (only.point, only.change, only.note) == ("old/temp", Change.RENAMED, "to new/temp")
    two = told(**moved, **{"other/temp": "----xxxxxx"})
    assert [change for _, change, *_ in two] == [Change.APPEARED, Change.SWITCHED_OFF, Change.APPEARED]


@given(st.lists(st.sampled_from("x.-"), min_size=10, max_size=10))
def test_first_and_last_rows_are_as_told(letters):
    """A point appeared iff its first row is not of the first day, and ended iff its last is not of the last."""
    found = {change: day for _, change, day, _ in told(p="".join(letters))}
    speaks = [n for n, letter in enumerate(letters) if letter == "x"]
    first, last = (speaks[0], speaks[-1]) if speaks else (0, 9)
    assert found.get(Change.APPEARED) == (DAYS[first] if first else None)
    ended = found.get(Change.VANISHED) or found.get(Change.SWITCHED_OFF)
    assert ended == (DAYS[last + 1] if last < 9 else None)


def test_nothing_stored_tells_of_no_change():
    """No day, and days without a row."""
    assert changes({}) == []
    assert changes(of(p="." * 10)) == []
