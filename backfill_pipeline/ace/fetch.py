"""A site's days, fetched whole: windows side by side, pages in sequence inside each, days in order.

::

    days() <- queue <- conductor thread: DayPlan hands out windows, SitePace says how many at once
                        `- worker threads: Walk asks page after page -> kept rows -> spool

The conductor looks one day ahead, so that the budget is in use while a day's last windows arrive and while the caller
encodes the day before. Put here: threads and their order. Keep out: what to ask for (`core/windows.py`,
`core/paging.py`), what a page shows of itself (`core/page_identity.py`), which rows count (`core/clean.py`), what an
answer means (`ace/client.py`).
"""

import logging
import math
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import numpy as np

from backfill_pipeline.ace import pace_cache
from backfill_pipeline.ace.client import AceClient, PointList
from backfill_pipeline.ace.decode import get_ready
from backfill_pipeline.ace.malloc import give_back_large_buffers
from backfill_pipeline.ace.spool import DaySpool, Kept, sweep
from backfill_pipeline.core.clean import counts_of, kept, merged
from backfill_pipeline.core.day import Window, day_window
from backfill_pipeline.core.log_fields import fields
from backfill_pipeline.core.page_identity import (
    Part,
    SiteNames,
    burst,
    judge_day,
    judge_rows,
    lies_on_marks,
    of_another_site,
    of_no_point,
    unreadable_page,
)
from backfill_pipeline.core.paging import BELIEVED, Walk
from backfill_pipeline.core.rows import Counts, DayRows, Example, Page
from backfill_pipeline.core.windows import FEW, HANDS, DayPlan, SitePace
from backfill_pipeline.errors import (
    ApiDownError,
    BackfillError,
    BudgetUnavailableError,
    ContractError,
    KeyRefusedError,
    PageFailedError,
    RequestRefusedError,
    SiteRefusedError,
    StoppedError,
    ThrottledError,
    UnreachableError,
)
from backfill_pipeline.setting_formats import PAGE_SIZES

_LOG = logging.getLogger(__name__)

AHEAD = 2
"""Days of a site under way at once: the one to be given out next, and the one after it."""

MOST_REQUESTS = 12
"""Requests at one place of a walk, failed ones included, where answers arrive but bring no new row."""

_STOPS_ALL = (ApiDownError, UnreachableError, KeyRefusedError, SiteRefusedError, BudgetUnavailableError, StoppedError)


@dataclass(frozen=True)
class FetchedDay:
    """What became of one site-day.

    Attributes:
        site: the site's name.
        day: the UTC day.
        rows: the day, whole; None when it failed.
        error: why it failed; None when it did not.
        requests: sample requests that left for it, those that failed included.
        retries: how many of them failed.
        throttled: how many of them the API answered with 429, or asked to wait.
        seconds: from its first request to its last row.
        points_configured: configured, collect-enabled points of the site.
        points_seen: how many of them have a row in this day.
        facts: strings that belong with the day's object: the same for the same rows.
        spool: its finished windows on disk.
        interval_s: seconds between two samples as the points are configured, their median; None when none says.
        listed: the list of points by which the day was filtered; None when it is not known.
        more_at_end: windows whose end is believed although the API's last answers said that more rows follow.
        unreadable: an example of its rows that cannot be read; None if there is none.
    """

    site: str
    day: date
    rows: DayRows | None
    error: BackfillError | None
    requests: int
    retries: int
    seconds: float
    points_configured: int
    points_seen: int
    facts: dict[str, str] = field(default_factory=dict)
    spool: DaySpool | None = None
    interval_s: float | None = None
    throttled: int = 0
    listed: PointList | None = None
    more_at_end: int = 0
    unreadable: Example | None = None

    def discard(self) -> None:
        """Forget what is spooled of the day: its object is stored and verified."""
        if self.spool is not None:
            self.spool.discard()


