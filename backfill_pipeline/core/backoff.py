"""Back-off: how long to wait before a retry, and when to stop retrying.

Put here: the length of waits, and the upper limit of a wait that a server requests. Keep out: the waiting itself
(`ace/retry.py`, `ace/budget.py`).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

CEILING_S = 600.0
"""The longest wait that one response of the API can cause, in seconds: before a retry, and of the whole budget."""

_INSTANT_S = 1e9
"""A number of at least this many seconds (31 years) is an instant, as Unix seconds. A smaller number is a duration."""

_NEAR_S = 366 * 86_400.0
"""A number is Unix milliseconds if that instant is within this many seconds of the response's `Date`."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """Waits of 2, 4, 8 ... seconds with jitter, limited in number and length.

    Attributes:
        tries: the largest number of attempts, the first included.
        first_s: the wait after the first failure, in seconds.
        most_s: the longest wait that is not requested by the server, in seconds.
        longest_s: the longest wait of all, in seconds; a longer one ends the retries.
    """

    tries: int = 10
    first_s: float = 2.0
    most_s: float = 30.0
    longest_s: float = math.inf

    def delay(self, failures: int, retry_after: float | None, uniform: Callable[[], float]) -> float | None:
        """Seconds to wait before the next attempt; None to stop retrying.

        Args:
            failures: the number of failures in a row, from 1.
            retry_after: the wait that the server requests, in seconds. The wait is not shorter, up to `CEILING_S`.
            uniform: returns numbers in [0, 1). Up to a quarter of the wait is added, so that processes do not retry
                at the same time.
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

    For a date, or a number that can only be an instant, the wait is the difference to the response's `Date` header,
    because this machine's clock may be wrong.

    Args:
        value: the header: seconds or a date.
        date: the response's `Date` header.
        now: Unix seconds, for a response without a `Date` header.

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
    """Unix seconds of an HTTP or ISO 8601 date; a date without a time zone is UTC."""
    for parse in (parsedate_to_datetime, datetime.fromisoformat):
        try:
            found = parse(text)
            return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
        except (ValueError, TypeError, OverflowError, IndexError):
            continue
    return None
