"""Local servers that fail below HTTP: own certificates, proxies that refuse, connections that end early.

Put here: one server for each kind of transport fault. Keep out: what is expected of a client.
"""

import datetime as dt
import ipaddress
import socket
import ssl
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

VARIABLES = [
    name for word in ("http_proxy", "https_proxy", "all_proxy", "no_proxy") for name in (word, word.upper())
] + ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "AWS_CA_BUNDLE", "SSL_CERT_FILE"]
"""Variables that change how a client connects."""


class Empty(BaseHTTPRequestHandler):
    """Answers every request with an empty JSON object."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        """Log nothing."""


class RefusingProxy(Empty):
    """A proxy that wants user and password."""

    def do_CONNECT(self) -> None:
        self.send_response(407)
        self.send_header("Proxy-Authenticate", 'Basic realm="proxy"')
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_CONNECT  # noqa: N815 - http.server's names
    do_PUT = do_CONNECT  # noqa: N815 - http.server's names
    do_HEAD = do_CONNECT  # noqa: N815 - http.server's names


def own_certificate(folder: Path, *, host: str = "127.0.0.1", days: int = 5) -> tuple[Path, Path]:
    """A certificate that no machine trusts, and its key; `days` below 0: it has expired."""
    folder.mkdir(parents=True, exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Own CA")])
    now = dt.datetime.now(dt.UTC)
    place = x509.IPAddress(ipaddress.ip_address(host)) if host[0].isdigit() else x509.DNSName(host)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=30))
        .not_valid_after(now + dt.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([place]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (folder / "certificate.pem").write_bytes(certificate.public_bytes(pem))
    (folder / "key.pem").write_bytes(key.private_bytes(pem, *plain))
    return folder / "certificate.pem", folder / "key.pem"


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Clients that go away are what is tested."""


@contextmanager
def http_server(
    handler: type[BaseHTTPRequestHandler] = Empty, *, tls: tuple[Path, Path] | None = None, port: int = 0
) -> Iterator[int]:
    """A server on loopback; its port."""
    server = _Quiet(("127.0.0.1", port), handler)
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*tls)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def raw_server(answer: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server that does with each connection what `answer` does; its port."""
    listening = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listening.accept()
                Thread(target=answer, args=(connection,), daemon=True).start()

    Thread(target=accept, daemon=True).start()
    try:
        yield listening.getsockname()[1]
    finally:
        with suppress(OSError):
            listening.shutdown(socket.SHUT_RDWR)
        listening.close()


def reset(connection: socket.socket) -> None:
    """End the connection with a reset, before a byte of an answer."""
    connection.recv(1 << 16)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def close(connection: socket.socket) -> None:
    """End the connection in order, before a byte of an answer."""
    connection.recv(1 << 16)
    connection.close()


def babble(connection: socket.socket) -> None:
    """Answer in no HTTP."""
    connection.recv(1 << 16)
    connection.sendall(b"220 mail.example ESMTP\r\n")
    connection.close()


def cut(connection: socket.socket) -> None:
    """Announce a thousand bytes, and send two."""
    connection.recv(1 << 16)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{}")
    connection.close()


def say_nothing(connection: socket.socket) -> None:
    """Take the request, and never answer."""
    Event().wait(30)
    connection.close()
