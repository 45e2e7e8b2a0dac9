"""Ledgers: where the slots of a request budget are written down, one clock for all who share one.

Each kind does the same in one step that nobody else interrupts, by its own clock: a SQLite file with the machine's
monotonic clock, a Postgres database or a Redis server with the server's. Put here: the stores of the budget. Keep out:
waiting, and what is counted (`ace/budget.py`).
"""

import hashlib
import logging
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar
from urllib.parse import urlsplit

from backfill_pipeline.core.backoff import CEILING_S
from backfill_pipeline.errors import BudgetUnavailableError, SettingError, StoppedError

T = TypeVar("T")

_LOG = logging.getLogger(__name__)

FARTHEST_S = 7200.0
"""No slot and no pause lies further ahead than this; one that does was written by a clock that was set back since."""

REACH_S = 10.0
"""A ledger on a server that does not answer for so long counts as cut off."""

TRIES = 5
"""How often a step is tried with a server that was cut off, each after a second more, before the run is told."""


LOCK_WAIT_S = 150.0
"""How many seconds a locked SQLite file is waited for: no lock shorter than two minutes fails anything."""

LOOK_WAIT_S = 5.0
"""How many seconds `used`, which only shows a figure, waits for a locked SQLite file."""


class Ledger(Protocol):
    """Slots of one key."""

    def reserve(self) -> tuple[str, float]:
        """Take the next free slot: its name, and the seconds until it begins."""

    def depart(self, slot: str) -> bool:
        """Write down that the request of `slot` leaves now; False if nobody may: then the slot is given back."""

    def release(self, slot: str) -> None:
        """Give a slot back unused."""

    def pause(self, seconds: float) -> None:
        """Let nobody depart for so long; the longer of two pauses counts."""

    def paused(self) -> float:
        """Seconds until the pause ends; 0.0 when there is none."""

    def used(self, seconds: float) -> int:
        """Requests that left in so many seconds until now; nothing is written down.

        Raises:
            BudgetUnavailableError: the ledger cannot be read now.
        """


class _Execute(Protocol):
    def __call__(self, statement: str, *values: object) -> Any: ...


_Work = Callable[[_Execute, float], T]
"""What one transaction does: given a way to execute statements, and the ledger's time at which it has begun."""


class _SqlLedger:
    """A ledger in two tables of a database.

    Args:
        key: fingerprint of the key.
        most: slots in any span.
        span_s: seconds that a slot counts for.
    """

    def __init__(self, key: str, most: int, span_s: float) -> None:
        self._key, self._most, self._span = key, most, span_s

    def _run(self, work: _Work[T], *, is_patient: bool = True) -> T:
        """Do `work` in one transaction that no one else interrupts; try again for a while when that is not possible.

        Raises:
            BudgetUnavailableError: it is still not possible; with `is_patient` false, after a short while.
        """
        raise NotImplementedError

    def reserve(self) -> tuple[str, float]:
        """Take the next free slot: its name, and the seconds until it begins."""
        name = uuid.uuid4().hex

        def work(execute: _Execute, now: float) -> tuple[str, float]:
            execute("DELETE FROM backfill_slot WHERE at < ? OR at > ?", now - self._span, now + FARTHEST_S)
            paused = self._paused(execute, now)  # first: it may move slots
            last = execute(
                "SELECT at FROM backfill_slot WHERE key = ? ORDER BY at DESC LIMIT 1 OFFSET ?",
                self._key,
                self._most - 1,
            ).fetchone()
            at = max(now, paused, last[0] + self._span if last else 0.0)
            execute("INSERT INTO backfill_slot (name, key, at) VALUES (?, ?, ?)", name, self._key, at)
            return name, at - now

        return self._run(work)

    def depart(self, slot: str) -> bool:
        """Write down that the request of `slot` leaves now, which may be later than reserved.

        A thread that woke late would otherwise bring its request nearer to the one that takes the slot a span later.
        False as well when the slot is too old to be kept: a lock may have made the caller wait for longer than a span.
        """

        def work(execute: _Execute, now: float) -> bool:
            if self._paused(execute, now) > now:
                execute("DELETE FROM backfill_slot WHERE name = ?", slot)
                return False
            return bool(execute("UPDATE backfill_slot SET at = ? WHERE name = ?", now, slot).rowcount)

        return self._run(work)

    def release(self, slot: str) -> None:
        """Give a slot back unused."""
        self._run(lambda execute, _: execute("DELETE FROM backfill_slot WHERE name = ?", slot))

    def pause(self, seconds: float) -> None:
        """Let nobody depart for so long."""

        def work(execute: _Execute, now: float) -> None:
            until = max(now + seconds, self._paused(execute, now))
            execute("DELETE FROM backfill_pause WHERE key = ?", self._key)
            execute("INSERT INTO backfill_pause (key, until) VALUES (?, ?)", self._key, until)

        self._run(work)

    def used(self, seconds: float) -> int:
        """Requests that were sent in the last seconds; raises soon when the ledger cannot be read."""

        def work(execute: _Execute, now: float) -> int:
            asked = "SELECT count(*) FROM backfill_slot WHERE key = ? AND at > ? AND at <= ?"
            return int(execute(asked, self._key, now - seconds, now).fetchone()[0])

        return self._run(work, is_patient=False)

    def paused(self) -> float:
        """Seconds until the pause ends; 0.0 when there is none."""
        return self._run(lambda execute, now: max(0.0, self._paused(execute, now) - now))

    def _paused(self, execute: _Execute, now: float) -> float:
        """When the pause ends. One that an earlier version wrote beyond the ceiling is shortened, with its slots."""
        until = float(execute("SELECT max(until) FROM backfill_pause WHERE key = ?", self._key).fetchone()[0] or 0.0)
        if until <= now + CEILING_S:
            return until
        if until > now + FARTHEST_S:
            execute("DELETE FROM backfill_pause WHERE key = ?", self._key)
            return 0.0
        execute("UPDATE backfill_pause SET until = ? WHERE key = ?", now + CEILING_S, self._key)
        execute("UPDATE backfill_slot SET at = ? WHERE key = ? AND at > ?", now + CEILING_S, self._key, now + CEILING_S)
        return now + CEILING_S


