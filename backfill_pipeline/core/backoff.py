"""Back-off: which failure may be retried, and when.

Put here: the arithmetic of waiting, and the ceiling of every wait that another side requests. Keep out: the waiting
itself (`ace/retry.py`, `ace/budget.py`).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

CEILING_S = 600.0
"""The longest wait that one answer of the API can cause, in seconds: of a retry and of the budget's pause alike."""

_INSTANT_S = 1e9
"""A number of seconds from here on (31 years) is not a duration but an instant, as Unix seconds."""

_NEAR_S = 366 * 86_400.0
"""An instant in milliseconds is believed when it lies this near to the answer's own time, in seconds."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """Waits of 2, 4, 8 ... seconds with jitter, bounded in number and length.

    Attributes:
        tries: attempts in all, the first included.
        first_s: the wait after the first failure, in seconds.
        most_s: the longest wait of our own choosing, in seconds.
        longest_s: give up instead of a wait that is longer than this, in seconds.
    """

    tries: int = 10
    first_s: float = 2.0
    most_s: float = 30.0
    longest_s: float = math.inf

    def delay(self, failures: int, retry_after: float | None, uniform: Callable[[], float]) -> float | None:
        """Seconds to wait after the `failures`-th failure in a row, or None to give up.

        Args:
            failures: how often it failed by now, from 1.
            retry_after: what the other side requests, in seconds; never undercut, up to the ceiling.
            uniform: a source of numbers in [0, 1); up to a quarter is added so that processes spread out.
        """
        if failures >= self.tries:
            return None
        own = min(self.first_s * 2.0 ** (failures - 1), self.most_s) * (1 + uniform() / 4)
        delay = max(own, bounded(retry_after or 0.0))
        return delay if delay <= self.longest_s else None


def bounded(seconds: float) -> float:
    """Limit a wait to 0 up to `CEILING_S` seconds; a wait that is not a number is 0."""
    return 0.0 if math.isnan(seconds) else min(max(seconds, 0.0), CEILING_S)


def retry_after_s(value: str | None, date: str | None, now: float) -> float | None:
    """Seconds that a `Retry-After` header requests (RFC 9110 section 10.2.3), at most `CEILING_S`.

    A date, or a number that can only be an instant, counts from the answer's own time: this machine's clock may be
    wrong.

    Args:
        value: the header: seconds or a date.
        date: the answer's `Date` header.
        now: Unix seconds, for an answer without a `Date`.

    Returns:
        None when there is no header, or its value is negative, infinite or unreadable.
    """
    if value is None:
        return None
    answered = _instant(date or "")
    base = now if answered is None else answered
    try:
        number = float(value)
    except ValueError:
        at = _instant(value)
        return None if at is None else bounded(at - base)
    if not math.isfinite(number) or number < 0:
        return None
    if number < _INSTANT_S:
        return bounded(number)
    if abs(number / 1000 - base) < _NEAR_S:
        number /= 1000
    return bounded(number - base)


def _instant(text: str) -> float | None:
    """Unix seconds of an HTTP or ISO 8601 date, UTC where it names no zone."""
    for parse in (parsedate_to_datetime, datetime.fromisoformat):
        try:
            found = parse(text)
            return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
        except (ValueError, TypeError, OverflowError, IndexError):
            continue
    return None
