"""The fetching and storing of one run: days of some sites, several sites in parallel.

::

    results() <- one thread a site: fetch a day -> store and verify it -> compute its quality -> the next day

Put here: threads, and which errors end one day, one site, or the run. Keep out: Dagster (`day_run.py` records the
results), and how a day is fetched (`ace/fetch.py`) or stored (`storage/days.py`).
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Protocol

from backfill_pipeline.ace.client import PointList
from backfill_pipeline.ace.fetch import FetchedDay
from backfill_pipeline.core.object_keys import object_key
from backfill_pipeline.core.point_states import States, day_states, united
from backfill_pipeline.core.quality import Quality, quality
from backfill_pipeline.core.rows import Counts, DayRows
from backfill_pipeline.errors import (
    ApiDownError,
    BackfillError,
    BudgetUnavailableError,
    KeyRefusedError,
    SettingError,
    StoppedError,
    StoreRefusedError,
)
from backfill_pipeline.storage.days import StoredDay

STOPS_ALL = (ApiDownError, KeyRefusedError, StoreRefusedError, BudgetUnavailableError, SettingError)
"""Errors that would fail every further day as well."""

_LOOK_S = 0.5
"""Longest single wait, since nothing interrupts a wait on Windows."""


class Fetches(Protocol):
    """The part of `ace.fetch.Fetcher` that a run needs."""

    def days(self, site: str, days: Sequence[date], *, stop: threading.Event | None = None) -> Iterator[FetchedDay]:
        """A site's days, in order, each as soon as it is whole."""

    @property
    def is_waiting(self) -> bool:
        """Whether all requests wait for an API that is down, so that no started day can complete now."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A site-day whose object is verified.

    Attributes:
        fetched: how it was fetched, without its rows.
        stored: its object.
        counts: fetched, kept and dropped samples.
        quality: figures of its rows.
        put_s: seconds for encoding, storing and reading it back.
        states: by point, the different texts of its samples, if they are few.
    """

    fetched: FetchedDay
    stored: StoredDay
    counts: Counts
    quality: Quality
    put_s: float
    states: Mapping[str, States] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Failed:
    """Days of a site that were not stored because of one error."""

    site: str
    days: tuple[date, ...]
    error: Exception


