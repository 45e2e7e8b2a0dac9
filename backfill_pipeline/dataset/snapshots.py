"""Snapshots in the store: `snapshots/<kind>/YYYY/MM/DD/<site or client>.json`.

Put here: how a snapshot is stored and found. Keep out: what a document contains (`core/snapshots.py`).
"""

from datetime import date

from backfill_pipeline.core.object_keys import snapshot_key
from backfill_pipeline.core.snapshots import Kind, State, state_of
from backfill_pipeline.errors import DamagedObjectError
from backfill_pipeline.storage.days import put_verified
from backfill_pipeline.storage.store import Store


def stored_state(store: Store, kind: Kind, subject: str, day: date) -> State | None:
    """The state of a stored snapshot; None when there is none, or when its object is damaged.

    Raises:
        StoreRefusedError, StoreBusyError: the store cannot be read.
    """
    found = store.read(snapshot_key(kind.name, subject, day))
    return None if found is None else state_of(found.data)


def put_snapshot(store: Store, kind: Kind, subject: str, day: date, data: bytes) -> None:
    """Store a snapshot, and return only when the store contains exactly these bytes.

    Raises:
        StoreRefusedError, StoreBusyError: the store does not take it.
        DamagedObjectError: the store contains something else.
    """
    key = snapshot_key(kind.name, subject, day)
    if not put_verified(store, key, data).is_whole:
        raise DamagedObjectError(
            f"{store.url(key)} does not match what was written", hint="check the store, then launch the run again"
        )
