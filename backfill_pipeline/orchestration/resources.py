"""The ACE API as a Dagster resource.

Put here: what turns settings into domain objects when a run begins. Keep out: what they do (`ace/`). The key is no
configuration: it is read from the environment by the process that needs it, so that neither the UI nor the run storage
ever holds it.
"""

import threading
from collections.abc import Callable

import dagster as dg

from backfill_pipeline.ace.client import AceClient, open_client
from backfill_pipeline.ace.fetch import Fetcher
from backfill_pipeline.settings import Settings


class AceResource(dg.ConfigurableResource):
    """The ACE API, with its paging, budget and retries, as the settings describe it."""

    def settings(self) -> Settings:
        """The settings of this process."""
        return Settings.load()

    def client(self, *, stop: threading.Event, log: Callable[[str], None]) -> AceClient:
        """A client within the shared budget.

        Args:
            stop: once set, waits end.
            log: takes a line for each failure that is tried again.
        """
        return open_client(self.settings(), stop=stop, log=log)

    def fetcher(self, *, stop: threading.Event, log: Callable[[str], None]) -> Fetcher:
        """A fetcher of whole days, its finished windows kept in the private folder."""
        settings = self.settings()
        return Fetcher(
            self.client(stop=stop, log=log),
            spool=settings.private / "spool",
            max_page_size=settings.max_page_size,
            max_windows=settings.max_windows,
            accept_marks=settings.accept_marks,
            log=log,
        )
