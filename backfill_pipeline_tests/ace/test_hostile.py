"""Answers that mean harm: each is bounded in memory, and named; none is taken for data."""

import gzip
import json
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from backfill_pipeline.ace.client import AceClient
from backfill_pipeline.ace.decode import decode_page
from backfill_pipeline.ace.retry import Retries
from backfill_pipeline.core.backoff import Backoff
from backfill_pipeline.core.day import Window
from backfill_pipeline.errors import BackfillError, ContractError, KeyRefusedError, PageFailedError
from backfill_pipeline_tests.ace.test_client import FreeBudget

KEY = "hush-hush-key"
WINDOW = Window(1_740_787_200, 1_740_790_800)
ROW = b'{"name": "a", "value": "1", "time": "2025-03-01T00:00:00"}'
HEAD, TAIL = b'{"point_samples": [', b'], "next_cursor": null, "has_more": false}'
MB = 1 << 20


@contextmanager
def answering(parts: Iterator[bytes], *, status: int = 200, packed: bool = False) -> Iterator[AceClient]:
    """A client of a server that gives one answer, part by part, until the client goes away."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            if packed:
                self.send_header("Content-Encoding", "gzip")
            self.end_headers()
            with suppress(OSError):
                for part in parts:
                    self.wfile.write(part)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with served(Handler) as client:
        yield client


@contextmanager
def served(handler: type[BaseHTTPRequestHandler]) -> Iterator[AceClient]:
    """A client of a server that answers so."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        retries = Retries(Backoff(tries=1))
        yield AceClient(f"http://127.0.0.1:{server.server_port}/api", KEY, FreeBudget(), retries=retries)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def endless(part: bytes) -> Iterator[bytes]:
    """A gigabyte."""
    while True:
        yield part * (MB // len(part))


PLAIN = {
    "a gigabyte of rows": lambda: endless(ROW + b", "),
    "a gigabyte of blanks": lambda: endless(b" "),
    "a gigabyte without an end of a row": lambda: endless(b"a"),
}


def peak_of(ask) -> int:
    """Bytes that were held at once while `ask` failed."""
    tracemalloc.start()
    try:
        ask()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", PLAIN)
def test_a_page_without_end_is_cut_off(kind):
    """No more is read than the rows that were asked for can take."""
    with answering(PLAIN[kind]()) as client:

        def ask() -> None:
            with pytest.raises(PageFailedError, match="longer than 2,024,000 bytes"):
                client.page("site", WINDOW, 1_000, None)

        assert peak_of(ask) < 12 * MB


LENGTHS = {
    "longer than the body": {"Content-Length": "5000"},
    "shorter than the body": {"Content-Length": "60"},
    "no number": {"Content-Length": "many"},
    "chunks without a last one": {"Transfer-Encoding": "chunked"},
}


@pytest.mark.parametrize("kind", LENGTHS)
def test_a_length_that_is_not_the_bodys_is_no_answer(kind):
    """Whatever the header says: a body that is not whole is a failure, and the next answer is read by itself."""
    whole = HEAD + ROW + TAIL
    asked = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            asked.append(self.path)
            headers = LENGTHS[kind] if len(asked) == 1 else {"Content-Length": str(len(whole))}
            body = whole if "Content-Length" in headers else b"%x\r\n%b\r\n" % (len(whole) - 9, whole[:-9])
            self.send_response(200)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)
            if len(asked) == 1 and kind != "shorter than the body":
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with served(Handler) as client:
        with pytest.raises(PageFailedError) if kind != "no number" else suppress(PageFailedError):
            client.page("site", WINDOW, 1_000, None)
        with suppress(PageFailedError):  # what was left over of the first answer is no answer either
            client.page("site", WINDOW, 1_000, None)
        assert len(client.page("site", WINDOW, 1_000, None)) == 1


def test_a_bomb_in_gzip_is_cut_off():
    """A thousand times the bytes that arrive: what counts is what they become."""
    bomb = gzip.compress(b" " * (400 * MB), 1)
    with answering(iter([bomb]), packed=True) as client:

        def ask() -> None:
            with pytest.raises(PageFailedError, match="longer than 2,024,000 bytes"):
                client.page("site", WINDOW, 1_000, None)

        assert peak_of(ask) < 12 * MB


