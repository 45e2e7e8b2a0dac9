"""The protocol of stores: what a folder and a bucket both do.

Put here: methods of all stores, and the types that they return. Keep out: how each store does it (`local.py`, `s3.py`),
how one is opened (`store_urls.py`) and what an object contains (`parquet.py`).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Stat:
    """An object as its store describes it.

    Attributes:
        key: its object key.
        bytes: its size.
        sha256: SHA-256 of its bytes, computed by the store; None where the store does not report it. A listing never
            reports it.
        etag: the store's own mark of the content, without quotes; None where a store reports none. A bucket's ETag
            changes with the content. A folder's is the time at which the file was last written, so a copy of the file
            has another one. The store chooses the form, so it may only be compared with an earlier mark of the same
            store, and another mark does not prove other content.
        named: SHA-256 that its writer named beside the object; None where the store does not keep it.
    """

    key: str
    bytes: int
    sha256: str | None = None
    etag: str | None = None
    named: str | None = None


@dataclass(frozen=True, slots=True)
class Versioned:
    """An object's bytes, and the mark of this version of them.

    Attributes:
        data: the bytes.
        version: names this version to `Store.replace`; it means nothing to anybody else.
    """

    data: bytes
    version: str


class Store(Protocol):
    """A place for objects. All methods raise `StoreRefusedError` or `StoreBusyError`."""

    def put(self, key: str, data: bytes, sha256: str) -> Stat:
        """Store `data` under `key`: visible whole and at once, or not at all."""

    def head(self, key: str) -> Stat | None:
        """The object's size and hash, or None when there is none."""

    def get(self, key: str, last: int | None = None) -> bytes:
        """The object, or its `last` bytes; `FileNotFoundError` when there is none."""

    def read(self, key: str) -> Versioned | None:
        """The object with the mark of its version, for a later `replace`; None when there is none."""

    def replace(self, key: str, data: bytes, version: str | None) -> bool:
        """Store `data` under `key` only if the object still is of that version; None: only if there is none.

        Returns:
            Whether it was stored; False when another writer was faster.
        """

    def list(self, prefix: str, *, after: str = "") -> Iterator[Stat]:
        """Objects whose key begins with `prefix` and is greater than `after`, in order of their keys, lazily."""

    def delete(self, key: str) -> None:
        """Remove the object, if it is there."""

    def url(self, key: str) -> str:
        """Where a person, or another library, finds the object."""

    def reader_options(self) -> dict[str, str]:
        """What polars needs besides `url`, as its `storage_options`; may contain the secret."""

    def duckdb_statements(self) -> tuple[str, ...]:
        """What DuckDB has to run before it reads `url`; may contain the secret."""
