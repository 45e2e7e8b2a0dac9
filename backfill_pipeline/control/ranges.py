"""Ranges of days, and sites, that an operator asks for.

Put here: which can be backfilled, and what is said of those that can not. Keep out: which of their days are
stored (`gateway.py`).
"""

from collections.abc import Sequence
from datetime import date, datetime

from backfill_pipeline.core.day import days_between
from backfill_pipeline.errors import SettingError, UsageError, quoted
from backfill_pipeline.settings import Settings

_LAST_YEAR = 9990
"""Beyond it, the instant at which a day is ready may lie outside the calendar."""


def checked_days(settings: Settings, first: date, last: date, now: datetime) -> list[date]:
    """Every day from `first` to `last`, both included.

    Args:
        settings: the first day there is, and how long after its end a day is ready.
        first: first day.
        last: last day.
        now: the instant, aware.

    Raises:
        UsageError: the range is reversed, begins before the first day, or holds a day that is not ready.
    """
    if last < first:
        raise UsageError(f"the last day, {last}, lies before the first, {first}", about="last")
    if first < settings.first_day:
        raise UsageError(
            f"{first} lies before {settings.first_day}, the first day that there is (BACKFILL_FIRST_DAY)", about="first"
        )
    if last.year > _LAST_YEAR:
        raise UsageError(f"{last} is not ready: the calendar ends there", about="last")
    ready = settings.ready_at(last)
    if ready > now:
        raise UsageError(
            f"{last} is not ready: its samples are asked for {settings.raw_lag_hours:g} hours after it ends "
            f"(ACE_RAW_LAG_HOURS), that is from {ready:%Y-%m-%d %H:%M} UTC on",
            about="last",
        )
    return list(days_between(first, last))


def checked_sites(sites: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    """The sites that were asked for, each once; all that there are when none was.

    Raises:
        UsageError: one of them is none of those that may be backfilled.
    """
    unknown = [site for site in sites if site not in known]
    if unknown:
        raise UsageError(
            f"{quoted(unknown[0])} is none of the sites that may be backfilled: {', '.join(known[:10])}"
            f"{' and more' if len(known) > 10 else ''}; see ACE_SITES",  # noqa: PLR2004 - what fits on a line
            about="site",
        )
    return tuple(dict.fromkeys(sites)) or tuple(known)


def named_sites(settings: Settings, sites: Sequence[str]) -> tuple[str, ...]:
    """The sites of `ACE_SITES` that were asked for, all when none was; without it, those that were asked for.

    Raises:
        UsageError: one of them is none of `ACE_SITES`, or has no name.
        SettingError: none was asked for, and none is set.
    """
    if settings.sites:
        return checked_sites(sites, settings.sites)
    if not sites:
        raise SettingError("ACE_SITES is not set: name the sites there, or with --site")
    if not all(sites):
        raise UsageError("a site has a name", about="site")
    return tuple(dict.fromkeys(sites))
