"""Rules of an outage: a page that is too large is not an outage, all requests wait, one thread probes, no day fails."""

import math
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from time import sleep

import pytest

from backfill_pipeline.ace import outage
from backfill_pipeline.ace.client import AceClient
from backfill_pipeline.ace.fetch import Fetcher
from backfill_pipeline.ace.known_sites import KnownSites
from backfill_pipeline.ace.outage import LONGEST_PROBE_S, AnsweredBefore, OutageGate
from backfill_pipeline.ace.retry import Retries
from backfill_pipeline.core.backoff import Backoff
from backfill_pipeline.core.day import Window
from backfill_pipeline.errors import ApiDownError, PageFailedError, StoppedError, UnreachableError
from backfill_pipeline.orchestration.site_runner import Work
from backfill_pipeline.simulator.app import Simulator
from backfill_pipeline.simulator.faults import Fault
from backfill_pipeline.simulator.world import SiteSpec, World
from backfill_pipeline_tests.ace.test_client import FreeBudget, rows_of
from backfill_pipeline_tests.services import free_port, until


class Time:
    """A clock that moves when something waits, and a stop that can be set at an instant."""

    def __init__(self, stop_at=float("inf")):
        self.now, self.stop_at, self.waits = 1_000.0, stop_at, []

    def __call__(self):
        return self.now

    def wait(self, seconds):
        self.waits.append(seconds)
        self.now += seconds
        return self.is_set()

    def is_set(self):
        return self.now >= self.stop_at


def down(message="the connection was refused"):
    error = PageFailedError(message)
    error.is_outage = True
    return error


def gate_at(time, **options):
    told = []
    options = {"minutes": 60, "answered": True} | options
    return OutageGate(stop=time, now=time, clock=time, report=told.append, **options), told


def probe_until(time, until):
    """A probe that fails until an instant; the instants at which it was sent."""
    sent = []

    def probe():
        sent.append(time.now)
        if time.now < until:
            raise down()

    return probe, sent


def test_an_outage_is_waited_out_with_probes_at_growing_distances():
    """While the API is down, it is probed after 5, 10, 20, 40 and then every 60 seconds; then requests continue."""
    time = Time()
    gate, told = gate_at(time)
    probe, sent = probe_until(time, 1_000 + 30 * 60)
    assert gate.rides_out(down(), probe)
    assert time.waits[:5] == [5, 10, 20, 40, 60]
    assert set(time.waits[4:]) == {LONGEST_PROBE_S}
    assert len(sent) < 40
    assert [since and since.timestamp() for since in told] == [1_000.0, None]


def test_a_request_that_fails_while_the_probe_is_answered_fails_for_its_own_reason():
    """When the smallest request is answered at once, a failed page is a page too large and not an outage."""
    time = Time()
    gate, told = gate_at(time)
    assert not gate.rides_out(down(), lambda: None)
    assert (told, time.waits) == ([], [])


@pytest.mark.parametrize("options", [{"answered": False}, {"minutes": 0}])
def test_an_api_that_never_answered_fails_at_once(options):
    """A URL that never answered is a wrong setting: the request fails without a probe."""
    time = Time()
    gate, _ = gate_at(time, **options)
    assert not gate.rides_out(down(), lambda: pytest.fail("probed"))


def test_a_failure_with_an_answer_is_not_an_outage():
    """A page that was cut, or an HTTP 500, is not probed."""
    gate, _ = gate_at(Time())
    assert not gate.rides_out(PageFailedError("cut"), lambda: pytest.fail("probed"))


def test_an_outage_that_lasts_too_long_fails_with_its_length():
    """After ACE_OUTAGE_MINUTES the request fails, and the error says since when the API has not answered."""
    time = Time()
    gate, told = gate_at(time, minutes=10)
    with pytest.raises(ApiDownError, match="for 10 minutes"):
        gate.rides_out(down(), probe_until(time, float("inf"))[0])
    assert time.now == pytest.approx(1_000 + 600)
    assert told[-1] is None


def test_an_outage_that_lasts_too_long_is_waited_for_once(monkeypatch):
    """All requests fail when the time is over: none of them waits for the same outage anew, until the API answers."""
    monkeypatch.setattr(outage, "FIRST_PROBE_S", 0.02)
    gate = OutageGate(minutes=0.5 / 60, answered=True)
    began, failed, probes = time.monotonic(), [], []

    def probe():
        probes.append(1)
        raise down()

    def request(_number):
        for _ in range(2):
            with pytest.raises(ApiDownError) as caught:
                gate.rides_out(down(), probe, gate.wait())
            failed.append(str(caught.value))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(request, range(8)))
    assert time.monotonic() - began < 2 * 0.5 * 4  # one outage; each thread anew would be eight
    assert len(set(failed)) == 1
    assert not gate.is_down
    assert not gate.rides_out(down(), lambda: None, gate.wait())


def test_a_cancel_ends_the_wait():
    """A stop while the API is down ends the wait at the next moment."""
    time = Time(stop_at=1_100)
    gate, _ = gate_at(time)
    with pytest.raises(StoppedError):
        gate.rides_out(down(), probe_until(time, float("inf"))[0])
    assert time.now < 1_200


def test_threads_wait_together_and_one_probes():
    """Of many requests that fail at once, one thread probes and the others wait for what it finds."""
    answers, lock, sent = threading.Event(), threading.Lock(), []
    gate = OutageGate(minutes=1, answered=True)
    gate._stop = Ticks(answers, after=3)

    def probe():
        with lock:
            sent.append(threading.get_ident())
        if not answers.is_set():
            raise down()

    with ThreadPoolExecutor(8) as pool:
        ridden = list(pool.map(lambda _: gate.rides_out(down(), probe), range(8)))
    gate.wait()
    assert all(ridden)
    assert len(set(sent)) == 1
    assert len(sent) == 4


