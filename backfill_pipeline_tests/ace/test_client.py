"""The client against an API over the wire: whatever goes wrong has one outcome, and none looks like an empty day."""

import threading
from contextlib import ExitStack
from datetime import date

import pytest

from backfill_pipeline.ace.client import AceClient, key_id, open_client
from backfill_pipeline.ace.fetch import Fetcher
from backfill_pipeline.ace.retry import Retries
from backfill_pipeline.core.backoff import CEILING_S, Backoff
from backfill_pipeline.core.day import Window, day_window
from backfill_pipeline.errors import (
    BackfillError,
    ContractError,
    KeyRefusedError,
    PageFailedError,
    RequestRefusedError,
    SiteRefusedError,
    ThrottledError,
    UnreachableError,
)
from backfill_pipeline.settings import Settings
from backfill_pipeline.simulator.app import Simulator
from backfill_pipeline.simulator.faults import Fault
from backfill_pipeline.simulator.world import SiteSpec, TableSite, World, midnight_us
from backfill_pipeline_tests.network import (
    VARIABLES,
    Empty,
    RefusingProxy,
    babble,
    http_server,
    own_certificate,
    raw_server,
)
from backfill_pipeline_tests.services import free_port

DAY = date(2025, 3, 1)
SITE = "Büro 1/north"
WORLD = World([SiteSpec(SITE, 60), SiteSpec("old", 3, archived=True), SiteSpec("a.b", 6000)])


class FreeBudget:
    """A budget without a limit that remembers what it was asked."""

    def __init__(self):
        self.asked = 0
        self.pauses = []
        self.lock = threading.Lock()

    def acquire(self):
        with self.lock:
            self.asked += 1
        return 0.0

    def pause(self, seconds):
        self.pauses.append(seconds)


def client_of(simulator, key="k", tries=10, patience=1.0) -> AceClient:
    retries = Retries(Backoff(tries=tries, first_s=0, most_s=0))
    return AceClient(simulator.url, key, FreeBudget(), retries=retries, patience=patience)


@pytest.fixture
def simulator():
    with Simulator(WORLD, api_key="k") as running:
        yield running


def rows_of(day) -> list[tuple[int, str, float]]:
    start = day_window(day.day).start * 1000
    found = [
        (day.rows.points[code], start + ms, value)
        for chunk in day.rows.chunks
        for code, ms, value in zip(chunk.code.tolist(), chunk.ms.tolist(), chunk.value.tolist(), strict=True)
    ]
    return [(ms, name, value) for name, ms, value in sorted(found)]


def fetched(simulator, tmp_path, site=SITE, size=10_000):
    fetcher = Fetcher(client_of(simulator, patience=0.05), spool=tmp_path / "spool", max_page_size=size)
    (day,) = fetcher.days(site, [DAY])
    return day


def test_all_sites_that_are_not_archived_are_found(simulator):
    """Every page of the list, sorted."""
    assert [site.name for site in client_of(simulator).sites()] == ["Büro 1/north", "a.b"]


def test_all_points_are_listed_over_several_pages(simulator, monkeypatch):
    """More points than a page holds: all of them, sorted, in two requests, and counted against the total."""
    monkeypatch.setattr("backfill_pipeline.ace.client.LIST_SIZE", 5_000)
    client = client_of(simulator)
    points = client.configured_points("a.b")
    assert len(points.names) == 6009
    assert list(points.names) == sorted(points.names)
    assert client.budget.asked == 2


@pytest.mark.parametrize("size", [50, 1_000, 100_000])
def test_a_day_over_the_wire_is_the_worlds_day(simulator, tmp_path, size):
    """Every row of the world and no other, with pages smaller than one sweep and larger than the day."""
    assert rows_of(fetched(simulator, tmp_path, size=size)) == WORLD.truth(SITE, DAY)


