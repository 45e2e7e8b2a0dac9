"""Transport faults: the kinds of failure for which a request gets no usable response.

`requests` and `botocore` both send through urllib3, and wrap the same exceptions of urllib3 and the standard library.
`classify` looks at those inner exceptions, so one function serves the API and the store. No text is parsed: `detail` is
only shown.

Put here: the kinds of fault, how to recognise them, and the message and the hint of each kind. Keep out: retries, and
the decision whether a fault is an outage (`ace/`, `storage/`).
"""

import errno
import http.client
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus
from urllib.parse import urlsplit

import urllib3.exceptions as u3
from urllib3.util.ssl_match_hostname import CertificateError

from backfill_pipeline.core.text import printable


class FaultKind(StrEnum):
    """The kind of a transport fault."""

    CERTIFICATE = "certificate"  # the server's certificate is not trusted
    CA_FILE = "ca_file"  # the file of trusted certificates cannot be read
    PLAIN_HTTP = "plain_http"  # the URL is https, but the port serves http
    TLS = "tls"  # any other failure of the TLS handshake
    PROXY = "proxy"  # the proxy cannot be reached
    PROXY_REFUSED = "proxy_refused"  # the proxy refuses to connect, such as with HTTP 407
    REDIRECT = "redirect"  # the answer is a redirect
    DNS = "dns"  # the host name has no address
    REFUSED = "refused"  # nothing listens at the port
    UNREACHABLE = "unreachable"  # no route to the host
    RESET = "reset"  # the connection ended before the first byte of an answer
    CONNECT_TIMEOUT = "connect_timeout"  # no connection in time
    TIMEOUT = "timeout"  # no answer in time
    CUT = "cut"  # the answer ended before it was complete
    NOT_HTTP = "not_http"  # the server answers in another protocol
    OTHER = "other"


SETTINGS_FAULTS = frozenset(
    {
        FaultKind.CERTIFICATE,
        FaultKind.CA_FILE,
        FaultKind.PLAIN_HTTP,
        FaultKind.TLS,
        FaultKind.PROXY,
        FaultKind.PROXY_REFUSED,
        FaultKind.REDIRECT,
        FaultKind.NOT_HTTP,
    }
)
"""Kinds that a setting of this machine usually causes: a retry alone does not help."""

_FOUND = {
    FaultKind.CERTIFICATE: "the server's certificate is not trusted",
    FaultKind.CA_FILE: "the file of trusted certificates cannot be read",
    FaultKind.PLAIN_HTTP: "the server's port speaks http, not https",
    FaultKind.TLS: "the TLS connection failed",
    FaultKind.PROXY: "the proxy cannot be reached",
    FaultKind.PROXY_REFUSED: "the proxy refused the connection",
    FaultKind.REDIRECT: "the server redirects",
    FaultKind.DNS: "the host name cannot be resolved",
    FaultKind.REFUSED: "the connection was refused",
    FaultKind.UNREACHABLE: "the host cannot be reached",
    FaultKind.RESET: "the connection was closed before an answer",
    FaultKind.CONNECT_TIMEOUT: "no connection in time",
    FaultKind.TIMEOUT: "no answer in time",
    FaultKind.CUT: "the answer ended before it was complete",
    FaultKind.NOT_HTTP: "the server does not answer in HTTP",
    FaultKind.OTHER: "the transfer failed",
}

_NETWORK = "check {url} and the network"
_SCHEME = "check scheme and port in {url}"
_HINTS = {
    FaultKind.CERTIFICATE: "set {ca} to a file with the certificate of your own CA or of the proxy that intercepts TLS",
    FaultKind.CA_FILE: "set {ca} to a readable file of certificates in PEM format",
    FaultKind.PLAIN_HTTP: "check scheme and port in {url}: use http:// or the server's https port",
    FaultKind.TLS: _SCHEME,
    FaultKind.PROXY: "check host and port of the proxy in {proxy}, or add the server's host to NO_PROXY",
    FaultKind.PROXY_REFUSED: "set {proxy}=http://USER:PASSWORD@HOST:PORT, or add the server's host to NO_PROXY",
    FaultKind.REDIRECT: "set {url} to the redirect's target, if that is the right server",
    FaultKind.DNS: _NETWORK,
    FaultKind.REFUSED: _NETWORK,
    FaultKind.UNREACHABLE: _NETWORK,
    FaultKind.RESET: _NETWORK,
    FaultKind.CONNECT_TIMEOUT: _NETWORK,
    FaultKind.TIMEOUT: "",
    FaultKind.CUT: "",
    FaultKind.NOT_HTTP: _SCHEME,
    FaultKind.OTHER: "",
}
_HINTS_HTTP = _HINTS | {FaultKind.RESET: f"{_NETWORK}: a port that speaks https needs https://"}

_PLAIN_REASONS = {
    "WRONG_VERSION_NUMBER",
    "RECORD_LAYER_FAILURE",
    "PACKET_LENGTH_TOO_LONG",
    "HTTP_REQUEST",
    "UNKNOWN_PROTOCOL",
}
"""OpenSSL's reasons when the other side does not speak TLS at all."""

_REDIRECTS = (301, 302, 303, 307, 308)
_UNREACHABLE = {errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN, errno.EADDRNOTAVAIL, errno.EHOSTDOWN}
_NO_BUNDLE = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
_DETAIL = 80
"""Characters of a detail that are shown."""


