"""Summaries of each point's rows in a day: count, first, last, interval, constant or not.

The summaries of a day are small enough for the footer of its Parquet object. Put here: the summary, how it is computed
from sorted rows, and its encoding as text. Keep out: comparisons of several days (`coverage/point_changes.py`).
"""

import base64
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MINUTE_MS = 60_000
_FORMS = {"rows": "<u4", "first_min": "<i2", "last_min": "<i2", "step_s": "<u4", "flat": "<u1"}
"""The figures in the order in which they are written, with their NumPy types."""


@dataclass(frozen=True, slots=True)
class PointDays:
    """Summaries of the n configured points of one day, with and without rows.

    Attributes:
        names: names of the points, sorted.
        rows: uint32[n], number of rows.
        first_min: int16[n], whole minutes from midnight UTC to the first row; -1 without rows.
        last_min: int16[n], whole minutes from midnight UTC to the last row; -1 without rows.
        step_s: uint32[n], median seconds between two rows; 0 with fewer than two rows.
        flat: uint8[n], 1 when there are at least two rows and all have the same value.
    """

    names: Sequence[str]
    rows: NDArray[Any]
    first_min: NDArray[Any]
    last_min: NDArray[Any]
    step_s: NDArray[Any]
    flat: NDArray[Any]

    def to_text(self) -> str:
        """Encode the summary as ASCII for a footer; the same rows give the same text."""
        names = json.dumps(list(self.names), separators=(",", ":")).encode()  # ASCII: lone surrogates pass
        planes = [getattr(self, name).astype(form).tobytes() for name, form in _FORMS.items()]
        body = b"".join([len(self.names).to_bytes(4, "little"), *planes, names])
        return base64.b85encode(zlib.compress(body, 9)).decode()

    @classmethod
    def from_text(cls, text: str) -> "PointDays | None":
        """Decode the text of a footer; None when the text is damaged."""
        try:
            body = zlib.decompress(base64.b85decode(text))
            count, at, planes = int.from_bytes(body[:4], "little"), 4, []
            for form in _FORMS.values():
                planes.append(np.frombuffer(body, form, count, at))
                at += count * np.dtype(form).itemsize
            return cls(json.loads(body[at:]), *planes)
        except (ValueError, zlib.error):
            return None


class PointSummary:
    """Computes `PointDays` from a day's rows, which arrive in parts of whole points.

    Args:
        names: the day's points, sorted.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        count = len(names)
        self._found = {name: np.zeros(count, form) for name, form in _FORMS.items()}
        self._found["first_min"] -= 1
        self._found["last_min"] -= 1

    def update(self, code: NDArray[np.int32], ms: NDArray[np.int32], value: NDArray[np.float64]) -> None:
        """Add rows sorted by (code, ms); one call has all rows of a point."""
        if not len(code):
            return
        begin = np.flatnonzero(np.diff(code, prepend=-1))
        end = np.append(begin[1:], len(code))
        point, rows, found = code[begin], end - begin, self._found
        found["rows"][point] = rows
        found["first_min"][point] = ms[begin] // _MINUTE_MS
        found["last_min"][point] = ms[end - 1] // _MINUTE_MS
        same = np.maximum.reduceat(value, begin) == np.minimum.reduceat(value, begin)
        found["flat"][point] = same & (rows > 1)
        inside = code[1:] == code[:-1]
        steps, owner = np.diff(ms)[inside], code[1:][inside]
        steps = steps[np.lexsort((steps, owner))]
        several = rows > 1
        at = (np.cumsum(rows - 1) - (rows - 1))[several] + (rows[several] - 2) // 2
        found["step_s"][point[several]] = np.maximum(1, np.round(steps[at] / 1000))

    def result(self) -> PointDays:
        """The summaries of all rows that were added."""
        return PointDays(self._names, **self._found)
