"""Local time: the local hours, days and months that instants belong to, in any time zone.

Put here: arithmetic between instants and local time. Keep out: how intervals are aggregated (`read.py`).
"""

from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Unit = Literal["hour", "day", "month"]

_HOUR_MS, _DAY_MS = 3_600_000, 86_400_000

_STEP_MS = 900_000
"""Offsets from UTC change at whole quarters of an hour of UTC."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def interval_starts(ms: NDArray[np.int64], unit: Unit, zone: tzinfo) -> NDArray[np.int64]:
    """The start of the local hour, day or month that each instant belongs to.

    A local hour that occurs twice, when clocks are set back by an hour, is two intervals. A local day has 23 to 25
    hours then, and is one interval. An interval whose first local time does not exist starts where the clocks are set
    forward. The rest of an hour into which clocks are set back starts where they are set back.

    Args:
        ms: Unix milliseconds.
        unit: the length of the intervals.
        zone: the time zone.

    Returns:
        Unix milliseconds, one for each instant.
    """
    if not len(ms):
        return ms
    steps, where = np.unique(ms // _STEP_MS, return_inverse=True)
    offsets = np.array([_offset(int(step) * _STEP_MS, zone) for step in steps], np.int64)
    local = ms + offsets[where]
    if unit == "month":
        months = local.astype("datetime64[ms]").astype("datetime64[M]")
        floor = months.astype("datetime64[ms]").astype(np.int64)
    else:
        length = _HOUR_MS if unit == "hour" else _DAY_MS
        floor = local // length * length
    if unit == "hour":
        pairs, where = np.unique(np.stack([floor, offsets[where]]), axis=1, return_inverse=True)
        starts = [_hour_start(int(at), int(offset), zone) for at, offset in pairs.T]
    else:
        floors, where = np.unique(floor, return_inverse=True)
        starts = [_first_instant(int(at), zone) for at in floors]
    found: NDArray[np.int64] = np.array(starts, np.int64)[where.reshape(-1)]
    return found


def _offset(ms: int, zone: tzinfo) -> int:
    """The offset from UTC at an instant, in milliseconds."""
    offset: Any = (_EPOCH + timedelta(milliseconds=ms)).astimezone(zone).utcoffset()
    return int(offset / timedelta(milliseconds=1))


def _hour_start(floor: int, offset: int, zone: tzinfo) -> int:
    """The instant at which a local hour starts, of instants with this offset in it."""
    start = floor - offset
    before = _offset(start, zone)
    if before == offset:
        return start
    change = next(at for at in range(start, start + _HOUR_MS + 1, _STEP_MS) if _offset(at, zone) == offset)
    is_same_hour = (change - 1 + before) // _HOUR_MS * _HOUR_MS == floor
    return floor - before if is_same_hour else change


def _first_instant(local: int, zone: tzinfo) -> int:
    """The first instant with a local time; where it does not exist, the instant at which clocks are set forward."""
    wall = (_EPOCH + timedelta(milliseconds=local)).replace(tzinfo=zone, fold=0)
    offset: Any = wall.utcoffset()
    return local - int(offset / timedelta(milliseconds=1))