class Work:
    """The days of one run. `results` may be iterated again after an interruption: no result is lost.

    Args:
        fetcher: fetches the days.
        put: stores a day with its facts and verifies it; called from several threads.
        sites: site names.
        days: UTC days, oldest first.
        at_once: sites in parallel.
        stop: once set, no further request is sent.
        skip: by site, days to skip.
        describe: takes a site's list of points, once, after the first of its days is stored; it raises nothing.
        learn: takes the states that points of a site had on a stored day, as far as they are new; it raises nothing.
        index: takes each stored day, for the index; it raises nothing.
        indexed: takes a site whose last day is stored or failed; it raises nothing.
    """

    def __init__(
        self,
        fetcher: Fetches,
        put: Callable[[DayRows, Mapping[str, str]], StoredDay],
        sites: Sequence[str],
        days: Sequence[date],
        *,
        at_once: int,
        stop: threading.Event,
        skip: Mapping[str, Collection[date]] | None = None,
        describe: Callable[[PointList], None] = lambda _points: None,
        learn: Callable[[str, Mapping[str, States], date], None] = lambda _site, _states, _day: None,
        index: Callable[[Stored], None] = lambda _stored: None,
        indexed: Callable[[str], None] = lambda _site: None,
    ) -> None:
        self._learn = learn
        self._index, self._indexed = index, indexed
        self._describe = describe
        self._fetcher = fetcher
        self._put = put
        self._days = days
        self._skip = skip or {}
        self._stop = stop
        self._finishing = threading.Event()
        self._grace: threading.Timer | None = None
        self._changed = threading.Condition()
        self._results: deque[Stored | Failed] = deque()
        self._live = len(sites)
        self._pool = ThreadPoolExecutor(at_once, thread_name_prefix="site")
        for site in sites:
            self._pool.submit(self._site, site)

    def results(self) -> Iterator[Stored | Failed]:
        """Yield each result as soon as it exists, until all sites are done or stopped."""
        while True:
            with self._changed:
                while not self._results and self._live:
                    self._changed.wait(_LOOK_S)
                if not self._results:
                    return
            yield self._results[0]
            self._results.popleft()  # only now: a caller that was interrupted receives it again

    def finish(self, grace_s: float) -> None:
        """Start no new day; started days may complete within `grace_s` seconds, unless the API is down."""
        self._finishing.set()
        self._grace = threading.Timer(0 if self._fetcher.is_waiting else grace_s, self._stop.set)
        self._grace.daemon = True
        self._grace.start()

    def close(self) -> None:
        """Stop all threads, and wait for their end."""
        self._stop.set()
        if self._grace is not None:
            self._grace.cancel()
        self._pool.shutdown(cancel_futures=True)

    def _site(self, site: str) -> None:
        """Thread: one site's days, oldest first."""
        left = deque(day for day in self._days if day not in self._skip.get(site, ()))
        try:
            self._site_days(site, left)
        except StoppedError:
            pass
        except Exception as error:  # noqa: BLE001 - the run reports any error, and other sites continue
            if isinstance(error, STOPS_ALL):
                self._stop.set()
            if left:
                if isinstance(error, BackfillError):
                    error.of(site)
                self._give(Failed(site, tuple(left), error))
        finally:
            self._indexed(site)
            with self._changed:
                self._live -= 1
                self._changed.notify()

    def _site_days(self, site: str, left: deque[date]) -> None:
        if not left or self._stop.is_set() or self._finishing.is_set():
            return
        object_key(site, left[0])  # a site whose name gives no valid object key fails before any request
        described, known = False, dict[str, States | None]()
        with closing(self._fetcher.days(site, list(left), stop=self._stop)) as days:  # type: ignore[type-var]  # a generator
            for fetched in days:
                result = self._settled(fetched)
                left.remove(fetched.day)
                self._give(result)
                if fetched.listed is not None and isinstance(result, Stored) and not described:
                    self._describe(fetched.listed)
                    described = True
                if isinstance(result, Stored):
                    self._index(result)
                    self._learn_new(result, known)
                del fetched  # frees its rows: the next day may be as large
                if self._finishing.is_set():
                    return

    def _learn_new(self, day: Stored, known: dict[str, States | None]) -> None:
        """Report the states of a day that are new in this run, and add them to `known`."""
        new = {}
        for name, states in day.states.items():
            whole = united(known.get(name), states)
            if whole is not None and whole != known.get(name):
                known[name] = new[name] = whole
        if new:
            self._learn(day.fetched.site, new, day.fetched.day)

    def _settled(self, fetched: FetchedDay) -> Stored | Failed:
        """Store a fetched day; an error of this day fails only this day."""
        if fetched.rows is None:
            error = fetched.error or BackfillError("the fetcher returned neither rows nor an error")
            if isinstance(error, STOPS_ALL):
                raise error
            return Failed(fetched.site, (fetched.day,), error)
        try:
            began = time.monotonic()
            stored = self._put(fetched.rows, fetched.facts)
            put_s = time.monotonic() - began
            figures = quality(fetched.rows)
        except STOPS_ALL:
            raise
        except Exception as surprise:  # noqa: BLE001 - an error of one day must not fail the next days
            if isinstance(surprise, BackfillError):
                surprise.of(fetched.site, fetched.day)
            return Failed(fetched.site, (fetched.day,), surprise)
        states = day_states(fetched.rows)
        return Stored(replace(fetched, rows=None), stored, fetched.rows.counts, figures, put_s, states)

    def _give(self, result: Stored | Failed) -> None:
        with self._changed:
            self._results.append(result)
            self._changed.notify()
