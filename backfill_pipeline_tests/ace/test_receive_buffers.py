"""Receive buffers: an answer never contains a byte of another answer, and no reader's memory changes."""

import gzip
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler
from itertools import count

import numpy as np
import pytest

from backfill_pipeline.ace.receive_buffers import PART_BYTES, ReceiveBuffers
from backfill_pipeline.core.day import Window
from backfill_pipeline.errors import PageFailedError
from backfill_pipeline_tests.ace.test_hostile import served

WINDOW = Window(1_740_787_200, 1_740_790_800)


def body_of(rows: int, number: int) -> bytes:
    """A page of `rows` rows whose values are all `number`."""
    row = b'{"name": "p%d", "value": "%d", "time": "2025-03-01T00:00:%02d"}'
    parts = b", ".join(row % (n, number, n % 60) for n in range(rows))
    return b'{"point_samples": [' + parts + b'], "next_cursor": null, "has_more": false}'


def plain(handler: BaseHTTPRequestHandler, body: bytes) -> None:
    """Send a body of known length."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def packed(handler: BaseHTTPRequestHandler, body: bytes) -> None:
    """Send a body with gzip."""
    handler.send_response(200)
    small = gzip.compress(body, 1)
    handler.send_header("Content-Encoding", "gzip")
    handler.send_header("Content-Length", str(len(small)))
    handler.end_headers()
    handler.wfile.write(small)


def chunked(handler: BaseHTTPRequestHandler, body: bytes) -> None:
    """Send a body in chunks of HTTP/1.1, without a length."""
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    for at in range(0, len(body), 50_000):
        part = body[at : at + 50_000]
        handler.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
    handler.wfile.write(b"0\r\n\r\n")


def cut(handler: BaseHTTPRequestHandler, body: bytes) -> None:
    """Send half of a body and close the connection."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body[: len(body) // 2])
    handler.close_connection = True


@pytest.mark.parametrize("send", [plain, packed, chunked])
def test_pages_of_any_length_are_received_into_the_same_buffer(send):
    """A longer, a shorter and a cut answer in turn: each page has its own rows, and earlier pages stay as they were."""
    sizes = [4_000, 100, 9_000, 8_999, 1, 6_000]
    numbers = count()
    answers = [(send, rows) for rows in sizes]
    answers.insert(3, (cut, 9_000))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            number = next(numbers)
            how, rows = answers[number]
            how(self, body_of(rows, number))

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    with ExitStack() as stack:
        client = stack.enter_context(served(Handler))
        pages = {}
        for number, (how, rows) in enumerate(answers):
            if how is cut:
                with pytest.raises(PageFailedError):
                    client.page("site", WINDOW, 10_000, None)
            else:
                pages[number] = client.page("site", WINDOW, 10_000, None), rows
        for number, (page, rows) in pages.items():
            assert sorted(page.names) == sorted(f"p{n}" for n in range(rows))
            assert page.value.tolist() == [number] * rows


def test_a_returned_buffer_keeps_its_memory():
    """The next answer of the same length needs no new memory."""
    buffers = ReceiveBuffers()
    first = buffers.take()
    first += bytes(10 * PART_BYTES)
    allocated = first.__alloc__()
    buffers.give(first)
    second = buffers.take()
    assert second is first
    assert second.__alloc__() == allocated
    assert buffers.take() is not first


def test_a_buffer_that_is_still_read_is_not_used_again():
    """Its length cannot change while an array shows its bytes."""
    buffers = ReceiveBuffers()
    body = buffers.take()
    body += b"an answer"
    shown = np.frombuffer(body, np.uint8)
    buffers.give(body)
    later = buffers.take()
    assert later is not body
    later += b"something else"
    assert shown.tobytes() == b"an answer"
