"""Days in the store: put whole, read back and verified; found again.

Put here: what it takes for a day to count as stored. Keep out: encodings (`parquet.py`) and stores (`local.py`,
`s3.py`).
"""

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from typing import Any

from backfill_pipeline.core.layout import object_key
from backfill_pipeline.core.rows import DayRows
from backfill_pipeline.errors import DamagedObjectError, StoreBusyError
from backfill_pipeline.settings import Settings
from backfill_pipeline.storage.parquet import Encoding, Footer, decode, encode, findings, footer_bytes, read_footer
from backfill_pipeline.storage.store import Stat, Store, open_store

_END = 64 << 10
"""Bytes at an object's end that hold nearly every footer: one request reads it."""


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
        etag: the store's mark of the object, as a listing reports it; None in a folder.
    """

    key: str
    url: str
    rows: int
    bytes: int
    sha256: str
    state: str
    changed: bool
    etag: str | None = None


def settings_store(settings: Settings) -> Store:
    """The store that the settings name."""
    secret, token = settings.s3_secret_access_key, settings.s3_session_token
    return open_store(
        settings.store,
        access_key=settings.s3_access_key_id,
        secret=secret.get_secret_value() if secret else None,
        token=token.get_secret_value() if token else None,
        endpoint=settings.s3_endpoint_url,
        region=settings.s3_region,
    )


def put_day(
    store: Store, day: DayRows, *, facts: Mapping[str, str] | None = None, encoding: Encoding | None = None
) -> StoredDay:
    """Store a day, and return only when its object has been read back and found right.

    An object that is there already with the same bytes is not written again.

    Args:
        store: where to.
        day: the day, whole.
        facts: more that the object's footer is to say.
        encoding: how the file is laid out.

    Raises:
        StoreRefusedError: the store cannot take it.
        StoreBusyError: the store did not manage, or another run stored the same day at the same moment.
        DamagedObjectError: what came back is not what was put.
    """
    key = object_key(day.site, day.day)
    encoded = encode(day, facts=facts, encoding=encoding)
    size = len(encoded.data)
    put = put_verified(store, key, encoded.data)
    wrong = wrong_object(store, day.site, day.day)
    if not put.is_whole:
        if wrong == [] and not encoded.data.endswith(day_end(store, day.site, day.day)):  # another footer: other rows
            raise StoreBusyError(
                f"{store.url(key)}: another run stored this day at the same moment, with other rows; its object is "
                "whole: start again to know which rows the API has now"
            )
        wrong = wrong or ["its size or its hash is another"]
    if wrong != []:
        found = "; ".join(wrong) if wrong else "it is not there"
        raise DamagedObjectError(
            f"{store.url(key)} is not what was put there a moment ago: {found}; fetch the day again, and ask who runs "
            "the store if it comes again"
        )
    return StoredDay(key, store.url(key), encoded.rows, size, encoded.sha256, encoded.state, put.changed, put.etag)


@dataclass(frozen=True, slots=True)
class Put:
    """An object that was put, and looked up again.

    Attributes:
        changed: whether it was written; False when the store held the same bytes already.
        is_whole: whether the store now holds exactly these bytes.
        etag: the store's mark of the object; None where it reports none.
    """

    changed: bool
    is_whole: bool
    etag: str | None = None


def put_verified(store: Store, key: str, data: bytes) -> Put:
    """Put an object unless the store holds the same bytes already, and compare what the store then holds.

    Both comparisons cost one request where the store reports a hash or an ETag that is the MD5 of the content. Where it
    reports neither, an object of the right size is read back.

    Args:
        store: the store.
        key: the object's key.
        data: its content.

    Raises:
        StoreRefusedError, StoreBusyError: the store does not take it.
    """
    sha256 = hashlib.sha256(data).hexdigest()
    before = store.head(key)
    if before is not None and _holds(store, before, data, sha256):
        return Put(changed=False, is_whole=True, etag=before.etag)
    store.put(key, data, sha256)
    after = store.head(key)
    if after is None:
        return Put(changed=True, is_whole=False)
    return Put(changed=True, is_whole=_holds(store, after, data, sha256), etag=after.etag)


def _holds(store: Store, stat: Stat, data: bytes, sha256: str) -> bool:
    """Whether an object is exactly these bytes: by its size, its hash, its ETag, or by reading it."""
    if stat.bytes != len(data):
        return False
    if stat.sha256 is not None:
        return stat.sha256 == sha256
    if stat.etag == hashlib.md5(data, usedforsecurity=False).hexdigest():
        return True
    if stat.named not in (None, sha256):  # its writer named other content
        return False
    try:
        return store.get(stat.key) == data
    except FileNotFoundError:
        return False


def day_footer(store: Store, site: str, day: date) -> Footer:
    """What a stored day says of itself, from the end of its object alone.

    Raises:
        FileNotFoundError: the day is not stored.
        DamagedObjectError: its object is no Parquet file, or a cut one.
    """
    return read_footer(day_end(store, site, day))


def day_end(store: Store, site: str, day: date) -> bytes:
    """The end of a stored day's object, with its whole footer.

    Raises:
        FileNotFoundError: the day is not stored.
        DamagedObjectError: its object is no Parquet file.
    """
    key = object_key(site, day)
    end = store.get(key, last=_END)
    return store.get(key, last=footer_bytes(end)) if footer_bytes(end) > len(end) else end


def wrong_object(store: Store, site: str, day: date, size: int | None = None) -> list[str] | None:
    """What is wrong with a stored day by its footer, a line each; None when it is not stored.

    Args:
        store: where it lies.
        site: whose day.
        day: which.
        size: the object's bytes, if they are known.
    """
    try:
        footer = day_footer(store, site, day)
    except FileNotFoundError:
        return None
    except DamagedObjectError as error:
        return [str(error)]
    return findings(footer, site, day, footer.least_bytes if size is None else size)


def get_day(store: Store, site: str, day: date) -> Any:
    """A stored day as an Arrow table with the contract's columns.

    Raises:
        FileNotFoundError: the day is not stored.
        DamagedObjectError: its object cannot be read.
    """
    key = object_key(site, day)
    data = store.get(key)
    try:
        return decode(data)
    except DamagedObjectError as error:
        raise DamagedObjectError(f"{store.url(key)}: {error}; fetch the day again") from error


def get_days(store: Store, site: str, days: Sequence[date]) -> Any:
    """Stored days as one Arrow table, oldest first; fetched side by side.

    Raises:
        FileNotFoundError: a day is not stored.
        DamagedObjectError: an object cannot be read.
    """
    import pyarrow as pa  # noqa: PLC0415 - only readers need it

    with ThreadPoolExecutor(4) as pool:
        return pa.concat_tables(pool.map(lambda day: get_day(store, site, day), sorted(days)))


def is_stored(store: Store, site: str, day: date) -> bool:
    """Whether the day has an object; asks for its last byte alone."""
    try:
        store.get(object_key(site, day), last=1)
    except FileNotFoundError:
        return False
    return True


def scan_days(store: Store, site: str, days: Sequence[date]) -> Any:
    """Stored days as a lazy polars frame, oldest first: only what a query needs of them is read.

    Raises:
        FileNotFoundError: a day is not stored.
    """
    import polars as pl  # noqa: PLC0415 - only readers need it

    days = sorted(days)
    with ThreadPoolExecutor(16) as pool:  # a day that is not there is told of here, not in the middle of a query
        there = list(pool.map(lambda day: is_stored(store, site, day), days))
    if not all(there):
        raise FileNotFoundError(f"site {site!r}: {there.count(False)} of {len(days)} days are not stored")
    return pl.scan_parquet(
        [store.url(object_key(site, day)) for day in days],
        glob=False,
        hive_partitioning=False,
        storage_options=store.reader_options(),
    )