@dataclass(frozen=True, slots=True)
class TransportFault:
    """A transport fault, and its details.

    Attributes:
        kind: the kind, on which code may depend.
        detail: the library's own message, one short printable line; it is only shown, and may be empty.
    """

    kind: FaultKind
    detail: str = ""

    @property
    def found(self) -> str:
        """A message about the fault, without an address or a secret."""
        return _FOUND[self.kind] + (f" ({self.detail})" if self.detail else "")

    def hint(self, *, url: str, ca: str, http: bool = False) -> str:
        """What to do, as one sentence; empty when only waiting helps.

        Args:
            url: the variable that contains the server's address, such as `ACE_API_URL`.
            ca: the variable that names the file of trusted certificates, such as `REQUESTS_CA_BUNDLE`.
            http: whether the address begins with `http://`.
        """
        hints = _HINTS_HTTP if http else _HINTS
        return hints[self.kind].format(url=url, ca=ca, proxy="HTTP_PROXY" if http else "HTTPS_PROXY")


def classify(error: BaseException) -> TransportFault:
    """Classify an exception of `requests`, `botocore`, urllib3 or a socket.

    Args:
        error: what the library raised; the exceptions that caused it are also classified.
    """
    chain = list(_chain(error))
    if any(isinstance(one, u3.ProxyError) for one in chain):
        return _proxy_fault(chain)
    found = next((fault for one in chain if (fault := _fault_of(one))), None)
    if found is not None:
        return found
    if type(error) is OSError and error.errno is None:  # requests raises this for a missing bundle, before it connects
        return TransportFault(FaultKind.CA_FILE)
    return TransportFault(FaultKind.OTHER, type(error).__name__)


def status_fault(status: int, location: str | None) -> TransportFault | None:
    """Classify the HTTP status of a proxy's refusal or of a redirect; None for any other status.

    Args:
        status: the HTTP status.
        location: the `Location` header; None when the answer has none.
    """
    if status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
        return TransportFault(FaultKind.PROXY_REFUSED, f"HTTP {status}")
    if status in _REDIRECTS:
        return redirect_fault(location)
    return None


def redirect_fault(location: str | None) -> TransportFault:
    """Describe a redirect by scheme and host of its target; path and query may contain secrets.

    Args:
        location: the `Location` header; None when the answer has none.
    """
    try:
        parts = urlsplit(location or "")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host:
        return TransportFault(
            FaultKind.REDIRECT, "to another path of the same host" if location else "without a target"
        )
    place = f"{parts.scheme}://{host}" if parts.scheme else host
    return TransportFault(FaultKind.REDIRECT, _line(f"to {place}{f':{port}' if port else ''}"))


def _proxy_fault(chain: list[BaseException]) -> TransportFault:
    # http.client raises a plain OSError, without a number, when a proxy refuses to open a tunnel.
    refused = next((one for one in chain if type(one) is OSError and one.errno is None), None)
    if refused is not None:
        return TransportFault(FaultKind.PROXY_REFUSED, _line(str(refused)))
    inner = next((fault for one in chain if (fault := _fault_of(one))), None)
    return TransportFault(FaultKind.PROXY, inner.found if inner else "")


def _fault_of(error: BaseException) -> TransportFault | None:  # noqa: PLR0911 - a table of types, in order
    if isinstance(error, ssl.SSLError):
        return _tls_fault(error)
    if isinstance(error, CertificateError):  # botocore lets urllib3 compare the names
        return TransportFault(FaultKind.CERTIFICATE, _line(str(error)))
    if isinstance(error, socket.gaierror):
        return TransportFault(FaultKind.DNS)
    if isinstance(error, ConnectionRefusedError):
        return TransportFault(FaultKind.REFUSED)
    if isinstance(error, ConnectionError):  # RemoteDisconnected included
        return TransportFault(FaultKind.RESET)
    if isinstance(error, u3.ConnectTimeoutError) and not isinstance(error, u3.NewConnectionError):
        return TransportFault(FaultKind.CONNECT_TIMEOUT)
    if isinstance(error, TimeoutError | u3.ReadTimeoutError):
        return TransportFault(FaultKind.TIMEOUT)
    if isinstance(error, u3.IncompleteRead | http.client.IncompleteRead):
        return TransportFault(FaultKind.CUT)
    if isinstance(error, u3.LocationParseError):  # the settings have checked ACE_API_URL, so this is the proxy's URL
        return TransportFault(FaultKind.PROXY, "its URL is not valid")
    if isinstance(error, http.client.HTTPException):
        return TransportFault(FaultKind.NOT_HTTP)
    if isinstance(error, _NO_BUNDLE):
        return TransportFault(FaultKind.CA_FILE)
    if isinstance(error, OSError) and error.errno in _UNREACHABLE:
        return TransportFault(FaultKind.UNREACHABLE)
    return None


def _tls_fault(error: ssl.SSLError) -> TransportFault:
    if isinstance(error, ssl.SSLCertVerificationError):
        return TransportFault(FaultKind.CERTIFICATE, _line(error.verify_message))
    if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return TransportFault(FaultKind.RESET)
    if error.reason in _PLAIN_REASONS:
        return TransportFault(FaultKind.PLAIN_HTTP)
    if error.reason in ("NO_CERTIFICATE_OR_CRL_FOUND", "NO_START_LINE", "BAD_BASE64_DECODE"):
        return TransportFault(FaultKind.CA_FILE)
    return TransportFault(FaultKind.TLS, _line(str(error.reason or "")))


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and the exceptions that it wraps, the outermost first.

    `__context__` is left out: it may be the failure of an earlier attempt.
    """
    seen: set[int] = set()
    todo: list[object] = [error]
    while todo:
        one = todo.pop(0)
        if not isinstance(one, BaseException) or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        given = getattr(one, "kwargs", None)  # botocore keeps the inner exception here
        inner = given.get("error") if isinstance(given, dict) else None
        todo += [*one.args, getattr(one, "reason", None), inner, one.__cause__]


def _line(text: str) -> str:
    """Text of a library or server, on one short line."""
    return printable(" ".join(text.split()))[:_DETAIL]
