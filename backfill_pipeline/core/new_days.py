"""New days: which site-days nobody asked for yet, and by what runs they are asked for: pure planning.

All days before `since` were asked for, at every site: that one date is all that has to be remembered. Put here: what is
new, and how site-days become runs. Keep out: days that are asked for again (`core/healing.py`), where a day's past is
read from (`orchestration/history.py`).
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from backfill_pipeline.core.day import days_between


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
        asks: older days before newer.
        since: the first day that was not asked for at every site; the day after the last when all were.
        in_flight: site-days that are being asked for.
    """

    asks: tuple[Ask, ...]
    since: date
    in_flight: int


def newest_ready(now: datetime, lag_hours: float) -> date:
    """The newest UTC day that ended `lag_hours` before `now`."""
    return (now.astimezone(UTC) - timedelta(hours=lag_hours)).date() - timedelta(days=1)


def plan_new_days(
    asked: Mapping[str, Collection[date]],
    flying: Mapping[str, Collection[date]],
    sites: Sequence[str],
    since: date,
    newest: date,
    *,
    days_per_ask: int,
    room: int,
) -> NewDays:
    """Say what to ask for now.

    Args:
        asked: by site, the days from `since` to `newest` that were asked for, whatever came of it.
        flying: by site, the days that somebody asks for now.
        sites: site names.
        since: the first day to look at.
        newest: the last day to look at.
        days_per_ask: days of one run, at most.
        room: how many runs may be asked for.
    """
    new: dict[str, list[date]] = defaultdict(list)
    open_since = newest + timedelta(days=1)
    in_flight = 0
    for site in sites:
        done, busy = asked.get(site, ()), flying.get(site, ())
        for day in days_between(since, newest):
            if day in busy:
                in_flight += 1
            elif day in done:
                continue
            else:
                new[site].append(day)
            open_since = min(open_since, day)
    asks = sorted(asks_of(1, new, days_per_ask))
    return NewDays(tuple(asks[: max(room, 0)]), max(since, open_since), in_flight)


def asks_of(attempt: int, by_site: Mapping[str, Sequence[date]], most: int) -> Iterator[Ask]:
    """Ascending days of each site as runs of at most `most` days; sites that want the same days share a run."""
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
