"""The check of Host and Origin in front of `backfill serve` and Dagster's webserver.

Neither server has a password, so any page in a browser on this machine could send it commands: a form or a `fetch`
reaches loopback. With a host name that resolves to loopback (DNS rebinding) a page can read the answers as well. A page
cannot set the headers Host and Origin, so these headers decide.

Put here: the rules, and the ASGI middleware that applies them. Keep out: tokens (`http.py`), and what a server answers.
"""

import ipaddress
from collections.abc import Collection
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse

from backfill_pipeline.core.loopback import is_loopback
from backfill_pipeline.errors import quoted

HEALTH_PATH = "/server_info"
"""The path that a health probe of Kubernetes requests, with the IP address of the pod as Host: versions, no more."""


class OwnOriginOnly:
    """ASGI middleware: answers 403 to requests that a page of another origin may have sent; passes all others on.

    Args:
        app: the application that answers the other requests.
        allowed_hosts: host names, in lower case and without a port, that are answered besides loopback names.
    """

    def __init__(self, app: Any, *, allowed_hosts: Collection[str] = ()) -> None:
        self.app = app
        self._allowed = frozenset(allowed_hosts)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request or websocket."""
        if scope["type"] in ("http", "websocket") and (why := self._refusal(scope)):
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})  # before it is accepted: the server sends 403
            else:
                await JSONResponse({"error": "forbidden", "message": why}, 403)(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def _refusal(self, scope: Any) -> str:
        """Return why the request is refused; empty when it is not."""
        headers = Headers(scope=scope)
        hosts, origins = headers.getlist("host"), headers.getlist("origin")
        if len(hosts) != 1 or len(origins) > 1:
            return "the request needs exactly one header Host, and at most one header Origin"
        host = _host_of(f"//{hosts[0]}")
        if not (is_loopback(host) or host in self._allowed or _is_health_probe(scope, host, origins)):
            return (
                f"this server does not answer to the host {quoted(hosts[0])}. Use a loopback name, such as localhost, "
                "or add the host to BACKFILL_ALLOWED_HOSTS"
            )
        if origins:
            origin = origins[0].lower()
            if origin not in (f"http://{hosts[0]}".lower(), f"https://{hosts[0]}".lower()) and not (
                origin.startswith(("http://", "https://")) and _host_of(origin) in self._allowed
            ):
                return (
                    f"this server does not answer pages of the origin {quoted(origins[0])}. If it is your "
                    "reverse proxy, add its host to BACKFILL_ALLOWED_HOSTS"
                )
        # A page can send GET requests without an Origin. The browser marks requests of pages of another site. Of these
        # only a link that the user follows in the whole window is harmless.
        elif headers.get("sec-fetch-site") in ("cross-site", "same-site") and not _is_followed_link(scope, headers):
            return "this server does not answer pages of another origin"
        return ""


def _host_of(url: str) -> str:
    """The host of a URL, in lower case, without port and brackets; empty when there is none."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises when it is not a port
    except ValueError:
        return ""
    if parts.path or parts.query or parts.fragment or "@" in parts.netloc or parts.netloc.endswith(":"):
        return ""
    return parts.hostname or ""


def _is_health_probe(scope: Any, host: str, origins: Collection[str]) -> bool:
    """Whether the request reads the versions by an IP address and no page sent it; DNS rebinding needs a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return scope.get("method") in ("GET", "HEAD") and scope["path"] == HEALTH_PATH and not origins


def _is_followed_link(scope: Any, headers: Headers) -> bool:
    asked = (headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest"))
    return scope.get("method") == "GET" and asked == ("navigate", "document")
