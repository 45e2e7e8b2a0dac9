"""An ACE API whose pages cost next to nothing to make, in a process of its own: so that our side alone is measured.

Every point has a sample at the same instant of every sweep; all rows are equally long, so that a page is cut from
prepared text into which the sweep's time is put as one column. Cursors are right (no fault is on), pages follow each
other as the real API's do.
"""

import base64
import json
import multiprocessing
import multiprocessing.connection
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import numpy as np
from numpy.typing import NDArray

PLACE = b"YYYY-MM-DDTHH:MM:SS.036250"
VARIANTS = 8
"""Sweeps with values of their own; they repeat in turn."""


@dataclass(frozen=True)
class Feed:
    """A site: points that report, those of them that are configured, seconds between two sweeps, and for an answer."""

    points: int
    configured: int
    interval_s: int = 60
    site: str = "site"
    latency_s: float = 0.0

    def name(self, number: int) -> str:
        """A point's name, as long as real ones are."""
        device = f"10.0.{100 + number // 250}.{100 + number % 150}-{number:05}"
        return f"client/{self.site}/{device}/analogInput/{number % 40:02}/presentValue"

    @lru_cache(maxsize=VARIANTS)  # noqa: B019 - one feed lives as long as its process
    def sweep(self, variant: int) -> NDArray[np.uint8]:
        """The rows of a sweep, each ending in `, `: uint8[points, bytes of a row]."""
        rows = []
        for number in range(self.points):
            value = 1_000 + (number * 7 + variant * variant * 13) % 2_000 / 16 + (number % 3 == 0) * variant / 64
            row = {"name": self.name(number), "value": f"{value:.6f}", "time": PLACE.decode()}
            rows.append(json.dumps(row).encode() + b", ")
        return np.frombuffer(b"".join(rows), np.uint8).reshape(self.points, -1)

    def page(self, start: int, end: int, size: int, cursor: str | None) -> tuple[bytes | memoryview, ...]:
        """A page of the window [start, end), Unix seconds, in parts to be sent one after the other."""
        first = -(-(start * 1_000_000 - 36_250) // (self.interval_s * 1_000_000))
        last = -(-(end * 1_000_000 - 36_250) // (self.interval_s * 1_000_000))
        row = first * self.points
        if cursor is not None:
            at = json.loads(base64.b64decode(cursor))
            stamp = datetime.fromisoformat(at["timestamp"]).replace(tzinfo=UTC)
            row = int(stamp.timestamp()) // self.interval_s * self.points + at["offset"]
        stop = min(row + size, last * self.points)
        continuation = None
        rows = np.empty((max(stop - row, 0), self.sweep(0).shape[1]), np.uint8)
        begun = row
        while row < stop:
            sweep, offset = divmod(row, self.points)
            until = min(stop, (sweep + 1) * self.points)
            stamp = datetime.fromtimestamp(sweep * self.interval_s, UTC).strftime("%Y-%m-%dT%H:%M:%S.036250")
            rest = until - sweep * self.points
            part = rows[row - begun : until - begun]
            part[:] = self.sweep(sweep % VARIANTS)[offset:rest]
            part[:, -len(PLACE) - 4 : -4] = np.frombuffer(stamp.encode(), np.uint8)
            continuation = {"offset": rest, "timestamp": stamp}
            row = until
        more = stop < last * self.points
        said = base64.b64encode(json.dumps(continuation).encode()).decode() if more else None
        tail = json.dumps({"next_cursor": said, "has_more": more})[1:]
        return b'{"point_samples": [', memoryview(rows.reshape(-1))[:-2], b"], " + tail.encode() + b"\n"


class _Handler(BaseHTTPRequestHandler):
    feed: Feed
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(path.query).items()}
        if path.path.endswith("/paginated"):
            window = [int(datetime.fromisoformat(query[name]).timestamp()) for name in ("start_time", "end_time")]
            time.sleep(self.feed.latency_s)
            parts = self.feed.page(window[0], window[1], int(query["page_size"]), query.get("cursor"))
        else:
            names = [self.feed.name(number) for number in range(self.feed.configured)]
            if not path.path.endswith("/configured_points"):
                names = [self.feed.site]
            size, page = int(query["per_page"]), int(query["page"])
            items = [{"name": name, "collect_enabled": True} for name in names[(page - 1) * size : page * size]]
            about = {"page": page, "pages": -(-len(names) // size), "per_page": size, "total": len(names)}
            parts = (json.dumps({**about, "items": items}).encode(),)
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(sum(map(len, parts))))
        self.end_headers()
        for part in parts:
            self.wfile.write(part)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def _serve(feed: Feed, pipe: "multiprocessing.connection.Connection") -> None:
    handler = type("Handler", (_Handler,), {"feed": feed})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    for variant in range(VARIANTS):
        feed.sweep(variant)
    pipe.send(f"http://127.0.0.1:{server.server_port}/api")
    server.serve_forever()


@contextmanager
def served(feed: Feed) -> Iterator[str]:
    """The feed, served on loopback; its URL."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=_serve, args=(feed, theirs), daemon=True)
    process.start()
    try:
        yield ours.recv()
    finally:
        process.terminate()
        process.join(10)
