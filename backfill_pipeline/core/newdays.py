"""New days: which site-days are to be asked for now, without anybody asking: pure planning.

A day is *settled* once it is stored and neither empty nor thin, or once the back-off has ended. Until then it is asked
for, at growing distances. All days before `since` are settled: that one date is all that has to be remembered.

Put here: what is due, in what batches, and when nothing more is to be hoped for. Keep out: where a day's past is read
from (`orchestration/sensors.py`).
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from backfill_pipeline.core.day import days_between

THIN_AGAIN_H = (12, 24, 48, 96, 192)
"""Hours until an empty or thin day is asked for again, after its first ask, its second ...: two weeks in all."""

FAILED_AGAIN_H = (1, 4, 12, 24, 48, 96)
"""Hours until a day that failed is asked for again: a week in all."""


@dataclass(frozen=True, slots=True)
class Past:
    """What became of a site-day so far.

    Attributes:
        asks: how often it was asked for, whoever asked, asks under way left out.
        last: when the last of them ended, aware; None when there was none.
        stored: whether it is stored.
        thin: whether what is stored is empty or thin.
        in_flight: whether somebody is asking for it now.
    """

    asks: int = 0
    last: datetime | None = None
    stored: bool = False
    thin: bool = False
    in_flight: bool = False

    def due(self) -> datetime | None:
        """When to ask next; None when the day is settled."""
        if self.stored and not self.thin:
            return None
        waits = THIN_AGAIN_H if self.stored else FAILED_AGAIN_H
        if not self.asks or self.last is None:
            return datetime.min.replace(tzinfo=UTC)
        if self.asks > len(waits):
            return None
        return self.last + timedelta(hours=waits[self.asks - 1])


@dataclass(frozen=True, slots=True, order=True)
class Ask:
    """Days to be fetched by one run.

    Attributes:
        attempt: 1 for days that nobody asked for before.
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
    """What is to be done now.

    Attributes:
        asks: new days before those asked for again, older before newer.
        since: the first day that is not settled; the day after the last when all are.
        waiting: site-days that will be asked for later.
        in_flight: site-days that are being asked for.
        given_up: site-days that are settled without being good.
    """

    asks: tuple[Ask, ...]
    since: date
    waiting: int
    in_flight: int
    given_up: int


def newest_ready(now: datetime, lag_hours: float) -> date:
    """The newest UTC day that ended `lag_hours` before `now`."""
    return (now.astimezone(UTC) - timedelta(hours=lag_hours)).date() - timedelta(days=1)


def plan_new_days(
    past: Mapping[tuple[str, date], Past],
    sites: Sequence[str],
    since: date,
    newest: date,
    *,
    now: datetime,
    days_per_ask: int,
    room: int,
) -> NewDays:
    """Say what to ask for now.

    Args:
        past: of each site-day from `since` to `newest`; what is not in it was never asked for.
        sites: site names.
        since: the first day to look at.
        newest: the last day to look at.
        now: the instant, aware.
        days_per_ask: days of one run, at most.
        room: how many runs may be asked for.
    """
    due: dict[int, dict[str, list[date]]] = defaultdict(lambda: defaultdict(list))
    unsettled = newest + timedelta(days=1)
    waiting = in_flight = given_up = 0
    for site in sites:
        for day in days_between(since, newest):
            one = past.get((site, day), Past())
            when = one.due()
            if one.in_flight:
                in_flight += 1
            elif when is None:
                given_up += one.thin or not one.stored
                continue
            elif when <= now:
                due[one.asks + 1][site].append(day)
            else:
                waiting += 1
            unsettled = min(unsettled, day)
    asks = sorted(ask for attempt, by_site in due.items() for ask in _asks(attempt, by_site, days_per_ask))
    return NewDays(tuple(asks[: max(room, 0)]), max(since, unsettled), waiting, in_flight, given_up)


def _asks(attempt: int, by_site: Mapping[str, Sequence[date]], most: int) -> Iterator[Ask]:
    """Sites that want the same days share a run."""
    sites: dict[tuple[date, date], list[str]] = defaultdict(list)
    for site, days in by_site.items():
        for first, last in _ranges(days, most):
            sites[first, last].append(site)
    for (first, last), names in sites.items():
        yield Ask(attempt, first, last, tuple(sorted(names)))


def _ranges(days: Sequence[date], most: int) -> Iterator[tuple[date, date]]:
    """Ascending days as ranges without holes, each of at most `most` days."""
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
