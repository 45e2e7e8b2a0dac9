"""Texts of a day: values such as "active" or "On", in a separate Parquet object beside the day's numbers.

Put here: how texts become a file, and what is wrong with such an object. Keep out: the order in which a day's objects
are stored (`days.py`) and which rows they contain (`core/clean.py`).
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from backfill_pipeline import __version__
from backfill_pipeline.core.clean import joined
from backfill_pipeline.core.day import day_window
from backfill_pipeline.core.object_keys import text_key
from backfill_pipeline.core.rows import DayRows
from backfill_pipeline.core.schema import SCHEMA_VERSION, TEXT_SCHEMA
from backfill_pipeline.errors import DamagedObjectError
from backfill_pipeline.storage.parquet import (
    DataHash,
    Encoded,
    Encoding,
    Footer,
    decode,
    file_writer,
    findings,
    footer_bytes,
    read_footer,
    row_findings,
)
from backfill_pipeline.storage.store import Store

_GROUP_BYTES = 32 << 20
"""Bytes of text in a row group, unless a single text has more."""

_END = 64 << 10
"""Bytes at an object's end that hold nearly every footer: one request reads it."""


def encode_texts(day: DayRows, of: Encoded, *, encoding: Encoding | None = None) -> Encoded | None:
    """Encode the texts of a day as the bytes of a file; None if the day has no texts.

    Rows are sorted by point and time. The same day gives the same bytes, whatever its windows were.

    Args:
        day: the day, whole.
        of: the day's object, which this one names, so that texts of another fetch are found out.
        encoding: how it is laid out.
    """
    rows = joined(day.texts)
    if rows is None:
        return None
    encoding = encoding or Encoding()
    order = np.lexsort((rows.ms, rows.code))
    code, ms, text = rows.code[order], rows.ms[order], rows.text[order]
    names, texts = pa.array(day.points, pa.string()), pa.array(rows.texts, pa.large_string())
    start = day_window(day.day).start * 1000
    sink, digest = pa.BufferOutputStream(), DataHash()
    with file_writer(
        sink,
        TEXT_SCHEMA,
        encoding.codec,
        "delta" if encoding.timestamps == "delta" else "dictionary",
        write_statistics=True,
        write_page_index=True,
        write_page_checksum=True,
        store_schema=False,
        sorting_columns=[pq.SortingColumn(1), pq.SortingColumn(0)],
    ) as writer:
        sizes = np.array([len(one.encode()) for one in rows.texts], np.int64)[text]
        for part in _parts(sizes, encoding.row_group_rows):
            columns = [
                pa.array(ms[part].astype(np.int64) + start),
                names.take(pa.array(code[part])),
                texts.take(pa.array(text[part])).cast(pa.string()),
                pa.repeat(pa.scalar(day.site), len(code[part])),
            ]
            group = pa.table(columns, schema=TEXT_SCHEMA)
            writer.write_table(group, row_group_size=len(group))
            digest.update(group)
        about = {
            "site": day.site,
            "day": day.day.isoformat(),
            "schema_version": str(SCHEMA_VERSION),
            "software": f"backfill-pipeline {__version__}",
            "kept": str(len(rows)),
            "dropped": json.dumps(dict(day.counts.texts_dropped), sort_keys=True),
            "data_sha256": digest.hexdigest(),
            "day_data_sha256": of.data_sha256,
            "day_fetched": str(day.counts.fetched),
            "day_not_numeric": str(day.counts.dropped.get("not_numeric", 0)),
        }
        writer.add_key_value_metadata({key: value.encode("utf-8", "surrogatepass") for key, value in about.items()})
    data = sink.getvalue().to_pybytes()
    return Encoded(data, len(rows), hashlib.sha256(data).hexdigest(), "stored", about["data_sha256"])


def _parts(sizes: NDArray[np.int64], most: int) -> Iterator[slice]:
    """Row groups of at most `most` rows and `_GROUP_BYTES` of text."""
    total, at = np.concatenate([[0], np.cumsum(sizes)]), 0
    while at < len(sizes):
        end = int(np.searchsorted(total, total[at] + _GROUP_BYTES, side="right")) - 1
        end = min(max(end, at + 1), at + most)
        yield slice(at, end)
        at = end


