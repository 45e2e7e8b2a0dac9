"""`backfill plan`: the estimate of a backfill from a few requests.

Put here: how samples of a site become days, requests, hours, bytes and price, and where the estimate is kept. Keep out:
which requests are sent (`site_sampling.py`), and how windows are planned (`core/windows.py`).
"""

import json
import math
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from typing import Any

from rich.console import Console

from backfill_pipeline.ace.client import AceClient, open_client
from backfill_pipeline.ace.fetch import AHEAD
from backfill_pipeline.control.day_ranges import checked_days, checked_sites
from backfill_pipeline.control.forecast import PRICE, Forecast, SiteForecast
from backfill_pipeline.control.sample_figures import Meter, Probe, Span, Survey
from backfill_pipeline.control.site_sampling import surveyed
from backfill_pipeline.core.object_keys import object_key
from backfill_pipeline.core.request_estimate import EMPTY, Profile, rehearsed
from backfill_pipeline.core.text import printable
from backfill_pipeline.core.windows import SitePace
from backfill_pipeline.errors import DamagedObjectError, StoreRefusedError
from backfill_pipeline.settings import Settings
from backfill_pipeline.storage.days import day_footer, settings_store
from backfill_pipeline.storage.store import Store

_LOOKED_AT = 5
"""The number of stored days of a site that are read for the bytes of a row."""


_FEW, _DAYS_DIFFER = 3, 0.15
"""With fewer days than this, the bytes of a row may be 15 % less or more: similar days differed by that much, since
compression depends on chance."""


_PAGES = 20_000
"""The approximate number of pages that are simulated; further pages are extrapolated."""


_NONE = Span(0, 0, 0)


_FILE = "plan.json"


def planned(
    settings: Settings,
    client: AceClient,
    store: Store,
    sites: Sequence[str],
    days: Sequence[date],
    stored: Mapping[str, Collection[date]],
    *,
    price: float = PRICE,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
    clock: Callable[[], float] = time.monotonic,
) -> Forecast:
    """Forecast a backfill of the days that are not stored.

    Args:
        settings: budget, page size, windows and sites at once, days a run, how objects are encoded.
        client: the API, with its budget and its retries.
        store: the store of the stored days.
        sites: site names.
        days: the range, ascending.
        stored: the stored days of each site, also outside of the range.
        price: USD for a GB and month.
        now: the current time, aware.
        clock: seconds, monotonic.

    Raises:
        BackfillError: the API or the store refuses, or does not answer.
    """
    budget = client.budget
    meter = client.budget = Meter(budget)
    try:
        with ThreadPoolExecutor(settings.sites_at_once, thread_name_prefix="plan") as pool:

            def one(site: str) -> SiteForecast:
                return _site(settings, client, meter, store, site, days, stored.get(site, ()), clock)

            found = list(pool.map(one, sites))
    finally:
        client.budget = budget
    at_once = min(settings.sites_at_once, max(1, sum(site.days > 0 for site in found)))
    return Forecast(days[0], days[-1], now(), found, settings.requests_per_minute, at_once, price, meter.requests)


