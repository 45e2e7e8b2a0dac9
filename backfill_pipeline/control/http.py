"""The HTTP control API.

Put here: routes, authorisation, the form of bodies and of errors. Keep out: what a request does (`service.py`), and the
description of the API (`openapi.py`).
"""

import hmac
import json
import logging
import socket
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from datetime import date
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from backfill_pipeline import __version__
from backfill_pipeline.control.estimate import foreseen
from backfill_pipeline.control.host_check import OwnOriginOnly
from backfill_pipeline.control.metrics import BudgetMeter, metrics_text
from backfill_pipeline.control.openapi import openapi
from backfill_pipeline.control.request_limits import BodyRefusedError, OpenRequests, read_body
from backfill_pipeline.control.service import Control, open_control
from backfill_pipeline.core.day import parse_day
from backfill_pipeline.core.loopback import is_loopback
from backfill_pipeline.errors import (
    AlreadyRunningError,
    BackfillError,
    DaemonDownError,
    NotFoundError,
    SettingError,
    UsageError,
    quoted,
)
from backfill_pipeline.orchestration.json_logs import log_as_set
from backfill_pipeline.settings import Settings

SERVICE = "backfill_pipeline"

_LOG = logging.getLogger(__name__)

_STATUS = {
    AlreadyRunningError: (409, "already_running"),
    NotFoundError: (404, "not_found"),
    DaemonDownError: (503, "daemon_down"),
    UsageError: (400, "bad_request"),
    BackfillError: (503, "not_ready"),
}
"""By type of error: the HTTP status and the name of the error. The first line that fits decides."""

_FIELDS = {"first": "start_date: ", "last": "end_date: ", "site": "sites: "}
"""The field of a body that a `UsageError` is about."""

_NAMES = {
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    408: "too_slow",
    413: "too_large",
}

CLIENT_GONE = 499
"""The status in the log of a request whose client disconnected before the body was complete."""


