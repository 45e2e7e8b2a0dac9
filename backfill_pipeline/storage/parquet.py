"""Parquet: writing a day's rows as a file, and checking a file against its day.

Put here: encodings, row groups, the metadata in the footer, and the checks of an object. Keep out: where files are
(`storage/store.py`).
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from backfill_pipeline import __version__
from backfill_pipeline.core.day import DAY_MS, day_window
from backfill_pipeline.core.point_summaries import PointSummary
from backfill_pipeline.core.quality import quality
from backfill_pipeline.core.rows import Chunk, DayRows
from backfill_pipeline.core.schema import SCHEMA, SCHEMA_VERSION
from backfill_pipeline.errors import DamagedObjectError

ROW_GROUP_ROWS = 65_536
"""Rows a row group unless set otherwise: `docs/decisions/0003-row-groups.md` has the figures."""

_DICTIONARY_BYTES = 131_072
"""A row group's values that are more different than this holds are written plain: with an index each would grow."""

_TRIED_OF = 16
"""One row group of this many is encoded both ways to choose the encoding of timestamps, and at least one of a day."""

TimestampEncoding = Literal["auto", "delta", "dictionary"]
"""How timestamps are encoded: `DELTA_BINARY_PACKED`, by dictionary, or whichever is smaller for the day."""

_STRINGS = ("point_name", "site_name")
_WRITTEN = pa.schema([f.with_type(pa.dictionary(pa.int32(), pa.string())) if f.name in _STRINGS else f for f in SCHEMA])
"""The contract's columns as they are handed to the writer: it need not find out again which names repeat."""

_TEXTS_AT_ONCE = 4096

