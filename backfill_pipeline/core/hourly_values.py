"""Hourly values: mean, minimum, maximum, last value and count of each point and UTC hour.

Put here: how they are computed from samples. Keep out: where they are stored (`dataset/rollup.py`) and how they are
drawn (`dataset/chart.py`).
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

HOUR_MS = 3_600_000

_TOLERANCE = 1e-13
"""Relative error of a mean above which it is summed exactly."""

_SMALLEST = 1e-290
"""Quotients of smaller values may lose digits, since they are not normal numbers: such groups are summed exactly."""

_SCALE = 2.0**-64
"""A power of two: the product of a large number with it is exact, and sums of such products cannot overflow."""


@dataclass(frozen=True, slots=True)
class Groups:
    """Figures of n groups of samples.

    Attributes:
        begin: int64[n], the index of each group's first sample.
        mean: float64[n].
        min: float64[n].
        max: float64[n].
        last: float64[n], the value of the latest sample.
        count: int64[n].
    """

    begin: NDArray[Any]
    mean: NDArray[Any]
    min: NDArray[Any]
    max: NDArray[Any]
    last: NDArray[Any]
    count: NDArray[Any]


def group_figures(point: NDArray[Any], place: NDArray[Any], value: NDArray[np.float64]) -> Groups:
    """Compute the figures of each run of samples with the same point and place.

    The mean is exact to a relative error of 1e-12, for values of different signs and for very large values as well:
    groups in which the error of a two-pass sum may be larger are summed exactly (`math.fsum`).

    Args:
        point: int[m], the number of each sample's point.
        place: int[m], the number of its hour or column.
        value: float64[m], finite; samples sorted by point and time.
    """
    if not len(value):
        nothing = np.empty(0)
        return Groups(np.empty(0, np.int64), nothing, nothing, nothing, nothing, np.empty(0, np.int64))
    starts = (point[1:] != point[:-1]) | (place[1:] != place[:-1])
    begin = np.append(0, np.flatnonzero(starts) + 1)
    end = np.append(begin[1:], len(value))
    count = end - begin
    least, most = np.minimum.reduceat(value, begin), np.maximum.reduceat(value, begin)
    parts = value / np.repeat(count, count)
    mean = np.add.reduceat(parts, begin)
    mean = mean + np.add.reduceat(parts - np.repeat(mean / count, count), begin)
    mean = np.clip(mean, least, most)
    largest = np.maximum(np.abs(least), np.abs(most))
    error = largest * np.finfo(float).eps * count
    is_doubtful = (error > np.abs(mean) * _TOLERANCE * np.maximum(count, 1)) | (largest < _SMALLEST)
    for at in np.flatnonzero(is_doubtful & (least != most)):
        mean[at] = _exact_mean(value[begin[at] : end[at]])
    mean = np.where(least == most, most, mean)
    return Groups(begin, mean, least, most, value[end - 1], count)


def _exact_mean(values: NDArray[np.float64]) -> float:
    try:
        return math.fsum(values) / len(values)
    except OverflowError:
        return math.fsum(values * _SCALE) / len(values) / _SCALE
