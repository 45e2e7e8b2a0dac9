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
        etag: the store's ETag of the content, without quotes; None where the store reports none. A bucket's ETag
            changes with the content. A folder's is the time at which the file was last written, so a copy of the file
            has another one. The store chooses the form, so it may only be compared with an earlier ETag of the same
            store, and another ETag does not prove other content.
        named: SHA-256 in the metadata of the object, from its writer; None where the store does not keep it.
    """

    key: str
    bytes: int
    sha256: str | None = None
    etag: str | None = None
    named: str | None = None


@dataclass(frozen=True, slots=True)
class Versioned:
    """An object's bytes, and their version.

    Attributes:
        data: the bytes.
        version: the name of this version for `Store.replace`; it has no other meaning.
    """

    data: bytes
    version: str


class Store(Protocol):
    """A place for objects. All methods raise `StoreRefusedError` or `StoreBusyError`."""

    def put(self, key: str, data: bytes, sha256: str) -> Stat:
        """Store `data` under `key`. Readers see the whole object or none of it."""

    def head(self, key: str) -> Stat | None:
        """Return the object's size and hash; None when there is no object."""

    def get(self, key: str, last: int | None = None) -> bytes:
        """Return the object, or its `last` bytes; `FileNotFoundError` when there is no object."""

    def read(self, key: str) -> Versioned | None:
        """Return the object and its version, for a later `replace`; None when there is no object."""

    def replace(self, key: str, data: bytes, version: str | None) -> bool:
        """Store `data` under `key` only if the object still has this version; None: only if there is no object.

        Returns:
            Whether it was stored; False when another writer came first.
        """

    def list(self, prefix: str, *, after: str = "") -> Iterator[Stat]:
        """Yield the objects whose key begins with `prefix` and is greater than `after`, in order of their keys."""

    def delete(self, key: str) -> None:
        """Delete the object, if it exists."""

    def url(self, key: str) -> str:
        """Return the place of the object for users and other libraries."""

    def reader_options(self) -> dict[str, str]:
        """Return the `storage_options` of polars; they may contain the secret."""

    def duckdb_statements(self) -> tuple[str, ...]:
        """Return statements that DuckDB has to run before it reads `url`; they may contain the secret."""

    def table_options(self) -> dict[str, str]:
        """Return the properties of pyiceberg's FileIO; they may contain the secret."""