_END = 8
"""Bytes after the footer: its length and the format's mark."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """How a file is laid out.

    Attributes:
        codec: `snappy` or `zstd`.
        row_group_rows: rows a row group, at most.
        timestamps: how timestamps are encoded.
    """

    codec: str = "snappy"
    row_group_rows: int = ROW_GROUP_ROWS
    timestamps: TimestampEncoding = "auto"


@dataclass(frozen=True, slots=True)
class Encoded:
    """A day as the bytes of a file.

    Attributes:
        data: the file.
        rows: its rows.
        sha256: of `data`.
        state: `stored`, or `empty` for a day without rows.
        data_sha256: hash of the rows themselves, by `DataHash`.
    """

    data: bytes
    rows: int
    sha256: str
    state: str
    data_sha256: str


@dataclass(frozen=True, slots=True)
class Footer:
    """What an object says of itself.

    Attributes:
        rows: its rows.
        about: the schema's metadata, as text.
        columns_right: whether its columns are the contract's.
        least_bytes: what its rows and its footer take: no whole object is smaller.
    """

    rows: int
    about: Mapping[str, str]
    columns_right: bool
    least_bytes: int

    @property
    def is_empty(self) -> bool:
        """Whether the day has no rows; `fetched` in `about` shows whether the API returned any."""
        return not self.rows


def encode(day: DayRows, *, facts: Mapping[str, str] | None = None, encoding: Encoding | None = None) -> Encoded:
    """A day as the bytes of a file, sorted by point and time; the same day gives the same bytes.

    Rows are gathered a row group at a time, so that memory stays near one row group and the file, whatever the day's
    size. The file is made in memory: it takes a tenth of the day's own rows, and a process that is killed leaves
    nothing behind.

    Args:
        day: the day, whole.
        facts: more that the footer is to say, the same for the same rows.
        encoding: how it is laid out.
    """
    encoding = encoding or Encoding()
    state = "empty" if day.is_empty else "stored"
    about = {
        "site": day.site,
        "day": day.day.isoformat(),
        "state": state,
        "schema_version": str(SCHEMA_VERSION),
        "software": f"backfill-pipeline {__version__}",
        "fetched": str(day.counts.fetched),
        "kept": str(day.counts.kept),
        "dropped": json.dumps(dict(day.counts.dropped), sort_keys=True),
        "conflicts": str(day.counts.conflicts),
        "points_configured": str(len(day.points)),
        **(facts or {}),
    }
    groups = _RowGroups(day, encoding.row_group_rows)
    timestamps = encoding.timestamps if encoding.timestamps != "auto" else _smaller(groups, encoding)
    sink, rows, digest, points = pa.BufferOutputStream(), 0, DataHash(), PointSummary(day.points)
    with file_writer(
        sink,
        _WRITTEN,
        encoding.codec,
        timestamps,
        write_statistics=True,
        write_page_index=True,
        write_page_checksum=True,
        store_schema=False,  # a reader is to see strings, not that we had them as dictionaries
        sorting_columns=[pq.SortingColumn(1), pq.SortingColumn(0)],
    ) as writer:
        for group in groups.tables(points):
            writer.write_table(group, row_group_size=len(group))
            digest.update(group)
            rows += len(group)
        about |= {"data_sha256": digest.hexdigest(), **_figures(day, points)}
        writer.add_key_value_metadata({key: value.encode("utf-8", "surrogatepass") for key, value in about.items()})
    data = sink.getvalue().to_pybytes()
    return Encoded(data, rows, hashlib.sha256(data).hexdigest(), state, about["data_sha256"])


def footer_bytes(end: bytes) -> int:
    """How many of a file's last bytes hold its footer.

    Args:
        end: the file's last bytes, 8 or more.

    Raises:
        DamagedObjectError: it is not a Parquet file, or is cut.
    """
    if len(end) < _END or end[-4:] != b"PAR1":
        raise DamagedObjectError("not a complete Parquet file (it does not end with `PAR1`)")
    return int.from_bytes(end[-_END:-4], "little") + _END


def read_footer(end: bytes, schema: pa.Schema = SCHEMA) -> Footer:
    """The footer of an object.

    Args:
        end: the file's last bytes, `footer_bytes` or more of them.
        schema: the columns that it should have.

    Raises:
        DamagedObjectError: it is not a Parquet file, or is cut.
    """
    size = footer_bytes(end)
    try:
        meta = pq.read_metadata(pa.BufferReader(end))
        found = meta.schema.to_arrow_schema()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DamagedObjectError(f"not a complete Parquet file ({str(error).splitlines()[0]})") from error
    about = {key.decode(): value.decode("utf-8", "surrogatepass") for key, value in (meta.metadata or {}).items()}
    chunks = sum(
        meta.row_group(group).column(column).total_compressed_size
        for group in range(meta.num_row_groups)
        for column in range(meta.num_columns)
    )
    return Footer(meta.num_rows, about, found.equals(schema, check_metadata=False), 4 + chunks + size)


def decode(data: bytes, schema: pa.Schema = SCHEMA) -> Any:
    """The rows of a file as an Arrow table with the columns of `schema`; each page's checksum is verified.

    Raises:
        DamagedObjectError: it is not a Parquet file of a day, or is damaged.
    """
    try:
        return pq.read_table(pa.BufferReader(data), schema=schema, page_checksum_verification=True)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DamagedObjectError(f"its rows cannot be read ({str(error).splitlines()[0]})") from error


def decode_samples(data: bytes) -> Any:
    """Timestamps, names of points and values of a day's file; each page's checksum is verified.

    Names are a dictionary, as the file has them: to make strings of them takes thirty times as long.

    Raises:
        DamagedObjectError: it is not a Parquet file of a day, or is damaged.
    """
    try:
        with pq.ParquetFile(
            pa.BufferReader(data), read_dictionary=["point_name"], page_checksum_verification=True
        ) as file:
            return file.read(["timestamp", "point_name", "value"], use_threads=False).unify_dictionaries()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DamagedObjectError(f"its rows cannot be read ({str(error).splitlines()[0]})") from error


def findings(footer: Footer, site: str, day: date, size: int) -> list[str]:
    """What is wrong with an object by its footer, a line each; nothing is wrong when the list is empty.

    Args:
        footer: the object's.
        site: whose object it should be.
        day: which day's.
        size: of the object, in bytes.
    """
    expected = {"site": site, "day": day.isoformat(), "kept": str(footer.rows)}
    wrong = [
        f"{name} is {footer.about.get(name)!r}, not {value!r}"
        for name, value in expected.items()
        if footer.about.get(name) != value
    ]
    if not footer.columns_right:
        wrong.append("its columns are not the contract's")
    if size < footer.least_bytes:
        wrong.append(f"it has {size:,} bytes, fewer than the {footer.least_bytes:,} that its footer tells of")
    return wrong


def row_findings(table: Any, footer: Footer, site: str, day: date) -> list[str]:
    """What is wrong with an object's rows, a line each.

    Args:
        table: all its rows, with the columns of a day or of a day's texts.
        footer: the object's.
        site: whose object it should be.
        day: which day's.
    """
    digest = DataHash()
    digest.update(table)
    wrong = []
    if digest.hexdigest() != footer.about.get("data_sha256"):
        wrong.append("its rows are not those that were stored: their hash differs from the footer's")
    if not len(table):
        return wrong
    start = day_window(day).start * 1000
    times = table["timestamp"].to_numpy()
    if times.min() < start or times.max() >= start + DAY_MS:
        wrong.append("rows lie outside of the day")
    if pc.unique(table["site_name"]).to_pylist() != [site]:
        wrong.append("rows belong to another site")
    if "value" in table.column_names and not np.isfinite(table["value"].to_numpy()).all():
        wrong.append("values are not finite")
    names = table["point_name"].combine_chunks().cast(pa.binary())
    before, after = names[:-1], names[1:]
    later = times[1:] > times[:-1]
    rising = pc.less(before, after).to_numpy(zero_copy_only=False)
    same = pc.equal(before, after).to_numpy(zero_copy_only=False)
    if not (rising | (same & later)).all():
        wrong.append("rows are not sorted by point and time, one per pair")
    return wrong


class DataHash:
    """A hash of the rows themselves: it does not depend on the windows, the row groups and the codec.

    SHA-256 over: SHA-256 of all timestamps (int64, little-endian), SHA-256 of all values (float64, little-endian), then
    for each run of rows of one point `NAME NUL COUNT LF`, the count in decimal. Of a text, its length in bytes (int64,
    little-endian) and its UTF-8 count as its value.
    """

    def __init__(self) -> None:
        self._times = hashlib.sha256()
        self._values = hashlib.sha256()
        self._runs: list[tuple[bytes, int]] = []

    def update(self, table: Any) -> None:
        """Take in the next rows, in the object's order."""
        if not len(table):
            return
        self._times.update(table["timestamp"].to_numpy().astype("<i8", copy=False).tobytes())
        if "value" in table.column_names:
            self._values.update(table["value"].to_numpy().astype("<f8", copy=False).tobytes())
        else:
            for text in _bytes_of(table["text"]):
                self._values.update(len(text).to_bytes(8, "little") + text)
        names = table["point_name"].combine_chunks()
        as_codes = pa.types.is_dictionary(names.type)
        runs = pc.run_end_encode(names.indices if as_codes else names, run_end_type=pa.int64())
        distinct = names.dictionary.take(runs.values) if as_codes else runs.values
        names = distinct.cast(pa.binary()).to_pylist()
        counts = np.diff(runs.run_ends.to_numpy(), prepend=0).tolist()
        if self._runs and self._runs[-1][0] == names[0]:
            counts[0] += self._runs.pop()[1]
        self._runs += zip(names, counts, strict=True)

    def hexdigest(self) -> str:
        """The hash of all rows so far."""
        runs = b"".join(b"%s\0%d\n" % run for run in self._runs)
        return hashlib.sha256(self._times.digest() + self._values.digest() + runs).hexdigest()


