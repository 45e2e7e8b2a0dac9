"""Ranges of days and lists of sites: are they valid.

Put here: which days and sites can be backfilled, and the errors about the others. Keep out: which of their days are
stored (`dagster_instance.py`).
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime

from backfill_pipeline.core.day import days_between
from backfill_pipeline.core.object_keys import object_key
from backfill_pipeline.errors import UsageError, quoted
from backfill_pipeline.settings import Settings

_LAST_YEAR = 9990
"""After this year, the time at which a day is ready may be outside the calendar."""

_SHOWN_SITES = 10

AT_ONCE = 16
"""The number of objects that are looked up concurrently."""


def checked_days(settings: Settings, first: date, last: date, now: datetime) -> list[date]:
    """Check a range of days; return every day of it.

    Args:
        settings: the first day of the backfill, and the time from the end of a day until it is ready.
        first: first day.
        last: last day, included.
        now: the current time, aware.

    Raises:
        UsageError: the range is reversed, begins before the first day, or contains a day that is not ready.
    """
    if last < first:
        raise UsageError(f"the last day, {last}, is before the first, {first}", about="last")
    if first < settings.first_day:
        raise UsageError(
            f"{first} is before {settings.first_day}, the first day of the backfill (BACKFILL_FIRST_DAY)", about="first"
        )
    if last.year > _LAST_YEAR:
        raise UsageError(f"{last} is not ready: the calendar ends there", about="last")
    ready = settings.ready_at(last)
    if ready > now:
        raise UsageError(
            f"{last} is not ready: it can be fetched from {ready:%Y-%m-%d %H:%M} UTC on, "
            f"{settings.raw_lag_hours:g} hours after its end (ACE_RAW_LAG_HOURS)",
            about="last",
        )
    return list(days_between(first, last))


def checked_sites(sites: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    """Check site names; return each of them once, or all known sites when none is named.

    Raises:
        UsageError: a name is not a known site.
    """
    unknown = [site for site in sites if site not in known]
    if unknown:
        raise UsageError(
            f"{quoted(unknown[0])} is not a configured site (ACE_SITES)",
            about="site",
            hint=f"use one of: {', '.join(known[:_SHOWN_SITES])}{' and more' if len(known) > _SHOWN_SITES else ''}",
        )
    return tuple(dict.fromkeys(sites)) or tuple(known)


def named_sites(settings: Settings, sites: Sequence[str], days: Sequence[date] = ()) -> tuple[str, ...]:
    """Check the sites whose stored days a command reads.

    Without `ACE_SITES` these are the sites of the API key, which takes a request to the API. The request is not sent
    when every named site has an object on one of the days: such a site may be archived, and needs no API key.

    Args:
        settings: the sites, the store and the API key.
        sites: the named sites; empty: all sites of `ACE_SITES` or of the API key.
        days: the days that the command reads.

    Raises:
        UsageError: a named site is not configured, and none of its days is stored.
        SettingError: `ACE_SITES` is not set, and the API does not list the sites of the API key.
        StoreRefusedError, StoreBusyError: the store cannot be read.
    """
    if settings.sites:
        return checked_sites(sites, settings.sites)
    if not all(sites):
        raise UsageError("the name of a site is empty", about="site")
    stored = [site for site in dict.fromkeys(sites) if _is_stored(settings, site, days)]
    if sites and set(sites) == set(stored):
        return tuple(stored)
    from backfill_pipeline.orchestration.build import sites_of  # noqa: PLC0415 - Dagster takes long to import

    return checked_sites(sites, (*sites_of(settings), *stored))


def _is_stored(settings: Settings, site: str, days: Sequence[date]) -> bool:
    """Whether the store has an object of the site on one of the days; looks at the latest days first."""
    from backfill_pipeline.storage.days import settings_store  # noqa: PLC0415 - Arrow takes long to import

    if not days:
        return False
    store = settings_store(settings)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        latest = sorted(days, reverse=True)
        for start in range(0, len(latest), AT_ONCE):
            batch = latest[start : start + AT_ONCE]
            if any(pool.map(lambda day: store.head(object_key(site, day)) is not None, batch)):
                return True
    return False
