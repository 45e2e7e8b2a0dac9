"""A bucket over the wire: moto's server, and a proxy before it that counts, and that spoils what it is told to.

Put here: the server, the proxy and its faults. Keep out: what is tested with them.
"""

import base64
import hashlib
import http.client
import socket
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from time import sleep

import boto3
import requests
from moto.server import ThreadedMotoServer

BUCKET = "bucket"
KEY, SECRET = "made-up-key", "made-up-secret"


@dataclass(eq=False)
class Exchange:
    """A request at the proxy; `body` is what will be forwarded."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


Fault = Callable[["Proxied", Exchange], bool]
"""Spoils an exchange; says whether it was answered, or cut, so that nothing is left to do."""


def answers(status: int, code: str) -> Fault:
    """The store answers with an error, as S3 words it; an answer to HEAD has no body."""

    def fault(handler: "Proxied", asked: Exchange) -> bool:
        body = f"<Error><Code>{code}</Code><Message>as told</Message></Error>".encode() if code else b"<html>no</html>"
        handler.answer(status, {"Content-Type": "application/xml"}, b"" if asked.method == "HEAD" else body)
        return True

    return fault


def slow(seconds: float) -> Fault:
    """The answer takes its time."""

    def fault(_: "Proxied", __: Exchange) -> bool:
        sleep(seconds)
        return False

    return fault


def cut(handler: "Proxied", _: Exchange) -> bool:
    """The connection breaks before the store hears of the request."""
    handler.cut()
    return True


def unheard(handler: "Proxied", asked: Exchange) -> bool:
    """The store does what it is asked, and the connection breaks before the answer."""
    handler.forwarded(asked)
    handler.cut()
    return True


def half(handler: "Proxied", asked: Exchange) -> bool:
    """The connection breaks in the middle of the answer."""
    status, headers, body = handler.forwarded(asked)
    handler.answer(status, headers, body, send=len(body) // 2)
    handler.cut()
    return True


def lost(_: "Proxied", asked: Exchange) -> bool:
    """Part of the body is lost on the way, and the store believes that this was all."""
    asked.body = asked.body[: len(asked.body) // 2]
    return False


def flipped(handler: "Proxied", asked: Exchange) -> bool:
    """A bit of the body changes on the way, and the store looks at the checksum, as S3 does and moto does not."""
    asked.body = asked.body[:-1] + bytes([asked.body[-1] ^ 1])
    named = asked.headers.get("x-amz-checksum-sha256", "")
    if base64.b64decode(named) != hashlib.sha256(asked.body).digest():
        return answers(400, "BadDigest")(handler, asked)
    return False


def broken_off(handler: "Proxied", asked: Exchange) -> bool:
    """The store receives half of the body, then the connection breaks on both sides."""
    with socket.create_connection(handler.upstream) as store:
        lines = [f"{asked.method} {asked.path} HTTP/1.1", *(f"{n}: {v}" for n, v in asked.headers.items()), "", ""]
        store.sendall("\r\n".join(lines).encode() + asked.body[: len(asked.body) // 2])
    handler.cut()
    return True


class Proxied(BaseHTTPRequestHandler):
    """One connection of a client to the proxy."""

    protocol_version = "HTTP/1.1"
    proxy: "Proxy"
    upstream: tuple[str, int]

    def any_method(self) -> None:
        if self.headers.get("Expect") == "100-continue":
            self.send_response_only(100)
            self.end_headers()
        asked = Exchange(
            self.command,
            self.path,
            {name: value for name, value in self.headers.items() if name.lower() not in ("expect", "connection")},
            self.rfile.read(int(self.headers.get("Content-Length", 0))),
        )
        self.proxy.asked.append(asked)
        self.proxy.at_work.append(asked)
        try:
            self.settle(asked)
        finally:
            self.proxy.at_work.remove(asked)

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = any_method  # noqa: N815 - names that http.server looks for

    def settle(self, asked: Exchange) -> None:
        fault = self.proxy.faults.popleft() if self.proxy.faults else self.proxy.always
        if fault is not None and fault(self, asked):
            return
        with suppress(OSError):
            self.answer(*self.forwarded(asked))

    def forwarded(self, asked: Exchange) -> tuple[int, dict[str, str], bytes]:
        """What the store answers."""
        connection = http.client.HTTPConnection(*self.upstream)
        headers = asked.headers | ({"Content-Length": str(len(asked.body))} if asked.method == "PUT" else {})
        connection.request(asked.method, asked.path, asked.body, headers)
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        self.proxy.bytes_out += len(body)
        return answer.status, dict(answer.headers), body

    def answer(self, status: int, headers: dict[str, str], body: bytes, send: int | None = None) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in ("connection", "transfer-encoding", "content-length"):
                self.send_header(name, value)
        length = headers.get("Content-Length") if self.command == "HEAD" else None
        self.send_header("Content-Length", length or str(len(body)))
        self.end_headers()
        self.wfile.write(body[:send])

    def cut(self) -> None:
        self.close_connection = True
        self.wfile.flush()
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@dataclass
class Proxy:
    """A bucket's server behind a proxy.

    Attributes:
        direct: the server's own URL.
        url: the proxy's.
        faults: what befalls the next requests, in order.
        always: what befalls those after them.
        asked: the requests so far.
        at_work: those that are not yet done with, whether or not their client still waits.
        bytes_out: bytes of bodies that the server answered with.
    """

    direct: str
    url: str = ""
    faults: deque[Fault | None] = field(default_factory=deque)
    always: Fault | None = None
    asked: list[Exchange] = field(default_factory=list)
    at_work: list[Exchange] = field(default_factory=list)
    bytes_out: int = 0

    def reset(self) -> None:
        while self.at_work:
            sleep(0.01)
        self.faults.clear()
        self.always = None
        self.asked.clear()
        self.bytes_out = 0


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A client that goes away is what is being tested."""


@contextmanager
def bucket_server() -> Iterator[Proxy]:
    """A server with one empty bucket, and the proxy before it."""
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    proxy = Proxy(f"http://{host}:{port}")
    handler = type("Handler", (Proxied,), {"proxy": proxy, "upstream": (host, port)})
    server = _Server(("127.0.0.1", 0), handler)
    proxy.url = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        # moto keeps its buckets for the whole process: what another test left is not this one's.
        requests.post(f"{proxy.direct}/moto-api/reset", timeout=10).raise_for_status()
        client(proxy.direct).create_bucket(Bucket=BUCKET)
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
        moto.stop()


@cache
def client(url: str):
    """A plain client, beside our own store."""
    return boto3.client(
        "s3", endpoint_url=url, aws_access_key_id=KEY, aws_secret_access_key=SECRET, region_name="us-east-1"
    )


def emptied(url: str) -> None:
    """Remove every object, and every upload that was begun."""
    plain = client(url)
    for item in plain.list_objects_v2(Bucket=BUCKET).get("Contents", []):
        plain.delete_object(Bucket=BUCKET, Key=item["Key"])
    for upload in plain.list_multipart_uploads(Bucket=BUCKET).get("Uploads", []):
        plain.abort_multipart_upload(Bucket=BUCKET, Key=upload["Key"], UploadId=upload["UploadId"])
