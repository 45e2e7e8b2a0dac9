"""Parquet: a day's rows -> a file, and a file held against what it should be.

Put here: encodings, row groups, the metadata in the footer, and the checks of an object. Keep out: where files lie
(`storage/store.py`).
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from backfill_pipeline import __version__
from backfill_pipeline.core.day import DAY_MS, day_window
from backfill_pipeline.core.rows import Chunk, DayRows
from backfill_pipeline.core.schema import SCHEMA, SCHEMA_VERSION
from backfill_pipeline.errors import DamagedObjectError

ROW_GROUP_ROWS = 131_072
"""Rows a row group: small enough that a reader of one point skips nearly the whole day."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """A file that was written.

    Attributes:
        rows: its rows.
        bytes: its size.
        sha256: of the file.
        state: `stored`, or `empty` for a day of which the API has no samples.
    """

    rows: int
    bytes: int
    sha256: str
    state: str


@dataclass(frozen=True, slots=True)
class Footer:
    """What an object says of itself.

    Attributes:
        rows: its rows.
        about: the schema's metadata, as text.
        columns_right: whether its columns are the contract's.
    """

    rows: int
    about: Mapping[str, str]
    columns_right: bool


def encode(day: DayRows, path: Path, *, facts: Mapping[str, str] | None = None, codec: str = "snappy") -> Encoded:
    """Write a day to a local file, sorted by point and time; the same day gives the same bytes.

    Rows are gathered a row group at a time, so that memory stays near one row group whatever the day's size.

    Args:
        day: the day, whole.
        path: the file; replaced if it is there.
        facts: more that the footer is to say, the same for the same rows.
        codec: `snappy` or `zstd`.
    """
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
        "data_sha256": _data_hash(day),
        **(facts or {}),
    }
    schema = SCHEMA.with_metadata({key: value.encode("utf-8", "surrogatepass") for key, value in about.items()})
    rows = 0
    with pq.ParquetWriter(
        path,
        schema,
        compression=codec,
        version="2.6",
        use_dictionary=["point_name", "site_name", "value"],
        column_encoding={"timestamp": "DELTA_BINARY_PACKED"},
        write_statistics=True,
        write_page_index=True,
        sorting_columns=[pq.SortingColumn(1), pq.SortingColumn(0)],
    ) as writer:
        for group in _row_groups(day):
            writer.write_table(group, row_group_size=len(group))
            rows += len(group)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Encoded(rows, path.stat().st_size, digest, state)


def read_footer(file: Any) -> Footer:
    """The footer of an object.

    Args:
        file: a path, or an open file that can seek.

    Raises:
        DamagedObjectError: it is no Parquet file, or a cut one.
    """
    try:
        meta = pq.read_metadata(file)
        schema = meta.schema.to_arrow_schema()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DamagedObjectError(f"no whole Parquet file ({str(error).splitlines()[0]})") from error
    about = {key.decode(): value.decode("utf-8", "surrogatepass") for key, value in (meta.metadata or {}).items()}
    return Footer(meta.num_rows, about, schema.equals(SCHEMA, check_metadata=False))


def findings(file: Any, site: str, day: date, *, deep: bool = False) -> list[str]:
    """What is wrong with an object, a line each; nothing is wrong when the list is empty.

    Args:
        file: a path, or an open file that can seek.
        site: whose object it should be.
        day: which day's.
        deep: read every row, not the footer alone.
    """
    try:
        footer = read_footer(file)
        wrong = [
            f"{name} is {footer.about.get(name)!r}, not {expected!r}"
            for name, expected in (("site", site), ("day", day.isoformat()), ("kept", str(footer.rows)))
            if footer.about.get(name) != expected
        ]
        if not footer.columns_right:
            wrong.append("its columns are not the contract's")
        elif deep and footer.rows:
            if not isinstance(file, Path | str):
                file.seek(0)
            wrong += _wrong_rows(pq.read_table(file, schema=SCHEMA), site, day)
    except (DamagedObjectError, pa.ArrowException, OSError) as error:
        return [str(error).splitlines()[0]]
    return wrong


def _wrong_rows(table: Any, site: str, day: date) -> list[str]:
    start = day_window(day).start * 1000
    wrong = []
    times = table["timestamp"].to_numpy()
    if times.min() < start or times.max() >= start + DAY_MS:
        wrong.append("rows lie outside of the day")
    if pc.unique(table["site_name"]).to_pylist() != [site]:
        wrong.append("rows belong to another site")
    if not np.isfinite(table["value"].to_numpy()).all():
        wrong.append("values are not finite")
    names = table["point_name"].combine_chunks().cast(pa.binary())
    before, after = names[:-1], names[1:]
    later = times[1:] > times[:-1]
    rising = pc.less(before, after).to_numpy(zero_copy_only=False)
    same = pc.equal(before, after).to_numpy(zero_copy_only=False)
    if not (rising | (same & later)).all():
        wrong.append("rows are not sorted by point and time, one per pair")
    return wrong


def _row_groups(day: DayRows) -> Iterator[Any]:
    """The day's rows in order, a table of at most `ROW_GROUP_ROWS` rows each, whole points where they fit."""
    start = day_window(day.day).start * 1000
    starts = [np.searchsorted(chunk.code, np.arange(len(day.points) + 1)) for chunk in day.chunks]
    if not starts:
        return
    total = np.sum(starts, axis=0)
    first = 0
    while first < len(day.points):
        last = max(first + 1, int(np.searchsorted(total, total[first] + ROW_GROUP_ROWS, side="right")) - 1)
        code, ms, value = _gathered(day.chunks, starts, first, last)
        names = pa.array(day.points[first:last], pa.string())
        for at in range(0, len(code), ROW_GROUP_ROWS):
            part = slice(at, at + ROW_GROUP_ROWS)
            yield _table(day.site, names, code[part] - first, ms[part].astype(np.int64) + start, value[part])
        first = last


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
    return pa.table([pa.array(ms), points.cast(pa.string()), pa.array(value), sites.cast(pa.string())], schema=SCHEMA)


def _data_hash(day: DayRows) -> str:
    """A hash of the rows themselves, whatever the windows they came in, the row groups and the codec."""
    digest = hashlib.sha256()
    names = day.points
    starts = [np.searchsorted(chunk.code, np.arange(len(names) + 1)) for chunk in day.chunks]
    step = 256  # points at a time, so that memory stays small
    for first in range(0, len(names) if starts else 0, step):
        last = min(first + step, len(names))
        code, ms, value = _gathered(day.chunks, starts, first, last)
        for number in np.unique(code).tolist():
            digest.update(names[number].encode("utf-8", "surrogatepass") + b"\0")
        digest.update(code.astype("<i4").tobytes() + ms.astype("<i4").tobytes() + value.astype("<f8").tobytes())
    return digest.hexdigest()