@pytest.mark.parametrize(
    "fault",
    [
        "truncate:share=0.3",
        "reset:share=0.3",
        "status:code=500,share=0.3,after=1",
        "status:code=503,share=0.3",
        "throttle:share=0.2,retry_after=0",
        "throttle:share=0.2,retry_after=none",
        "html:share=0.2",
        "wrong_key:share=0.1,times=2",
        "null_samples:times=2",
        "message:times=2",
        "max_page:rows=1000",
        "slow_page:rows=500",
        "stall:seconds=3,times=1",
        "null_cursor",
        "garbage_cursor",
        "late_cursor",
        "cursor_field",
        "more_at_end",
        "empty_page:share=0.3",
        "no_rows:times=1",
        "repeat_last",
        "repeat_row",
        "shuffle",
        "outside",
        "bare_nan",
        "numbers",
        "zulu",
        "offset",
        "epoch_ms",
        "padded",
        "bad_time:times=2",
        "no_name:times=2",
        "other_site:share=0.2,times=2",
        "bucketed:share=0.2,after=2,times=2",
    ],
)
def test_no_fault_that_ends_costs_or_adds_a_row(tmp_path, fault):
    """Each misbehaviour alone: the day comes out as the world has it."""
    with Simulator(WORLD, api_key="k", faults=[Fault.parse(fault)]) as simulator:
        day = fetched(simulator, tmp_path, size=5_000 if "page" in fault.split(":")[0] else 500)
    assert day.error is None
    assert rows_of(day) == WORLD.truth(SITE, DAY)


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("html", PageFailedError),
        ("wrong_key", ContractError),
        ("null_samples", ContractError),
        ("bucketed", ContractError),
        ("other_site", ContractError),
        ("bad_time", ContractError),
        ("bad_time:every=50", ContractError),
        ("no_name", ContractError),
        ("status:code=502", PageFailedError),
        ("truncate", PageFailedError),
        ("max_page:rows=1", RequestRefusedError),
    ],
)
def test_a_fault_without_end_fails_the_day_by_its_name(tmp_path, fault, error):
    """Nothing that went wrong looks like the end of the data or like an empty day."""
    with Simulator(WORLD, api_key="k", faults=[Fault.parse(fault)]) as simulator:
        day = fetched(simulator, tmp_path, size=500)
    assert isinstance(day.error, error)
    assert day.rows is None