def _bytes_of(column: Any) -> Iterator[bytes]:
    """Each text of a column as UTF-8, some thousands in memory at once."""
    for chunk in column.chunks:
        for at in range(0, len(chunk), _TEXTS_AT_ONCE):
            yield from chunk.slice(at, _TEXTS_AT_ONCE).cast(pa.binary()).to_pylist()


def _figures(day: DayRows, points: PointSummary) -> dict[str, str]:
    """Compute the figures for coverage, so that it does not have to read the rows."""
    seen, each = quality(day), points.result()
    return {
        "points_seen": str(np.count_nonzero(each.rows)),
        "longest_gap_min": str(seen.longest_gap_min),
        "interval_s": "" if seen.interval_s is None else str(seen.interval_s),
        "points": each.to_text(),
    }


def file_writer(sink: Any, schema: Any, codec: str, timestamps: Literal["delta", "dictionary"], **more: Any) -> Any:
    """A writer with the columns' encodings; all row groups of its file have the same encoding of timestamps."""
    is_delta = timestamps == "delta"
    return pq.ParquetWriter(
        sink,
        schema,
        compression=codec,
        version="2.6",
        use_dictionary=[name for name in schema.names if not (is_delta and name == "timestamp")],
        dictionary_pagesize_limit=_DICTIONARY_BYTES,
        column_encoding={"timestamp": "DELTA_BINARY_PACKED"} if is_delta else None,
        **more,
    )


