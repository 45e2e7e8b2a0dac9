"""The request budget of one key, shared by every thread and process of a machine that uses it.

A ledger in a SQLite file holds the slot of each request; at most N lie in any span of a minute. Whoever wants to send
takes the next free slot in one transaction and sleeps until then, so that slots go out in the order of asking and
nobody polls. A process that dies leaves slots unused and blocks no one.

Put here: how requests are counted and held back. Keep out: which requests there are.
"""

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Protocol

from backfill_pipeline.errors import SettingError, StoppedError

SPAN_S = 60.0
"""The sliding span that the budget is counted over, in seconds."""

MARGIN_S = 1.0
"""Kept on top of the span, since what counts is when requests arrive; 1.6 % of the budget."""

LONGEST_PAUSE_S = 3600.0
"""A longer wait than this is not taken from the API, whatever it asks for."""


class Budget(Protocol):
    """The right to send requests."""

    def acquire(self) -> float:
        """Block until one request may leave; the seconds waited.

        Raises:
            StoppedError: asked to stop while waiting.
        """

    def pause(self, seconds: float) -> None:
        """Let nobody's request leave for so long."""


class SqliteBudget:
    """The budget of one key in a SQLite file of this machine.

    Args:
        path: the file; made when missing.
        key_id: which key; one file serves several.
        per_minute: requests in any minute.
        stop: once set, waits end.
        clock: seconds, the same for all processes of the machine, never set back while it is up.
        span_s: the span that is counted over.
        margin_s: kept on top of it.
    """

    def __init__(
        self,
        path: Path,
        key_id: str,
        per_minute: int,
        *,
        stop: threading.Event | None = None,
        clock: Callable[[], float] = time.monotonic,
        span_s: float = SPAN_S,
        margin_s: float = MARGIN_S,
    ) -> None:
        self._path = path
        self._key = key_id
        self._most = per_minute
        self._stop = stop or threading.Event()
        self._clock = clock
        self._span = span_s + margin_s
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with self._ledger() as ledger:
                ledger.execute("CREATE TABLE IF NOT EXISTS slot (key TEXT NOT NULL, at REAL NOT NULL)")
                ledger.execute("CREATE INDEX IF NOT EXISTS slot_by_time ON slot (key, at)")
                ledger.execute("CREATE TABLE IF NOT EXISTS pause (key TEXT PRIMARY KEY, until REAL NOT NULL)")
        except (OSError, sqlite3.Error) as error:
            raise SettingError(
                f"BACKFILL_LIMITER: the request budget cannot be kept in {path} ({error}); "
                "name a file in a folder that can be written, as sqlite:///FILE"
            ) from error

    def acquire(self) -> float:
        """Block until one request may leave; the seconds waited."""
        started = self._clock()
        while True:
            slot = self._reserve()
            while (wait := slot - self._clock()) > 0:
                if self._stop.wait(min(wait, 1.0)):
                    self._release(slot)
                    raise StoppedError("stopped while waiting for the request budget")
            if self._departed(slot):
                return self._clock() - started

    def pause(self, seconds: float) -> None:
        """Let nobody's request leave for so long; the longer of two pauses counts."""
        until = self._clock() + min(max(seconds, 0.0), LONGEST_PAUSE_S)
        with self._ledger() as ledger:
            ledger.execute(
                "INSERT INTO pause VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET until = max(until, excluded.until)",
                (self._key, until),
            )

    def _reserve(self) -> float:
        """Take the next free slot."""
        with self._ledger() as ledger:
            now = self._clock()
            # Slots further ahead than any queue could be were written before the machine was last started.
            ledger.execute("DELETE FROM slot WHERE at < ? OR at > ?", (now - self._span, now + 2 * LONGEST_PAUSE_S))
            ledger.execute("DELETE FROM pause WHERE until > ?", (now + LONGEST_PAUSE_S,))
            paused = ledger.execute("SELECT max(until) FROM pause WHERE key = ?", (self._key,)).fetchone()[0]
            last = ledger.execute(
                "SELECT at FROM slot WHERE key = ? ORDER BY at DESC LIMIT 1 OFFSET ?", (self._key, self._most - 1)
            ).fetchone()
            slot = max(now, paused or 0.0, last[0] + self._span if last else 0.0)
            ledger.execute("INSERT INTO slot VALUES (?, ?)", (self._key, slot))
        return slot

    def _departed(self, slot: float) -> bool:
        """Write down when the request really leaves; False if a pause has come between, and the slot is given back.

        A thread that woke late would otherwise bring its request nearer to the one that takes the slot a span later.
        """
        with self._ledger() as ledger:
            now = self._clock()
            paused = ledger.execute("SELECT max(until) FROM pause WHERE key = ?", (self._key,)).fetchone()[0]
            row = "rowid = (SELECT rowid FROM slot WHERE key = ? AND at = ? LIMIT 1)"
            if paused is not None and now < paused <= now + LONGEST_PAUSE_S:
                ledger.execute(f"DELETE FROM slot WHERE {row}", (self._key, slot))  # noqa: S608 - a constant
                return False
            ledger.execute(f"UPDATE slot SET at = ? WHERE {row}", (now, self._key, slot))  # noqa: S608 - a constant
        return True

    def _release(self, slot: float) -> None:
        with self._ledger() as ledger:
            ledger.execute(
                "DELETE FROM slot WHERE rowid = (SELECT rowid FROM slot WHERE key = ? AND at = ? LIMIT 1)",
                (self._key, slot),
            )

    @contextmanager
    def _ledger(self) -> Iterator[sqlite3.Connection]:
        """One transaction that no other process interrupts."""
        with closing(sqlite3.connect(self._path, timeout=30, isolation_level=None)) as ledger:
            # A slot lost with the power is no harm, and a flush for each request would be.
            ledger.execute("PRAGMA synchronous = OFF")
            ledger.execute("BEGIN IMMEDIATE")
            try:
                yield ledger
            except BaseException:
                ledger.execute("ROLLBACK")
                raise
            ledger.execute("COMMIT")


def open_budget(url: str, *, key_id: str, per_minute: int, stop: threading.Event | None = None) -> Budget:
    """The budget that a URL names.

    Args:
        url: `sqlite:///FILE`.
        key_id: a fingerprint of the key.
        per_minute: requests in any minute.
        stop: once set, waits end with `StoppedError`.

    Raises:
        SettingError: no such kind of budget, or its place cannot be used.
    """
    scheme, _, place = url.partition("://")
    if scheme != "sqlite":
        raise SettingError(
            f"BACKFILL_LIMITER holds a {scheme}:// URL; this version keeps the budget of one machine, as sqlite:///FILE"
        )
    return SqliteBudget(Path(place.removeprefix("/")), key_id, per_minute, stop=stop)
