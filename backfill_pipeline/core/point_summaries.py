"""What each point did in a day, small enough for the object's own footer: rows, first, last, interval, flat or not.

Put here: the summary, how it is made of sorted rows, and its form as text, both ways. Keep out: what follows from
several days (`coverage/point_changes.py`).
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
"""The figures in the order in which they are written, and how."""


@dataclass(frozen=True, slots=True)
class PointDays:
    """One day's points, n of them: all that are configured, those without a row included.

    Attributes:
        names: their names, sorted.
        rows: uint32[n], rows of each.
        first_min: int16[n], whole minutes from midnight UTC to the first row; -1 without one.
        last_min: int16[n], the same to the last row.
        step_s: uint32[n], median seconds between two rows; 0 with fewer than two.
        flat: uint8[n], 1 when there are two rows or more, all of one value.
    """

    names: Sequence[str]
    rows: NDArray[Any]
    first_min: NDArray[Any]
    last_min: NDArray[Any]
    step_s: NDArray[Any]
    flat: NDArray[Any]

    def to_text(self) -> str:
        """The summary as ASCII, for a footer: the same for the same rows."""
        names = json.dumps(list(self.names), separators=(",", ":")).encode()  # ASCII: lone surrogates pass
        planes = [getattr(self, name).astype(form).tobytes() for name, form in _FORMS.items()]
        body = b"".join([len(self.names).to_bytes(4, "little"), *planes, names])
        return base64.b85encode(zlib.compress(body, 9)).decode()

    @classmethod
    def from_text(cls, text: str) -> "PointDays | None":
        """The summary that a footer holds; None when it cannot be read."""
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
    """Takes in a day's rows, some whole points at a time, and gives out what each point did.

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
        """Take in rows sorted by (code, ms); all rows of a point come in one call."""
        if not len(code):
            return
        begin = np.flatnonzero(np.diff(code, prepend=-1))
        end = np.append(begin[1:], len(code))
        who, rows, found = code[begin], end - begin, self._found
        found["rows"][who] = rows
        found["first_min"][who] = ms[begin] // _MINUTE_MS
        found["last_min"][who] = ms[end - 1] // _MINUTE_MS
        same = np.maximum.reduceat(value, begin) == np.minimum.reduceat(value, begin)
        found["flat"][who] = same & (rows > 1)
        inside = code[1:] == code[:-1]
        steps, owner = np.diff(ms)[inside], code[1:][inside]
        steps = steps[np.lexsort((steps, owner))]
        several = rows > 1
        at = (np.cumsum(rows - 1) - (rows - 1))[several] + (rows[several] - 2) // 2
        found["step_s"][who[several]] = np.maximum(1, np.round(steps[at] / 1000))

    def result(self) -> PointDays:
        """What all the rows so far show."""
        return PointDays(self._names, **self._found)