_TABLES = (
    "CREATE TABLE IF NOT EXISTS backfill_slot (name TEXT PRIMARY KEY, key TEXT NOT NULL, at DOUBLE PRECISION NOT NULL)",
    "CREATE INDEX IF NOT EXISTS backfill_slot_by_time ON backfill_slot (key, at)",
    "CREATE TABLE IF NOT EXISTS backfill_pause (key TEXT PRIMARY KEY, until DOUBLE PRECISION NOT NULL)",
)


def is_locked(error: BaseException | None) -> bool:
    """Whether an error of SQLite means that another connection has the file locked."""
    return isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", 0) & 0xFF in _LOCKED


_LOCKED = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
"""SQLite's codes for a lock; the low byte of its extended codes."""


class SqliteLedger(_SqlLedger):
    """A ledger in a file of this machine.

    Args:
        path: the file; made when missing.
        key: fingerprint of the key.
        most: slots in any span.
        span_s: seconds that a slot counts for.
        clock: seconds, the same for all processes of the machine, never set back while it is up.
        stop: once set, waiting for a locked file ends.

    Raises:
        SettingError: the file cannot be used.
        BudgetUnavailableError: the file stays locked.
    """

    def __init__(
        self,
        path: Path,
        key: str,
        most: int,
        span_s: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        stop: threading.Event | None = None,
    ) -> None:
        super().__init__(key, most, span_s)
        self._path, self._clock, self._stop = path, clock, stop or threading.Event()

        def create(execute: _Execute, _: float) -> None:
            for statement in _TABLES:
                execute(statement)

        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._unlocked(create, LOCK_WAIT_S)
        except (OSError, sqlite3.Error) as error:
            if is_locked(error):
                raise self._lost(error) from None
            raise SettingError(
                f"BACKFILL_LIMITER: the request budget cannot be kept in {path} ({error})",
                hint="name a file in a folder that this user may write to, as sqlite:///FILE",
            ) from error

    def _run(self, work: _Work[T], *, is_patient: bool = True) -> T:
        try:
            return self._unlocked(work, LOCK_WAIT_S if is_patient else min(LOOK_WAIT_S, LOCK_WAIT_S))
        except sqlite3.Error as error:
            raise self._lost(error) from None

    def _unlocked(self, work: _Work[T], wait_s: float) -> T:
        """Do `work` once the file is not locked, in tries of a second, so that a stop or a Ctrl-C ends the waiting.

        Raises:
            sqlite3.Error: the file stayed locked for `wait_s`, or cannot be used.
            StoppedError: asked to stop while waiting.
        """
        until = time.monotonic() + wait_s
        is_logged = False
        while True:
            try:
                return self._once(work, min(1.0, wait_s))
            except sqlite3.Error as error:
                if not is_locked(error) or time.monotonic() >= until:
                    raise
                if self._stop.is_set():
                    raise StoppedError("stopped while waiting for the request budget") from None
                if not is_logged and wait_s > LOOK_WAIT_S:
                    _LOG.warning("the request budget in %s is locked: waiting up to %.0f s", self._path, wait_s)
                    is_logged = True

    def _once(self, work: _Work[T], timeout: float) -> T:
        with closing(sqlite3.connect(self._path, timeout=timeout, isolation_level=None)) as database:
            # A slot lost with the power is no harm, and a flush for each request would be.
            database.execute("PRAGMA synchronous = OFF")
            database.execute("BEGIN IMMEDIATE")
            try:
                result = work(lambda statement, *values: database.execute(statement, values), self._clock())
                # Refused while another process reads: the closed connection then leaves nothing behind.
                database.execute("COMMIT")
            except BaseException:
                if database.in_transaction:
                    database.execute("ROLLBACK")
                raise
        return result

    def _lost(self, error: Exception) -> BudgetUnavailableError:
        if not is_locked(error):
            return BudgetUnavailableError(
                f"the request budget in {self._path} cannot be used ({error})",
                hint="check that its disk works and is not full, then start the backfill again",
            )
        return BudgetUnavailableError(
            f"the request budget in {self._path} is locked by another process ({error})",
            hint="end the process that has the file open (a backup, a file sync, a virus scanner), then start again",
        )


