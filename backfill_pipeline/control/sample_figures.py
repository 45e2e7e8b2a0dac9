"""Figures with bounds from the samples of a few days, and pages of one day put together.

Put here: the measured figures, and how pages of a day become figures. Keep out: which requests are sent
(`site_sampling.py`).
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from backfill_pipeline.ace.budget import Budget
from backfill_pipeline.ace.client import PointList
from backfill_pipeline.core.day import Window
from backfill_pipeline.core.request_estimate import Profile
from backfill_pipeline.core.rows import Chunk, Counts, Page
from backfill_pipeline.core.windows import SitePace


@dataclass(frozen=True, slots=True)
class Span:
    """A figure with its lower and upper bound."""

    low: float
    likely: float
    high: float

    def __add__(self, other: "Span") -> "Span":
        """Add two figures, and their bounds."""
        return Span(self.low + other.low, self.likely + other.likely, self.high + other.high)

    def times(self, other: "Span") -> "Span":
        """Multiply two figures, and their bounds."""
        return Span(self.low * other.low, self.likely * other.likely, self.high * other.high)


@dataclass(frozen=True, slots=True)
class Probe:
    """The figures of one sampled day.

    Attributes:
        profile: its samples by second; the fetched part is repeated for the rest.
        kept: share of the samples that an object contains, 0..1.
        row_bytes: bytes of its object for each row; None without rows.
        whole: whether the whole day was fetched.
        declared: whether too few samples were fetched, so that the configured intervals of the points were used.
    """

    profile: Profile
    kept: float
    row_bytes: Span | None
    whole: bool
    declared: bool = False

    @property
    def samples(self) -> int:
        """Samples of the day."""
        return int(self.profile[-1])


@dataclass(frozen=True, slots=True)
class Survey:
    """The figures of a sampled site.

    Attributes:
        points: the site's points.
        list_requests: requests for the list of points.
        days: for each day to fetch the nearest sampled day; None for a day without samples.
        probes: the sampled days, in order.
        empty_bytes: bytes of the object of a day without samples.
        page_s: seconds of a page without waits for the budget; None when no page arrived.
        pace: the page sizes that the API accepts, and the one that arrives.
    """

    points: PointList
    list_requests: int
    days: Sequence[Probe | None]
    probes: Sequence[Probe]
    empty_bytes: int
    page_s: float | None
    pace: SitePace


class Meter:
    """A budget that counts requests and waits, so that a wait does not count as a slow answer."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._lock = threading.Lock()
        self._own = threading.local()
        self.requests = 0

    @property
    def waited(self) -> float:
        """Seconds that this thread has waited."""
        return getattr(self._own, "waited", 0.0)

    @property
    def own(self) -> int:
        """Requests of this thread."""
        return getattr(self._own, "requests", 0)

    def acquire(self) -> float:
        """Block until one request may be sent; return the seconds waited."""
        waited = self._budget.acquire()
        self._own.waited = self.waited + waited
        self._own.requests = self.own + 1
        with self._lock:
            self.requests += 1
        return waited

    def pause(self, seconds: float) -> None:
        """Pause all requests."""
        self._budget.pause(seconds)


@dataclass
class DayPart:
    """The pages of one day that were fetched so far, in order."""

    window: Window
    finished: bool = False
    times: list[NDArray[np.int64]] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    codes: list[NDArray[np.int64]] = field(default_factory=list)
    chunks: list[Chunk] = field(default_factory=list)
    counts: Counts = field(default_factory=Counts)
    number: dict[str, int] = field(default_factory=dict)

    def add(self, page: Page, chunk: Chunk, counts: Counts) -> None:
        """Add a page."""
        start, end = self.window.start * 1_000_000, self.window.end * 1_000_000
        inside = (page.time_us >= start) & (page.time_us < end)
        number = self.number
        ids = np.array([number.setdefault(name, len(number)) for name in page.names] or [0], np.int64)
        self.times.append(page.time_us[inside])
        self.codes.append(np.where(page.code >= 0, ids[page.code], -1)[inside])
        self.chunks.append(chunk)
        self.counts += counts

    @property
    def each(self) -> float:
        """Samples per point."""
        return sum(map(len, self.times)) / max(1, len(self.number))


def sweep_period(times: NDArray[np.int64], codes: NDArray[np.int64]) -> tuple[int, int]:
    """Return the time of the first row and of the last row of its point, in µs: a number of whole sweeps."""
    start, end = int(times.min()), int(times.max())
    again = int(times[codes == codes[int(times.argmin())]].max())
    return start, again if again - start > (end - start) / 2 else max(end, start + 1)