def test_dates_of_http_headers_are_read(tmp_path):
    """Every row is there, at the whole second that its date has."""
    with Simulator(WORLD, api_key="k", faults=[Fault("rfc822")]) as simulator:
        day = fetched(simulator, tmp_path, size=500)
    assert rows_of(day) == [(ms // 1000 * 1000, name, value) for ms, name, value in WORLD.truth(SITE, DAY)]


@pytest.mark.parametrize("fault", ["bad_time:every=200", "no_name:every=200"])
def test_a_few_unreadable_rows_are_counted(tmp_path, fault):
    """Half a percent of the rows is left out by its reason; the day is stored without them."""
    with Simulator(WORLD, api_key="k", faults=[Fault.parse(fault)]) as simulator:
        day = fetched(simulator, tmp_path, size=100_000)
    assert day.error is None
    assert day.rows.counts.unreadable == -(-day.rows.counts.fetched // 200)
    assert day.unreadable is not None


def test_a_window_without_data_may_be_a_404(tmp_path):
    """Both answers to an empty window mean the same."""
    world = World([SiteSpec(SITE, 60, first_day=date(2026, 1, 1))])
    with Simulator(world, api_key="k", faults=[Fault("no_data")]) as simulator:
        day = fetched(simulator, tmp_path)
    assert day.rows.is_empty


@pytest.mark.parametrize("bad_key", ["error", "jwt", "500"])
def test_a_refused_key_says_so_however_the_api_puts_it(bad_key):
    """401, a signature message or a 500 on the first calls: all mean the key; its text is in no message."""
    with Simulator(WORLD, api_key="k", bad_key=bad_key) as simulator, pytest.raises(KeyRefusedError) as caught:
        client_of(simulator, key="hush-hush").sites()
    assert "ACE_API_KEY" in str(caught.value)
    assert "hush" not in str(caught.value)


def test_a_key_that_expires_in_mid_run_stops_everything(tmp_path):
    """401 after some pages is raised at once."""
    with Simulator(WORLD, api_key="k", faults=[Fault.parse("expire:after=3")]) as simulator:
        with pytest.raises(KeyRefusedError):
            fetched(simulator, tmp_path, size=500)
        assert sum(request.status == 401 for request in simulator.requests) <= 8


def test_an_unknown_site_is_refused_by_its_name(simulator):
    """The message names the site and says what to check."""
    with pytest.raises(SiteRefusedError, match="'nowhere'"):
        client_of(simulator).configured_points("nowhere")


def test_a_wrong_address_is_not_an_empty_site(simulator):
    """An HTML 404 is an error that names the setting."""
    client = AceClient(simulator.url + "/v2", "k", FreeBudget())
    with pytest.raises(RequestRefusedError, match="ACE_API_URL"):
        client.page("x", Window(0, 60), 3, None)


@pytest.mark.parametrize(
    ("asked", "wait"),
    [
        ("7", 7.0),
        ("none", None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        ("soon", None),
        ("4000000000", CEILING_S),
        ("1e12", CEILING_S),
        ("inf", None),
        ("-3", None),
    ],
)
def test_a_429_pauses_everybody(asked, wait):
    """Seconds and dates are understood; without either, a pause of our own."""
    with Simulator(WORLD, api_key="k", faults=[Fault("throttle", options={"retry_after": asked})]) as simulator:
        client = client_of(simulator)
        with pytest.raises(ThrottledError) as caught:
            client.page(SITE, day_window(DAY), 500, None)
    assert caught.value.retry_after == wait
    assert client.budget.pauses == [10.0 if wait is None else wait]


def test_every_request_asks_the_budget_first(simulator, tmp_path):
    """Lists, pages and failures alike."""
    client = client_of(simulator)
    list(Fetcher(client, spool=tmp_path, max_page_size=500).days(SITE, [DAY]))
    assert client.budget.asked == len(simulator.requests)


def test_a_list_shorter_than_its_total_is_never_used(simulator, monkeypatch):
    """Points that were not sent are not silently left out."""
    client = client_of(simulator)
    honest = client._get

    def short(*args, **options):
        status, body = honest(*args, **options)
        return status, body.replace(b'"total": 69', b'"total": 90')

    monkeypatch.setattr(client, "_get", short)
    with pytest.raises(ContractError, match="of a total of 90"):
        client.configured_points(SITE)


def test_no_error_of_the_network_names_the_key():
    """A connection that cannot be made is one line that says what to check."""
    client = AceClient("http://127.0.0.1:9/api", "hush-hush", FreeBudget(), retries=Retries(Backoff(tries=1)))
    with pytest.raises(BackfillError, match="ACE_API_URL") as caught:
        client.sites()
    assert "hush" not in str(caught.value)


def test_a_larger_page_may_take_longer(simulator, monkeypatch):
    """The time-out for reading fits the size that is asked for: more than 60 s for the largest usual page."""
    client, waits = client_of(simulator), []
    session = client._session()
    honest = session.get

    def get(*args, timeout, **options):
        waits.append(timeout[1])
        return honest(*args, timeout=timeout, **options)

    monkeypatch.setattr(session, "get", get)
    for size in (500, 100_000):
        client.page(SITE, Window(0, 60), size, None)
    assert 30 <= waits[0] < 40
    assert waits[1] > 60


def test_a_client_is_opened_by_the_settings(simulator, tmp_path):
    """Key, address and budget come from the settings; the key's fingerprint does not show it."""
    settings = Settings.load(
        {"ACE_API_KEY": "k", "ACE_API_URL": simulator.url, "DAGSTER_HOME": str(tmp_path)}, folder=tmp_path
    )
    assert open_client(settings).sites()
    assert (tmp_path / ".dagster" / "budget.sqlite").is_file()
    assert "k" * 3 not in key_id("kkkkkk")


def test_rows_of_one_point_and_millisecond_are_one_row(tmp_path):
    """Of several, the last that the API sends; the others are counted, with those that differ."""
    start = midnight_us(DAY)
    world = World([TableSite("s", [(start + 5, "p", '"1"'), (start + 5, "p", '"2"'), (start + 9, "p", '"3"')])])
    with Simulator(world, api_key="k") as simulator:
        day = fetched(simulator, tmp_path, site="s")
    assert rows_of(day) == [(start // 1000, "p", 3.0)] == world.truth("s", DAY)
    assert day.rows.counts.dropped == {"duplicate": 2}
    assert day.rows.counts.conflicts == 2


TLS = {
    "own CA": ("certificate is not trusted", "REQUESTS_CA_BUNDLE"),
    "https at an http port": ("speaks http, not https", "ACE_API_URL"),
    "a file of certificates that is missing": ("file of trusted certificates", "REQUESTS_CA_BUNDLE"),
    "a proxy that answers 407 to a tunnel": ("proxy refused", "HTTPS_PROXY"),
    "a proxy that answers 407 to a request": ("proxy refused", "HTTP_PROXY"),
    "a proxy that is down": ("proxy cannot be reached", "NO_PROXY"),
    "a proxy that is not a URL": ("proxy", "HTTPS_PROXY"),
    "a redirect": ("redirects (to https://login.example)", "ACE_API_URL"),
    "a host without an address": ("host name cannot be resolved", "ACE_API_URL"),
    "http at an https port": ("closed before an answer", "https://"),
    "not HTTP": ("not answer in HTTP", "ACE_API_URL"),
}


class Redirecting(Empty):
    """A login page in front of everything."""

    def do_GET(self) -> None:  # noqa: N802 - http.server's name
        self.send_response(302)
        self.send_header("Location", "https://user:hush-hush@login.example/sso?token=hush-hush")
        self.send_header("Content-Length", "0")
        self.end_headers()


def address_of(kind, stack, folder, monkeypatch) -> str:
    """A URL at which the API cannot be reached, with the variables that make it so."""
    secure = f"https://127.0.0.1:{stack.enter_context(http_server(tls=own_certificate(folder)))}/api"
    plain = f"127.0.0.1:{stack.enter_context(http_server())}/api"
    refusing = f"http://user:hush-hush@127.0.0.1:{stack.enter_context(http_server(RefusingProxy))}"
    variables = {
        "a file of certificates that is missing": {"REQUESTS_CA_BUNDLE": str(folder / "missing.pem")},
        "a proxy that answers 407 to a tunnel": {"HTTPS_PROXY": refusing},
        "a proxy that answers 407 to a request": {"HTTP_PROXY": refusing},
        "a proxy that is down": {"HTTPS_PROXY": f"http://user:hush-hush@127.0.0.1:{free_port()}"},
        "a proxy that is not a URL": {"HTTPS_PROXY": "http://127.0.0.1:x"},
    }
    for name, value in variables.get(kind, {}).items():
        monkeypatch.setenv(name, value)
    return {
        "https at an http port": f"https://{plain}",
        "a proxy that answers 407 to a request": f"http://{plain}",
        "a redirect": f"http://127.0.0.1:{stack.enter_context(http_server(Redirecting))}/api",
        "a host without an address": "http://no-such-host.invalid/api",
        "http at an https port": secure.replace("https://", "http://"),
        "not HTTP": f"http://127.0.0.1:{stack.enter_context(raw_server(babble))}/api",
    }.get(kind, secure)


@pytest.mark.parametrize("kind", TLS)
def test_an_api_that_cannot_be_reached_names_the_cause_and_the_variable(kind, tmp_path, monkeypatch):
    """Certificate, proxy, redirect or scheme, and what to set; no URL's user, password or query is shown."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("backfill_pipeline.ace.client.FIRST_ANSWER_S", 0.0)
    found, variable = TLS[kind]
    with ExitStack() as stack:
        url = address_of(kind, stack, tmp_path, monkeypatch)
        client = AceClient(url, "hush-hush", FreeBudget(), retries=Retries(Backoff(tries=2, first_s=0, most_s=0)))
        with pytest.raises(UnreachableError) as caught:
            client.sites()
    assert found in caught.value.message
    assert variable in caught.value.hint
    assert "hush" not in str(caught.value)
    assert "sso" not in str(caught.value)


def test_an_own_ca_that_is_named_is_trusted(tmp_path, monkeypatch):
    """With the variable that the message names, the same API answers."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    pair = own_certificate(tmp_path)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(pair[0]))
    with http_server(tls=pair) as port:
        client = AceClient(f"https://127.0.0.1:{port}/api", "k", FreeBudget(), retries=Retries(Backoff(tries=1)))
        with pytest.raises(ContractError, match="no `items`"):  # it answers, with an empty object
            client.sites()
