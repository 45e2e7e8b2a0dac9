"""The request budget of one key, shared by every thread, process and machine that uses it.

A ledger (`ace/budget_storage.py`) holds the slot of each request; at most N lie in any span of a minute. Whoever wants
to send reserves the next free slot, sleeps until then, and writes down that it left: slots go out in the order of
asking and nobody polls. A process reserves one slot at a time, so processes take turns however many threads each has,
and one that dies leaves at most one slot unused.

Put here: when a request may leave. Keep out: where that is written down (`ace/budget_storage.py`), and which requests
there are.
"""

import logging
import math
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from backfill_pipeline.ace.budget_storage import Ledger, PostgresLedger, RedisLedger, SqliteLedger
from backfill_pipeline.core.backoff import bounded
from backfill_pipeline.errors import SettingError, StoppedError, WaitTooLongError

_LOG = logging.getLogger(__name__)

SPAN_S = 60.0
"""The sliding span that the budget is counted over, in seconds."""

MARGIN_S = 1.0
"""Kept on top of the span, since what counts is when requests arrive; 1.6 % of the budget."""

REPORTED_S = 5.0
"""A wait from this length on is reported before it begins, in seconds."""


class Budget(Protocol):
    """The right to send requests."""

    def acquire(self) -> float:
        """Block until one request may leave; the seconds waited.

        Raises:
            StoppedError: asked to stop while waiting.
            WaitTooLongError: the wait would be longer than the caller accepts.
        """

    def pause(self, seconds: float) -> None:
        """Pause all requests for `seconds`."""


class SharedBudget:
    """The budget of one key.

    Args:
        ledger: where slots are written down.
        stop: once set, waits end.
        clock: seconds, monotonic; only differences count, the ledger has a clock of its own.
        longest_s: raise `WaitTooLongError` instead of a wait that is longer than this, in seconds.
    """

    def __init__(
        self,
        ledger: Ledger,
        *,
        stop: threading.Event | None = None,
        clock: Callable[[], float] = time.monotonic,
        longest_s: float = math.inf,
    ) -> None:
        self._ledger = ledger
        self._stop = stop or threading.Event()
        self._clock = clock
        self._longest_s = longest_s
        self._reported = -math.inf  # the end of the wait that was reported last
        self._turn = threading.Lock()

    def acquire(self) -> float:
        """Block until one request may leave; the seconds waited."""
        started = self._clock()
        while not self._turn.acquire(timeout=1.0):
            self._check()
        try:
            while not self._one_slot():
                pass
        finally:
            self._turn.release()
        return self._clock() - started

    def pause(self, seconds: float) -> None:
        """Pause all requests for `seconds`, at most `CEILING_S`; the longer of two pauses counts."""
        self._ledger.pause(bounded(seconds))

    def wait_now(self) -> float:
        """Seconds that a request would have to wait now; a slot is reserved, and given back."""
        slot, wait = self._ledger.reserve()
        self._ledger.release(slot)
        return wait

    def paused(self) -> float:
        """Seconds until the pause that the API requested ends; 0.0 when there is none."""
        return self._ledger.paused()

    def used(self, seconds: float = SPAN_S) -> int:
        """Requests of the key that left in so many seconds until now, whoever sent them; no slot is reserved.

        Raises:
            BudgetUnavailableError: where they are written down cannot be read now.
        """
        return self._ledger.used(seconds)

    def _one_slot(self) -> bool:
        """Reserve a slot and wait for it; False if a pause has come between, and the slot is given back."""
        self._check()
        slot, wait = self._ledger.reserve()
        due = self._clock() + wait
        if wait > self._longest_s:
            self._ledger.release(slot)
            raise WaitTooLongError(f"a request would wait {wait:.0f} s now: {self._reason()}", seconds=wait)
        if wait >= REPORTED_S and due > self._reported + REPORTED_S:
            self._reported = due
            _LOG.warning(f"waiting {wait:.0f} s before the next request: {self._reason()}")
        while (wait := due - self._clock()) > 0:
            if self._stop.wait(min(wait, 1.0)):
                self._ledger.release(slot)
                self._check()
        return self._ledger.depart(slot)

    def _reason(self) -> str:
        if self._ledger.paused() > 0:
            return "the API requested a pause"
        return "the budget of this minute is used (ACE_REQUESTS_PER_MINUTE)"

    def _check(self) -> None:
        if self._stop.is_set():
            raise StoppedError("stopped while waiting for the request budget")


def open_budget(
    url: str,
    *,
    key_id: str,
    per_minute: int,
    stop: threading.Event | None = None,
    span_s: float = SPAN_S + MARGIN_S,
    longest_s: float = math.inf,
) -> SharedBudget:
    """The budget that a URL names.

    Args:
        url: `sqlite:///FILE` for the processes of one machine; `postgresql://...` or `redis://...` for several.
        key_id: a fingerprint of the key; one ledger serves several.
        per_minute: requests in any minute.
        stop: once set, waits end with `StoppedError`.
        span_s: seconds that a slot counts for.
        longest_s: a longer wait raises `WaitTooLongError`, in seconds.

    Raises:
        SettingError: no such kind of budget, its place cannot be used, or its driver is not installed.
    """
    scheme, _, place = url.partition("://")
    ledger: Ledger
    if scheme == "sqlite":
        ledger = SqliteLedger(Path(place.removeprefix("/")), key_id, per_minute, span_s, stop=stop)
    elif scheme == "postgresql":
        ledger = PostgresLedger(url, key_id, per_minute, span_s)
    elif scheme in ("redis", "rediss"):
        ledger = RedisLedger(url, key_id, per_minute, span_s)
    else:
        raise SettingError(
            f"BACKFILL_LIMITER contains a {scheme}:// URL", hint="set it to a sqlite, postgresql or redis URL"
        )
    return SharedBudget(ledger, stop=stop, longest_s=longest_s)