class RefusedError(Exception):
    """A request that gets an error as its answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def build_app(control: Control, *, token: str | None) -> Starlette:
    """The API as an ASGI application.

    Args:
        control: answers the requests.
        token: the token of `Authorization: Bearer`; None: no token is needed. Then `host_check.py` refuses requests of
            pages in a browser on this machine.
    """
    meter = BudgetMeter(control.settings)

    def about(_request: Request) -> dict[str, Any]:
        return {"service": SERVICE, "version": __version__}

    def start(_request: Request, body: dict[str, Any]) -> dict[str, Any]:
        first, last, sites, force = _start_wanted(body)
        forecast = None if force else foreseen(control.settings, first, last)
        return control.start(first, last, sites, force=force, forecast=forecast).facts()

    def status(request: Request) -> dict[str, Any]:
        return control.status(_id(request)).facts()

    def cancel(request: Request) -> dict[str, Any]:
        return control.cancel(_id(request)).facts()

    def errors(request: Request) -> list[dict[str, Any]]:
        return [failure.facts() for failure in control.errors(_id(request))]

    def described(_request: Request) -> dict[str, Any]:
        return openapi(__version__)

    async def metrics(request: Request) -> Response:
        _admit(request, token)
        sites = request.query_params.getlist("site")
        try:
            text = await run_in_threadpool(metrics_text, control, meter.used, sites)
        except UsageError as error:
            raise RefusedError(400, f"site: {error}") from None
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    def answers(what: Callable[[Request], Any], *, is_open: bool = False) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            if not is_open:
                _admit(request, token)
            return JSONResponse(await run_in_threadpool(what, request))

        return endpoint

    async def started(request: Request) -> Response:
        _admit(request, token)
        body = await _body(request)
        return JSONResponse(await run_in_threadpool(start, request, body), status_code=202)

    app = Starlette(
        routes=[
            Route("/", answers(about, is_open=True), methods=["GET"]),
            Route("/backfill/start", started, methods=["POST"]),
            Route("/backfill/status", answers(status), methods=["GET"]),
            Route("/backfill/cancel", answers(cancel), methods=["POST"]),
            Route("/backfill/errors", answers(errors), methods=["GET"]),
            Route("/metrics", metrics, methods=["GET"]),
            Route("/openapi.json", answers(described), methods=["GET"]),
        ],
        exception_handlers={
            HTTPException: _http_error_answer,
            RefusedError: _error_answer,
            BodyRefusedError: _error_answer,
            ClientDisconnect: _client_gone,
            BackfillError: _error_answer,
            Exception: _error_answer,
        },
    )
    served = app if token is not None else OwnOriginOnly(app, allowed_hosts=control.settings.allowed_hosts)
    return _Logged(OpenRequests(served))  # type: ignore[return-value]  # callers need an ASGI application only


def run_server(settings: Settings, host: str, port: int) -> None:
    """Serve until a signal stops the process.

    Raises:
        SettingError: other machines can reach the host, and no token is set.
        UsageError: the host and port cannot be listened on.
    """
    _log_to_stderr(settings)
    token = settings.token.get_secret_value() if settings.token else None
    if token is None and not is_loopback(host):
        raise SettingError(
            f"BACKFILL_TOKEN is not set, so the API listens on loopback only, and not on --host {quoted(host)}",
            hint="set BACKFILL_TOKEN to a long random text, or omit --host",
        )
    if not host:
        raise UsageError("--host is empty", hint="omit --host for loopback, or use 0.0.0.0 for all addresses")
    control = open_control(settings)
    try:
        listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, ValueError, TypeError) as error:  # the last two: not a host name
        why = getattr(error, "strerror", None) or "not a host name"
        raise UsageError(
            f"cannot listen on --host {quoted(host)} --port {port} ({why.partition(' (while')[0]})",
            hint="use another host or port",
        ) from None
    with listener:
        shown = f"[{host}]" if ":" in host else host
        _LOG.info("listening on http://%s:%d", shown, listener.getsockname()[1])
        config = uvicorn.Config(
            build_app(control, token=token), log_config=None, access_log=False, server_header=False, lifespan="off"
        )
        uvicorn.Server(config).run(sockets=[listener])


def _admit(request: Request, token: str | None) -> None:
    """Check that the request carries the token.

    Raises:
        RefusedError: the token is missing or wrong.
    """
    if token is None:
        return
    given = request.headers.get("authorization", "")
    scheme, _, value = given.partition(" ")
    right = hmac.compare_digest(value.strip().encode(), token.encode())
    if scheme.lower() != "bearer" or not right:
        raise RefusedError(401, "send the header `Authorization: Bearer <token>` with the token of BACKFILL_TOKEN")


async def _body(request: Request) -> dict[str, Any]:
    """Read the JSON object of a request. Its Content-Type is ignored, so that `curl -d` needs no header.

    Raises:
        BodyRefusedError: it is too large, or too slow.
        RefusedError: it is not a JSON object.
        ClientDisconnect: the client disconnected.
    """
    body = await read_body(request)
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        raise RefusedError(
            400, 'the body is not JSON. Send {"start_date": "YYYY-MM-DD", "end_date": "YYYY-MM-DD"}'
        ) from None
    if not isinstance(found, dict):
        raise RefusedError(400, "the body is not a JSON object")
    return found


def _start_wanted(body: dict[str, Any]) -> tuple[date, date, list[str], bool]:
    """Read first day, last day, sites and `force_restart` of a body.

    Raises:
        UsageError: one of them is missing or of the wrong form.
    """
    days = []
    for name in ("start_date", "end_date"):
        value = body.get(name)
        if value is None:
            raise UsageError(f"{name} is missing", hint="write it as YYYY-MM-DD")
        if not isinstance(value, str):
            raise UsageError(f"{name} is not a text", hint="write it as YYYY-MM-DD, in quotes")
        try:
            days.append(parse_day(value))
        except UsageError as error:
            raise UsageError(f"{name}: {error}") from None
    force = body.get("force_restart", False)
    if not isinstance(force, bool):
        raise UsageError("force_restart is neither true nor false")
    sites = body.get("sites")
    if sites is None:
        sites = []
    elif not isinstance(sites, list) or not sites or not all(isinstance(site, str) and site for site in sites):
        raise UsageError("sites is not a list of site names", hint="omit it for all sites")
    return days[0], days[1], sites, force


def _id(request: Request) -> str | None:
    return request.query_params.get("backfill_id") or None


async def _http_error_answer(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for it alone
    said = {404: "no resource has this path", 405: "this path does not accept this method"}
    return _error(error.status_code, said.get(error.status_code, error.detail), headers=error.headers)


async def _client_gone(_request: Request, _error: Exception) -> Response:
    """The client disconnected during the body: one line in the log, with the status that nginx uses for this."""
    return Response(status_code=CLIENT_GONE)


async def _error_answer(_request: Request, error: Exception) -> Response:
    return _answer_of(error)


def _error(status: int, message: str, *, name: str | None = None, headers: Mapping[str, str] | None = None) -> Response:
    return JSONResponse({"error": name or _NAMES.get(status, "bad_request"), "message": message}, status, headers)


def _answer_of(error: Exception) -> Response:
    """Convert an error to an answer: its text, and never a traceback."""
    if isinstance(error, RefusedError):
        headers = {"WWW-Authenticate": "Bearer"} if error.status == 401 else None  # noqa: PLR2004 - the status of HTTP
        return _error(error.status, str(error), headers=headers)
    if isinstance(error, BodyRefusedError):
        return _error(error.status, str(error), headers=error.headers)
    for kind, (status, name) in _STATUS.items():
        if isinstance(error, kind):
            about = _FIELDS.get(getattr(error, "about", ""), "")
            return _error(status, about + " ".join(str(error).split()), name=name)
    _LOG.error("a request failed", exc_info=error)
    return _error(500, "an unexpected error occurred; the log of the server contains it", name="internal")


class _Logged:
    """ASGI middleware: logs one line for each request, and keeps errors from ending the connection."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        began, status = time.monotonic(), 0

        async def noting(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        with suppress(Exception):  # it is answered and logged already; Starlette raises it again for the server
            await self.app(scope, receive, noting)
        about = {
            "method": scope["method"],
            "path": scope["path"],
            "status": status,
            "seconds": round(time.monotonic() - began, 3),
        }
        _LOG.info("%(method)s %(path)r %(status)d %(seconds).3f s", about, extra=about)


def _log_to_stderr(settings: Settings) -> None:
    log_as_set(settings)
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger("backfill_pipeline")
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False
