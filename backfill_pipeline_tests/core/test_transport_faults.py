"""Transport faults: each is recognised by what the libraries raise, the same for the API's client and the store's."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import boto3
import pytest
import requests
from botocore.config import Config

from backfill_pipeline.core.transport_faults import FaultKind, TransportFault, classify, redirect_fault
from backfill_pipeline_tests.network import (
    VARIABLES,
    Empty,
    RefusingProxy,
    babble,
    close,
    cut,
    http_server,
    own_certificate,
    raw_server,
    reset,
    say_nothing,
)
from backfill_pipeline_tests.services import free_port

SECRET = "hush-hush"
HINTS = {"url": "ACE_API_URL", "ca": "REQUESTS_CA_BUNDLE"}


def by_requests(url: str, proxy: str | None, bundle: str | None) -> None:
    """Fail as the API's client does."""
    with requests.Session() as session:
        session.get(
            f"{url}?key={SECRET}", timeout=1, proxies={"http": proxy, "https": proxy} if proxy else None, verify=bundle
        )


def by_boto(url: str, proxy: str | None, bundle: str | None) -> None:
    """Fail as the store's client does."""
    config = Config(
        proxies={"http": proxy, "https": proxy} if proxy else None,
        retries={"total_max_attempts": 1},
        connect_timeout=1,
        read_timeout=1,
        s3={"addressing_style": "path"},
    )
    given = {"aws_access_key_id": "key", "aws_secret_access_key": SECRET, "region_name": "auto"}
    client = boto3.session.Session().client("s3", endpoint_url=url, verify=bundle, config=config, **given)
    client.get_object(Bucket="bucket", Key="key")["Body"].read()


Place = tuple[str, str | None, str | None]
"""URL, proxy, file of certificates."""


def _own_ca(stack, folder) -> Place:
    return f"https://127.0.0.1:{stack.enter_context(http_server(tls=own_certificate(folder)))}/", None, None


def _expired(stack, folder) -> Place:
    pair = own_certificate(folder, days=-1)
    return f"https://127.0.0.1:{stack.enter_context(http_server(tls=pair))}/", None, str(pair[0])


def _other_host(stack, folder) -> Place:
    pair = own_certificate(folder, host="other.example")
    return f"https://127.0.0.1:{stack.enter_context(http_server(tls=pair))}/", None, str(pair[0])


def _no_bundle(stack, folder) -> Place:
    url, _, _ = _own_ca(stack, folder)
    return url, None, str(folder / "missing.pem")


def _bad_bundle(stack, folder) -> Place:
    url, _, _ = _own_ca(stack, folder)
    (folder / "bad.pem").write_text("not a certificate\n")
    return url, None, str(folder / "bad.pem")


def _plain(stack, folder) -> Place:
    return f"https://127.0.0.1:{stack.enter_context(http_server())}/", None, None


def _proxy_407(stack, folder) -> Place:
    url, _, bundle = _own_ca(stack, folder)
    return url, f"http://user:{SECRET}@127.0.0.1:{stack.enter_context(http_server(RefusingProxy))}", bundle


def _proxy_down(stack, folder) -> Place:
    url, _, bundle = _own_ca(stack, folder)
    return url, f"http://user:{SECRET}@127.0.0.1:{free_port()}", bundle


def _proxy_unknown(stack, folder) -> Place:
    return f"http://127.0.0.1:{stack.enter_context(http_server())}/", "http://no-such-host.invalid:3128", None


def _proxy_not_a_url(stack, folder) -> Place:
    return f"https://127.0.0.1:{stack.enter_context(http_server())}/", "127.0.0.1:3128:x", None


def _raw(answer: Callable, scheme: str = "http") -> Callable:
    return lambda stack, folder: (f"{scheme}://127.0.0.1:{stack.enter_context(raw_server(answer))}/", None, None)


