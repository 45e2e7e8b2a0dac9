"""The HTTP control API: the contract of the worker that this project replaces.

Put here: routes, who may ask, what a body must hold, and how an error looks. Keep out: what a request leads to
(`service.py`), and what the API promises in words (`openapi.py`).
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
"""Which status an error leads to: the first line that fits."""

_FIELDS = {"first": "start_date: ", "last": "end_date: ", "site": "sites: "}
"""What a `UsageError` is about, as a body has it."""

_NAMES = {
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    408: "too_slow",
    413: "too_large",
}

CLIENT_GONE = 499
"""The status in the log of a request whose client went away before it was sent whole."""


class RefusedError(Exception):
    """A request that is answered with an error."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def build_app(control: Control, *, token: str | None) -> Starlette:
    """The API as an ASGI application.

    Args:
        control: answers the requests.
        token: what `Authorization: Bearer` has to carry; None: nothing, and `host_check.py` is in front, so
            that no page of a browser on this machine can command it.
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
            HTTPException: _told_http,
            RefusedError: _told_error,
            BodyRefusedError: _told_error,
            ClientDisconnect: _nobody_reads,
            BackfillError: _told_error,
            Exception: _told_error,
        },
    )
    served = app if token is not None else OwnOriginOnly(app, allowed_hosts=control.settings.allowed_hosts)
    return _Logged(OpenRequests(served))  # type: ignore[return-value]  # an ASGI application is all that is needed of it


def run_server(settings: Settings, host: str, port: int) -> None:
    """Serve until asked to end.

    Raises:
        SettingError: the host can be reached from elsewhere, and no token is set.
        UsageError: the host and port cannot be listened on.
    """
    _log_to_stderr(settings)
    token = settings.token.get_secret_value() if settings.token else None
    if token is None and not is_loopback(host):
        raise SettingError(
            f"BACKFILL_TOKEN is not set, so the API listens on loopback only, and not on --host {quoted(host)}: set it "
            "to a long random text, or leave --host out"
        )
    if not host:
        raise UsageError("--host is empty: leave it out for loopback, or write 0.0.0.0 for every address")
    control = open_control(settings)
    try:
        listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, ValueError, TypeError) as error:  # the last two: no host's name at all
        why = getattr(error, "strerror", None) or "that is no host's name"
        raise UsageError(
            f"--host {quoted(host)} --port {port} cannot be listened on ({why.partition(' (while')[0]}): try another"
        ) from None
    with listener:
        shown = f"[{host}]" if ":" in host else host
        _LOG.info("listening on http://%s:%d", shown, listener.getsockname()[1])
        config = uvicorn.Config(
            build_app(control, token=token), log_config=None, access_log=False, server_header=False, lifespan="off"
        )
        uvicorn.Server(config).run(sockets=[listener])


def _admit(request: Request, token: str | None) -> None:
    """See that the request may be answered.

    Raises:
        RefusedError: it may not.
    """
    if token is None:
        return
    given = request.headers.get("authorization", "")
    scheme, _, value = given.partition(" ")
    right = hmac.compare_digest(value.strip().encode(), token.encode())
    if scheme.lower() != "bearer" or not right:
        raise RefusedError(401, "send the header `Authorization: Bearer <token>` with the token of BACKFILL_TOKEN")


async def _body(request: Request) -> dict[str, Any]:
    """The JSON object that a request carries, whatever it says its type is: so `curl -d` does without a header.

    Raises:
        BodyRefusedError: it is too large, or too slow.
        RefusedError: it is not a JSON object.
        ClientDisconnect: the client went away.
    """
    body = await read_body(request)
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        raise RefusedError(
            400, 'the body is no JSON: send {"start_date": "YYYY-MM-DD", "end_date": "YYYY-MM-DD"}'
        ) from None
    if not isinstance(found, dict):
        raise RefusedError(400, "the body is no JSON object")
    return found


def _start_wanted(body: dict[str, Any]) -> tuple[date, date, list[str], bool]:
    """First day, last day, sites and force of a start.

    Raises:
        UsageError: one of them is missing or of the wrong form.
    """
    days = []
    for name in ("start_date", "end_date"):
        value = body.get(name)
        if value is None:
            raise UsageError(f"{name} is missing: write YYYY-MM-DD")
        if not isinstance(value, str):
            raise UsageError(f"{name} is no text: write YYYY-MM-DD in quotes")
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
        raise UsageError("sites is no list of site names: leave it out for all sites")
    return days[0], days[1], sites, force


def _id(request: Request) -> str | None:
    return request.query_params.get("backfill_id") or None


async def _told_http(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for it alone
    said = {404: "there is nothing at this path", 405: "this path does not take this method"}
    return _error(error.status_code, said.get(error.status_code, error.detail), headers=error.headers)


async def _nobody_reads(_request: Request, _error: Exception) -> Response:
    """The client went away in mid-body: one line in the log, with nginx's status for it."""
    return Response(status_code=CLIENT_GONE)


async def _told_error(_request: Request, error: Exception) -> Response:
    return _told(error)


def _error(status: int, message: str, *, name: str | None = None, headers: Mapping[str, str] | None = None) -> Response:
    return JSONResponse({"error": name or _NAMES.get(status, "bad_request"), "message": message}, status, headers)


def _told(error: Exception) -> Response:
    """An error as an answer: its line, and never a traceback."""
    if isinstance(error, RefusedError):
        headers = {"WWW-Authenticate": "Bearer"} if error.status == 401 else None  # noqa: PLR2004 - as HTTP has it
        return _error(error.status, str(error), headers=headers)
    if isinstance(error, BodyRefusedError):
        return _error(error.status, str(error), headers=error.headers)
    for kind, (status, name) in _STATUS.items():
        if isinstance(error, kind):
            about = _FIELDS.get(getattr(error, "about", ""), "")
            return _error(status, about + " ".join(str(error).split()), name=name)
    _LOG.error("a request failed", exc_info=error)
    return _error(500, "something went wrong here; the server's log says what", name="internal")


class _Logged:
    """An application, each request of which leaves one line in the log, and none of which ends the connection."""

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

        with suppress(Exception):  # it was answered and logged: Starlette raises it once more for the server
            await self.app(scope, receive, noting)
        about = {
            "method": scope["method"],
            "path": scope["path"],
            "status": status,
            "seconds": round(time.monotonic() - began, 3),
        }
        _LOG.info("%(method)s %(path)r %(status)d %(seconds).3f s", about, extra={"about": about})


def _log_to_stderr(settings: Settings) -> None:
    log_as_set(settings)
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger("backfill_pipeline")
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False