class PostgresLedger(_SqlLedger):
    """A ledger in a Postgres database, by the server's clock.

    Args:
        url: `postgresql://...`, as libpq takes it.
        key: fingerprint of the key.
        most: slots in any span.
        span_s: seconds that a slot counts for.

    Raises:
        SettingError: the database cannot be used, or the driver is not installed.
    """

    def __init__(self, url: str, key: str, most: int, span_s: float) -> None:
        super().__init__(key, most, span_s)
        try:
            import psycopg2  # noqa: PLC0415 - only who uses it needs it
        except ImportError:
            raise _no_driver(url, "postgres") from None
        self._driver = psycopg2
        self._url = url
        # Steps of one key follow each other; those of another do not wait for them.
        self._lock_id = int.from_bytes(hashlib.sha256(f"backfill {key}".encode()).digest()[:8], "big", signed=True)
        self._connection: Any = None
        self._own = threading.Lock()
        try:
            with self._attempt() as (execute, _):
                execute("SELECT pg_advisory_xact_lock(?)", 0x6261636B)
                for statement in _TABLES:
                    execute(statement)
        except psycopg2.Error as error:
            raise _unusable(url, error) from None

    def _run(self, work: _Work[T], *, is_patient: bool = True) -> T:
        def step() -> T:
            with self._attempt() as (execute, now):
                return work(execute, now)

        return _persist(step, self._driver.Error, self._url, TRIES if is_patient else 1)

    @contextmanager
    def _attempt(self) -> Iterator[tuple[_Execute, float]]:
        with self._own:
            if self._connection is None or self._connection.closed:
                self._connection = self._driver.connect(
                    self._url, connect_timeout=int(REACH_S), options=f"-c statement_timeout={int(REACH_S)}s"
                )
            try:
                with self._connection, self._connection.cursor() as cursor:

                    def execute(statement: str, *values: object) -> Any:
                        cursor.execute(statement.replace("?", "%s"), values)
                        return cursor

                    execute("SELECT pg_advisory_xact_lock(?)", self._lock_id)
                    now = execute("SELECT extract(epoch FROM clock_timestamp())::float8").fetchone()[0]
                    yield execute, now
            except self._driver.Error:
                self._connection.close()
                raise


class RedisLedger:
    """A ledger on a Redis server, by the server's clock; each step is one script.

    Args:
        url: `redis://...` or `rediss://...`.
        key: fingerprint of the key.
        most: slots in any span.
        span_s: seconds that a slot counts for.

    Raises:
        SettingError: the server cannot be used, or the driver is not installed.
    """

    def __init__(self, url: str, key: str, most: int, span_s: float) -> None:
        try:
            import redis  # noqa: PLC0415 - only who uses it needs it
        except ImportError:
            raise _no_driver(url, "redis") from None
        self._url, self._error = url, redis.RedisError
        self._most, self._span = most, span_s
        try:
            self._server = redis.Redis.from_url(url, socket_timeout=REACH_S, socket_connect_timeout=REACH_S)
            self._server.ping()
        except (redis.RedisError, ValueError) as error:
            raise _unusable(url, error) from None
        # One hash tag: all of a key's entries lie on one node of a cluster.
        self._keys = [f"{{backfill:{key}}}:slots", f"{{backfill:{key}}}:pause"]

    def reserve(self) -> tuple[str, float]:
        """Take the next free slot: its name, and the seconds until it begins."""
        name = uuid.uuid4().hex
        return name, float(self._run(_RESERVE, name, self._most, self._span))

    def depart(self, slot: str) -> bool:
        """Write down that the request of `slot` leaves now."""
        return bool(self._run(_DEPART, slot))

    def release(self, slot: str) -> None:
        """Give a slot back unused."""
        _persist(lambda: self._server.zrem(self._keys[0], slot), self._error, self._url)

    def pause(self, seconds: float) -> None:
        """Let nobody depart for so long."""
        self._run(_PAUSE, seconds)

    def paused(self) -> float:
        """Seconds until the pause ends; 0.0 when there is none."""
        return float(self._run(_PAUSED))

    def used(self, seconds: float) -> int:
        """Requests that left in so many seconds until now; who looks on is told at once when the server is cut off."""
        return int(self._run(_USED, seconds, tries=1))

    def _run(self, script: str, *values: object, tries: int = TRIES) -> Any:
        arguments = [str(value) for value in (*values, *(0,) * (3 - len(values)), FARTHEST_S, CEILING_S)]
        return _persist(
            lambda: self._server.eval(script, len(self._keys), *self._keys, *arguments), self._error, self._url, tries
        )


