"""The HTTP control API behind a real server on loopback.

Put here: how it is served and asked. Keep out: what a test expects.
"""

import socket
import threading
from contextlib import contextmanager

import requests
import uvicorn

from backfill_pipeline_tests.services import HANGS_S


class Client:
    """Asks a server; `requests` as the old worker's users have it."""

    def __init__(self, url: str) -> None:
        self.url = url

    def get(self, path: str, **about: object) -> requests.Response:
        return requests.get(self.url + path, timeout=HANGS_S, **about)

    def post(self, path: str, **about: object) -> requests.Response:
        return requests.post(self.url + path, timeout=HANGS_S, **about)


@contextmanager
def served(app):
    """The application behind a real server on loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield Client(f"http://127.0.0.1:{listener.getsockname()[1]}")
        finally:
            server.should_exit = True
            thread.join()
