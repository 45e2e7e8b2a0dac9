"""A REST catalogue on loopback: those routes of Iceberg's REST specification that a writer needs.

Its tables are those of a SQL catalogue of pyiceberg.

Put here: the routes, the bearer token, and the mapping of refused commits to status codes. Keep out: what is tested
with it.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from urllib.parse import parse_qs, unquote, urlsplit

from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import CommitFailedException, NoSuchTableError, TableAlreadyExistsError
from pyiceberg.partitioning import PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import CommitTableRequest

TOKEN = "made-up-token"
WAREHOUSE = "made-up-warehouse"
PREFIX = "of-the-warehouse"


class Catalogue(BaseHTTPRequestHandler):
    """One connection of a client."""

    protocol_version = "HTTP/1.1"
    backing: SqlCatalog
    lock: Lock

    def log_message(self, *_):
        pass

    def answer(self, status, body=None):
        data = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def refuse(self, status, kind, error):
        self.answer(status, {"error": {"message": str(error), "type": kind, "code": status}})

    def table(self, table):
        return {
            "metadata-location": table.metadata_location,
            "metadata": json.loads(table.metadata.model_dump_json()),
            "config": {},
        }

    def any_method(self):
        length = int(self.headers.get("Content-Length", 0))
        text = self.rfile.read(length)
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.refuse(401, "NotAuthorizedException", "wrong token")
            return
        try:
            with self.lock:
                place = urlsplit(self.path)
                warehouse = parse_qs(place.query).get("warehouse", [None])[0]
                self.route([unquote(part) for part in place.path.partition("/v1/")[2].split("/")], warehouse, text)
        except NoSuchTableError as error:
            self.refuse(404, "NoSuchTableException", error)
        except TableAlreadyExistsError as error:
            self.refuse(409, "AlreadyExistsException", error)
        except CommitFailedException as error:
            self.refuse(409, "CommitFailedException", error)

    def route(self, parts, warehouse, text):
        match [self.command, *parts]:
            case ["GET", "config"] if warehouse == WAREHOUSE:
                self.answer(200, {"defaults": {}, "overrides": {"prefix": PREFIX}})
            case ["GET", "config"]:
                self.refuse(404, "NoSuchWarehouseException", f"no warehouse {warehouse}")
            case [_, prefix, *rest] if prefix == PREFIX:
                self.of_warehouse(rest, text)
            case _:
                self.refuse(404, "NotFoundException", self.path)

    def of_warehouse(self, parts, text):
        match [self.command, *parts]:
            case ["POST", "namespaces"]:
                name = tuple(json.loads(text)["namespace"])
                if name in self.backing.list_namespaces():
                    self.refuse(409, "AlreadyExistsException", name)
                else:
                    self.backing.create_namespace(name)
                    self.answer(200, {"namespace": name, "properties": {}})
            case ["POST", "namespaces", name, "tables"]:
                asked = json.loads(text)
                spec = asked.get("partition-spec")
                made = self.backing.create_table(
                    (name, asked["name"]),
                    Schema.model_validate(asked["schema"]),
                    partition_spec=PartitionSpec.model_validate(spec) if spec else PartitionSpec(),
                    properties=asked.get("properties", {}),
                )
                self.answer(200, self.table(made))
            case ["GET", "namespaces"]:
                self.answer(200, {"namespaces": self.backing.list_namespaces()})
            case ["GET", "namespaces", name]:
                self.answer(200, {"namespace": [name], "properties": self.backing.load_namespace_properties(name)})
            case ["GET", "namespaces", name, "tables"]:
                names = [{"namespace": one[:-1], "name": one[-1]} for one in self.backing.list_tables(name)]
                self.answer(200, {"identifiers": names})
            case ["GET", "namespaces", name, "tables", table]:
                self.answer(200, self.table(self.backing.load_table((name, table))))
            case ["POST", "namespaces", name, "tables", table]:
                change = CommitTableRequest.model_validate_json(text)
                done = self.backing.commit_table(
                    self.backing.load_table((name, table)), tuple(change.requirements), tuple(change.updates)
                )
                body = {
                    "metadata-location": done.metadata_location,
                    "metadata": json.loads(done.metadata.model_dump_json()),
                }
                self.answer(200, body)
            case ["HEAD", "namespaces", name, "tables", table]:
                self.answer(204 if self.backing.table_exists((name, table)) else 404)
            case _:
                self.refuse(404, "NotFoundException", self.path)

    do_GET = do_POST = do_HEAD = do_DELETE = any_method  # noqa: N815


@contextmanager
def rest_catalogue(folder, warehouse, **options) -> Iterator[str]:
    """Start a catalogue that requires `TOKEN` and `WAREHOUSE`; yields its URL, which has a path, as that of R2 has."""
    backing = SqlCatalog("backing", uri=f"sqlite:///{folder.as_posix()}/rest.db", warehouse=warehouse, **options)
    handler = type("Handler", (Catalogue,), {"backing": backing, "lock": Lock()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/account/bucket"
    finally:
        server.shutdown()
        server.server_close()
