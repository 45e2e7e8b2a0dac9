"""Which version of an object a table has: `table/<table id>/<site>.parquet`, one row for each registered object.

A manifest has the size and the row count of a file. Another object may have both, so the ETag of the listing is kept
here, with the snapshot that registered the file. A row counts only while the manifest names the same snapshot: a commit
without a later write of these rows makes the file doubtful, and it is registered again.

Put here: the rows, and how they are read and written. Keep out: the table itself (`iceberg.py`).
"""

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from backfill_pipeline.core.object_keys import file_name
from backfill_pipeline.storage.shared_object import update
from backfill_pipeline.storage.store import Stat, Store

_AT_ONCE = 16

_SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("bytes", pa.int64(), nullable=False),
        pa.field("etag", pa.string()),
        pa.field("snapshot_id", pa.int64()),
    ]
)


@dataclass(frozen=True, slots=True)
class RegisteredFile:
    """The version of an object that a table has.

    Attributes:
        bytes: its size.
        etag: its ETag, as a listing reported it.
        snapshot_id: the snapshot that registered it; None for an object without rows, which is not in the table.
    """

    bytes: int
    etag: str | None
    snapshot_id: int | None

    def matches(self, listed: Stat, snapshots: list[int]) -> bool:
        """Whether the table has the listed object exactly once.

        Args:
            listed: the object as a listing shows it.
            snapshots: the snapshots that registered its path, one for each entry of the table.
        """
        same = self.etag is not None and (self.bytes, self.etag) == (listed.bytes, listed.etag)
        return same and snapshots == ([] if self.snapshot_id is None else [self.snapshot_id])


def read_registered(store: Store, table_id: str, sites: Iterable[str]) -> dict[str, RegisteredFile]:
    """Read the rows of some sites, by object key. A file that cannot be decoded has no rows.

    Raises:
        StoreRefusedError, StoreBusyError: the store cannot be read.
    """
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        found = pool.map(lambda site: store.read(_key(table_id, site)), sites)
        return {key: row for one in found if one is not None for key, row in _decoded(one.data).items()}


def record_registered(store: Store, table_id: str, site: str, new: Mapping[str, RegisteredFile]) -> None:
    """Write the rows of objects that were registered. The row of a removed object stays, and matches no entry.

    Raises:
        StoreRefusedError, StoreBusyError: the store cannot be written.
    """

    def changed(data: bytes | None) -> bytes | None:
        known = _decoded(data) if data else {}
        rows = known | dict(new)
        return None if rows == known else _encoded(rows)

    update(store, _key(table_id, site), changed)


def _key(table_id: str, site: str) -> str:
    return f"table/{table_id}/{file_name(site)}"


def _encoded(rows: Mapping[str, RegisteredFile]) -> bytes:
    each = [{"key": k, "bytes": r.bytes, "etag": r.etag, "snapshot_id": r.snapshot_id} for k, r in sorted(rows.items())]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(each, _SCHEMA), sink, compression="zstd")
    data: bytes = sink.getvalue().to_pybytes()
    return data


def _decoded(data: bytes) -> dict[str, RegisteredFile]:
    try:
        table = pq.read_table(pa.BufferReader(data), schema=_SCHEMA)
    except (pa.ArrowException, OSError):
        return {}
    return {row.pop("key"): RegisteredFile(**row) for row in table.to_pylist()}
