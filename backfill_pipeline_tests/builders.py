"""Builders of what tests need again and again: pages, rows, settings of a made-up API."""

from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa

from backfill_pipeline.core.paging import Cursor
from backfill_pipeline.core.rows import Page

Row = tuple[int, str, float]
"""A sample as the fake API holds it: Unix microseconds, point, value."""


def page_of(rows: Sequence[Row], *, cursor: str | None = None, has_more: bool = False) -> Page:
    """A page of usable rows, as the decoder would give it."""
    names = list(dict.fromkeys(name for _, name, _ in rows))
    index = {name: code for code, name in enumerate(names)}
    return Page(
        names,
        np.array([index[name] for _, name, _ in rows], np.int32),
        np.array([time for time, _, _ in rows], np.int64),
        np.array([value for *_, value in rows], np.float64),
        np.zeros(len(rows), np.uint8),
        cursor,
        has_more,
    )


def answer(rows: Iterable[Row], start: int, end: int, size: int, cursor: str | None) -> Page:
    """What the API answers, its standing cursor included: the outgoing offset counts the current page alone.

    Args:
        rows: all samples, in order of time and name.
        start: Unix seconds, inclusive.
        end: Unix seconds, exclusive.
        size: rows a page.
        cursor: as received.
    """
    found = [row for row in rows if start * 1_000_000 <= row[0] < end * 1_000_000]
    at = Cursor.decode(cursor)
    if at is not None:
        same = [row for row in found if row[0] == at.time_us]
        found = same[at.offset :] + [row for row in found if row[0] > at.time_us]
    page = found[:size]
    if len(found) <= size:
        return page_of(page)
    last = page[-1][0]
    return page_of(page, cursor=Cursor.at(last, sum(row[0] == last for row in page)).encode(), has_more=True)


def listed(table: pa.Table) -> list[tuple[int, str, float]]:
    """The rows of an object, as `World.truth` has them: Unix milliseconds, point, value."""
    return list(zip(*(table[name].to_pylist() for name in ("timestamp", "point_name", "value")), strict=True))
