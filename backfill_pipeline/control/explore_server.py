"""`backfill explore`: the page to look at series, behind the checks of `serve`.

Put here: who may send requests, the sites, and how the page is served. Keep out: the page (`explore/`).
"""

import base64
import binascii
import hmac
import socket
from collections.abc import Callable
from datetime import date
from typing import Any

import uvicorn
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse

from backfill_pipeline.control.day_ranges import named_sites
from backfill_pipeline.control.host_check import OwnOriginOnly
from backfill_pipeline.control.output import echo
from backfill_pipeline.control.report import arrived, silent_points
from backfill_pipeline.core.loopback import is_loopback
from backfill_pipeline.coverage.report import Report, rendered
from backfill_pipeline.errors import SettingError, UsageError, quoted
from backfill_pipeline.settings import Settings


class TokenOnly:
    """ASGI middleware: answers 401 without the token, which a browser sends as the password of Basic authentication.

    Args:
        app: the application that answers the other requests.
        token: the token. `Authorization: Bearer` is accepted as well.
    """

    def __init__(self, app: Any, token: str) -> None:
        self.app = app
        self._token = token.encode()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        if scope["type"] == "http" and not self._admits(Headers(scope=scope).get("authorization", "")):
            headers = {"WWW-Authenticate": 'Basic realm="backfill explore", charset="UTF-8"'}
            text = "Enter the token of BACKFILL_TOKEN as the password. The user name is not read.\n"
            await PlainTextResponse(text, 401, headers)(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def _admits(self, header: str) -> bool:
        scheme, _, value = header.partition(" ")
        given = value.strip().encode()
        if scheme.lower() == "basic":
            try:
                given = base64.b64decode(given, validate=True).partition(b":")[2]
            except binascii.Error:
                return False
        elif scheme.lower() != "bearer":
            return False
        return hmac.compare_digest(given, self._token)


def explore_app(settings: Settings) -> Any:
    """The page behind the token, or without a token behind the check of Host and Origin.

    Raises:
        SettingError: the extra `explore` is not installed.
    """
    try:
        from backfill_pipeline.explore.app import build_app  # noqa: PLC0415 - Bokeh is of an extra
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "backfill_pipeline":
            raise
        raise SettingError(
            f"backfill explore needs the package {error.name}, which is not installed",
            hint="run: python -m pip install 'backfill-pipeline[explore]'",
        ) from error
    app = build_app(settings, _remembered(lambda: list(named_sites(settings, ()))), _coverage_page(settings))
    if settings.token is not None:
        return TokenOnly(app, settings.token.get_secret_value())
    return OwnOriginOnly(app, allowed_hosts=settings.allowed_hosts)


def _remembered(sites: Callable[[], list[str]]) -> Callable[[], list[str]]:
    """List the sites once: without ACE_SITES the list takes a request to the API."""
    known: list[str] = []

    def listed() -> list[str]:
        if not known:
            known.extend(sites())
        return known

    return listed


def _coverage_page(settings: Settings) -> Callable[[str, date, date], bytes]:
    def page(site: str, first: date, last: date) -> bytes:
        found = arrived(settings, [site], first, last, with_points=())
        silent = silent_points(settings, found.table)
        report = Report(found.table, found.made, note=found.note, replaced=found.replaced, silent=silent)
        return rendered(report, "html")

    return page


def run_explore(settings: Settings, host: str, port: int) -> None:
    """Serve the page until a signal stops the process.

    Raises:
        SettingError: other machines can reach the host, and no token is set; or the extra `explore` is not installed.
        UsageError: the host and port cannot be listened on.
    """
    if settings.token is None and not is_loopback(host):
        raise SettingError(
            f"BACKFILL_TOKEN is not set, so the page is served on loopback only, and not on --host {quoted(host)}",
            hint="set BACKFILL_TOKEN to a long random text, or omit --host",
        )
    if not host:
        raise UsageError("--host is empty", hint="omit --host for loopback, or use 0.0.0.0 for all addresses")
    app = explore_app(settings)
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
        echo(f"Open http://{shown}:{listener.getsockname()[1]} in a browser. Ctrl-C stops the server.")
        config = uvicorn.Config(app, log_config=None, access_log=False, server_header=False, lifespan="off")
        uvicorn.Server(config).run(sockets=[listener])
