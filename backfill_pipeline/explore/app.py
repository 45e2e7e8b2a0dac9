"""The page of `backfill explore` as an ASGI application: routes, parameters and errors.

Put here: what a request means, and the headers of answers. Keep out: the figure (`figure.py`), what the browser does
(`page/`), and who may send requests (`control/explore_server.py`).
"""

import tempfile
from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime, timedelta
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote

import bokeh.settings
import pyarrow.csv as arrow_csv
import pyarrow.parquet as pq
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from backfill_pipeline import read
from backfill_pipeline.core.day import days_between
from backfill_pipeline.core.point_catalogue import at_instant, matches
from backfill_pipeline.core.text import printable
from backfill_pipeline.coverage.footers import read_figures
from backfill_pipeline.coverage.table import coverage
from backfill_pipeline.dataset.point_catalogue import read_catalogue
from backfill_pipeline.errors import BackfillError, UsageError, quoted
from backfill_pipeline.explore.figure import MOST_POINTS, chart_figures, chart_item, day_spans
from backfill_pipeline.settings import Settings
from backfill_pipeline.storage.day_index import settings_cache
from backfill_pipeline.storage.days import settings_store

MOST_DAYS = 1100
"""The longest span of a view: three years."""

MOST_FOUND = 100
"""Points that one search shows."""

MOST_WIDTH = 4000

_CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "connect-src 'self'; font-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Scripts come from this server only. BokehJS writes style elements, which need 'unsafe-inline'."""

_REPORT_CSP = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'"

_TYPES = {"html": "text/html; charset=utf-8", "js": "text/javascript; charset=utf-8", "css": "text/css; charset=utf-8"}

CoveragePage = Callable[[str, date, date], bytes]
"""Renders the coverage report of a site as HTML."""


def build_app(settings: Settings, sites: Callable[[], list[str]], coverage_page: CoveragePage) -> Starlette:
    """The page as an ASGI application; each request reads the store.

    Args:
        settings: they name the store.
        sites: lists the names of the sites.
        coverage_page: renders the coverage report.
    """

    def listed(_params: QueryParams) -> Response:
        names = sites()
        zones = {site: zone for site in names if (zone := settings.time_zone_of(site))}
        return JSONResponse({"sites": names, "zones": zones})

    def points(params: QueryParams) -> Response:
        return JSONResponse(_found_points(settings, _site(params), params.get("words", "")))

    def chart(params: QueryParams) -> Response:
        return JSONResponse(_chart(settings, params))

    def days(params: QueryParams) -> Response:
        return JSONResponse({"days": _days(settings, params)})

    def download(params: QueryParams) -> Response:
        return _download(settings, params)

    def report(params: QueryParams) -> Response:
        start, end = _span(params)
        page = coverage_page(_site(params), start.date(), (end - timedelta(milliseconds=1)).date())
        return Response(page, media_type=_TYPES["html"], headers={"Content-Security-Policy": _REPORT_CSP})

    return Starlette(
        routes=[
            Route("/", _asset("index.html")),
            Route("/page.js", _asset("page.js")),
            Route("/page.css", _asset("page.css")),
            Route("/bokeh.min.js", _bokeh),
            Route("/sites", _answer(listed)),
            Route("/points", _answer(points)),
            Route("/chart", _answer(chart)),
            Route("/days", _answer(days)),
            Route("/download", _answer(download)),
            Route("/coverage", _answer(report)),
        ],
        exception_handlers={BackfillError: _error_answer, Exception: _unexpected_answer},
    )


def _answer(what: Callable[[QueryParams], Response]) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        response = await run_in_threadpool(what, request.query_params)
        return _guarded(response)

    return endpoint


def _asset(name: str) -> Callable[[Request], Awaitable[Response]]:
    data = files("backfill_pipeline.explore").joinpath("page", name).read_bytes()

    async def endpoint(_request: Request) -> Response:
        return _guarded(Response(data, media_type=_TYPES[name.rpartition(".")[2]]))

    return endpoint


async def _bokeh(_request: Request) -> Response:
    script = Path(bokeh.settings.settings.bokehjs_path()) / "js" / "bokeh.min.js"
    return _guarded(FileResponse(script, media_type=_TYPES["js"]))


def _guarded(response: Response) -> Response:
    """Add the headers that keep foreign scripts and frames out."""
    response.headers.setdefault("Content-Security-Policy", _CSP)
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "no-referrer"
    response.headers["Cache-Control"] = "no-cache"
    return response


