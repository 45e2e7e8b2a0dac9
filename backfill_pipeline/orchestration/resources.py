"""The ACE API as a Dagster resource.

Put here: what turns settings into domain objects when a run begins. Keep out: what they do (`ace/`). The key is no
configuration of the resource: it stays in the settings, which each process reads for itself, so that neither the UI nor
the run storage ever holds it.
"""

import threading
from collections.abc import Callable

import dagster as dg

from backfill_pipeline.ace.client import open_client
from backfill_pipeline.ace.fetch import Fetcher
from backfill_pipeline.orchestration.work import Fetches
from backfill_pipeline.settings import Settings


class AceResource(dg.ConfigurableResource[None]):
    """The ACE API, with its paging, budget and retries, as the settings describe it."""

    settings: dg.ResourceDependency[Settings]

    def fetcher(self, *, stop: threading.Event, log: Callable[[str], None]) -> Fetches:
        """A fetcher of whole days; finished windows are kept in the private folder.

        Args:
            stop: once set, no further request leaves and waits end.
            log: takes a line for each window, and for each failure that is tried again.

        Raises:
            SettingError: no key is set, or the budget cannot be opened.
        """
        settings = self.settings
        return Fetcher(
            open_client(settings, stop=stop, log=log),
            spool=settings.private / "spool",
            max_page_size=settings.max_page_size,
            max_windows=settings.max_windows,
            accept_marks=settings.accept_marks,
            log=log,
        )
