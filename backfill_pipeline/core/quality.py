"""What a day's rows show about the day: how many points spoke, how often, and when nobody did.

Put here: figures that are computed from a day's rows alone. Keep out: which figures are good enough
(`orchestration/checks.py`), and what is counted while rows are cleaned (`core/rows.py`, `Counts`).
"""

from dataclasses import dataclass

import numpy as np

from backfill_pipeline.core.day import DAY_MS
from backfill_pipeline.core.rows import DayRows

_MINUTE_MS = 60_000


@dataclass(frozen=True, slots=True)
class Quality:
    """Figures of one day.

    Attributes:
        rows: rows of the day.
        first_ms: milliseconds since midnight of its first row; None when there is none.
        last_ms: the same of its last row.
        interval_s: median time between two rows of one point, in seconds; None when no point has two.
        longest_gap_min: the longest time, in whole minutes, in which no point has a row.
    """

    rows: int
    first_ms: int | None
    last_ms: int | None
    interval_s: float | None
    longest_gap_min: int


def quality(day: DayRows) -> Quality:
    """Compute the figures of a day."""
    chunks = [chunk for chunk in day.chunks if len(chunk)]
    minutes = np.zeros(DAY_MS // _MINUTE_MS, np.int64)
    for chunk in chunks:
        minutes += np.bincount(chunk.ms // _MINUTE_MS, minlength=len(minutes))
    steps = [np.diff(chunk.ms)[chunk.code[1:] == chunk.code[:-1]] for chunk in chunks]
    between = np.concatenate(steps) if steps else np.empty(0, np.int32)
    spoken = np.flatnonzero(minutes)
    return Quality(
        rows=sum(map(len, chunks)),
        first_ms=min((int(chunk.ms.min()) for chunk in chunks), default=None),
        last_ms=max((int(chunk.ms.max()) for chunk in chunks), default=None),
        interval_s=float(np.median(between)) / 1000 if len(between) else None,
        longest_gap_min=int(np.diff(spoken, prepend=-1, append=len(minutes)).max()) - 1,
    )