async def _error_answer(_request: Request, error: Exception) -> Response:
    status, name = (400, "bad_request") if isinstance(error, UsageError) else (503, "not_ready")
    message = printable(" ".join(str(error).split()))
    return _guarded(JSONResponse({"error": name, "message": message}, status))


async def _unexpected_answer(_request: Request, _error: Exception) -> Response:
    """Answer without the text of the error; the server logs it."""
    message = "an unexpected error occurred; the output of the server contains it"
    return _guarded(JSONResponse({"error": "internal", "message": message}, 500))


def _found_points(settings: Settings, site: str, words: str) -> dict[str, Any]:
    spans = at_instant(read_catalogue(settings_store(settings), site), None)
    found = [span for span in spans if matches(span, words)]
    shown = [
        {
            "name": span.name,
            "shown": printable(span.name),
            "about": printable(" · ".join(filter(None, (span.description or span.object_name, span.device_name)))),
            "unit": printable(span.unit or ""),
        }
        for span in found[:MOST_FOUND]
    ]
    return {"points": shown, "found": len(found), "all": len(spans)}


def _chart(settings: Settings, params: QueryParams) -> dict[str, Any]:
    start, end = _span(params)
    tz, theme = params.get("tz") or "UTC", params.get("theme", "light")
    width = params.get("width", "1000")
    if not (width.isascii() and width.isdecimal() and 1 <= int(width[:5]) <= MOST_WIDTH):
        raise UsageError(f"width {quoted(width)} is not a number from 1 to {MOST_WIDTH}")
    if theme not in ("light", "dark"):
        raise UsageError(f"theme {quoted(theme)} is neither light nor dark")
    chart = read.chart(_site(params), _points(params), start, end, width=int(width), tz=tz, settings=settings)
    found = chart_figures(chart, tz, int(width))
    return found | {"item": chart_item(chart, theme)} if params.get("figure") else found


def _days(settings: Settings, params: QueryParams) -> list[dict[str, Any]]:
    start, end = _span(params)
    site, days = _site(params), list(days_between(start.date(), (end - timedelta(milliseconds=1)).date()))
    store = settings_store(settings)
    found = read_figures(store, [site], days, settings_cache(settings, store))
    return day_spans(coverage([site], days, found, {}, ready_at=settings.ready_at, now=datetime.now(UTC)))


def _download(settings: Settings, params: QueryParams) -> Response:
    """All samples of the view, described, as a file."""
    start, end = _span(params)
    site, kind = _site(params), params.get("format", "csv")
    if kind not in ("csv", "parquet"):
        raise UsageError(f"format {quoted(kind)} is neither csv nor parquet")
    rows = read.samples(site, start, end, points=_points(params), settings=settings).arrow()
    with tempfile.NamedTemporaryFile(prefix="backfill-explore-", suffix=f".{kind}", delete=False) as file:
        path = Path(file.name)
    try:
        if kind == "csv":
            arrow_csv.write_csv(rows, path)
        else:
            pq.write_table(rows, path)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    name = quote(f"{site}_{start:%Y-%m-%d}_{end:%Y-%m-%d}.{kind}", safe="")
    headers = {"Content-Disposition": f"attachment; filename*=UTF-8''{name}"}
    media = "text/csv; charset=utf-8" if kind == "csv" else "application/vnd.apache.parquet"
    return FileResponse(path, media_type=media, headers=headers, background=BackgroundTask(path.unlink))


def _site(params: QueryParams) -> str:
    site = params.get("site", "")
    if not site:
        raise UsageError("site is missing", hint="choose a site")
    return site


def _points(params: QueryParams) -> list[str]:
    names = list(dict.fromkeys(params.getlist("point")))
    if not 1 <= len(names) <= MOST_POINTS:
        raise UsageError(f"the view has {len(names)} points", hint=f"choose 1 to {MOST_POINTS} points")
    return names


def _span(params: QueryParams) -> tuple[datetime, datetime]:
    """The first instant of a view and the instant after its last one, in UTC."""
    found = []
    for name in ("from", "to"):
        text = params.get(name, "")
        try:
            instant = datetime.fromisoformat(text)
            instant = instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)
        except (ValueError, OverflowError):
            raise UsageError(
                f"{name} {quoted(text)} is not a time", hint="write 2025-06-01 or 2025-06-01T12:00Z"
            ) from None
        found.append(instant)
    start, end = found
    if not timedelta(0) < end - start <= timedelta(days=MOST_DAYS):
        raise UsageError(
            f"the view from {start:%Y-%m-%d} to {end:%Y-%m-%d} is empty or longer than {MOST_DAYS} days",
            hint="choose another range",
        )
    return start, end
