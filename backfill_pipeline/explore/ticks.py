"""Ticks of a time axis, in any time zone.

The library of the figure labels times in UTC only, so the ticks of local time are computed here.

Put here: which instants get a tick, and its label. Keep out: the figure (`figure.py`).
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

_DAY_S = 86_400
_STEPS_S = (1, 5, 15, 30, 60, 300, 900, 1800, 3600, 10_800, 21_600, 43_200, _DAY_S, 2 * _DAY_S, 7 * _DAY_S)
_MONTHS = (1, 2, 3, 6, 12)
_MONTH_S = 2_629_800


def time_ticks(start_ms: int, end_ms: int, tz: str, most: int = 8) -> dict[int, str]:
    """Choose the ticks of a time axis: round local times.

    Args:
        start_ms: first instant, Unix milliseconds.
        end_ms: last instant, Unix milliseconds.
        tz: the IANA name of the time zone.
        most: the approximate largest number of ticks.

    Returns:
        Labels by Unix milliseconds, ascending.
    """
    zone = ZoneInfo(tz)
    start, end = (datetime.fromtimestamp(ms / 1000, UTC).astimezone(zone) for ms in (start_ms, end_ms))
    span_s = max((end_ms - start_ms) / 1000, 1)
    step = next((step for step in _STEPS_S if span_s / step <= most), None)
    found = {}
    for naive in _months(start, end, span_s / _MONTH_S / most) if step is None else _steps(start, end, step):
        local = naive.replace(tzinfo=zone)
        ms = round(local.timestamp() * 1000)
        if start_ms <= ms <= end_ms:
            shown = datetime.fromtimestamp(ms / 1000, zone)  # a time that the clock skips becomes the next one
            found[ms] = _label(shown, step)
    return found


def _steps(start: datetime, end: datetime, step: int) -> Iterator[datetime]:
    """Naive local times at multiples of a step, counted from midnight, or from a Monday for days."""
    first = datetime(start.year, start.month, start.day)  # noqa: DTZ001 - local time; the zone follows
    if step > _DAY_S:
        first -= timedelta(days=first.toordinal() % (step // _DAY_S))
    last = end.replace(tzinfo=None)
    while first <= last:
        yield first
        first += timedelta(seconds=step)


def _months(start: datetime, end: datetime, least: float) -> Iterator[datetime]:
    months = next((months for months in _MONTHS if months >= least), 12 * max(1, round(least / 12)))
    at = (start.year * 12 + start.month - 1) // months * months
    while at <= end.year * 12 + end.month - 1:
        yield datetime(at // 12, at % 12 + 1, 1)  # noqa: DTZ001 - local time; the zone follows
        at += months


def _label(local: datetime, step: int | None) -> str:
    if step is None:
        return f"{local:%Y-%m}"
    if step >= _DAY_S or (local.hour, local.minute, local.second) == (0, 0, 0):
        return f"{local:%Y-%m-%d}"
    return f"{local:%H:%M:%S}" if step < 60 else f"{local:%H:%M}"  # noqa: PLR2004 - seconds of a minute