class Fetcher:
    """Fetches whole days of a site.

    Args:
        client: the ACE API.
        spool: folder for finished windows.
        max_page_size: the largest page that may be asked for.
        max_windows: windows of a site that may be asked for at once.
        requests_per_minute: the budget; no more is asked for at once than keeps it used.
        accept_marks: whether data whose times all lie on five-minute marks is believed to be raw.
        now: Unix seconds.
        clock: seconds, monotonic.
        cpu: CPU seconds of this process.
    """

    def __init__(
        self,
        client: AceClient,
        *,
        spool: Path,
        max_page_size: int = 100_000,
        max_windows: int = 8,
        requests_per_minute: float = math.inf,
        accept_marks: bool = False,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
        cpu: Callable[[], float] = time.process_time,
    ) -> None:
        give_back_large_buffers()
        self.client = client
        self.spool = spool
        self.sizes = [size for size in PAGE_SIZES if size <= max_page_size]
        self.max_windows = max_windows
        self.accept_marks = accept_marks
        self.now = now
        self.clock = clock
        self.cpu = cpu
        self.sharing = 0
        self._rate = requests_per_minute / 60
        self._paces: dict[str, SitePace] = {}

    @property
    def is_waiting(self) -> bool:
        """Whether all requests wait for an API that is down."""
        return self.client.outage.is_down

    def days(self, site: str, days: Sequence[date], *, stop: threading.Event | None = None) -> Iterator[FetchedDay]:
        """Fetch `days` of a site, in the order given, each as soon as it is whole.

        A day that fails is given out with its error, and the next one follows.

        Args:
            site: the site's name.
            days: UTC days.
            stop: once set, no further request leaves and the iteration ends with `StoppedError`.

        Raises:
            KeyRefusedError: the key is no good: nothing further may be asked.
            SiteRefusedError: the key may not read this site, or there is no such site.
            StoppedError: asked to stop.
            BackfillError: the site's points could not be listed.
        """
        stop = stop or threading.Event()
        threading.Thread(target=get_ready, name="get-ready", daemon=True).start()  # while the points are listed
        sweep(self.spool, self.now())
        points = self.client.configured_points(site)
        source = f"{self.client.url} {site}"
        if (pace := self._paces.get(site)) is None:
            pace = self._paces[site] = SitePace(self.sizes, self.max_windows, rate=self._rate)
            pace_cache.recall(self.spool, source, pace, self.now())
            pace.expect(points.rows_a_day, len(points.names))
        run = _SiteRun(self, points, pace, deque(days), stop)
        conductor = threading.Thread(target=run.conduct, name=f"fetch-{site}", daemon=True)
        conductor.start()
        self.sharing += 1
        try:
            while (item := run.out.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                with run.lock:
                    known = pace.learnt()
                pace_cache.keep(self.spool, source, known, self.now())
                yield item
                del item  # the caller may let go of the day while the next one is waited for
        finally:
            self.sharing -= 1
            run.end.set()
            while conductor.is_alive():
                try:
                    run.out.get(timeout=0.1)  # so that a conductor waiting for room can end
                except queue.Empty:
                    continue


class _DayWork:
    """One day under way: its plan, its finished windows, its figures. Changed under the run's lock only."""

    def __init__(self, day: date, plan: DayPlan, spool: DaySpool, started: float) -> None:
        self.day = day
        self.plan = plan
        self.spool = spool
        self.started = started
        self.kept: list[Kept] = []
        self.in_flight = 0
        self.walks: set[Walk] = set()
        self.requests = 0
        self.retries = 0
        self.throttled = 0
        self.more_at_end = 0
        self.error: BackfillError | None = None

    @property
    def over(self) -> bool:
        return not self.in_flight and (self.error is not None or self.plan.exhausted)


@dataclass
class _Place:
    """What became of asking at one place of a walk.

    Attributes:
        size: page size to ask with next.
        requests: requests that were sent.
        broken: answers that broke the contract.
        doubts: pages that may have been aggregated.
        strange: whether a page has names that cannot be judged before all points of the site are listed.
        lists: how often they had been listed when that page was judged.
        listed: whether all points of the site were listed for it.
    """

    size: int
    requests: int = 0
    broken: int = 0
    doubts: int = 0
    strange: bool = False
    lists: int = 0
    listed: bool = False


class _SiteRun:
    """One call of `Fetcher.days`: the conductor's and the workers' common ground."""

    def __init__(
        self, owner: Fetcher, points: PointList, pace: SitePace, days: deque[date], stop: threading.Event
    ) -> None:
        self.owner = owner
        self.points = points
        self.pace = pace
        self.waiting = days
        self.stop = stop
        self.end = threading.Event()  # the caller is gone
        self.out: queue.Queue[FetchedDay | BaseException | None] = queue.Queue(maxsize=1)
        self.lock = threading.Lock()
        self.under_way: deque[_DayWork] = deque()
        self.names = SiteNames(points.names)
        self.listing = threading.Lock()
        self.flying: dict[Future[None], _DayWork] = {}
        self.given = 0  # windows that walks have given away since windows were last handed out
        self.wire = threading.Semaphore(owner.max_windows)  # requests that may be on their way at once
        self.woken = threading.Event()  # there is something for the conductor to do

    def conduct(self) -> None:
        """Keep windows in flight until every day is given out; errors go to the caller."""
        try:
            with ThreadPoolExecutor(self.owner.max_windows + HANDS, thread_name_prefix="window") as pool:
                try:
                    self._conduct(pool)
                except BaseException:
                    self.end.set()
                    raise
        except BaseException as error:  # noqa: BLE001 - whatever it is, the caller raises it, not this thread
            self.out.put(error)
        else:
            self.out.put(None)

    def _conduct(self, pool: ThreadPoolExecutor) -> None:
        while True:
            self.woken.clear()
            self._launch(pool)
            while self.under_way and self.under_way[0].over:
                work = self.under_way[0]
                self._give(self._finished(work))
                self.under_way.popleft()
                self._launch(pool)
            if not (self.flying or self.under_way or self.waiting):
                return
            if self.flying:
                self.woken.wait(1.0)
            else:
                self.end.wait(0.02)  # until the caller has taken a day
            for future in [one for one in self.flying if one.done()]:
                work = self.flying.pop(future)
                with self.lock:
                    work.in_flight -= 1
                self._note(work, future)
            if self.stop.is_set() or self.end.is_set():
                raise StoppedError("stopped; finished windows are kept for next time", site=self.points.site)

    def _note(self, work: _DayWork, future: "Future[None]") -> None:
        """Take in how a window ended; what stops the site is raised, any other error ends its day."""
        try:
            future.result()
        except _STOPS_ALL:
            raise
        except BackfillError as error:
            work.error = work.error or error.of(self.points.site, work.day)

    def _launch(self, pool: ThreadPoolExecutor) -> None:
        """Hand out windows, of the earliest day first, until as many are in flight as the pace allows."""
        self.given = 0
        while self._free() and not (self.stop.is_set() or self.end.is_set()):
            found = self._next()
            if found is None:
                return
            work, window = found
            future = pool.submit(self._fetch, work, window)
            self.flying[future] = work
            future.add_done_callback(lambda _: self.woken.set())

    def _free(self) -> int:
        """Windows that may be asked for beside those in flight."""
        with self.lock:
            return max(0, self.pace.side_by_side(self.owner.sharing) - len(self.flying))

    def _next(self) -> tuple[_DayWork, Window] | None:
        for work in list(self.under_way):
            with self.lock:
                # While nothing is known of the site, one window at a time: the second would be a guess.
                if work.error is not None or (work.in_flight and not self.pace.begun):
                    continue
            free = self._free()
            with self.lock:
                window = work.plan.next_window(self.pace, free)
                if window is not None:
                    work.in_flight += 1
                    return work, window
        if self._may_open() and (self.pace.begun or not self.under_way) and not self._will_share():
            self.under_way.append(self._open(self.waiting.popleft()))
            return self._next()
        return None

    def _may_open(self) -> bool:
        """Whether a further day may be begun: those that the caller has not taken yet count, since memory does."""
        return bool(self.waiting) and len(self.under_way) + self.out.qsize() < AHEAD

    def _will_share(self) -> bool:
        """Whether walks of the days under way give a part away before a further day is begun.

        Where answers are slow: a day is then done sooner. At the budget nothing is, and a cut costs part of a page.
        """
        with self.lock:
            return self.pace.side_by_side(self.owner.sharing) > FEW and any(
                self.pace.share_s(walk.window.end - walk.reached, 2) for work in self.under_way for walk in work.walks
            )

    def _open(self, day: date) -> _DayWork:
        owner, points = self.owner, self.points
        source = f"{owner.client.url} {points.sha256}"
        spool = DaySpool(owner.spool, points.site, day, source)
        done = list(spool.get(owner.now()))
        plan = DayPlan(day, [part.window for part in done])
        work = _DayWork(day, plan, spool, owner.clock())
        work.kept = done
        if done:
            _LOG.info(
                f"{points.site} {day}: {len(done)} windows of an earlier attempt are used again",
                extra=fields(site=points.site, day=day),
            )
        return work

    def _fetch(self, work: _DayWork, window: Window) -> None:
        """Worker: fetch one window, or the part of it that the plan lets it keep."""
        walk = self._walk(work, Walk(window))
        if not (walk.rows or walk.more_at_end):  # no rows at all, in one answer: request it once more
            walk = self._walk(work, Walk(walk.window))
        if not walk.rows:
            self._keep(work, Part(walk.window.start, accept_marks=self.owner.accept_marks), walk.window.end)

    def _walk(self, work: _DayWork, walk: Walk) -> Walk:
        """All pages of one window; its far part goes back to the plan when others are free to take it.

        What lies before the second that the walk has reached is kept page by page, so that a death costs no more than
        the pages in flight.
        """
        part = Part(walk.window.start, accept_marks=self.owner.accept_marks)
        with self.lock:
            work.walks.add(walk)
        place = _Place(self.pace.size)
        while not walk.finished:
            page = self._page(work, walk, part, place)
            codes, named = self.names.codes(page.names), self.names.have(page)
            part.add(page, *kept(page, walk.window, work.day, codes), named=named)
            free = self._free()
            with self.lock:
                self._learn(walk, page)
                if not walk.finished and free > self.given:
                    self._share(work, walk, free - self.given)
                place = place if walk.idle else _Place(self.pace.size)
                place.size = self.pace.size
            if walk.rows and (walk.finished or walk.reached > part.start):
                end = walk.window.end if walk.finished else walk.reached
                part = self._keep(work, part, end)
        with self.lock:
            work.walks.discard(walk)
            work.more_at_end += walk.more_at_end
        if walk.more_at_end:
            _LOG.warning(
                f"{self.points.site} {work.day} {walk.window}: the API sent {BELIEVED} empty pages with `has_more` "
                "true and no cursor; the window ends there",
                extra=self._fields(work, walk.window),
            )
        return walk

    def _share(self, work: _DayWork, walk: Walk, free: int) -> None:
        """Give away what others may ask for at the same time: `free` of them, among all that walk now."""
        self.woken.set()
        begin = self._may_open() and self.pace.side_by_side(self.owner.sharing) <= FEW
        if begin or (not self.given and any(not one.plan.exhausted for one in list(self.under_way))):
            return  # the conductor finds enough for them
        others = math.ceil(free / max(1, len(self.flying)))
        length = self.pace.share_s(walk.window.end - walk.reached, others + 1)
        rest = walk.shorten(walk.reached + length) if length else None
        if rest is not None:
            self._give_back(work, rest, others)

    def _give_back(self, work: _DayWork, rest: Window, others: int = 1) -> None:
        work.plan.give_back(rest)
        self.given += others
        self.woken.set()

    def _keep(self, work: _DayWork, part: Part, end: int) -> Part:
        """Spool what `part` has before `end` (Unix seconds); the part that goes on from there."""
        chunk, later = part.cut(end, day_window(work.day).start)
        whole, merging = merged([chunk])
        counts = part.counts + merging
        rest = Part(end, accept_marks=self.owner.accept_marks)
        if len(later) or later.texts is not None:  # counted with the part that they will be stored in
            there, here = counts_of(later)
            counts += here
            rest.keep(later, there)
        window = Window(part.start, end)
        done = Kept(
            window,
            whole,
            counts,
            self.owner.now(),
            part.on_marks,
            len(part.instants),
            part.named,
            part.stranger,
            part.unreadable,
        )
        work.spool.put(done)
        with self.lock:
            work.kept.append(done)
        _LOG.info(
            f"{self.points.site} {work.day} {window}: {counts.fetched:,} samples", extra=self._fields(work, window)
        )
        return rest

    def _fields(self, work: _DayWork, window: Window) -> Mapping[str, str]:
        return fields(site=self.points.site, day=work.day, window=window)

    def _page(self, work: _DayWork, walk: Walk, part: Part, place: _Place) -> Page:
        """The walk's next page, whole and accepted.

        The one place where samples are asked for again.
        """
        what = f"{self.points.site} {work.day} {walk.window}"
        found = None
        while found is None:  # None: to be asked again at once, with a smaller size, or knowing more names
            if place.strange and not place.listed:  # not within the attempt: the list is tried again by itself
                place.listed = True
                self._list_all(place.lists)
            found = self.owner.client.retries.run(
                what,
                lambda failures: self._attempt(work, walk, part, place, failures),
                about=self._fields(work, walk.window),
            )
        return found

    def _attempt(self, work: _DayWork, walk: Walk, part: Part, place: "_Place", failures: int) -> Page | None:
        """Ask once; None to be asked again at once, with what `place` then says."""
        if self.stop.is_set() or self.end.is_set():
            raise StoppedError("stopped; finished windows are kept for next time", site=self.points.site)
        if walk.idle and place.requests >= MOST_REQUESTS:
            raise ContractError(
                f"{walk.window}: {place.requests} requests at one position returned no new row, but `has_more` is true",
                hint="report this to ACE, then fetch the day again",
                site=self.points.site,
                day=work.day,
            )
        client, asked = self.owner.client, place.size
        try:
            with self.wire:
                started, used = self.owner.clock(), self.owner.cpu()
                place.requests += 1
                with self.lock:
                    work.requests += 1
                page = client.page(self.points.site, walk.window, asked, walk.cursor)
                seconds, used = self.owner.clock() - started - client.waited, self.owner.cpu() - used
            if not self._believed(work, walk, part, place, page):
                return None
            walk.accept(page, asked)  # the last of all: what it takes is not asked for again
        except RequestRefusedError as error:
            with self.lock:
                smaller = self.pace.size_refused(asked) if "page_size" in error.fields else None
            if smaller is None and walk.step_back():
                self._failed(work)
                return None
            if smaller is None:
                raise
            place.size = smaller
            self.owner.sizes = [size for size in self.owner.sizes if size < asked]  # the list is one for all sites
            self._failed(work)
            return None
        except ThrottledError:
            self._failed(work)
            with self.lock:
                work.throttled += 1
                self.pace.throttled()
            raise
        except PageFailedError as error:
            self._failed(work)
            if error.size_related:
                with self.lock:
                    place.size = self.pace.page_failed(asked, failures + 1)
                    if failures and (rest := walk.shorten((walk.reached + walk.window.end) // 2)):
                        self._give_back(work, rest)
            walk.step_back()
            raise
        except ContractError as error:
            self._failed(work)
            place.broken = max(place.broken, place.doubts) + 1
            if place.broken < BELIEVED:
                raise PageFailedError(error.message, size_related=False, hint=error.hint) from error
            raise
        with self.lock:
            self.pace.page_came(
                asked, len(page), seconds, used / seconds if seconds > 0 else 0.0, self.owner.client.first_byte_s
            )
        return page

    def _believed(self, work: _DayWork, walk: Walk, part: Part, place: "_Place", page: Page) -> bool:
        """Whether a page may be what it seems; False when the site's names are to be listed first.

        Raises:
            ContractError: it is of another site, or aggregated, or no row of it can be read.
            PageFailedError: it may be aggregated, and is to be asked for again.
        """
        site, day, names = self.points.site, work.day, self.names
        if len(page) and not page.readable:
            raise unreadable_page(page, walk.window, site, day)
        strange = names.are_strange_to(page)
        if not place.listed and (strange or names.need_list(page)):
            place.strange, place.lists = True, names.lists
            return False
        if strange:
            raise of_another_site(page, walk.window, site, day, names.example())
        if place.doubts < BELIEVED - 1 and not self.owner.accept_marks and lies_on_marks(page):
            place.doubts += 1
            raise PageFailedError(
                f"{walk.window}: every time of the page lies on a five-minute mark, as those of aggregated data do",
                size_related=False,
            )
        part.judge(page, walk.window, site, day)
        return True

    def _list_all(self, lists: int) -> None:
        """Learn the names of all points of the site, configured or not; without them no page is judged by its names.

        Args:
            lists: how often they had been listed before; nothing is requested if another thread has listed them since.
        """
        with self.listing:
            if self.names.lists > lists:
                return
            try:
                self.names.learn(self.owner.client.known_points(self.points.site))
            except (RequestRefusedError, SiteRefusedError, ContractError, PageFailedError) as error:
                _LOG.warning(
                    f"{self.points.site}: the names of rows are not checked, since the list of all points "
                    f"is not available: {error}",
                    extra=fields(site=self.points.site),
                )
                self.names.forget()

    def _failed(self, work: _DayWork) -> None:
        with self.lock:
            work.retries += 1

    def _learn(self, walk: Walk, page: Page) -> None:
        covered = walk.window.end - walk.window.start if walk.finished else walk.reached - walk.window.start
        if covered > 0 and (walk.finished or page.has_more):
            self.pace.learn_density(walk.rows, covered, burst(page), len(page))

    def _finished(self, work: _DayWork) -> FetchedDay:
        """Put a day's windows together."""
        points = self.points
        parts = sorted(work.kept, key=lambda part: part.window)
        rows, seen = None, 0
        counts = sum((part.counts for part in parts), Counts())
        unreadable = next((part.unreadable for part in parts if part.unreadable), None)
        error = work.error
        if error is None and (error := self._judged(parts, counts, unreadable, work.day)):
            work.spool.discard()  # all of its windows: the next attempt requests them again
        if error is None:
            chunks = [part.chunk for part in parts if len(part.chunk)]
            texts = [part.chunk.texts for part in parts if part.chunk.texts is not None]
            rows = DayRows(points.site, work.day, points.names, chunks, counts, texts)
            here = np.zeros(len(points.names) + 1, bool)
            for chunk in chunks:
                here[chunk.code] = True
            seen = int(here.sum())
        return FetchedDay(
            points.site,
            work.day,
            rows,
            error,
            work.requests,
            work.retries,
            self.owner.clock() - work.started,
            len(points.names),
            seen,
            {"points_sha256": points.sha256},
            work.spool,
            points.interval_s,
            work.throttled,
            points,
            work.more_at_end,
            unreadable,
        )

    def _judged(
        self, parts: Sequence[Kept], counts: Counts, unreadable: Example | None, day: date
    ) -> ContractError | None:
        """Why a day whose windows all arrived is not taken; None when it is."""
        site = self.points.site
        if error := judge_rows(counts, unreadable, site, day):
            return error
        stranger = next((part.stranger for part in parts if part.stranger is not None), None)
        if stranger is not None and not any(part.named for part in parts):
            return of_no_point(stranger, site, day, self.names.example())
        if self.owner.accept_marks:
            return None
        return judge_day([(part.on_marks, part.instants) for part in parts], site, day)

    def _give(self, day: FetchedDay) -> None:
        while not (self.stop.is_set() or self.end.is_set()):
            try:
                self.out.put(day, timeout=0.2)
            except queue.Full:
                continue
            return
        raise StoppedError("stopped; finished windows are kept for next time", site=self.points.site)