SMALL_PARTS = [b"{},", b"[],", b'{"a":1},', b"1.5,", b'"a",', b"[[[[[[[[,", b"}", b"},{", b"},{},", ROW + b","]


@pytest.mark.parametrize("part", SMALL_PARTS)
@pytest.mark.parametrize("place", ["among the rows", "after the rows", "alone"])
def test_a_bomb_in_json_is_not_taken_apart(part, place):
    """Few bytes each, but many: they would take a hundred times their bytes in memory."""
    many = (part * (4 * MB // len(part))).rstrip(b",")
    body = {
        "among the rows": HEAD + ROW + b", " + many + TAIL,
        "after the rows": HEAD + ROW + b'], "next_cursor": null, "has_more": false, "x": [' + many + b"]}",
        "alone": b"[" + many + b"]",
    }[place]

    def ask() -> None:
        with pytest.raises((ContractError, PageFailedError)):
            decode_page(body, 1_000)

    assert peak_of(ask) < 40 * MB


@pytest.mark.parametrize("mark", [b"[", b'{"a":'])
def test_deep_nesting_is_named(mark):
    """As deep as the answer may be long: an error, no crash."""
    with pytest.raises((ContractError, PageFailedError)):
        decode_page(HEAD + ROW + b", " + mark * 100_000 + TAIL)
    with (
        answering(iter([b'{"items": ' + mark * 5_000])) as client,
        pytest.raises(BackfillError, match="site 'site': the configured points"),
    ):
        client.configured_points("site")


def test_a_list_made_of_small_parts_is_named():
    """The list of points is bounded like a page."""
    many = b"[]," * (2 * MB)
    said = "site 'site': the configured points: the answer has 4,194,"
    with (
        answering(iter([b'{"total": 1, "items": [' + many + b"[]]}"])) as client,
        pytest.raises(ContractError, match=said),
    ):
        client.configured_points("site")


@pytest.mark.parametrize(
    ("status", "listed"), [*((status, True) for status in (200, 400, 401, 403, 404, 500)), (200, False), (400, False)]
)
def test_an_answer_that_repeats_the_key_does_not_get_it_into_an_error(status, listed):
    """Whatever the API says of the key, it is told without it."""
    said = json.dumps({"message": f"bad token {KEY}", "errors": {KEY: f"Bearer {KEY}"}}).encode()
    with answering(iter([said]), status=status) as client, pytest.raises(BackfillError) as caught:
        client.configured_points("site") if listed else client.page("site", WINDOW, 1_000, None)
    assert KEY not in str(caught.value)
    assert isinstance(caught.value, KeyRefusedError) == (status == 401)


def test_a_large_page_that_repeats_the_key_is_decoded_without_it():
    """What an error may show of a page, such as a time that cannot be read, does not contain the key."""
    rows = [{"name": "p", "value": "1", "time": f"Bearer {KEY}"}] * 5_000
    body = json.dumps({"point_samples": rows, "next_cursor": None, "has_more": False}).encode()
    with answering(iter([body])) as client:
        page = client.page("site", WINDOW, 10_000, None)
    assert page.unreadable == ("time", '"Bearer (the key)"')


def test_names_of_any_kind_come_through_as_they_are():
    """Control characters, quotes, paths, ten thousand letters: a name is text and nothing else."""
    names = [
        "../../etc/passwd",
        'a"b',
        "a\\b",
        "a\nb\x00c\x1b[31m",
        "}, {",
        '", "value": "9',
        "x" * 10_000,
        "\ud800",
        "Ü",
    ]
    rows = [{"name": name, "value": "1", "time": "2025-03-01T00:00:00"} for name in names for _ in range(20)]
    for separators in [(", ", ": "), (",", ":")]:
        body = json.dumps({"point_samples": rows, "next_cursor": None, "has_more": False}, separators=separators)
        page = decode_page(body.encode(), 180)
        assert [page.names[code] for code in page.code] == [row["name"] for row in rows]
