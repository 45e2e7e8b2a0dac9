"""Days in the store: put whole, read back and verified; found again.

Put here: what it takes for a day to count as stored. Keep out: encodings (`parquet.py`) and stores (`local.py`,
`s3.py`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from backfill_pipeline.core.layout import object_key
from backfill_pipeline.core.rows import DayRows
from backfill_pipeline.core.schema import SCHEMA
from backfill_pipeline.errors import DamagedObjectError
from backfill_pipeline.settings import Settings
from backfill_pipeline.storage.parquet import encode, findings
from backfill_pipeline.storage.store import Store, open_store


@dataclass(frozen=True, slots=True)
class StoredDay:
    """A day whose object was read back from the store and verified.

    Attributes:
        key: its object key.
        url: where a person finds it.
        rows: rows in the object.
        bytes: its size.
        sha256: of its bytes.
        state: `stored` or `empty`.
        changed: whether the object differs from the one that was there before, or is new.
    """

    key: str
    url: str
    rows: int
    bytes: int
    sha256: str
    state: str
    changed: bool


def settings_store(settings: Settings) -> Store:
    """The store that the settings name."""
    secret = settings.s3_secret_access_key
    return open_store(
        settings.store,
        access_key=settings.s3_access_key_id,
        secret=secret.get_secret_value() if secret else None,
        endpoint=settings.s3_endpoint_url,
        region=settings.s3_region,
    )


def put_day(store: Store, day: DayRows, *, facts: Mapping[str, str] | None = None) -> StoredDay:
    """Store a day, and return only when its object has been read back and found right.

    Args:
        store: where to.
        day: the day, whole.
        facts: more that the object's footer is to say.

    Raises:
        StoreRefusedError, StoreBusyError: the store.
        DamagedObjectError: what came back is not what was put.
    """
    key = object_key(day.site, day.day)
    with TemporaryDirectory(prefix="backfill-") as folder:
        file = Path(folder) / "day.parquet"
        encoded = encode(day, file, facts=facts)
        before = store.head(key)
        changed = before is None or (before.bytes, before.sha256) != (encoded.bytes, encoded.sha256)
        if changed:
            store.put(key, file, encoded.sha256)
            after = store.head(key)
            if after is None or (after.bytes, after.sha256) != (encoded.bytes, encoded.sha256):
                raise DamagedObjectError(
                    f"{store.url(key)} is not what was put there a moment ago: {after}; another writer may be at work, "
                    "or the store lost it: fetch the day again"
                )
    with store.open(key) as stored:
        wrong = findings(stored, day.site, day.day)
    if wrong:
        raise DamagedObjectError(f"{store.url(key)} was stored, but reads back wrong: {'; '.join(wrong)}")
    return StoredDay(key, store.url(key), encoded.rows, encoded.bytes, encoded.sha256, encoded.state, changed)


def get_day(store: Store, site: str, day: date) -> Any:
    """A stored day as an Arrow table with the contract's columns.

    Raises:
        FileNotFoundError: the day is not stored.
    """
    import pyarrow.parquet as pq  # noqa: PLC0415 - only readers need it

    with store.open(object_key(site, day)) as file:
        return pq.read_table(file, schema=SCHEMA)
