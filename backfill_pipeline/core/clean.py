"""Cleaning: the decoded rows of a window -> the rows of a day, and what was dropped, counted by reason.

Put here: every rule of which row is kept (contract: configured, finite, inside the window, one per point and
millisecond). Keep out: what a value or a time means (`ace/decode.py`), judgements on a whole day
(`core/quality.py`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date

import numpy as np
from numpy.typing import NDArray

from backfill_pipeline.core.day import DAY_MS, Window, day_window
from backfill_pipeline.core.rows import Chunk, Counts, Fault, Page, TextRows


def kept(page: Page, window: Window, day: date, index: Mapping[str, int]) -> tuple[Chunk, Counts]:
    """The rows of `page` that belong into the object, in the API's order, and what was dropped.

    Args:
        page: n decoded rows.
        window: the window that was asked for; rows outside of it are dropped.
        day: the UTC day of the window.
        index: code of each configured, collect-enabled point by name.

    Returns:
        An unsorted chunk (`merged` sorts it), and its counts, duplicates not yet among them.
    """
    code_of_page = np.array([index.get(name, -1) for name in page.names] or [-1], dtype=np.int32)
    code = np.where(page.code >= 0, code_of_page[page.code], np.int32(-1))
    inside = (page.time_us >= window.start * 1_000_000) & (page.time_us < window.end * 1_000_000)
    usable = page.fault == Fault.NONE
    configured = code >= 0
    keep = usable & inside & configured
    midnight_ms = day_window(day).start * 1000
    dropped = {
        fault.name.lower(): int(count)
        for fault, count in zip(Fault, np.bincount(page.fault, minlength=len(Fault)), strict=True)
        if fault is not Fault.NONE and count
    }
    dropped |= _misplaced(usable, inside, configured)
    ms = page.time_us[keep] // 1000 - midnight_ms  # floor: a time never moves into the next day
    chunk = Chunk(code[keep], ms.astype(np.int32), page.value[keep])
    counts = Counts(fetched=len(page), kept=len(chunk), dropped=dropped)
    if page.text is None:
        return chunk, counts
    worded = page.fault == Fault.NOT_NUMERIC
    keep = worded & inside & configured
    ms = page.time_us[keep] // 1000 - midnight_ms
    texts = TextRows(code[keep], ms.astype(np.int32), page.text[keep], page.texts)
    counts = replace(counts, texts=len(texts), texts_dropped=_misplaced(worded, inside, configured))
    return (replace(chunk, texts=texts) if len(texts) else chunk), counts


def _misplaced(rows: NDArray[np.bool_], inside: NDArray[np.bool_], configured: NDArray[np.bool_]) -> dict[str, int]:
    """How many of some rows are left out for their time or their point, each for one reason."""
    found = {
        "outside_window": int((rows & ~inside).sum()),
        "not_configured": int((rows & inside & ~configured).sum()),
    }
    return {reason: count for reason, count in found.items() if count}


def merged(chunks: Sequence[Chunk]) -> tuple[Chunk, Counts]:
    """All rows of `chunks` sorted by (code, ms), one per pair: of several, the one that arrived last.

    Numbers and texts are separate rows: a point may have one of each at a millisecond.

    Returns:
        The sorted chunk, and counts that take the dropped duplicates away from those of `kept`.
    """
    code = np.concatenate([chunk.code for chunk in chunks] or [np.empty(0, np.int32)])
    ms = np.concatenate([chunk.ms for chunk in chunks] or [np.empty(0, np.int32)])
    value = np.concatenate([chunk.value for chunk in chunks] or [np.empty(0, np.float64)])
    order, same = _in_order(code, ms)
    last = np.append(~same, True) if len(order) else np.empty(0, bool)
    value = value[order]
    conflicts = int((same & (value[1:] != value[:-1])).sum())
    duplicates = int(same.sum())
    order = order[last]
    counts = Counts(kept=-duplicates, dropped={"duplicate": duplicates} if duplicates else {}, conflicts=conflicts)
    chunk = Chunk(code[order], ms[order], value[last])
    texts = joined([chunk.texts for chunk in chunks if chunk.texts is not None])
    if texts is None:
        return chunk, counts
    order, same = _in_order(texts.code, texts.ms)
    order = order[np.append(~same, True)]
    if duplicates := int(same.sum()):
        counts += Counts(texts=-duplicates, texts_dropped={"duplicate": duplicates})
    return replace(chunk, texts=compact(texts.code[order], texts.ms[order], texts.text[order], texts.texts)), counts


def _in_order(code: NDArray[np.int32], ms: NDArray[np.int32]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The order of rows by (code, ms), and of each but the last in it whether the next one has the same pair."""
    pair = code.astype(np.int64) * DAY_MS + ms
    order = np.argsort(pair, kind="stable")
    pair = pair[order]
    return order, pair[1:] == pair[:-1]


def joined(parts: Sequence[TextRows]) -> TextRows | None:
    """Rows of texts, one part after the other, each text once; None if there are no rows."""
    parts = [part for part in parts if len(part)]
    if not parts:
        return None
    numbers: dict[str, int] = {}
    text = [
        np.array([numbers.setdefault(one, len(numbers)) for one in part.texts], np.int32)[part.text] for part in parts
    ]
    return TextRows(
        np.concatenate([part.code for part in parts]),
        np.concatenate([part.ms for part in parts]),
        np.concatenate(text),
        tuple(numbers),
    )


def compact(
    code: NDArray[np.int32], ms: NDArray[np.int32], text: NDArray[np.int32], texts: Sequence[str]
) -> TextRows | None:
    """Rows of texts with only those texts that a row has; None if there are no rows."""
    if not len(text):
        return None
    here, number = np.unique(text, return_inverse=True)
    return TextRows(code, ms, number.astype(np.int32), tuple(texts[one] for one in here.tolist()))


def counts_of(chunk: Chunk) -> tuple[Counts, Counts]:
    """The counts of rows that are all kept, to add them to one part of a day and to take them from another."""
    rows, texts = len(chunk), 0 if chunk.texts is None else len(chunk.texts)
    dropped = {"not_numeric": texts} if texts else {}
    there = Counts(fetched=rows + texts, kept=rows, dropped=dropped, texts=texts)
    return there, Counts(-there.fetched, -rows, {reason: -count for reason, count in dropped.items()}, texts=-texts)
