"""Healing: which thin, empty and failed days are asked for again, when, and for how many requests: pure planning.

A day is *settled* once it is stored and neither empty nor thin, or once the back-off has ended. Until then it is asked
for again, at growing distances, for a fixed share of the budget: once days were asked for that take so many requests,
nothing is until that share has yielded as many. Put here: the back-off and the share. Keep out: days that nobody asked
for yet (`core/new_days.py`), where a day's past is read from (`orchestration/history.py`).
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from backfill_pipeline.core.day import days_between
from backfill_pipeline.core.new_days import Ask, asks_of

THIN_AGAIN_H = (12, 24, 48, 96, 192)
"""Hours until an empty or thin day is asked for again, after its first ask, its second ...: two weeks in all."""

FAILED_AGAIN_H = (1, 4, 12, 24, 48, 96)
"""Hours until a day that failed is asked for again: a week in all."""

SHARE = 0.1
"""Share of the budget that healing takes, at most, in the long run."""

AT_ONCE_MIN = 5
"""Minutes' worth of the whole budget that it asks for at once, at most; one day is asked for whatever it takes."""


@dataclass(frozen=True, slots=True)
class Past:
    """What became of a site-day so far.

    Attributes:
        asks: how often it was asked for, whoever asked, asks under way left out.
        last: when the last of them ended, aware; None when there was none.
        stored: whether it is stored.
        thin: whether what is stored is empty or thin.
    """

    asks: int
    last: datetime
    stored: bool = False
    thin: bool = False

    def due(self) -> datetime | None:
        """When to ask again; None when the day is settled."""
        if self.stored and not self.thin:
            return None
        waits = THIN_AGAIN_H if self.stored else FAILED_AGAIN_H
        return self.last + timedelta(hours=waits[self.asks - 1]) if self.asks <= len(waits) else None


@dataclass(frozen=True, slots=True)
class Again:
    """A site-day to be asked for again.

    Attributes:
        site: its site.
        day: its day.
        attempt: 2 for the second ask.
        requests: that it will take, as far as is known.
    """

    site: str
    day: date
    attempt: int
    requests: int


def most_at_once(per_minute: int) -> int:
    """Requests that may be asked for at once, of a budget of so many a minute."""
    return max(1, AT_ONCE_MIN * per_minute)


def pause(requests: int, per_minute: int) -> timedelta:
    """How long nothing more is asked for after so many requests, so that no more than the share is taken."""
    return timedelta(minutes=requests / (SHARE * per_minute))


def plan_healing(due: Iterable[Again], *, most: int, days_per_ask: int, room: int) -> tuple[Sequence[Ask], int]:
    """The runs to ask for, and the requests that they will take.

    Args:
        due: days that are due, those that waited longest first.
        most: requests, at most; the first day is asked for even if it takes more.
        days_per_ask: days of one run, at most.
        room: how many runs may be asked for.
    """
    costs: dict[tuple[str, date], int] = {}
    taken: dict[int, dict[str, list[date]]] = defaultdict(lambda: defaultdict(list))
    for one in due:
        if costs and sum(costs.values()) + one.requests > most:
            break
        costs[one.site, one.day] = one.requests
        taken[one.attempt][one.site].append(one.day)
    asks = [
        ask
        for attempt, by_site in sorted(taken.items())
        for ask in asks_of(attempt, {site: sorted(days) for site, days in by_site.items()}, days_per_ask)
    ][: max(room, 0)]
    wanted = sum(costs[site, day] for ask in asks for site in ask.sites for day in days_between(ask.first, ask.last))
    return asks, wanted
