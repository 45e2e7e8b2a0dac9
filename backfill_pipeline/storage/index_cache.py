"""Copies of index objects on this machine, by ETag, so that a later reading costs one listing of them.

Each object has one file. Another process may write the same file at any moment, and the folder may be deleted at any
time. Put here: how a copy is kept and checked. Keep out: what an index contains (`day_index.py`).
"""

import hashlib
import os
import uuid
from contextlib import suppress
from pathlib import Path

_HASH = hashlib.sha256(b"").digest_size


class IndexCache:
    """A folder of copies.

    Args:
        folder: created with the first copy; it may be deleted at any time.
        place: the URL of the store, so that two stores have separate copies.
    """

    def __init__(self, folder: Path, place: str) -> None:
        self._folder = folder
        self._place = place

    def get(self, key: str, etag: str) -> bytes | None:
        """Return the copy of this version of an object; None when there is no whole copy of it."""
        try:
            data = self._path(key).read_bytes()
        except OSError:
            return None
        mark, body = data[:_HASH], data[_HASH:]
        return body if mark == self._mark(key, etag, body) else None

    def put(self, key: str, etag: str, data: bytes) -> None:
        """Keep a copy in place of the earlier version; a folder that cannot be written is left as it is."""
        path = self._path(key)
        part = path.with_name(f"{os.getpid()}-{uuid.uuid4().hex}.part")
        with suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            try:
                part.write_bytes(self._mark(key, etag, data) + data)
                part.replace(path)
            finally:
                part.unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self._folder / hashlib.sha256(f"{self._place}\0{key}".encode()).hexdigest()[:32]

    def _mark(self, key: str, etag: str, data: bytes) -> bytes:
        """The hash of place, key, version and bytes, so that no other copy and no part of one is used."""
        about = f"{self._place}\0{key}\0{etag}\0".encode()
        return hashlib.sha256(about + data).digest()