def texts_end(store: Store, site: str, day: date) -> bytes:
    """The end of the object of a day's texts, with its whole footer.

    Raises:
        FileNotFoundError: the day has no such object.
        DamagedObjectError: the object is not a Parquet file.
    """
    return object_end(store, text_key(site, day))


def object_end(store: Store, key: str) -> bytes:
    """The end of a Parquet object, with its whole footer: one request, or two for a longer footer.

    Raises:
        FileNotFoundError: there is no such object.
        DamagedObjectError: the object is not a Parquet file.
    """
    end = store.get(key, last=_END)
    return store.get(key, last=footer_bytes(end)) if footer_bytes(end) > len(end) else end


def texts_footer(store: Store, site: str, day: date) -> Footer | None:
    """The footer of the object of a day's texts; None if the day has no such object.

    Raises:
        DamagedObjectError: the object is cut, or belongs to another site or day.
    """
    try:
        footer = read_footer(texts_end(store, site, day), TEXT_SCHEMA)
    except FileNotFoundError:
        return None
    except DamagedObjectError as error:
        raise damaged_texts(store, site, day, [str(error)]) from error
    if wrong := findings(footer, site, day, footer.least_bytes):
        raise damaged_texts(store, site, day, wrong)
    return footer


def damaged_texts(store: Store, site: str, day: date, wrong: list[str]) -> DamagedObjectError:
    """The error of a reader who finds the texts of a day damaged.

    Args:
        store: where they are.
        site: whose day.
        day: which.
        wrong: what is wrong with their object.
    """
    return DamagedObjectError(
        f"{store.url(text_key(site, day))} is damaged: {'; '.join(wrong)}",
        hint="fetch the day again; `backfill verify` shows the command",
        site=site,
        day=day,
    )


def read_texts_object(
    store: Store, site: str, day: date, *, size: int, deep: bool, of: Mapping[str, str] | None = None
) -> tuple[Footer | None, list[str]]:
    """The footer of the texts of a day, and what is wrong with their object, a line each.

    Args:
        store: where it is.
        site: whose day.
        day: which.
        size: the object's bytes, as listed.
        deep: read all rows.
        of: what the footer of the day's own object says; None: it is not compared.

    Returns:
        The footer, None where it cannot be read; and the findings.

    Raises:
        FileNotFoundError: the day has no such object.
    """
    try:
        data = store.get(text_key(site, day)) if deep else texts_end(store, site, day)
        footer = read_footer(data, TEXT_SCHEMA)
        wrong = findings(footer, site, day, size)
        if deep and footer.columns_right:
            wrong += row_findings(decode(data, TEXT_SCHEMA), footer, site, day)
    except DamagedObjectError as error:
        return None, [f"its texts: {error}"]
    if of is not None and not _belongs(footer.about, of):
        wrong.append("they were fetched with other samples of this day")
    return footer, [f"its texts: {one}" for one in wrong]


def _belongs(texts: Mapping[str, str], day: Mapping[str, str]) -> bool:
    """Whether texts were fetched together with the samples of a day's object."""
    try:
        not_numeric = str(json.loads(day.get("dropped", "{}")).get("not_numeric", 0))
    except (ValueError, AttributeError):
        return False
    facts = {"data_sha256": day.get("data_sha256"), "fetched": day.get("fetched"), "not_numeric": not_numeric}
    return all(texts.get(f"day_{name}") == fact for name, fact in facts.items())


def get_texts(store: Store, site: str, day: date) -> Any:
    """The texts of a stored day as an Arrow table of `TEXT_SCHEMA`; empty if the day has none.

    Raises:
        DamagedObjectError: the object cannot be read, or belongs to another site or day.
    """
    try:
        data = store.get(text_key(site, day))
    except FileNotFoundError:
        return TEXT_SCHEMA.empty_table()
    try:
        wrong = findings(read_footer(data, TEXT_SCHEMA), site, day, len(data))
        if not wrong:
            return decode(data, TEXT_SCHEMA)
    except DamagedObjectError as error:
        wrong = [str(error)]
    raise damaged_texts(store, site, day, wrong)
