"""Processes that a command starts: with a log file each, watched, and ended with all that they started.

Put here: how a program of ours is started, watched and ended so that nothing of it is left, and what a Ctrl-C does.
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
"""Log files of earlier starts that are kept: the latest one ends in `.1`."""


class Child:
    """A Python program that was started, and all that it starts.

    Args:
        name: for messages.
        arguments: after `python -m`.
        log: file for what it prints. What an earlier start left there is kept (`keep_earlier`).
        cwd: its working directory.
        environment: its variables; those of this process when None.
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
        """Its exit code; None while it goes on."""
        return self._process.poll()

    def look(self) -> None:
        """See whom it has started: what a program that is gone had started can not be found any more."""
        try:
            self._family.update(self._root.children(recursive=True))
        except psutil.NoSuchProcess:
            return

    def family(self) -> list[psutil.Process]:
        """Whoever of it is still at work."""
        self._process.poll()
        self.look()
        return [process for process in self._family if _works(process)]


def keep_earlier(log: Path, *, most: int = KEPT_LOGS) -> Path | None:
    """Rename a log file to `NAME.1`, the one before to `NAME.2`, and so on; the oldest is deleted.

    Returns:
        Where the file is now; None when there was none, when it was empty, or when another process still writes it on
        Windows: the next start then writes over it.
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
    """End programs and all that they started: asked first, and killed when they have not ended in time."""

    def family() -> list[psutil.Process]:
        return [process for child in children for process in child.family()]

    for process in family():
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    until = time.monotonic() + patience_s
    try:
        while family() and time.monotonic() < until:
            time.sleep(0.1)
    finally:  # asked once more by an impatient user: then at once
        until = time.monotonic() + 5
        while (left := family()) and time.monotonic() < until:
            for process in left:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            time.sleep(0.1)


def _works(process: psutil.Process) -> bool:
    """Whether it is there, and is no dead one that nobody has asked after."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@contextmanager
def interrupts() -> Iterator[threading.Event]:
    """The first Ctrl-C or SIGTERM sets the event, the second one interrupts wherever the process is.

    An exception in the midst of a library's own work leaves a traceback, or half of what it was at.
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
