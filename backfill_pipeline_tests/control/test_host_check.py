"""The check of Host and Origin: no page of another origin, and no name that merely resolves here, is answered."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backfill_pipeline.control.host_check import OwnOriginOnly
from backfill_pipeline.control.webserver import guarded

OWN = "127.0.0.1:3000"
ALLOWED = ("dagster.example",)


async def passed(scope, _receive, send):
    """An application that answers every request."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def sent(app, headers, *, method="GET", path="/", kind="http"):
    """What an application sends for a request; headers are pairs, so that one may be there twice."""
    messages = []

    async def send(message):
        messages.append(message)

    pairs = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers]
    scope = {"type": kind, "path": path, "query_string": b"", "headers": pairs}
    asyncio.run(app(scope if kind == "websocket" else {**scope, "method": method}, None, send))
    return messages


def status(headers, **about):
    app = about.pop("app", None) or OwnOriginOnly(passed, allowed_hosts=ALLOWED)
    return sent(app, headers, **about)[0]["status"]


@pytest.mark.parametrize(
    "host",
    [OWN, "127.0.0.1", "127.9.9.9:1", "localhost", "LocalHost:3000", "[::1]", "[::1]:3000", "dagster.example:8443"],
)
def test_a_loopback_name_and_an_allowed_host_are_answered(host):
    """With any port, in any case, and to a page of the same origin."""
    assert status([("Host", host)]) == 200
    for scheme in ("http", "https"):
        assert status([("Host", host), ("Origin", f"{scheme}://{host}")], method="POST") == 200


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("Host", "")],
        [("Host", "evil.example")],
        [("Host", "evil.example:3000")],
        [("Host", "127.0.0.1.evil.example")],
        [("Host", "localhost.evil.example")],
        [("Host", "evil.example@127.0.0.1")],
        [("Host", "127.0.0.1:3000/evil.example")],
        [("Host", "127.0.0.1:port")],
        [("Host", "127.0.0.1:99999")],
        [("Host", "[::1")],
        [("Host", "0.0.0.0:3000")],
        [("Host", "10.0.0.5:3000")],
        [("Host", "[fd00::5]:3000")],
        [("Host", "sub.dagster.example")],
        [("Host", OWN), ("Host", "evil.example")],
        [("Host", OWN), ("Origin", "http://evil.example")],
        [("Host", OWN), ("Origin", "null")],
        [("Host", OWN), ("Origin", "")],
        [("Host", OWN), ("Origin", "http://[x")],
        [("Host", OWN), ("Origin", "http://127.0.0.1:3001")],
        [("Host", OWN), ("Origin", "http://localhost:3000")],
        [("Host", OWN), ("Origin", "file://")],
        [("Host", OWN), ("Origin", f"ws://{OWN}")],
        [("Host", OWN), ("Origin", "ftp://dagster.example")],
        [("Host", OWN), ("Origin", "https://dagster.example.evil")],
        [("Host", OWN), ("Origin", f"http://{OWN}"), ("Origin", "http://evil.example")],
        [("Host", OWN), ("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", "no-cors"), ("Sec-Fetch-Dest", "image")],
        [("Host", OWN), ("Sec-Fetch-Site", "same-site"), ("Sec-Fetch-Mode", "navigate"), ("Sec-Fetch-Dest", "iframe")],
    ],
)
def test_everything_else_is_refused_and_a_websocket_is_not_accepted(headers):
    """Whatever the method and the path: 403 in one line of JSON, and nothing reaches the application."""
    for method in ("GET", "POST", "OPTIONS"):
        assert status(headers, method=method) == 403
    app = OwnOriginOnly(passed, allowed_hosts=ALLOWED)
    assert sent(app, headers, kind="websocket") == [{"type": "websocket.close", "code": 1008}]


def test_a_proxy_that_rewrites_the_host_is_known_by_its_pages():
    """Its Host is this server's, and the Origin is the allowed one."""
    assert status([("Host", OWN), ("Origin", "https://dagster.example:8443")], method="POST") == 200
    page = [("Host", OWN), ("Origin", "https://dagster.example")]
    assert sent(OwnOriginOnly(passed, allowed_hosts=ALLOWED), page, kind="websocket") == [{"type": "websocket.accept"}]
    assert sent(OwnOriginOnly(passed), page, kind="websocket")[0]["type"] == "websocket.close"


def test_a_link_that_a_user_follows_opens_the_page():
    """From another site to the whole window, by GET."""
    link = [("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", "navigate"), ("Sec-Fetch-Dest", "document")]
    assert status([("Host", OWN), *link], path="/runs") == 200
    assert status([("Host", OWN), *link], path="/runs", method="POST") == 403


@pytest.mark.parametrize("host", ["10.0.0.5:3000", "10.0.0.5", "[fd00::5]:3000"])
def test_a_health_probe_by_the_address_of_a_pod_reads_the_versions_alone(host):
    """The kubelet sends no Origin. A name, which an attacker can rebind, is refused there as well."""
    assert status([("Host", host)], path="/server_info") == 200
    assert status([("Host", host)], path="/server_info", method="POST") == 403
    assert status([("Host", host), ("Origin", f"http://{host}")], path="/server_info") == 403
    assert status([("Host", host)], path="/graphql") == 403
    assert status([("Host", "evil.example")], path="/server_info") == 403


HOSTS = st.sampled_from([OWN, "localhost", "LOCALHOST:80", "[::1]:3000", "evil.example", "10.0.0.5"])
SCHEMES = st.sampled_from(["http://", "https://", "HTTP://", "ws://", "file://", "//", ""])
ANYTHING = st.text(st.characters(codec="latin-1"), max_size=5)


@given(HOSTS | ANYTHING, SCHEMES, HOSTS | ANYTHING, ANYTHING | st.just(""))
def test_a_page_is_answered_at_its_own_origin_alone(host, scheme, authority, rest):
    """Whatever the two headers hold: an answer needs a loopback name, and a page of exactly that authority."""
    loopback = host in (OWN, "localhost", "LOCALHOST:80", "[::1]:3000")
    own = scheme.lower() in ("http://", "https://") and (authority + rest).lower() == host.lower()
    expected = 200 if loopback and own else 403
    assert status([("Host", host), ("Origin", scheme + authority + rest)]) == expected


@pytest.mark.parametrize(
    ("method", "header", "expected"),
    [
        ("GET", ("Accept", "*/*"), 403),
        ("GET", ("Accept", "image/avif,image/webp"), 403),
        ("GET", ("Accept", "text/html,*/*"), 200),  # the page for queries, which executes nothing
        ("POST", ("Content-Type", "application/x-www-form-urlencoded"), 403),
        ("POST", ("Content-Type", "text/plain"), 403),
        ("POST", ("Content-Length", "0"), 403),
        ("POST", ("Content-Type", "application/json; charset=utf-8"), 200),
        ("POST", ("Content-Type", "application/graphql"), 200),
    ],
)
def test_a_graphql_query_in_the_url_is_not_executed(method, header, expected):
    """An older browser does not mark what a foreign image or form requests; Dagster's own pages send JSON."""
    for path in ("/graphql", "/prefix/graphql"):
        assert status([("Host", OWN), header], app=guarded(passed, ()), method=method, path=path) == expected


def test_no_foreign_page_can_frame_dagsters():
    """Each answer forbids it, so that no click on a foreign page lands on a button of this one."""
    headers = dict(sent(guarded(passed, ()), [("Host", OWN)])[0]["headers"])
    assert headers[b"x-frame-options"] == b"SAMEORIGIN"
