"""Limits of the HTTP control API: size and duration of a body, number of open requests.

Put here: limits that keep one client from blocking the server. Keep out: which requests are refused (`host_check.py`),
and what a body has to contain (`http.py`).
"""

import asyncio
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse

MOST_BYTES = 65_536
"""The largest body that is read; a thousand site names fit in."""

BODY_S = 10.0
"""Seconds within which a body has to arrive whole."""

MOST_OPEN = 64
"""Requests that are open at once; more than the threads that answer them."""

_CLOSE = {"Connection": "close"}
"""For an answer to a request whose body was not read whole: further bytes are not the next request."""


class BodyRefusedError(Exception):
    """A body that is not read.

    Attributes:
        status: the HTTP status of the answer.
        headers: headers of the answer.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.headers = _CLOSE


async def read_body(request: Request) -> bytes:
    """Read the whole body of a request.

    Raises:
        BodyRefusedError: it has more than `MOST_BYTES` bytes, or has not arrived within `BODY_S` seconds.
        ClientDisconnect: the client disconnected.
    """
    too_large = BodyRefusedError(413, f"the body has more than {MOST_BYTES} bytes")
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced[:12]) > MOST_BYTES:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_S):
            async for chunk in request.stream():
                body += chunk
                if len(body) > MOST_BYTES:
                    raise too_large
    except TimeoutError:
        raise BodyRefusedError(408, f"the body did not arrive within {BODY_S:g} seconds") from None
    return bytes(body)


class OpenRequests:
    """ASGI middleware: answers 503 while `MOST_OPEN` requests are open; passes all other requests on.

    Args:
        app: the application that answers the other requests.
    """

    def __init__(self, app: Any) -> None:
        self.app = app
        self._open = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        if self._open >= MOST_OPEN:
            facts = {"error": "busy", "message": f"{MOST_OPEN} requests are open already. Try again in a few seconds"}
            await JSONResponse(facts, 503, {"Retry-After": "5", **_CLOSE})(scope, receive, send)
            return
        self._open += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self._open -= 1
