"""One `backfill up` for each home: a lock of the operating system, and a search for Dagster's daemons on this machine.

Two daemons with one home take over each other's runs. A lock alone does not find `dagster dev`, which takes no lock,
or a daemon whose `backfill up` was killed. So this module reads the list of processes as well.

Put here: whether another process uses a home, and how that process is named. Keep out: what `backfill up` starts.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path, PurePath
from typing import NoReturn

import psutil
from filelock import FileLock, Timeout

from backfill_pipeline.errors import UsageError, quoted

_NAME = "up"
_HINT = "stop that process first, or set another DAGSTER_HOME"


@contextmanager
def home_locked(home: Path, private: Path, *, daemon_is_alive: Callable[[], bool]) -> Iterator[None]:
    """Lock the home for one `backfill up`. The operating system releases the lock of a dead process.

    Args:
        home: `DAGSTER_HOME`, absolute.
        private: the folder for the lock.
        daemon_is_alive: whether Dagster's storage has a fresh heartbeat. It decides when the home of a daemon cannot be
            read, because the daemon belongs to another user.

    Raises:
        UsageError: another `backfill up`, `dagster dev` or daemon uses the home; the message names the process.
    """
    record = private / f"{_NAME}.json"
    lock = FileLock(private / f"{_NAME}.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        _refuse(home, _recorded(record))
    try:
        daemon, is_certain = _daemon_of(home)
        if daemon is not None and (is_certain or daemon_is_alive()):
            _refuse(home, _started_by(daemon))
        this = psutil.Process()
        record.write_text(json.dumps({"pid": this.pid, "created": this.create_time()}), encoding="utf-8")
        yield
    finally:
        lock.release()


def _refuse(home: Path, process: psutil.Process | None) -> NoReturn:
    raise UsageError(f"{home} is in use by {_named(process)}", hint=_HINT) from None


def _named(process: psutil.Process | None) -> str:
    """A process by its number, its command and its start; a general name when it is gone or cannot be read."""
    if process is None:
        return "another `backfill up`"
    told = f"process {process.pid}"
    with suppress(psutil.Error):
        # The folders of the interpreter and of a script do not matter, their names do.
        words = [PurePath(word).name if PurePath(word).is_absolute() else word for word in process.cmdline()]
        since = datetime.fromtimestamp(process.create_time(), UTC)
        told += f" ({quoted(' '.join(words))}, since {since:%Y-%m-%d %H:%M:%S} UTC)"
    return told


def _recorded(record: Path) -> psutil.Process | None:
    """The process that holds the lock; None when the record is missing, or is of a process that is gone."""
    try:
        found = json.loads(record.read_text(encoding="utf-8"))
        process = psutil.Process(found["pid"])
        return process if process.create_time() == found["created"] else None
    except (OSError, ValueError, TypeError, KeyError, psutil.Error):
        return None


def _daemon_of(home: Path) -> tuple[psutil.Process | None, bool]:
    """A daemon of this home, and whether that is certain: the variables of another user's process may be hidden."""
    hidden = None
    for process in psutil.process_iter():
        try:
            if not _is_daemon(process.cmdline()) or process.status() == psutil.STATUS_ZOMBIE:
                continue
            theirs = process.environ().get("DAGSTER_HOME")
        except psutil.AccessDenied:
            hidden = process
            continue
        except (psutil.Error, OSError):
            continue
        if theirs and _is_same(Path(theirs), home):
            return process, True
    return hidden, False


def _is_same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False


def _is_daemon(command: Sequence[str]) -> bool:
    programs = {PurePath(word).stem for word in command[:3]}
    return "run" in command and ("dagster._daemon" in command or "dagster-daemon" in programs)


def _started_by(daemon: psutil.Process) -> psutil.Process:
    """The `dagster dev` or `dg dev` that a daemon belongs to; else the daemon itself."""
    with suppress(psutil.Error):
        for parent in daemon.parents():
            command = parent.cmdline()
            if "dev" in command and {PurePath(word).stem for word in command} & {"dagster", "dg"}:
                return parent
    return daemon
