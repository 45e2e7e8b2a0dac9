"""Objects in a folder of this machine.

Put here: how a file becomes visible whole. Keep out: what it holds.
"""

import errno
import hashlib
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from backfill_pipeline.errors import StoreRefusedError
from backfill_pipeline.storage.store import Stat

PART = ".part"
"""Ending of a file being written; its name begins with a dot, so that no reader's `*.parquet` finds it."""

STALE_S = 24 * 3600
"""A part older than this, in seconds, belongs to a writer that died."""


class LocalStore:
    """A folder. Objects are files at their keys.

    Args:
        folder: made when something is first put.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, key: str, file: Path, sha256: str) -> None:  # noqa: ARG002 - head() hashes what is there
        """Copy `file` beside its place, flush it to the disk, then rename it there."""
        target = self.folder / key
        part = target.parent / f".{uuid.uuid4().hex}{PART}"
        with _told(f"cannot store {key} in {self.folder}"):
            target.parent.mkdir(parents=True, exist_ok=True)
            _remove_stale(target.parent)
            try:
                with file.open("rb") as source, part.open("xb") as sink:
                    shutil.copyfileobj(source, sink, 1 << 20)
                    sink.flush()
                    os.fsync(sink.fileno())
                part.replace(target)
                _flush_folder(target.parent)
            finally:
                part.unlink(missing_ok=True)

    def head(self, key: str) -> Stat | None:
        """Size and hash, the latter from reading the file."""
        path = self.folder / key
        with _told(f"cannot read {path}"):
            try:
                with path.open("rb") as file:
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
                    return Stat(key, file.seek(0, os.SEEK_END), digest)
            except (FileNotFoundError, NotADirectoryError):
                return None

    def open(self, key: str) -> IO[bytes]:
        """The file."""
        return (self.folder / key).open("rb")

    def list(self, prefix: str) -> Iterator[Stat]:
        """Files at keys that begin with `prefix`; parts are no objects."""
        found = sorted(self.folder.rglob("*")) if self.folder.is_dir() else []
        for path in found:
            key = path.relative_to(self.folder).as_posix()
            if key.startswith(prefix) and not path.name.endswith(PART) and path.is_file():
                yield Stat(key, path.stat().st_size)

    def delete(self, key: str) -> None:
        """Remove the file, if it is there."""
        with _told(f"cannot remove {key} from {self.folder}"):
            (self.folder / key).unlink(missing_ok=True)

    def url(self, key: str) -> str:
        """The file's path."""
        return str((self.folder / key).absolute())


_WHY = {
    errno.ENOSPC: "the disk is full; free some room",
    errno.EDQUOT: "the quota is used up; free some room",
    errno.EROFS: "the disk is read-only",
    errno.EACCES: "no permission to write there; check the folder's owner",
    errno.EPERM: "no permission to write there; check the folder's owner",
    errno.ENOTDIR: "part of the path is a file, not a folder; check BACKFILL_STORE",
    errno.EEXIST: "part of the path is a file, not a folder; check BACKFILL_STORE",
    errno.ENAMETOOLONG: "the name is too long for this disk",
}


@contextmanager
def _told(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        why = _WHY.get(error.errno or 0, error.strerror or type(error).__name__)
        raise StoreRefusedError(f"{what}: {why}") from error


def _remove_stale(folder: Path) -> None:
    for part in folder.glob(f".*{PART}"):
        try:
            if time.time() - part.stat().st_mtime > STALE_S:
                part.unlink(missing_ok=True)
        except OSError:
            continue  # its writer is just finishing


def _flush_folder(folder: Path) -> None:
    if os.name == "posix":  # elsewhere a folder can not be opened, and a rename is durable by itself
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
