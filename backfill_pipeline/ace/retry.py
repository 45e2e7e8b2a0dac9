"""The one owner of retries towards the ACE API. Each failure that is tried again is a warning in the log.

Put here: the loop that tries again. Keep out: how long to wait (`core/backoff.py`) and what counts as transient
(`errors.py`). Nothing above or below it retries a request: layers of retries multiply.
"""

import logging
import random
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from backfill_pipeline.core.backoff import Backoff
from backfill_pipeline.errors import StoppedError, TransientError

T = TypeVar("T")

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Retries:
    """How to try again.

    Attributes:
        backoff: how often and after how long.
        stop: once set, a wait ends at once with `StoppedError`.
        uniform: numbers in [0, 1) for jitter.
    """

    backoff: Backoff = field(default_factory=Backoff)
    stop: threading.Event = field(default_factory=threading.Event)
    uniform: Callable[[], float] = random.random

    def run(self, what: str, attempt: Callable[[int], T], *, about: Mapping[str, str] | None = None) -> T:
        """Call `attempt` until it succeeds, fails permanently, or has failed too often.

        Args:
            what: what is tried, for messages.
            attempt: called with the number of failures in a row so far.
            about: the log fields of what is tried (`core/log_fields.py`).

        Raises:
            TransientError: the last failure, when there were too many.
            StoppedError: asked to stop while waiting.
        """
        failures = 0
        while True:
            try:
                return attempt(failures)
            except TransientError as error:
                failures += 1
                delay = self.backoff.delay(failures, error.retry_after, self.uniform)
                if delay is None:
                    error.add_note(f"gave up after {failures} tries")
                    raise
                _LOG.warning(
                    f"{what}: {error}; try {failures + 1} of {self.backoff.tries} in {delay:.0f} s", extra=about
                )
                if self.stop.wait(delay):
                    raise StoppedError(f"{what}: stopped while waiting to try again") from error
