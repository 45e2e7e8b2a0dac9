"""Objects in a folder of this machine.

Put here: how a file is written atomically. Keep out: what it contains.
"""

import errno
import hashlib
import os
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import filelock
import psutil

from backfill_pipeline.errors import StoreBusyError, StoreRefusedError
from backfill_pipeline.storage.store import Stat, Versioned

PARTS = ".parts"
"""The folder for unfinished files, inside the store's folder: on the same disk, and not read by readers."""

LOCKED_S = 60.0
"""Seconds that a writer of a shared object waits for another writer."""

STALE_S = 24 * 3600
"""An unfinished file of another machine that is older than this, in seconds, belongs to a dead writer."""


class LocalStore:
    """A folder. Objects are files at their keys.

    Args:
        folder: created with the first object.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, key: str, data: bytes, sha256: str) -> Stat:
        """Write `data` to another file, flush it, then rename it; delete unfinished files of dead writers."""
        target = self.folder / key
        part = self.folder / PARTS / f"{_host()}.{os.getpid()}.{uuid.uuid4().hex}.part"
        with _store_errors(f"cannot store {key} in {self.folder}"):
            part.parent.mkdir(parents=True, exist_ok=True)
            target.parent.mkdir(parents=True, exist_ok=True)
            _sweep(part.parent)
            try:
                with part.open("xb") as sink:
                    sink.write(data)
                    sink.flush()
                    os.fsync(sink.fileno())
                part.replace(target)
                _flush_folder(target.parent)
            finally:
                part.unlink(missing_ok=True)
            return _stat(key, target.stat(), sha256)

    def head(self, key: str) -> Stat | None:
        """Return size, time of the last write, and the hash, which is computed from the file."""
        path = self.folder / key
        with _store_errors(f"cannot read {path}"):
            try:
                with path.open("rb") as file:
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
                    return _stat(key, os.fstat(file.fileno()), digest)
            except (FileNotFoundError, NotADirectoryError):
                return None

    def get(self, key: str, last: int | None = None) -> bytes:
        """Return the file, or its last bytes."""
        path = self.folder / key
        with _store_errors(f"cannot read {path}"):
            try:
                with path.open("rb") as file:
                    if last is not None:
                        size = file.seek(0, os.SEEK_END)
                        file.seek(max(0, size - last))
                    return file.read()
            except (FileNotFoundError, NotADirectoryError):
                pass
        raise FileNotFoundError(errno.ENOENT, "no such object", str(path))

    def read(self, key: str) -> Versioned | None:
        """Return the file, and its hash as its version."""
        try:
            data = self.get(key)
        except FileNotFoundError:
            return None
        return Versioned(data, hashlib.sha256(data).hexdigest())

    def replace(self, key: str, data: bytes, version: str | None) -> bool:
        """Write the file if it still has this version; a lock between processes allows one writer at a time."""
        with _store_errors(f"cannot store {key} in {self.folder}"):
            locks = self.folder / PARTS / "locks"
            locks.mkdir(parents=True, exist_ok=True)
            # Lock files stay: to delete one while another process waits for it would let two processes in.
            lock = filelock.FileLock(locks / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.lock", timeout=LOCKED_S)
            try:
                with lock:
                    found = self.read(key)
                    if (found.version if found else None) != version:
                        return False
                    self.put(key, data, hashlib.sha256(data).hexdigest())
                    return True
            except filelock.Timeout:
                raise StoreBusyError(
                    f"cannot store {key} in {self.folder}: another process has held its lock for {LOCKED_S:.0f} s",
                    hint=f"stop the process that holds {lock.lock_file}, then try again",
                ) from None

    def list(self, prefix: str, *, after: str = "") -> Iterator[Stat]:
        """Yield the files whose key begins with `prefix` and is greater than `after`; other folders are not opened."""
        top = prefix.rpartition("/")[0]
        with _store_errors(f"cannot list {self.folder / top}"):
            if self.folder.exists() and not self.folder.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, "not a folder", str(self.folder))
            yield from _files(self.folder / top, f"{top}/" if top else "", prefix, after, ())

    def delete(self, key: str) -> None:
        """Delete the file, if it exists."""
        with _store_errors(f"cannot remove {key} from {self.folder}"):
            (self.folder / key).unlink(missing_ok=True)

    def url(self, key: str) -> str:
        """The file's path."""
        return str((self.folder / key).absolute())

    def reader_options(self) -> dict[str, str]:
        """A path needs none."""
        return {}

    def duckdb_statements(self) -> tuple[str, ...]:
        """A path needs none."""
        return ()

    def table_options(self) -> dict[str, str]:
        """A path needs none."""
        return {}