PLACES = {
    "a certificate of an own CA": (_own_ca, FaultKind.CERTIFICATE),
    "a certificate that has expired": (_expired, FaultKind.CERTIFICATE),
    "a certificate of another host": (_other_host, FaultKind.CERTIFICATE),
    "a file of certificates that is missing": (_no_bundle, FaultKind.CA_FILE),
    "a file of certificates that has none": (_bad_bundle, FaultKind.CA_FILE),
    "https at an http port": (_plain, FaultKind.PLAIN_HTTP),
    "a proxy that answers 407": (_proxy_407, FaultKind.PROXY_REFUSED),
    "a proxy that is down": (_proxy_down, FaultKind.PROXY),
    "a proxy without an address": (_proxy_unknown, FaultKind.PROXY),
    "a proxy that is not a URL": (_proxy_not_a_url, FaultKind.PROXY),
    "a port where nothing listens": (lambda *_: (f"http://127.0.0.1:{free_port()}/", None, None), FaultKind.REFUSED),
    "a host without an address": (lambda *_: ("http://no-such-host.invalid/", None, None), FaultKind.DNS),
    "a reset": (_raw(reset), FaultKind.RESET),
    "a reset in the handshake": (_raw(reset, "https"), FaultKind.RESET),
    "an end before an answer": (_raw(close), FaultKind.RESET),
    "an end in the handshake": (_raw(close, "https"), FaultKind.RESET),
    "no answer": (_raw(say_nothing), FaultKind.TIMEOUT),
    "an answer that breaks off": (_raw(cut), FaultKind.CUT),
    "an answer that is not HTTP": (_raw(babble), FaultKind.NOT_HTTP),
}


@pytest.fixture(autouse=True)
def direct(monkeypatch) -> Iterator[None]:
    """No proxy and no CA of this machine."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    return


@pytest.mark.parametrize("client", [by_requests, by_boto])
@pytest.mark.parametrize("place", PLACES)
def test_a_fault_has_the_same_kind_for_both_clients(place, client, tmp_path):
    """What `requests` and `botocore` raise is recognised, and nothing that is shown contains a URL or a secret."""
    make, kind = PLACES[place]
    with ExitStack() as stack:
        url, proxy, bundle = make(stack, tmp_path)
        with pytest.raises(Exception) as caught:
            client(url, proxy, bundle)
    fault = classify(caught.value)
    assert fault.kind is kind
    shown = f"{fault.found} {fault.hint(**HINTS)}"
    assert SECRET not in shown
    assert url not in shown
    assert "\n" not in shown


NAMED = {
    FaultKind.CERTIFICATE: ("certificate", "REQUESTS_CA_BUNDLE"),
    FaultKind.CA_FILE: ("certificates", "REQUESTS_CA_BUNDLE"),
    FaultKind.PLAIN_HTTP: ("http", "ACE_API_URL"),
    FaultKind.PROXY: ("proxy", "HTTPS_PROXY"),
    FaultKind.PROXY_REFUSED: ("proxy", "NO_PROXY"),
    FaultKind.REDIRECT: ("redirects", "ACE_API_URL"),
    FaultKind.DNS: ("host name", "ACE_API_URL"),
}


@pytest.mark.parametrize("kind", NAMED)
def test_a_fault_names_what_to_set(kind):
    """The words name the part that failed, the hint names the variable."""
    fault = TransportFault(kind)
    found, variable = NAMED[kind]
    assert found in fault.found
    assert variable in fault.hint(**HINTS)


@pytest.mark.parametrize(
    ("location", "shown"),
    [
        (f"https://user:{SECRET}@login.example/sso?token={SECRET}", "to https://login.example"),
        ("https://api.example:8443/api/sites/", "to https://api.example:8443"),
        ("//other.example/x", "to other.example"),
        (f"/login?next={SECRET}", "to another path of the same host"),
        (None, "without a target"),
        ("http://[broken", "to another path of the same host"),
        ("https://a\nb.example/", "to https://ab.example"),
    ],
)
def test_a_redirect_is_named_by_its_host_alone(location, shown):
    """Path and query of a redirect may contain secrets: scheme, host and port are shown."""
    fault = redirect_fault(location)
    assert fault.kind is FaultKind.REDIRECT
    assert fault.detail == shown


def test_another_error_keeps_its_name():
    """What is not a transport fault is not taken for one."""
    assert classify(ValueError(SECRET)) == TransportFault(FaultKind.OTHER, "ValueError")


def test_the_server_of_these_tests_answers():
    """Without a fault the same requests arrive: the faults above are the servers', not the tests'."""
    with http_server(Empty) as port:
        by_requests(f"http://127.0.0.1:{port}/", None, None)
