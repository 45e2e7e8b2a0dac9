"""Retries of days that are thin, empty or failed: when, and for how many requests. Pure functions.

A day is *settled* when it is stored and neither empty nor thin, or when its last retry has ended. Until then it is
retried at growing intervals. Retries take at most a fixed share of the request budget: after runs that take N requests,
no further run starts until the share amounts to N requests.

Put here: the intervals and the share. Keep out: days that no run has requested (`core/new_days.py`), and how the
earlier attempts of a day are read from Dagster (`orchestration/history.py`).
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from backfill_pipeline.core.day import days_between
from backfill_pipeline.core.new_days import PlannedRun, runs_of

THIN_RETRY_H = (12, 24, 48, 96, 192)
"""Hours to the next retry of an empty or thin day, after the first attempt, the second ...: two weeks in total."""

FAILED_RETRY_H = (1, 4, 12, 24, 48, 96)
"""Hours to the next retry of a failed day, after the first attempt, the second ...: a week in total."""

SHARE = 0.1
"""The largest share of the request budget that retries take on average."""

AT_ONCE_MIN = 5
"""Minutes of the whole budget that retries may take at once. One day is retried even if it takes more."""


@dataclass(frozen=True, slots=True)
class Attempts:
    """The attempts to fetch a site-day so far.

    Attributes:
        number: the number of attempts that have ended, by any run.
        last: when the latest attempt ended, aware.
        stored: whether the day is stored.
        thin: whether the stored day is empty or thin.
    """

    number: int
    last: datetime
    stored: bool = False
    thin: bool = False

    def due(self) -> datetime | None:
        """When the next retry is due; None when the day is settled."""
        if self.stored and not self.thin:
            return None
        waits = THIN_RETRY_H if self.stored else FAILED_RETRY_H
        return self.last + timedelta(hours=waits[self.number - 1]) if self.number <= len(waits) else None


@dataclass(frozen=True, slots=True)
class Retry:
    """A site-day to retry.

    Attributes:
        site: the site.
        day: the UTC day.
        attempt: the number of the attempt, from 2.
        requests: estimated requests of the attempt.
    """

    site: str
    day: date
    attempt: int
    requests: int


def most_at_once(per_minute: int) -> int:
    """The most requests that retries may take at once, with a budget of `per_minute` requests a minute."""
    return max(1, AT_ONCE_MIN * per_minute)


def pause(requests: int, per_minute: int) -> timedelta:
    """The pause after retries of `requests` requests, so that retries take no more than their share of the budget."""
    return timedelta(minutes=requests / (SHARE * per_minute))


def plan_retries(due: Iterable[Retry], *, most: int, days_per_run: int, room: int) -> tuple[Sequence[PlannedRun], int]:
    """Plan runs for days that are due.

    Args:
        due: days that are due, the longest overdue first.
        most: the most requests of all runs; the first day is retried even if it takes more.
        days_per_run: the most days of one run.
        room: the most runs.

    Returns:
        The runs, and their estimated requests.
    """
    costs: dict[tuple[str, date], int] = {}
    taken: dict[int, dict[str, list[date]]] = defaultdict(lambda: defaultdict(list))
    for one in due:
        if costs and sum(costs.values()) + one.requests > most:
            break
        costs[one.site, one.day] = one.requests
        taken[one.attempt][one.site].append(one.day)
    runs = [
        run
        for attempt, by_site in sorted(taken.items())
        for run in runs_of(attempt, {site: sorted(days) for site, days in by_site.items()}, days_per_run)
    ][: max(room, 0)]
    requests = sum(costs[site, day] for run in runs for site in run.sites for day in days_between(run.first, run.last))
    return runs, requests
