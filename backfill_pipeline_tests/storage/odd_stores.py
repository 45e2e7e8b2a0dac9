"""Stores that are nearly S3: the ways in which real ones differ, as faults of the proxy before a bucket.

Put here: one fault for each difference. Keep out: the proxy (`bucket.py`), and what is expected of a store with it.
"""

from collections.abc import Callable
from itertools import count

from backfill_pipeline_tests.storage.bucket import Exchange, Fault, Proxied

Headers = dict[str, str]


def _xml(code: str, message: str) -> bytes:
    return f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()


def refuse(handler: Proxied, asked: Exchange, status: int, code: str, message: str) -> bool:
    """Answer with an error; an answer to HEAD has no body."""
    body = b"" if asked.method == "HEAD" else _xml(code, message)
    handler.answer(status, {"Content-Type": "application/xml"}, body)
    return True


def rewritten(change: Callable[[Headers], Headers]) -> Fault:
    """The store's headers come back changed."""

    def fault(handler: Proxied, asked: Exchange) -> bool:
        status, headers, body = handler.forwarded(asked)
        handler.answer(status, change(headers), body)
        return True

    return fault


def _without_checksum(headers: Headers) -> Headers:
    return {name: value for name, value in headers.items() if not name.lower().startswith("x-amz-checksum")}


_marks = count()

capitalised = rewritten(
    lambda headers: {
        (name.title() if name.lower().startswith("x-amz-meta-") else name): value
        for name, value in _without_checksum(headers).items()
    }
)
"""Names of user metadata come back capitalised, and no checksum comes back."""

without_metadata = rewritten(
    lambda headers: {
        name: value for name, value in _without_checksum(headers).items() if not name.lower().startswith("x-amz-meta-")
    }
)
"""Neither metadata nor a checksum comes back."""


def without_hash(handler: Proxied, asked: Exchange) -> bool:
    """Neither metadata nor a checksum comes back, and the ETag is a serial number."""
    status, headers, body = handler.forwarded(asked)
    kept = {n: v for n, v in _without_checksum(headers).items() if not n.lower().startswith("x-amz-meta-")}
    if "ETag" in kept:
        kept["ETag"] = f'"{next(_marks)}"'
    handler.answer(status, kept, body)
    return True


def damages(handler: Proxied, asked: Exchange) -> bool:
    """The store has no hash, and stores another byte than it was given."""
    if asked.method == "PUT":
        middle = len(asked.body) // 2
        asked.body = asked.body[:middle] + bytes([asked.body[middle] ^ 1]) + asked.body[middle + 1 :]
    return without_hash(handler, asked)


def refuses_headers(*prefixes: str, message: str = "header not taken here") -> Fault:
    """The store refuses each request that has a header which begins so."""

    def fault(handler: Proxied, asked: Exchange) -> bool:
        if any(name.lower().startswith(prefixes) for name in asked.headers):
            return refuse(handler, asked, 400, "InvalidArgument", message)
        return False

    return fault


def denies(right: str) -> Fault:
    """The access key lacks one right; without the right to list, an absent object answers 403."""

    def fault(handler: Proxied, asked: Exchange) -> bool:
        is_list = "list-type" in asked.path
        needed = {"PUT": "write", "DELETE": "delete"}.get(asked.method, "list" if is_list else "read")
        if needed == right:
            return refuse(handler, asked, 403, "AccessDenied", "Access Denied")
        if right == "list" and needed == "read":
            status, headers, body = handler.forwarded(asked)
            if status == 404:
                return refuse(handler, asked, 403, "AccessDenied", "Access Denied")
            handler.answer(status, headers, body)
            return True
        return False

    return fault


def redirects(target: str, status: int = 307) -> Fault:
    """Every request is redirected."""

    def fault(handler: Proxied, asked: Exchange) -> bool:
        body = b"" if asked.method == "HEAD" else _xml("TemporaryRedirect", "Please re-send this request elsewhere.")
        handler.answer(status, {"Content-Type": "application/xml", "Location": f"{target}{asked.path}"}, body)
        return True

    return fault