def save_plan(settings: Settings, forecast: Forecast) -> None:
    """Write a forecast to the private folder, where it replaces the previous one.

    Raises:
        StoreRefusedError: the file cannot be written.
    """
    path = settings.private / _FILE
    part = path.with_suffix(f".{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(forecast.facts()), encoding="utf-8")
        part.replace(path)
    except OSError as error:
        raise StoreRefusedError(
            f"cannot keep the plan in {path}: {error.strerror}", hint="check DAGSTER_HOME"
        ) from None


def saved_plan(settings: Settings, sites: Collection[str], first: date, last: date) -> dict[str, Any] | None:
    """Read the latest plan if it is for these sites and this range; None otherwise."""
    try:
        plan = json.loads((settings.private / _FILE).read_text(encoding="utf-8"))
        same = (plan["first"], plan["last"]) == (str(first), str(last)) and set(plan["sites"]) == set(sites)
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return plan if same else None


def foreseen(settings: Settings, first: date, last: date) -> Callable[[Sequence[str]], str | None]:
    """Return a function from the sites of a start to the latest plan as JSON, or None."""

    def of_sites(sites: Sequence[str]) -> str | None:
        plan = saved_plan(settings, sites, first, last)
        return json.dumps(plan) if plan else None

    return of_sites


def run_plan(
    settings: Settings, first: date, last: date, sites: Sequence[str], *, price: float, as_json: bool
) -> Forecast:
    """Run the command: forecast a range, keep the forecast, print it.

    Raises:
        UsageError: the range or a site cannot be backfilled.
        BackfillError: what `planned` raises.
    """
    days = checked_days(settings, first, last, datetime.now(UTC))
    told = Console(stderr=True, highlight=False)
    client = open_client(settings)
    wanted = checked_sites(sites, settings.sites or [site.name for site in client.sites()])
    with told.status("sending requests to the API"):
        from backfill_pipeline.control.dagster_instance import Gateway  # noqa: PLC0415 - Dagster takes long to import

        gateway = Gateway(settings)
        stored = gateway.days_stored(wanted)
        for site, day in gateway.stored(wanted, days)[1]:
            stored[site].discard(day)  # `backfill start` fetches it again
        forecast = planned(settings, client, settings_store(settings), wanted, days, stored, price=price)
    save_plan(settings, forecast)
    console = Console(highlight=False)
    if as_json:
        console.file.write(json.dumps(forecast.facts()) + "\n")
    elif console.is_terminal:
        console.print(forecast.table())
        console.print(printable(forecast.ground()), markup=False)
    else:
        for line in forecast.lines():
            console.file.write(printable(line) + "\n")
    return forecast


def _site(
    settings: Settings,
    client: AceClient,
    meter: Meter,
    store: Store,
    site: str,
    days: Sequence[date],
    stored: Collection[date],
    clock: Callable[[], float],
) -> SiteForecast:
    todo = [day for day in days if day not in stored]
    if not todo:
        return SiteForecast(site, 0, len(days))
    sizes = _stored_row_bytes(store, site, sorted(stored))
    survey = surveyed(client, meter, settings, site, todo, sizes_known=bool(sizes), clock=clock)
    full = [probe for probe in survey.days if probe is not None]
    empty = len(todo) - len(full)
    samples = _bounded([probe.samples for probe in full], [probe.samples for probe in survey.probes])
    rows = _bounded(
        [probe.samples * probe.kept for probe in full], [probe.samples * probe.kept for probe in survey.probes]
    )
    requests, a_day = _requests(settings, survey, todo)
    pace = _pace(settings, survey)
    pace.at_once, pace.page_s = pace.most_at_once, survey.page_s or 0.0
    side_by_side = max(1.0, min(pace.side_by_side(settings.sites_at_once), AHEAD * a_day))
    each = (survey.page_s or 0.0) / side_by_side
    void = empty * survey.empty_bytes
    return SiteForecast(
        site,
        len(todo),
        len(days) - len(todo),
        empty,
        samples,
        rows,
        requests,
        rows.times(_row_bytes(sizes, survey.probes)) + Span(void, void, void),
        requests.times(Span(each, each, each)),
        len(survey.probes),
        sum(probe.whole for probe in survey.probes),
        sum(probe.declared for probe in survey.probes),
        len(sizes),
    )


def _bounded(likely: Sequence[float], probes: Sequence[float]) -> Span:
    """Return the sum of all days; its bounds assume that all days are like the smallest or the largest sample."""
    if not likely:
        return _NONE
    return Span(min(probes) * len(likely), sum(likely), max(probes) * len(likely))


def _row_bytes(stored: Sequence[tuple[float, int]], probes: Sequence[Probe]) -> Span:
    """Return the bytes of a row: of stored days, else of days that were fetched whole, else of parts of days.

    Days count by their rows, since a part of an object's size does not grow with its rows.
    """
    seen = [(probe.row_bytes, probe.samples * probe.kept, probe.whole) for probe in probes]
    told = [(each, rows) for each, rows, whole in seen if each is not None and whole]
    told = told or [(each, rows) for each, rows, _ in seen if each is not None]
    if stored:
        told = [(Span(each, each, each), rows) for each, rows in stored]
    all_rows = sum(rows for _, rows in told)
    if not all_rows:
        return _NONE
    apart = _DAYS_DIFFER if len(told) < _FEW else 0.0
    return Span(
        min(each.low for each, _ in told) * (1 - apart),
        sum(each.likely * rows for each, rows in told) / all_rows,
        max(each.high for each, _ in told) * (1 + apart),
    )


def _stored_row_bytes(store: Store, site: str, stored: Sequence[date]) -> list[tuple[float, int]]:
    """Return the bytes of a row, and the rows, of some stored days."""
    found = []
    step = max(1, math.ceil(len(stored) / _LOOKED_AT))
    for day in stored[step // 2 :: step]:
        try:
            rows, stat = day_footer(store, site, day).rows, store.head(object_key(site, day))
        except (FileNotFoundError, DamagedObjectError):  # `backfill verify` reports it
            continue
        if stat is not None and rows:
            found.append((stat.bytes / rows, rows))
    return found


def _requests(settings: Settings, survey: Survey, todo: Sequence[date]) -> tuple[Span, float]:
    """Return the requests of all days, and of one day with samples."""
    runs = list(_runs(todo, settings.days_per_run))
    by_size = sorted(survey.probes, key=lambda probe: probe.samples)
    likely, a_day = _rehearsed(settings, runs, survey, None)
    bounds = (
        [_rehearsed(settings, runs, survey, probe)[0] for probe in (by_size[0], by_size[-1])]
        if by_size
        else [likely] * 2
    )
    lists = len(runs) * survey.list_requests
    return Span(min(*bounds, likely) + lists, likely + lists, max(*bounds, likely) + lists), a_day


def _pace(settings: Settings, survey: Survey) -> SitePace:
    rate = settings.requests_per_minute / 60
    known = SitePace(survey.pace.sizes, survey.pace.most_at_once, survey.pace.size, rate=rate)
    known.expect(survey.points.rows_a_day, len(survey.points.names))
    return known


def _rehearsed(settings: Settings, runs: Sequence[slice], survey: Survey, always: Probe | None) -> tuple[float, float]:
    """Simulate all runs; return the sample requests of all runs and of one day.

    Each day has the samples of its probe, or all days those of `always`.
    """

    def profile_of(probe: Probe | None) -> Profile:
        return EMPTY if probe is None else (always or probe).profile

    def pages(probe: Probe | None) -> float:
        return 2.0 if probe is None else max(1.0, int(profile_of(probe)[-1]) / survey.pace.size)

    known: dict[tuple[int, ...], list[int]] = {}
    asked = weight = 0.0
    last = 1
    for run in runs:
        days = survey.days[run]
        shape = tuple(map(id, days))
        if shape not in known:
            pace, page_s = _pace(settings, survey), survey.page_s or 0.0
            known[shape] = rehearsed(list(map(profile_of, days)), pace, page_s=page_s, ahead=AHEAD)
        asked += sum(known[shape])
        weight += sum(map(pages, days))
        last = max(last, known[shape][-1])
        if weight > _PAGES:
            break
    return asked / weight * sum(map(pages, survey.days)), last


def _runs(todo: Sequence[date], most: int) -> Iterator[slice]:
    """Yield the runs that Dagster makes of days: adjacent days, at most `most` of them."""
    start = 0
    for end in range(1, len(todo) + 1):
        apart = end == len(todo) or todo[end] - todo[end - 1] > timedelta(days=1)
        if apart or end - start == most:
            yield slice(start, end)
            start = end