def _smaller(groups: "_RowGroups", encoding: Encoding) -> Literal["delta", "dictionary"]:
    """The encoding with which the timestamps of some row groups take fewer bytes.

    Both are tried, since neither the number of different timestamps nor their steps predict the compressed size. The
    row groups that are tried depend on the day's rows alone: the same rows give the same bytes.
    """
    times = groups.some_timestamps(_TRIED_OF)

    def size(timestamps: Literal["delta", "dictionary"]) -> int:
        sink = pa.BufferOutputStream()
        with file_writer(sink, times[0].schema, encoding.codec, timestamps, write_statistics=False) as writer:
            for table in times:
                writer.write_table(table, row_group_size=len(table))
        return int(sink.tell())

    return "dictionary" if times and size("dictionary") < size("delta") else "delta"


class _RowGroups:
    """The row groups of a day: at most `most` rows each, whole points where they fit."""

    def __init__(self, day: DayRows, most: int) -> None:
        self.day = day
        self.most = most
        self.start = day_window(day.day).start * 1000
        self._starts = [np.searchsorted(chunk.code, np.arange(len(day.points) + 1)) for chunk in day.chunks]
        self._ranges: list[tuple[int, int]] = []
        total = np.sum(self._starts, axis=0) if self._starts else np.zeros(1, np.intp)
        first = 0
        while first < len(total) - 1:
            last = max(first + 1, int(np.searchsorted(total, total[first] + most, side="right")) - 1)
            if total[last] > total[first]:
                self._ranges.append((first, last))
            first = last

    def tables(self, points: PointSummary) -> Iterator[Any]:
        """The rows in order, a table for each row group; `points` is updated with them."""
        day = self.day
        for first, last in self._ranges:
            code, ms, value = _gathered(day.chunks, self._starts, first, last)
            points.update(code, ms, value)
            names = pa.array(day.points[first:last], pa.string())
            for at in range(0, len(code), self.most):
                part = slice(at, at + self.most)
                yield _table(day.site, names, code[part] - first, ms[part].astype(np.int64) + self.start, value[part])

    def some_timestamps(self, one_of: int) -> list[Any]:
        """The timestamps of one row group of `one_of`, and of at least one, evenly spaced over the day's points."""
        count = len(self._ranges)
        number = min(count, max(1, count // one_of))
        found = []
        for first, last in (self._ranges[(2 * n + 1) * count // (2 * number)] for n in range(number)):
            ms = _gathered(self.day.chunks, self._starts, first, last)[1][: self.most]
            found.append(pa.table({"timestamp": ms.astype(np.int64) + self.start}))
        return found


def _gathered(
    chunks: Sequence[Chunk], starts: list[NDArray[np.intp]], first: int, last: int
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float64]]:
    """The rows of points `first <= code < last`, sorted by code and, the chunks being in time order, by time."""
    parts = [slice(int(at[first]), int(at[last])) for at in starts]
    code = np.concatenate([chunk.code[part] for chunk, part in zip(chunks, parts, strict=True)])
    order = np.argsort(code, kind="stable")
    ms = np.concatenate([chunk.ms[part] for chunk, part in zip(chunks, parts, strict=True)])
    value = np.concatenate([chunk.value[part] for chunk, part in zip(chunks, parts, strict=True)])
    return code[order], ms[order], value[order]


def _table(site: str, names: Any, code: NDArray[np.int32], ms: NDArray[np.int64], value: NDArray[np.float64]) -> Any:
    # A dictionary is written whole with every row group: it holds the names of this group alone.
    here, number = np.unique(code, return_inverse=True)
    points = pa.DictionaryArray.from_arrays(pa.array(number.astype(np.int32)), names.take(pa.array(here)))
    sites = pa.DictionaryArray.from_arrays(pa.array(np.zeros(len(code), np.int32)), pa.array([site]))
    return pa.table([pa.array(ms), points, pa.array(value), sites], schema=_WRITTEN)
