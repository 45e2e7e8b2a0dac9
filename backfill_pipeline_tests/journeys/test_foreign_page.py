"""A page of another origin, in a real browser, cannot command or read the webserver that `backfill up` starts."""

import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import quote, urlsplit

import pytest
from playwright.sync_api import sync_playwright

from backfill_pipeline_tests.journeys.stack import Stack
from backfill_pipeline_tests.services import program

MUTATION = 'mutation { setConcurrencyLimit(concurrencyKey: "KEY", limit: 3) }'

COMMANDS = """async ([url, query, inUrl]) => {
  const tried = [
    fetch(inUrl, {method: "POST", mode: "no-cors", headers: {"Content-Type": "application/x-www-form-urlencoded"}}),
    fetch(inUrl, {method: "POST", mode: "no-cors", body: "{}"}),
    fetch(inUrl, {mode: "no-cors"}),
    fetch(url, {method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify({query})}),
    new Promise((done) => { const image = new Image(); image.onerror = image.onload = done; image.src = inUrl; }),
    new Promise((done) => {
      const frame = document.createElement("iframe");
      frame.name = "target"; frame.onload = done; document.body.append(frame);
      const form = document.createElement("form");
      Object.assign(form, {method: "post", action: inUrl, target: "target"});
      document.body.append(form); form.submit();
    }),
  ];
  return (await Promise.allSettled(tried)).length;
}"""

SOCKET = """(url) => new Promise((done) => {
  const socket = new WebSocket(url.replace("http", "ws"), "graphql-ws");
  socket.onopen = () => socket.send(JSON.stringify({type: "connection_init"}));
  socket.onmessage = (message) => done(JSON.parse(message.data).type);
  socket.onclose = () => done("closed");
})"""

OWN = """async ([url, query]) => (await fetch(
  url, {method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify({query})}
)).status"""


@contextmanager
def page_of_another_origin():
    """A server with an empty page; its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<!doctype html><body>")

        def log_message(self, *_):
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://evil.example:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def browser():
    """A page of a headless Chromium, for which two made-up names resolve to this machine, as after DNS rebinding."""
    with sync_playwright() as playwright:
        rules = "MAP evil.example 127.0.0.1, MAP dagster.example 127.0.0.1"
        # Newer versions ask the user before a page may reach the local network: here the server alone has to refuse.
        words = [f"--host-resolver-rules={rules}", "--disable-features=LocalNetworkAccessChecks"]
        chromium = playwright.chromium.launch(executable_path=program("chromium"), args=words)
        try:
            yield chromium.new_page()
        finally:
            chromium.close()


@pytest.mark.timeout(290)
def test_a_page_of_another_origin_can_neither_command_nor_read(tmp_path, monkeypatch):
    """By form, fetch, image, frame, websocket or a rebound name: nothing changes. Dagster's own page works."""
    program("chromium")
    made = Stack(tmp_path, "http://127.0.0.1:9/api", ("north",), monkeypatch, BACKFILL_ALLOWED_HOSTS="dagster.example")
    storage = made.instance.event_log_storage
    with made.webserver() as url, page_of_another_origin() as elsewhere, browser() as page:
        port = urlsplit(url).port
        by_name = f"http://dagster.example:{port}/"
        for place in (url, f"http://evil.example:{port}/", by_name):
            page.goto(elsewhere)
            query = MUTATION.replace("KEY", "evil")
            target = f"{place}graphql"
            assert page.evaluate(COMMANDS, [target, query, f"{target}?query={quote(query)}"]) == 6
            assert page.evaluate(SOCKET, target) == "closed"
        rebound = page.goto(f"http://evil.example:{port}/")
        assert (rebound.status, rebound.json()["error"]) == (403, "forbidden")
        assert "evil" not in storage.get_concurrency_keys()

        for number, place in enumerate((url, by_name)):
            assert page.goto(place).status == 200
            assert page.evaluate(OWN, [f"{place}graphql", MUTATION.replace("KEY", f"own {number}")]) == 200
            assert page.evaluate(SOCKET, f"{place}graphql") == "connection_ack"
        assert {"own 0", "own 1"} <= storage.get_concurrency_keys()
    made.instance.dispose()