class Ticks:
    """A stop that is never set; after some waits the API answers again."""

    def __init__(self, answers, after):
        self.answers, self.left = answers, after

    def is_set(self):
        return False

    def wait(self, _seconds):
        self.left -= 1
        if not self.left:
            self.answers.set()
        return False


def test_that_an_api_has_answered_is_known_to_later_processes(tmp_path):
    """A first answer is kept once, by the API's address; a later process takes its silence for an outage."""
    kept = AnsweredBefore(tmp_path / "home", "http://api")
    assert not kept
    gate = OutageGate(minutes=1, answered=bool(kept), remember=kept.keep)
    gate.answered()
    gate.answered()
    assert AnsweredBefore(tmp_path / "home", "http://api")
    assert not AnsweredBefore(tmp_path / "home", "http://other")


WORLD = World([SiteSpec("north", 60)])
DAY = date(2025, 3, 1)


class Hurried:
    """A stop that is never set, and whose waits are short."""

    def __init__(self):
        self.waits = 0

    def is_set(self):
        return False

    def wait(self, _seconds):
        self.waits += 1
        sleep(0.05)
        return False


@pytest.mark.parametrize("fault", ["outage:after=5,seconds=1", "outage:after=5,seconds=1,code=503"])
def test_a_day_survives_an_outage_without_a_failed_request_or_a_smaller_page(fault, tmp_path):
    """An API that is down in mid-day costs no day, no retry and no page size; one thread probes meanwhile."""
    with Simulator(WORLD, api_key="k", faults=[Fault.parse(fault)]) as simulator:
        stop, told = Hurried(), []
        gate = OutageGate(minutes=60, stop=stop, report=told.append)
        client = AceClient(simulator.url, "k", FreeBudget(), retries=Retries(Backoff(tries=1)), outage=gate)
        fetcher = Fetcher(client, spool=tmp_path, max_page_size=1_000, max_windows=4)
        (day,) = fetcher.days("north", [DAY])
        refused = [one for one in simulator.requests if one.status in (0, 503)]
    assert rows_of(day) == WORLD.truth("north", DAY)
    assert (day.error, day.retries) == (None, 0)
    assert fetcher._paces["north"].size == 1_000
    assert told[0] is not None
    assert told[1:] == [None]
    pages = [one for one in refused if one.path.endswith("paginated")]
    assert len(pages) <= 4  # those that were on their way
    assert len(refused) - len(pages) == stop.waits  # the first probe, and one after each wait but the last


@pytest.mark.parametrize("fault", ["slow_page:rows=500", "reset:share=0.2"])
def test_a_page_that_is_too_large_still_shrinks(fault, tmp_path):
    """While the smallest request is answered, a page that fails is retried and shrinks as before."""
    with Simulator(WORLD, api_key="k", faults=[Fault.parse(fault)]) as simulator:
        told = []
        gate = OutageGate(minutes=60, report=told.append)
        retries = Retries(Backoff(tries=10, first_s=0, most_s=0))
        client = AceClient(simulator.url, "k", FreeBudget(), retries=retries, outage=gate)
        fetcher = Fetcher(client, spool=tmp_path, max_page_size=1_000, max_windows=2)
        (day,) = fetcher.days("north", [DAY])
    assert rows_of(day) == WORLD.truth("north", DAY)
    assert told == []
    assert day.retries
    assert fault.startswith("reset") or fetcher._paces["north"].size == 500


def test_the_sites_of_a_key_are_known_during_an_outage(tmp_path):
    """The last list of a key's sites is kept; a list that cannot be read counts as missing."""
    kept = KnownSites(tmp_path / "home", "http://api key")
    assert kept.read() == ()
    kept.keep(["a", "b"])
    assert KnownSites(tmp_path / "home", "http://api key").read() == ("a", "b")
    assert KnownSites(tmp_path / "home", "http://api other").read() == ()
    next((tmp_path / "home").glob("sites-*")).write_text("{", "utf-8")
    assert kept.read() == ()


def test_an_api_that_never_answered_is_a_wrong_setting(tmp_path, monkeypatch):
    """It fails within seconds, with what to set, and nothing waits; the first seconds are retried."""
    client = AceClient(f"http://127.0.0.1:{free_port()}/api", "k", FreeBudget(), outage=OutageGate(minutes=60))
    with pytest.raises(PageFailedError, match="refused"):
        client.page("north", Window(0, 60), 500, None)
    monkeypatch.setattr("backfill_pipeline.ace.client.FIRST_ANSWER_S", 0.0)
    with pytest.raises(UnreachableError, match="refused") as caught:
        list(Fetcher(client, spool=tmp_path).days("north", [DAY]))
    assert "ACE_API_URL" in caught.value.hint


def test_a_cancel_grants_no_time_while_the_api_is_down(tmp_path):
    """No day at work can complete then, so that a run that is cancelled ends at once."""
    with Simulator(WORLD, api_key="k") as simulator:
        stop = threading.Event()
        gate = OutageGate(minutes=60, stop=stop)
        client = AceClient(simulator.url, "k", FreeBudget(), outage=gate)
        fetcher = Fetcher(client, spool=tmp_path, max_page_size=1_000)
        assert not fetcher.is_waiting
        client.sites()
        simulator.down_until = math.inf
        work = Work(fetcher, lambda *_: None, ["north"], [DAY], at_once=1, stop=stop)
        until(lambda: fetcher.is_waiting)
        began = time.monotonic()
        work.finish(3600)
        assert list(work.results()) == []
        assert time.monotonic() - began < 60
        work.close()
