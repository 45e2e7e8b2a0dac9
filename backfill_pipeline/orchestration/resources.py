"""The ACE API as a Dagster resource.

Put here: what turns settings into domain objects when a run begins. Keep out: what they do (`ace/`). The key is no
configuration of the resource: it stays in the settings, which each process reads for itself, so that neither the UI nor
the run storage ever holds it.
"""

import logging
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from datetime import date

import dagster as dg
from pydantic import PrivateAttr

from backfill_pipeline.ace.client import AceClient, PointList, open_client
from backfill_pipeline.ace.fetch import Fetcher
from backfill_pipeline.ace.outage import Report
from backfill_pipeline.core.backoff import Backoff
from backfill_pipeline.core.point_states import States
from backfill_pipeline.core.rows import DayRows
from backfill_pipeline.orchestration.json_logs import logged_to
from backfill_pipeline.orchestration.site_runner import Failed, Fetches, Stored, Work
from backfill_pipeline.settings import Settings
from backfill_pipeline.storage.days import StoredDay


class AceResource(dg.ConfigurableResource[None]):
    """The ACE API, with its paging, budget and retries, as the settings describe it, and the work of a run upon it.

    The work belongs to the resource and not to the op, since Dagster tears a resource down however a run ends: a cancel
    that arrives while Dagster stores an event never comes back to the op.
    """

    settings: dg.ResourceDependency[Settings]
    _begun: list[tuple[Work, Callable[[Stored | Failed], None]]] = PrivateAttr(default_factory=list)
    _logged: ExitStack = PrivateAttr(default_factory=ExitStack)

    def fetcher(
        self,
        *,
        stop: threading.Event,
        outage: Report = lambda _since: None,
        has_answered: bool = False,
    ) -> Fetches:
        """A fetcher of whole days; finished windows are kept in the private folder.

        Args:
            stop: once set, no further request leaves and waits end.
            outage: told since when the API has not answered, and (None) when it answers again.
            has_answered: whether the API is known to have answered before, on whatever host.

        Raises:
            SettingError: no key is set, or the budget cannot be opened.
        """
        settings = self.settings
        return Fetcher(
            open_client(
                settings,
                stop=stop,
                outage_minutes=settings.outage_minutes,
                report=outage,
                has_answered=has_answered,
            ),
            spool=settings.private / "spool",
            max_page_size=settings.max_page_size,
            max_windows=settings.max_windows,
            requests_per_minute=settings.requests_per_minute,
            accept_marks=settings.accept_marks,
        )

    def client(self) -> AceClient:
        """The ACE API for a few requests; each is retried once, and fails at once while the API is down.

        Raises:
            SettingError: no key is set, or the budget cannot be opened.
        """
        return open_client(self.settings, backoff=Backoff(tries=2))

    def work(
        self,
        put: Callable[[DayRows, Mapping[str, str]], StoredDay],
        sites: Sequence[str],
        days: Sequence[date],
        *,
        log: logging.Logger,
        left: Callable[[Stored | Failed], None],
        skip: Mapping[str, Collection[date]] | None = None,
        describe: Callable[[PointList], None] = lambda _points: None,
        learn: Callable[[str, Mapping[str, States], date], None] = lambda _site, _states, _day: None,
        index: Callable[[Stored], None] = lambda _stored: None,
        indexed: Callable[[str], None] = lambda _site: None,
        outage: Report = lambda _since: None,
        has_answered: bool = False,
    ) -> Work:
        """Begin to fetch and store days.

        Args:
            put: stores a day and verifies it; called from several threads.
            sites: site names.
            days: UTC days, oldest first.
            log: the run's log: until the run ends, it takes what the project logs while it fetches.
            left: takes each result that nobody has taken when the run ends.
            skip: by site, days to leave out.
            describe: takes the list of points of each site of which a day was stored.
            learn: takes the states of points, as far as they are new to the run.
            index: takes each stored day, for the index.
            indexed: takes a site whose last day is stored or failed.
            outage: told since when the API has not answered, and (None) when it answers again.
            has_answered: whether the API is known to have answered before, on whatever host.

        Raises:
            SettingError: no key is set, or the budget cannot be opened.
        """
        stop = threading.Event()
        self._logged.enter_context(logged_to(log))
        fetcher = self.fetcher(stop=stop, outage=outage, has_answered=has_answered)
        work = Work(
            fetcher,
            put,
            sites,
            days,
            at_once=self.settings.sites_at_once,
            stop=stop,
            skip=skip,
            describe=describe,
            learn=learn,
            index=index,
            indexed=indexed,
        )
        self._begun.append((work, left))
        return work

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:  # noqa: ARG002 - Dagster's signature
        """Let days at work complete within their grace, hand over what nobody has taken, and stop."""
        for work, left in self._begun:
            work.finish(self.settings.grace_seconds)
            for result in work.results():
                left(result)
            work.close()
        self._logged.close()
