"""Child processes of a command: each has a log file, and ends together with its own child processes.

Put here: how a child process is started, monitored and ended without leftovers, and what Ctrl-C does.
Keep out: which programs `backfill up` starts (`up.py`).
"""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

KEPT_LOGS = 5
"""The number of log files of earlier starts that are kept; the name of the latest one ends in `.1`."""


class Child:
    """A Python program and its child processes.

    Args:
        name: for messages.
        arguments: after `python -m`.
        log: the file for its output. The file of an earlier start is kept under another name (`keep_earlier`).
        cwd: its working directory.
        environment: its environment variables; None: those of this process.
    """

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        log: Path,
        *,
        cwd: Path | None = None,
        environment: dict[str, str] | None = None,
    ) -> None:
        self.name = name
        self.log = log
        self.earlier_log = keep_earlier(log)
        with log.open("w", encoding="utf-8") as file:
            self._process = subprocess.Popen(  # noqa: S603 - our own program
                [sys.executable, "-m", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                cwd=cwd,
                env=environment,
            )
        self._root = psutil.Process(self._process.pid)
        self._family = {self._root}

    @property
    def ended_with(self) -> int | None:
        """Its exit code; None while it runs."""
        return self._process.poll()

    def look(self) -> None:
        """Record its child processes, which cannot be found any more once it has ended."""
        try:
            self._family.update(self._root.children(recursive=True))
        except psutil.NoSuchProcess:
            return

    def family(self) -> list[psutil.Process]:
        """Return the processes that are still running."""
        self._process.poll()
        self.look()
        return [process for process in self._family if _works(process)]


def keep_earlier(log: Path, *, most: int = KEPT_LOGS) -> Path | None:
    """Rename a log file to `NAME.1`, the previous one to `NAME.2`, and so on; the oldest is deleted.

    Returns:
        The new path; None when there was no file, when it was empty, or when another process still writes it on
        Windows. Then the next start overwrites it.
    """
    try:
        if not log.is_file() or not log.stat().st_size:
            return None
        names = [log, *(log.with_name(f"{log.name}.{number}") for number in range(1, most + 1))]
        for older, newer in zip(reversed(names[1:]), reversed(names[:-1]), strict=True):
            if newer.is_file():
                newer.replace(older)
    except OSError:
        return None
    return names[1]


def end(children: Sequence[Child], patience_s: float) -> None:
    """Terminate programs and their child processes; kill those that have not ended in time."""

    def family() -> list[psutil.Process]:
        return [process for child in children for process in child.family()]

    for process in family():
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    until = time.monotonic() + patience_s
    try:
        while family() and time.monotonic() < until:
            time.sleep(0.1)
    finally:  # also after a second Ctrl-C: then at once
        until = time.monotonic() + 5
        while (left := family()) and time.monotonic() < until:
            for process in left:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            time.sleep(0.1)


def _works(process: psutil.Process) -> bool:
    """Whether the process runs and is not a zombie."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@contextmanager
def interrupts() -> Iterator[threading.Event]:
    """Set the event at the first Ctrl-C or SIGTERM; raise KeyboardInterrupt at the second.

    An exception inside a library's code would leave a traceback or half-finished work.
    """
    asked = threading.Event()

    def ask(*_: object) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
