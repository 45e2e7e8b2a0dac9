"""Days in the store: put whole, read back and verified; found again.

Put here: what it takes for a day to count as stored. Keep out: encodings (`parquet.py`) and stores (`local.py`,
`s3.py`).
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from backfill_pipeline.core.command_lines import repair_command
from backfill_pipeline.core.object_keys import object_key, text_key
from backfill_pipeline.core.rows import DayRows
from backfill_pipeline.core.schema import TEXT_SCHEMA
from backfill_pipeline.errors import DamagedObjectError, StoreBusyError
from backfill_pipeline.settings import Settings
from backfill_pipeline.storage.parquet import (
    Encoded,
    Encoding,
    Footer,
    decode,
    decode_samples,
    encode,
    findings,
    read_footer,
    row_findings,
)
from backfill_pipeline.storage.store import Stat, Store
from backfill_pipeline.storage.store_urls import open_store
from backfill_pipeline.storage.texts import encode_texts, object_end, texts_end


@dataclass(frozen=True, slots=True)
class StoredDay:
    """A day whose object was read back from the store and verified.

    Attributes:
        key: its object key.
        url: its path or URL.
        rows: rows in the object.
        bytes: its size.
        sha256: of its bytes.
        state: `stored` or `empty`.
        changed: whether the object differs from the one that was there before, or is new.
        etag: the store's mark of the object, as a listing reports it; None in a folder.
        texts: rows of the object of its texts; 0 if it has no texts, and no such object.
        text_bytes: the size of that object.
        about: the metadata of the object's footer, without the figures of each point.
    """

    key: str
    url: str
    rows: int
    bytes: int
    sha256: str
    state: str
    changed: bool
    etag: str | None = None
    texts: int = 0
    text_bytes: int = 0
    about: Mapping[str, str] = field(default_factory=dict)


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


def settings_encoding(settings: Settings) -> Encoding:
    """The layout of objects that the settings name."""
    return Encoding(settings.compression, settings.row_group_rows, settings.timestamp_encoding)


def put_day(
    store: Store, day: DayRows, *, facts: Mapping[str, str] | None = None, encoding: Encoding | None = None
) -> StoredDay:
    """Store a day, and return only when its object has been read back and found right.

    An object that is there already with the same bytes is not written again. The object of the day's texts is put
    first: a day is stored when its own object is, and then its texts are as well. Texts of an earlier fetch are deleted
    last, if the day has no texts now.

    Args:
        store: where to.
        day: the day, whole.
        facts: more that the object's footer is to say.
        encoding: how the file is laid out.

    Raises:
        StoreRefusedError: the store cannot take it.
        StoreBusyError: the store failed, or another run stored the same day at the same time.
        DamagedObjectError: the object that was read back does not match what was written.
    """
    key = object_key(day.site, day.day)
    encoded = encode(day, facts=facts, encoding=encoding)
    size = len(encoded.data)
    texts = encode_texts(day, encoded, encoding=encoding)
    texts_changed = texts is not None and _put_texts(store, day, texts)
    put = put_verified(store, key, encoded.data)
    wrong = wrong_object(store, day.site, day.day)
    if not put.is_whole:
        if wrong == [] and not encoded.data.endswith(day_end(store, day.site, day.day)):  # another footer: other rows
            raise StoreBusyError(
                f"{store.url(key)}: another run stored this day at the same moment, with other rows",
                hint="start the backfill again to store the day as the API returns it now",
            )
        wrong = wrong or ["its size or its hash differs"]
    if wrong != []:
        found = "; ".join(wrong) if wrong else "it does not exist"
        raise DamagedObjectError(
            f"{store.url(key)} does not match what was written: {found}",
            hint="fetch the day again; if it happens again, report it to the operator of the store",
        )
    if texts is not None:
        _verify_texts(store, day, texts)  # another run may have put its own texts in the meantime
    elif _exists(store, text_key(day.site, day.day)):
        store.delete(text_key(day.site, day.day))
        texts_changed = True
    return StoredDay(
        key,
        store.url(key),
        encoded.rows,
        size,
        encoded.sha256,
        encoded.state,
        put.changed or texts_changed,
        put.etag,
        texts.rows if texts is not None else 0,
        len(texts.data) if texts is not None else 0,
        {name: text for name, text in read_footer(encoded.data).about.items() if name != "points"},
    )


def _put_texts(store: Store, day: DayRows, texts: Encoded) -> bool:
    """Put the texts of a day and verify them; whether their object differs from the one that was there before."""
    put = put_verified(store, text_key(day.site, day.day), texts.data)
    if not put.is_whole:
        _verify_texts(store, day, texts, ("its size or its hash differs",))
    return put.changed


def _verify_texts(store: Store, day: DayRows, texts: Encoded, known: Sequence[str] = ()) -> None:
    """Read back the footer of the texts of a day.

    Args:
        store: where they are.
        day: the day.
        texts: their object, as it was put.
        known: what is known to be wrong with it.

    Raises:
        StoreBusyError: they are whole, and of another run.
        DamagedObjectError: they are not what was put.
    """
    key = text_key(day.site, day.day)
    try:
        end = texts_end(store, day.site, day.day)
        footer = read_footer(end, TEXT_SCHEMA)
        wrong = findings(footer, day.site, day.day, len(texts.data))
        if not wrong and footer.about != read_footer(texts.data, TEXT_SCHEMA).about:
            raise StoreBusyError(
                f"{store.url(key)}: another run stored the texts of this day at the same moment, and they differ",
                hint="start the backfill again to store the day as the API returns it now",
                site=day.site,
                day=day.day,
            )
        if not texts.data.endswith(end):
            wrong.append("its bytes differ")
    except FileNotFoundError:
        wrong = ["it does not exist"]
    except DamagedObjectError as error:
        wrong = [str(error)]
    if wrong := [*wrong, *known]:
        raise DamagedObjectError(
            f"{store.url(key)} does not match what was written: {'; '.join(wrong)}",
            hint="fetch the day again; if it happens again, report it to the operator of the store",
            site=day.site,
            day=day.day,
        )


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


def _exists(store: Store, key: str) -> bool:
    """Whether there is an object, by one request: to look an absent one up takes two."""
    try:
        store.get(key, last=1)
    except FileNotFoundError:
        return False
    return True


def day_footer(store: Store, site: str, day: date) -> Footer:
    """Read the footer of a stored day, from the end of its object alone.

    Raises:
        FileNotFoundError: the day is not stored.
        DamagedObjectError: its object is not a Parquet file, or is cut.
    """
    return read_footer(day_end(store, site, day))


def day_end(store: Store, site: str, day: date) -> bytes:
    """Read the end of a stored day's object, with its whole footer.

    Raises:
        FileNotFoundError: the day is not stored.
        DamagedObjectError: its object is not a Parquet file.
    """
    return object_end(store, object_key(site, day))


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


def checked_footer(store: Store, site: str, day: date) -> Footer:
    """The footer of a stored day whose object is whole and belongs to this site and day.

    Raises:
        FileNotFoundError: the day is not stored.
        DamagedObjectError: its object is cut, or belongs to another site or day.
    """
    try:
        footer = day_footer(store, site, day)
        wrong = findings(footer, site, day, footer.least_bytes)
    except DamagedObjectError as error:
        wrong = [str(error)]
    if wrong:
        raise damaged(store, site, day, wrong)
    return footer


def damaged(store: Store, site: str, day: date, wrong: Sequence[str], *, deep: bool = False) -> DamagedObjectError:
    """The error of a reader who finds the object of a day damaged.

    Args:
        store: where it is.
        site: whose day.
        day: which.
        wrong: what is wrong with it.
        deep: whether only reading all rows shows it.
    """
    return DamagedObjectError(
        f"{store.url(object_key(site, day))} is damaged: {'; '.join(wrong)}",
        hint=f"to fetch the day again, run: {repair_command([(site, day)], deep=deep)}",
        site=site,
        day=day,
    )


def read_object(
    store: Store, site: str, day: date, *, size: int, deep: bool, sha256: str | None = None
) -> tuple[Footer | None, list[str]]:
    """The footer of a stored day, and what is wrong with its object, a line each.

    Args:
        store: where it is.
        site: whose day.
        day: which.
        size: the object's bytes, as listed.
        deep: read the whole object: its rows, and the SHA-256 of all its bytes.
        sha256: the hash that was recorded outside the object. None: the hash that the store keeps beside it, if any.

    Returns:
        The footer, None where it cannot be read; and the findings.

    Raises:
        FileNotFoundError: the day is not stored.
    """
    if not deep:
        try:
            footer = day_footer(store, site, day)
        except DamagedObjectError as error:
            return None, [str(error)]
        return footer, findings(footer, site, day, size)
    key = object_key(site, day)
    data = store.get(key)
    found = hashlib.sha256(data).hexdigest()
    if sha256 is None:
        head = store.head(key)
        sha256 = (head.sha256 or head.named) if head is not None else None
    if sha256 is not None and found != sha256:
        where = "the SHA-256 of its bytes differs from the recorded one"
        try:
            damaged_footer, wrong = _read_whole(data, site, day, size)
        except Exception:  # noqa: BLE001 - bytes of any kind: whatever the reader raises, the hash is the finding
            return None, [where]
        return damaged_footer, [where, *wrong]
    return _read_whole(data, site, day, size)


def _read_whole(data: bytes, site: str, day: date, size: int) -> tuple[Footer | None, list[str]]:
    try:
        footer = read_footer(data)
        wrong = findings(footer, site, day, size)
        if footer.columns_right:
            wrong += row_findings(decode(data), footer, site, day)
    except DamagedObjectError as error:
        return None, [str(error)]
    return footer, wrong


def get_day(store: Store, site: str, day: date) -> Any:
    """A stored day as an Arrow table with the contract's columns.

    Raises:
        FileNotFoundError: the day is not stored.
        DamagedObjectError: its object cannot be read, or belongs to another site or day.
    """
    return _get(store, site, day, decode)[0]


def get_samples(store: Store, site: str, day: date) -> tuple[Any, Footer]:
    """The samples of a stored day, and the footer of the same version of its object, by one request.

    Returns:
        An Arrow table with `timestamp`, `point_name` (a dictionary) and `value`; and the footer.

    Raises:
        FileNotFoundError: the day is not stored.
        DamagedObjectError: its object cannot be read, or belongs to another site or day.
    """
    return _get(store, site, day, decode_samples)


def _get(store: Store, site: str, day: date, decoded: Callable[[bytes], Any]) -> tuple[Any, Footer]:
    data = store.get(object_key(site, day))
    try:
        footer = read_footer(data)
        wrong = findings(footer, site, day, len(data))
        if not wrong:
            return decoded(data), footer
    except DamagedObjectError as error:
        wrong = [str(error)]
    raise damaged(store, site, day, wrong)


def get_days(store: Store, site: str, days: Sequence[date]) -> Any:
    """Stored days as one Arrow table, oldest first; fetched side by side.

    Raises:
        FileNotFoundError: a day is not stored.
        DamagedObjectError: an object cannot be read, or belongs to another site or day.
    """
    import pyarrow as pa  # noqa: PLC0415 - only readers need it

    with ThreadPoolExecutor(4) as pool:
        return pa.concat_tables(pool.map(lambda day: get_day(store, site, day), sorted(days)))


def scan_days(store: Store, site: str, days: Sequence[date]) -> Any:
    """Stored days as a lazy polars frame, oldest first: only what a query needs of them is read.

    The caller has read the footer of each day (`stored_footers`): an error inside of a query does not name the day.
    """
    import polars as pl  # noqa: PLC0415 - only readers need it

    return pl.scan_parquet(
        [store.url(object_key(site, day)) for day in sorted(days)],
        glob=False,
        hive_partitioning=False,
        storage_options=store.reader_options(),
    )


def stored_footers(store: Store, site: str, days: Sequence[date]) -> dict[date, Footer]:
    """The footers of those days that are stored, each whole and of this site and day.

    Raises:
        DamagedObjectError: an object is cut, or belongs to another site or day.
    """

    def footer(day: date) -> Footer | None:
        try:
            return checked_footer(store, site, day)
        except FileNotFoundError:
            return None

    with ThreadPoolExecutor(16) as pool:
        found = zip(days, pool.map(footer, days), strict=True)
        return {day: one for day, one in found if one is not None}
