"""Ranges of days, and sites, that an operator asks for.

Put here: which can be backfilled, and what is said of those that can not. Keep out: which of their days are
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
"""Beyond it, the instant at which a day is ready may lie outside the calendar."""

AT_ONCE = 16
"""Objects that are looked up side by side."""


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


def named_sites(settings: Settings, sites: Sequence[str], days: Sequence[date] = ()) -> tuple[str, ...]:
    """The sites whose stored days a command reads.

    Without `ACE_SITES` they are the sites of the key, which takes a request to the API. It is not sent when every site
    that was named has an object on one of the days: such a site may be archived, and needs no key.

    Args:
        settings: the sites, the store and the key.
        sites: the sites that were named; none: all sites of `ACE_SITES` or of the key.
        days: the days that the command reads.

    Raises:
        UsageError: a site that was named is not one of them, and none of its days is stored.
        SettingError: `ACE_SITES` is not set, and the API could not be asked for the sites of the key.
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
    """Whether the store has an object of the site on one of the days; the latest are looked at first."""
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