def _stat(key: str, found: os.stat_result, sha256: str | None = None) -> Stat:
    """Describe a file. The time of the last write, in nanoseconds, replaces the ETag, since a folder has no hash."""
    return Stat(key, found.st_size, sha256, f"{found.st_mtime_ns:x}")


def _files(folder: Path, key: str, prefix: str, after: str, above: tuple[tuple[int, int], ...]) -> Iterator[Stat]:
    """Yield the files below a folder, in order of their keys. Links to folders are followed, but not in a circle."""
    try:
        about = folder.stat()
        entries = [(f"{key}{one.name}{'/' if one.is_dir() else ''}", one) for one in os.scandir(folder)]
    except (FileNotFoundError, NotADirectoryError):
        return
    here = (about.st_dev, about.st_ino)
    if here in above and here != (0, 0):
        return
    for name, entry in sorted(entries, key=lambda one: one[0]):
        wanted = name.startswith(prefix) or (name.endswith("/") and prefix.startswith(name))
        if not wanted or name == f"{PARTS}/" or (name < after and not after.startswith(name)):
            continue
        if name.endswith("/"):
            yield from _files(folder / entry.name, name, prefix, after, (*above, here))
        elif name > after and entry.is_file():
            with suppress(FileNotFoundError):  # deleted meanwhile
                yield _stat(name, folder.joinpath(entry.name).stat())


_DENIED = ("no permission", "check the folder's owner, and that no program has the file open")
_NOT_A_FOLDER = ("part of the path is a file, not a folder", "check BACKFILL_STORE")
_CAUSES = {
    errno.ENOSPC: ("the disk is full", "free disk space"),
    errno.EDQUOT: ("the disk quota is used up", "free disk space"),
    errno.EROFS: ("the disk is read-only", "make it writable, or set BACKFILL_STORE to another folder"),
    errno.EACCES: _DENIED,
    errno.EPERM: _DENIED,
    errno.ENOENT: ("the file or folder vanished meanwhile", "check that the disk is still mounted"),
    errno.ENOTDIR: _NOT_A_FOLDER,
    errno.EEXIST: _NOT_A_FOLDER,
    errno.EISDIR: ("a folder has the name of the object", "move the folder away"),
    errno.ENAMETOOLONG: ("the name is too long for this disk", "set BACKFILL_STORE to a folder with a shorter path"),
    errno.EIO: ("input/output error", "check the disk"),
}
"""By error number: what was found, and what to do."""


@contextmanager
def _store_errors(what: str) -> Iterator[None]:
    """Raise an `OSError` as the error of this project; `what` is what failed."""
    try:
        yield
    except OSError as error:
        found, hint = _CAUSES.get(error.errno or 0, (error.strerror or type(error).__name__, ""))
        raise StoreRefusedError(f"{what}: {found}", hint=hint) from error


def _host() -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in socket.gethostname())


def _sweep(folder: Path) -> None:
    """Delete unfinished files of dead writers: of this machine at once, of other machines after a day."""
    for part in folder.glob("*.part"):
        host, number, *_ = part.name.split(".")
        try:
            ended = host == _host() and number.isdecimal() and not psutil.pid_exists(int(number))
            if ended or time.time() - part.stat().st_mtime > STALE_S:
                part.unlink(missing_ok=True)
        except OSError:
            continue  # its writer is finishing it now


def _flush_folder(folder: Path) -> None:
    if os.name == "posix":  # on Windows a folder cannot be opened, and a rename is durable
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
