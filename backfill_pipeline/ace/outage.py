"""Outages of the API: one probe for all threads, no failed day, and the pace of before when it answers again.

::

    request fails --> is it an outage? a probe, the smallest useful request, decides
                        the probe answers: no. The request failed for its own reason, such as its size
                        the probe fails:   yes. All requests wait; one thread probes at growing distances

A URL that never answered is not an outage but a wrong setting, and fails at once. Put here: what an outage is, who
probes, how long is waited. Keep out: the requests themselves (`ace/client.py`), and reports (`orchestration/`).
"""

import contextlib
import hashlib
import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from backfill_pipeline.core.transport_faults import SETTINGS_FAULTS, FaultKind
from backfill_pipeline.errors import ApiDownError, StoppedError, TransientError

_LOG = logging.getLogger(__name__)

FIRST_PROBE_S, LONGEST_PROBE_S = 5.0, 60.0
"""Seconds between two probes: at first, and at most; each is twice as long as the one before."""

OUTAGE_FAULTS = frozenset(
    {
        FaultKind.DNS,
        FaultKind.REFUSED,
        FaultKind.UNREACHABLE,
        FaultKind.RESET,
        FaultKind.CONNECT_TIMEOUT,
        FaultKind.TIMEOUT,
        *SETTINGS_FAULTS,
    }
)
"""Transport faults that an outage shows as: no byte of the API's own answer arrived.

Once the API has answered, a certificate that expires or a proxy that refuses is an outage like any other.
"""

OUTAGE_STATUSES = frozenset({502, 503, 504, 520, 521, 522, 523, 524, 525, 526, 527, 530})
"""HTTP statuses of a proxy in front of the API that cannot reach the API."""

Report = Callable[[datetime | None], None]
"""Takes the instant since which the API has not answered; None once it answers again."""


class OutageGate:
    """Where all requests of a client wait while the API is down. Safe for use by several threads.

    Args:
        minutes: how long an outage may last until requests fail; 0: requests never wait for an outage to end.
        answered: whether the API at this URL has answered before, in an earlier process.
        remember: keeps that it has, for later processes.
        stop: once set, waits end with `StoppedError`.
        report: called when an outage begins and when it ends; it raises nothing.
        now: Unix seconds.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        *,
        minutes: float = 0.0,
        answered: bool = False,
        remember: Callable[[], None] = lambda: None,
        stop: threading.Event | None = None,
        report: Report = lambda _since: None,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.minutes = minutes
        self._answered = answered
        self._remember = remember
        self._stop = stop or threading.Event()
        self._report = report
        self._now = now
        self._clock = clock
        self._lock = threading.Lock()
        self._probing = threading.Lock()  # held by the one thread that probes
        self._open = threading.Event()  # not set: the API is down
        self._open.set()
        self._over = 0  # outages that have ended
        self._failed: ApiDownError | None = (
            None  # the last outage was longer than is waited for, and no answer came since
        )

    @property
    def is_down(self) -> bool:
        """Whether requests wait for the API now."""
        return not self._open.is_set()

    @property
    def has_answered(self) -> bool:
        """Whether the API has answered, this process or an earlier one."""
        return self._answered

    def answered(self) -> None:
        """Take in that the API has answered: from now on its silence is an outage."""
        self._failed = None
        if not self._answered:
            self._answered = True
            self._remember()

    def wait(self) -> int:
        """Wait until no outage is known of.

        Returns:
            How many outages have ended by now; `rides_out` takes it of a request that is sent after this.

        Raises:
            ApiDownError: the outage was longer than an outage may last.
            StoppedError: asked to stop meanwhile.
        """
        waited = False
        while not self._open.wait(0.5):
            waited = True
            if self._stop.is_set():
                raise StoppedError("stopped while waiting for the API to answer again")
        if waited:
            self._raise_if_failed()
        return self._over

    def rides_out(self, error: TransientError, probe: Callable[[], None], ended: int = 0) -> bool:
        """Whether a failed request failed since the API was down; it answers again when this returns True.

        Args:
            error: how the request failed.
            probe: sends the smallest useful request; raises `TransientError` while the API is down.
            ended: what `wait` returned before the request was sent.

        Returns:
            False when the API answers the probe at once, so that the request failed for a reason of its own, and when
            the API never answered before.

        Raises:
            ApiDownError: the API has not answered for as long as an outage may last.
            StoppedError: asked to stop meanwhile.
        """
        if not (error.is_outage and self._answered and self.minutes > 0):
            return False
        since = self._now()
        with self._probing:
            if self._over != ended:  # an outage has ended since the request was sent: another thread has waited for it
                self._raise_if_failed()
                return True
            try:
                probe()
            except TransientError as failed:
                if failed.is_outage:
                    self._raise_if_failed()  # the same outage: it is not waited for anew by each thread
                    self._wait_out(since, failed, probe)
                    return True
            self._failed = None
        return False

    def _raise_if_failed(self) -> None:
        if (failed := self._failed) is not None:
            raise ApiDownError(failed.message, hint=failed.hint)

    def _wait_out(self, since: float, error: TransientError, probe: Callable[[], None]) -> None:
        """Probe until the API answers; all other threads wait meanwhile."""
        at = datetime.fromtimestamp(since, UTC)
        self._open.clear()
        self._report(at)
        deadline = self._clock() + 60 * self.minutes
        pause = max(FIRST_PROBE_S, min(error.retry_after or 0.0, LONGEST_PROBE_S))
        _LOG.warning(
            f"the API has not answered since {at:%Y-%m-%d %H:%M:%S} UTC ({error.message}): all requests wait for it, "
            f"for {self.minutes:g} minutes at most (ACE_OUTAGE_MINUTES)"
        )
        try:
            while True:
                left = deadline - self._clock()
                if left <= 0:
                    self._failed = ApiDownError(
                        f"the API has not answered since {at:%Y-%m-%d %H:%M} UTC, for {self.minutes:g} minutes: "
                        f"{error.message}",
                        hint="start the backfill again once the API answers; stored days stay stored",
                    )
                    raise self._failed
                if self._stop.wait(min(pause, left)):
                    raise StoppedError("stopped while waiting for the API to answer again")
                pause = min(2 * pause, LONGEST_PROBE_S)
                try:
                    probe()
                except TransientError as failed:
                    if failed.is_outage:
                        error = failed
                        _LOG.warning(f"the API does not answer yet ({error.message}); next probe in {pause:.0f} s")
                        continue
                break
            _LOG.warning(f"the API answers again, after {(self._now() - since) / 60:.1f} minutes")
        finally:
            self._over += 1
            self._report(None)
            self._open.set()


class AnsweredBefore:
    """Whether an API has answered a process of this installation before, as a small file.

    Args:
        folder: where it is kept.
        url: the API's address.
    """

    def __init__(self, folder: Path, url: str) -> None:
        self._path = folder / f"answered-{hashlib.sha256(url.encode('utf-8', 'surrogatepass')).hexdigest()[:24]}"

    def __bool__(self) -> bool:
        """Whether it has."""
        try:
            return self._path.exists()
        except OSError:
            return False

    def keep(self) -> None:
        """Record that the API has answered; if the disk refuses, only this record is lost."""
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.touch()
