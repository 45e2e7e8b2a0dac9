"""The sampling of a site: a few pages, spread over the days to fetch.

Put here: which requests are sent for a site. Keep out: what follows for a backfill (`estimate.py`).

A probe is a page of one day, or several where pages are small: the whole day where it fits, else a part of it, with
another part for each probe. An empty day leads to two further searches. One small page finds where samples begin again.
A binary search with small pages finds where they ended.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from backfill_pipeline.ace.client import AceClient, PointList
from backfill_pipeline.ace.fetch import Fetcher
from backfill_pipeline.control.sample_figures import DayPart, Meter, Probe, Span, Survey, sweep_period
from backfill_pipeline.core.clean import kept, merged
from backfill_pipeline.core.day import DAY_S, Window, day_window
from backfill_pipeline.core.page_identity import SiteNames, of_another_site, unreadable_page
from backfill_pipeline.core.paging import BELIEVED, Walk
from backfill_pipeline.core.request_estimate import profile
from backfill_pipeline.core.rows import Chunk, Counts, DayRows, Page
from backfill_pipeline.core.windows import SitePace
from backfill_pipeline.errors import ContractError, PageFailedError, RequestRefusedError, SiteRefusedError
from backfill_pipeline.setting_formats import PAGE_SIZES
from backfill_pipeline.settings import Settings
from backfill_pipeline.storage.days import settings_encoding
from backfill_pipeline.storage.parquet import encode

PLACES = 5
"""The number of days of a site that are sampled."""


PART_PAGES = 8
"""The largest number of pages of one probe: one page may contain too few samples of each point."""


ALL_PAGES = 24
"""The approximate number of pages of all probes of a site."""


WHOLE_PAGES = 32
"""The largest number of pages for the first whole day; only a whole day shows the size of its object."""


FEW_PAGES = 16
"""The largest number of pages for all days that are fetched whole."""


WHOLE_SHARE, WHOLE_MINUTES = 0.1, 3
"""Both limits are higher if the pages are at most this share of the backfill and of the budget of these minutes."""


PART_FACTOR = 3
"""The bytes of a row of a whole day are within this factor of those of a part of the day: a part repeats fewer names
and values, but has fewer different ones. Two other methods were not better: the bytes that the second half of a part
adds to the first (30 to 60 % too low), and the part repeated until it fills the day."""


ENOUGH, TOO_FEW = 4, 2
"""Samples of each point that are enough to measure the interval, and the number below which there are too few."""


SMALL_PAGES = 12
"""The largest number of small pages for gaps: to find where a gap began, and to check each remaining day of a short
range."""


def surveyed(
    client: AceClient,
    meter: Meter,
    settings: Settings,
    site: str,
    days: Sequence[date],
    *,
    sizes_known: bool,
    clock: Callable[[], float] = time.monotonic,
) -> Survey:
    """Sample a site.

    Args:
        client: the API.
        meter: the client's budget.
        settings: page size, windows at once, how objects are encoded.
        site: the site's name.
        days: the days to fetch, ascending, at least one.
        sizes_known: whether the bytes of a row are known already from stored days.
        clock: seconds, monotonic.

    Raises:
        BackfillError: the API refuses the key or the site, or its answers do not arrive.
    """
    before = meter.own
    points = client.configured_points(site)
    visit = _Visit(client, meter, settings, points, clock)
    visit.list_requests = meter.own - before
    return visit.survey(days, sizes_known=sizes_known)


class _Visit:
    """The sampling of one site."""

    def __init__(
        self, client: AceClient, meter: Meter, settings: Settings, points: PointList, clock: Callable[[], float]
    ) -> None:
        self.client = client
        self.meter = meter
        self.settings = settings
        self.points = points
        self.clock = clock
        self.names = SiteNames(points.names)
        sizes = [size for size in PAGE_SIZES if size <= settings.max_page_size]
        self.pace = SitePace(sizes, settings.max_windows)
        self.encoding = settings_encoding(settings)
        self.list_requests = 0
        self.pages = 0
        self.seconds = 0.0
        self.small = SMALL_PAGES

    def survey(self, days: Sequence[date], *, sizes_known: bool) -> Survey:
        """Sample days, and assign the nearest sampled day to each day."""
        probes, empty = self._probes(days)
        if probes and not sizes_known:
            half = sorted(probe.samples for probe in probes.values())[len(probes) // 2] / 2
            # A day much smaller than most is of little use: a large part of its object is a fixed overhead.
            if not any(probe.whole and probe.samples >= half for probe in probes.values()):
                self._see_whole(days, probes)
        standing: list[Probe | None] = [
            None if at in empty else probes[min(probes, key=lambda known: abs(known - at))] for at in range(len(days))
        ]
        return Survey(
            self.points,
            self.list_requests,
            standing,
            [probes[at] for at in sorted(probes)],
            self._empty_bytes(days[0]),
            self.seconds / self.pages if self.pages else None,
            self.pace,
        )

    def _probes(self, days: Sequence[date]) -> tuple[dict[int, Probe], set[int]]:
        """Sample days; return the probes, and the days without samples, by their index in `days`."""
        probes: dict[int, Probe] = {}
        empty: set[int] = set()
        last, first, places = len(days) - 1, 0, PLACES
        part = self._read(day_window(days[0]))
        if part is None:  # most sites begin later than the range
            begins = self._next_day(days, 0)
            empty |= set(range(begins))
            if begins > last:
                return probes, empty
            first = min(begins + 1, last)  # the first day with samples is rarely complete
        else:
            probes[0] = self._judged(part, days[0])
            places = max(1, min(PLACES, ALL_PAGES // max(1, len(part.times))))
        for turn, at in enumerate(_spread(first, last, places)):
            if at in probes or at in empty or (at == 0 and part is not None):
                continue
            part = self._read(self._window(days[at], turn / places, probes))
            if part is not None:
                probes[at] = self._judged(part, days[at])
                continue
            before = max((known for known in probes if known < at), default=first - 1)
            begins = self._next_day(days, at)
            empty |= set(range(self._ended(days, before, at), begins))
        unseen = [at for at in range(len(days)) if at not in probes and at not in empty]
        if len(unseen) <= self.small:  # check each day of a short range, so that no gap is missed
            empty |= {at for at in unseen if not self._has_samples(days[at]) and not self._has_samples(days[at])}
        return probes, empty

    def _window(self, day: date, share: float, probes: dict[int, Probe]) -> Window:
        """Return the whole day where it fits into a page, else the part after a share of it."""
        whole = day_window(day)
        if not probes or max(probe.samples for probe in probes.values()) <= self.pace.size:
            return whole
        return Window(whole.start + int(share * DAY_S), whole.end)

    def _read(self, window: Window) -> DayPart | None:
        """Fetch a window until there are enough samples; None when two requests find it empty."""
        for _ in range(2):
            walk, part = Walk(window), DayPart(window)
            day = datetime.fromtimestamp(window.start, UTC).date()
            while not walk.finished and len(part.times) < PART_PAGES and part.each < ENOUGH:
                page = self._page(walk, self.pace.size)
                part.add(page, *kept(page, window, day, self.names.codes(page.names)))
            part.finished = walk.finished
            if walk.rows:
                return part
        return None

    def _page(self, walk: Walk, size: int, *, measured: bool = True) -> Page:
        """Fetch the next page; retry it, with smaller pages, as the fetcher does."""
        site, refused = self.points.site, 0

        def attempt(failures: int) -> Page:
            nonlocal size, refused
            started, waited = self.clock(), self.meter.waited
            try:
                page = self.client.page(site, walk.window, size, walk.cursor)
                self._check(page, walk.window)
                walk.accept(page, size)
            except ContractError as error:
                refused += 1
                if refused < BELIEVED:
                    raise PageFailedError(error.message, size_related=False, hint=error.hint) from error
                raise
            except RequestRefusedError as error:
                smaller = self.pace.size_refused(size) if "page_size" in error.fields else None
                if smaller is None:
                    raise
                size = smaller
                return attempt(failures)
            except PageFailedError as error:
                if error.size_related:
                    size = self.pace.page_failed(size, failures + 1)
                raise
            if measured:
                self.pages += 1
                self.seconds += self.clock() - started - (self.meter.waited - waited)
            return page

        return self.client.retries.run(f"probe of {site} {walk.window}", attempt)

    def _check(self, page: Page, window: Window) -> None:
        """Refuse a page from which no day could be stored, as the fetcher does: a forecast of 0 rows would be wrong.

        Raises:
            ContractError: no row of the page can be read, or the page is of another site.
        """
        site, day = self.points.site, datetime.fromtimestamp(window.start, UTC).date()
        if len(page) and not page.readable:
            raise unreadable_page(page, window, site, day)
        if self.names.need_list(page):
            try:
                self.names.learn(self.client.known_points(site))
            except (RequestRefusedError, SiteRefusedError, ContractError, PageFailedError):
                self.names.forget()
        if self.names.are_strange_to(page):
            raise of_another_site(page, window, site, day, self.names.example())

    def _next_day(self, days: Sequence[date], at: int) -> int:
        """Return the index of the first day with samples after `at`; the number of days when there is no such day."""
        if at == len(days) - 1:
            return len(days)
        window = Window(day_window(days[at]).end, day_window(days[-1]).end)
        walk = Walk(window)
        page = self._page(walk, self.pace.sizes[0], measured=False)
        times = page.time_us[(page.time_us >= window.start * 1_000_000) & (page.time_us < window.end * 1_000_000)]
        if not len(times):
            return len(days)
        begins = datetime.fromtimestamp(int(times.min()) // 1_000_000, UTC).date()
        return next(place for place, day in enumerate(days) if day >= begins)

    def _ended(self, days: Sequence[date], full: int, empty: int) -> int:
        """Return the index of the first empty day between `full`, a day with samples, and `empty`, a day without."""
        while empty - full > 1 and self.small:
            self.small -= 1
            middle = (full + empty) // 2
            if self._has_samples(days[middle]):
                full = middle
            else:
                empty = middle
        return empty

    def _has_samples(self, day: date) -> bool:
        return len(self._page(Walk(day_window(day)), self.pace.sizes[0], measured=False)) > 0

    def _judged(self, part: DayPart, day: date) -> Probe:
        """Estimate the figures of a day from a part of it."""
        chunk, merging = merged(part.chunks)
        share = len(chunk) / part.counts.fetched if part.counts.fetched else 0.0
        whole = part.finished and part.window == day_window(day)
        row_bytes = self._row_bytes(chunk, part.counts + merging, day, whole=whole)
        if not part.finished and part.each < TOO_FEW:
            declared = np.arange(DAY_S + 1, dtype=np.int64) * self.points.rows_a_day // DAY_S
            return Probe(declared, share, row_bytes, whole, declared=True)
        times = np.concatenate(part.times)
        if part.finished:
            start, length = part.window.start * 1_000_000, part.window.seconds
        else:
            start, until = sweep_period(times, np.concatenate(part.codes))
            times, length = times[times < until], max(1, round((until - start) / 1_000_000))
        seconds = np.minimum((times - start) // 1_000_000, length - 1)
        counts = np.bincount(seconds, minlength=length).astype(np.int64)
        return Probe(profile(counts, start // 1_000_000 - day_window(day).start), share, row_bytes, whole)

    def _row_bytes(self, chunk: Chunk, counts: Counts, day: date, *, whole: bool) -> Span | None:
        """Estimate the bytes of a row of a day's object from some of its rows."""
        if not len(chunk):
            return None
        rows = DayRows(self.points.site, day, self.points.names, [chunk], counts)
        size = len(encode(rows, facts=self._facts(), encoding=self.encoding).data)
        if whole:
            return Span(size / len(chunk), size / len(chunk), size / len(chunk))
        each = max(size - self._empty_bytes(day), 1) / len(chunk)
        return Span(each / PART_FACTOR, each, each * PART_FACTOR)

    def _empty_bytes(self, day: date) -> int:
        nothing = DayRows(self.points.site, day, self.points.names, [], Counts())
        return len(encode(nothing, facts=self._facts(), encoding=self.encoding).data)

    def _facts(self) -> dict[str, str]:
        return {"points_sha256": self.points.sha256}

    def _see_whole(self, days: Sequence[date], probes: dict[int, Probe]) -> None:
        """Fetch sampled days whole within the limits, a day of medium size first."""
        by_size = sorted(probes, key=lambda known: probes[known].samples)
        size, middle = self.pace.size, len(by_size) // 2
        a_day = max(1.0, probes[by_size[middle]].samples / size)
        share = min(WHOLE_SHARE * a_day * len(days), WHOLE_MINUTES * self.settings.requests_per_minute)
        spent = 0.0
        for at in sorted(by_size, key=lambda known: abs(by_size.index(known) - middle)):
            spent += max(1.0, probes[at].samples / size)
            if spent > max(FEW_PAGES if any(probe.whole for probe in probes.values()) else WHOLE_PAGES, share):
                return
            probes[at] = self._seen_whole(days[at], probes[at])

    def _seen_whole(self, day: date, probe: Probe) -> Probe:
        with TemporaryDirectory(prefix="backfill-plan-", ignore_cleanup_errors=True) as folder:
            fetcher = Fetcher(
                self.client,
                spool=Path(folder),
                max_page_size=self.pace.size,
                max_windows=self.settings.max_windows,
                requests_per_minute=self.settings.requests_per_minute,
                accept_marks=self.settings.accept_marks,
            )
            (fetched,) = fetcher.days(self.points.site, [day])
        rows = fetched.rows
        if rows is None or not rows.counts.kept:
            return probe
        each = len(encode(rows, facts=fetched.facts, encoding=self.encoding).data) / rows.counts.kept
        share = rows.counts.kept / rows.counts.fetched
        return replace(probe, kept=share, row_bytes=Span(each, each, each), whole=True)


def _spread(first: int, last: int, places: int) -> list[int]:
    """Choose about evenly spaced indexes from `first` to `last`, both included, on different days of the week."""
    if places == 1:
        return [(first + last) // 2]
    chosen = {first, last}
    for turn in range(1, places - 1):
        at = first + round(turn * (last - first) / (places - 1))
        near = sorted(range(max(first, at - 3), min(last, at + 3) + 1), key=lambda place: abs(place - at))
        chosen.add(next((place for place in near if all((place - other) % 7 for other in chosen)), at))
    return sorted(chosen)
