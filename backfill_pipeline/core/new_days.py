"""New days: which site-days no run has requested yet, and the runs that fetch them. Pure functions.

At every site, all days before the date `since` have been requested. The sensor stores only this date.

Put here: which days are new, and how site-days are grouped into runs. Keep out: retries (`core/day_retries.py`), and
how earlier attempts are read from Dagster (`orchestration/history.py`).
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from backfill_pipeline.core.day import days_between


@dataclass(frozen=True, slots=True, order=True)
class PlannedRun:
    """The days that one run fetches.

    Attributes:
        attempt: the number of the attempt; 1 for days that no earlier run requested.
        first: first day.
        last: last day, included.
        sites: site names, sorted.
    """

    attempt: int
    first: date
    last: date
    sites: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NewDays:
    """The runs to start now.

    Attributes:
        runs: the runs, oldest days first.
        since: the first day that some site has not requested yet; the day after `newest` when there is none.
        in_progress: the number of site-days in runs that have not ended.
    """

    runs: tuple[PlannedRun, ...]
    since: date
    in_progress: int


def newest_ready(now: datetime, lag_hours: float) -> date:
    """The latest UTC day that ended at least `lag_hours` before `now`."""
    return (now.astimezone(UTC) - timedelta(hours=lag_hours)).date() - timedelta(days=1)


def plan_new_days(
    requested: Mapping[str, Collection[date]],
    running: Mapping[str, Collection[date]],
    sites: Sequence[str],
    since: date,
    newest: date,
    *,
    days_per_run: int,
    room: int,
) -> NewDays:
    """Plan runs for the days that no run has requested.

    Args:
        requested: by site, the days from `since` to `newest` that a run requested, with any result.
        running: by site, the days of runs that have not ended.
        sites: site names.
        since: the first day to consider.
        newest: the last day to consider.
        days_per_run: the most days of one run.
        room: the most runs.
    """
    new: dict[str, list[date]] = defaultdict(list)
    open_since = newest + timedelta(days=1)
    in_progress = 0
    for site in sites:
        done, busy = requested.get(site, ()), running.get(site, ())
        for day in days_between(since, newest):
            if day in busy:
                in_progress += 1
            elif day in done:
                continue
            else:
                new[site].append(day)
            open_since = min(open_since, day)
    runs = sorted(runs_of(1, new, days_per_run))
    return NewDays(tuple(runs[: max(room, 0)]), max(since, open_since), in_progress)


def runs_of(attempt: int, by_site: Mapping[str, Sequence[date]], most: int) -> Iterator[PlannedRun]:
    """Group the ascending days of each site into runs of at most `most` days; sites with the same days share a run."""
    sites: dict[tuple[date, date], list[str]] = defaultdict(list)
    for site, days in by_site.items():
        for first, last in _ranges(days, most):
            sites[first, last].append(site)
    for (first, last), names in sites.items():
        yield PlannedRun(attempt, first, last, tuple(sorted(names)))


def _ranges(days: Sequence[date], most: int) -> Iterator[tuple[date, date]]:
    """Group ascending days into ranges of consecutive days, each of at most `most` days."""
    first = last = None
    for day in days:
        if first is None or last is None:
            first = last = day
        elif (day - last).days == 1 and (day - first).days < most:
            last = day
        else:
            yield first, last
            first = last = day
    if first is not None and last is not None:
        yield first, last