_NOW = """
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1e6
local until_ = tonumber(redis.call('GET', KEYS[2]) or 0)
local ceiling = now + tonumber(ARGV[5])
if until_ > now + tonumber(ARGV[4]) then
  until_ = 0
elseif until_ > ceiling then
  until_ = ceiling
  redis.call('SET', KEYS[2], string.format('%.6f', ceiling), 'EX', math.ceil(ceiling - now) + 1)
  for _, name in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], string.format('(%.6f', ceiling), '+inf')) do
    redis.call('ZADD', KEYS[1], string.format('%.6f', ceiling), name)
  end
end
"""

_RESERVE = f"""{_NOW}
local most, span = tonumber(ARGV[2]), tonumber(ARGV[3])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - span)
redis.call('ZREMRANGEBYSCORE', KEYS[1], now + tonumber(ARGV[4]), '+inf')
local last = redis.call('ZREVRANGE', KEYS[1], most - 1, most - 1, 'WITHSCORES')
local at = math.max(now, until_)
if last[2] then at = math.max(at, tonumber(last[2]) + span) end
redis.call('ZADD', KEYS[1], string.format('%.6f', at), ARGV[1])
redis.call('EXPIRE', KEYS[1], math.ceil(tonumber(ARGV[4])))
return string.format('%.6f', at - now)
"""

_DEPART = f"""{_NOW}
if until_ > now then
  redis.call('ZREM', KEYS[1], ARGV[1])
  return 0
end
redis.call('ZADD', KEYS[1], string.format('%.6f', now), ARGV[1])
return 1
"""

_PAUSE = f"""{_NOW}
local wanted = math.max(until_, now + tonumber(ARGV[1]))
redis.call('SET', KEYS[2], string.format('%.6f', wanted), 'EX', math.ceil(wanted - now) + 1)
return 1
"""

_PAUSED = f"""{_NOW}
return string.format('%.6f', math.max(0, until_ - now))
"""

_USED = f"""{_NOW}
local first = string.format('(%.6f', now - tonumber(ARGV[1]))
return redis.call('ZCOUNT', KEYS[1], first, string.format('%.6f', now))
"""


def _persist(step: Callable[[], T], errors: type[Exception], url: str, tries: int = TRIES) -> T:
    """Do one step, again for a while when the server was cut off.

    A slot whose reservation was done and not told stays unused: that costs one request, never one too many.
    """
    for number in range(1, tries + 1):
        try:
            return step()
        except errors as error:
            if number == tries:
                raise BudgetUnavailableError(
                    f"the request budget at {_shown(url)} does not answer ({type(error).__name__}), and without it no "
                    "request may be sent",
                    hint="check that the server of BACKFILL_LIMITER is up, then start again",
                ) from None
            time.sleep(number)
    raise AssertionError  # pragma: no cover - the loop returns or raises


def _shown(url: str) -> str:
    """A URL without user, password and options."""
    parts = urlsplit(url)
    place = parts.hostname or "localhost"
    return f"{parts.scheme}://{place}{f':{parts.port}' if parts.port else ''}{parts.path}"


def _no_driver(url: str, extra: str) -> SettingError:
    scheme = urlsplit(url).scheme
    return SettingError(
        f"BACKFILL_LIMITER holds a {scheme}:// URL, whose driver is not installed",
        hint=f"run: python -m pip install 'backfill-pipeline[{extra}]'",
    )


def _unusable(url: str, error: Exception) -> SettingError:
    kind = type(error).__name__
    return SettingError(
        f"BACKFILL_LIMITER: the request budget cannot be kept at {_shown(url)} ({kind})",
        hint="check that the server is up, and that user, password and database are right",
    )
