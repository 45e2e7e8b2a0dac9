"""Back-off: which failure may be tried again, and when.

Put here: the arithmetic of waiting. Keep out: the waiting itself (`ace/retry.py`).
"""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Waits of 2, 4, 8 ... seconds with jitter, bounded in number and length.

    Attributes:
        tries: attempts in all, the first included.
        first_s: the wait after the first failure, in seconds.
        most_s: the longest wait of our own choosing, in seconds.
    """

    tries: int = 10
    first_s: float = 2.0
    most_s: float = 30.0

    def delay(self, failures: int, retry_after: float | None, uniform: Callable[[], float]) -> float | None:
        """Seconds to wait after the `failures`-th failure in a row, or None when it was one too many.

        Args:
            failures: how often it failed by now, from 1.
            retry_after: what the other side asked for, in seconds; never undercut.
            uniform: a source of numbers in [0, 1); up to a quarter is added so that processes spread out.
        """
        if failures >= self.tries:
            return None
        own = min(self.first_s * 2.0 ** (failures - 1), self.most_s) * (1 + uniform() / 4)
        return max(own, retry_after or 0.0)
