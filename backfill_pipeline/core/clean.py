"""Cleaning: the decoded rows of a window -> the rows of a day, and what was dropped, counted by reason.

Put here: every rule of which row is kept (contract: configured, finite, inside the window, one per point and
millisecond). Keep out: what a value or a time means (`ace/decode.py`), judgements on a whole day
(`core/quality.py`).
"""

from collections.abc import Mapping, Sequence
from datetime import date

import numpy as np

from backfill_pipeline.core.day import DAY_MS, Window, day_window
from backfill_pipeline.core.rows import Chunk, Counts, Fault, Page


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
    dropped = {
        fault.name.lower(): int(count)
        for fault, count in zip(Fault, np.bincount(page.fault, minlength=len(Fault)), strict=True)
        if fault is not Fault.NONE and count
    }
    others = {
        "outside_window": int((usable & ~inside).sum()),
        "not_configured": int((usable & inside & ~configured).sum()),
    }
    dropped |= {reason: rows for reason, rows in others.items() if rows}
    ms = page.time_us[keep] // 1000 - day_window(day).start * 1000  # floor: a time never moves into the next day
    chunk = Chunk(code[keep], ms.astype(np.int32), page.value[keep])
    return chunk, Counts(fetched=len(page), kept=len(chunk), dropped=dropped)


def merged(chunks: Sequence[Chunk]) -> tuple[Chunk, Counts]:
    """All rows of `chunks` sorted by (code, ms), one per pair: of several, the one that arrived last.

    Returns:
        The sorted chunk, and counts that take the dropped duplicates away from those of `kept`.
    """
    code = np.concatenate([chunk.code for chunk in chunks] or [np.empty(0, np.int32)])
    ms = np.concatenate([chunk.ms for chunk in chunks] or [np.empty(0, np.int32)])
    value = np.concatenate([chunk.value for chunk in chunks] or [np.empty(0, np.float64)])
    pair = code.astype(np.int64) * DAY_MS + ms
    order = np.argsort(pair, kind="stable")
    pair, value = pair[order], value[order]
    same = pair[1:] == pair[:-1]
    last = np.append(~same, True) if len(pair) else np.empty(0, bool)
    conflicts = int((same & (value[1:] != value[:-1])).sum())
    duplicates = int(same.sum())
    order = order[last]
    counts = Counts(kept=-duplicates, dropped={"duplicate": duplicates} if duplicates else {}, conflicts=conflicts)
    return Chunk(code[order], ms[order], value[last]), counts
