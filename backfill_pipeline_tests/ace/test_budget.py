"""The budget: never more than N requests in any span, over all processes, none of them starved, in every ledger."""

import multiprocessing
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from itertools import pairwise

import pytest

from backfill_pipeline.ace import budget_storage
from backfill_pipeline.ace.budget import SharedBudget, open_budget
from backfill_pipeline.ace.budget_storage import SqliteLedger
from backfill_pipeline.core.backoff import CEILING_S
from backfill_pipeline.errors import BudgetUnavailableError, SettingError, StoppedError, WaitTooLongError
from backfill_pipeline_tests.services import postgres_server, received, redis_server, until

SPAN, MARGIN, MOST = 1.0, 0.3, 10


@contextmanager
def sqlite_file(folder):
    yield f"sqlite:///{(folder / 'b.sqlite').as_posix()}"


@pytest.fixture(scope="module", params=["sqlite", "postgresql", "redis"])
def url(request, tmp_path_factory):
    """A place for a budget, on a real server."""
    servers = {
        "sqlite": lambda: sqlite_file(tmp_path_factory.mktemp("budget")),
        "postgresql": postgres_server,
        "redis": redis_server,
    }
    with servers[request.param]() as place:
        yield place


@pytest.fixture
def key(request) -> str:
    """Each test has a key of its own."""
    return request.node.name


def budget(url, key="key", most=MOST, span=SPAN + MARGIN, **more) -> SharedBudget:
    return open_budget(url, key_id=key, per_minute=most, span_s=span, **more)


def departures(url, key, count: int, start, results) -> None:
    """A process: take `count` permits, and report when each was given."""
    own = budget(url, key)
    start.wait()
    times = []
    for _ in range(count):
        own.acquire()
        times.append(time.monotonic())
    results.put(times)


def most_in_a_span(times: list[float], span: float) -> int:
    times = sorted(times)
    return max(sum(start <= other < start + span for other in times) for start in times)


def test_four_processes_together_keep_to_the_budget_and_share_it(url, key):
    """In any span there are at most N departures, 95 % of N are used, and no process is starved."""
    spawn = multiprocessing.get_context("spawn")
    most_used = []
    while not any(most_used) and len(most_used) < 5:  # a busy machine may wake a process late, and again
        results, start = spawn.Queue(), spawn.Barrier(4)
        own = f"{key}-{len(most_used)}"
        workers = [spawn.Process(target=departures, args=(url, own, 12, start, results)) for _ in range(4)]
        for worker in workers:
            worker.start()
        each = [received(results, *workers) for _ in workers]
        for worker in workers:
            worker.join()
        times = sorted(time for one in each for time in one)
        assert len(times) == 48
        assert most_in_a_span(times, SPAN) <= MOST
        spans = (48 - 1) // MOST
        is_used = times[-1] - times[0] < spans * (SPAN + MARGIN) / 0.95 + 0.2
        most_used.append(is_used and max(b - a for one in each for a, b in pairwise(one)) < 3 * (SPAN + MARGIN))
    assert any(most_used)


def test_threads_of_one_process_count_as_well(url, key):
    """Eight threads through one budget keep to it."""
    own = budget(url, key)
    times: list[float] = []

    def work():
        for _ in range(4):
            own.acquire()
            times.append(time.monotonic())

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(times) == 32
    assert most_in_a_span(times, SPAN) <= MOST


def test_a_process_that_died_waiting_blocks_no_one(url, key):
    """Slots that nobody uses pass by; the next one in line waits no longer than a span for each N of them."""
    dead = budget(url, key)
    for _ in range(MOST + 2):
        dead._ledger.reserve()
    assert budget(url, key).acquire() < 2 * (SPAN + MARGIN)


def test_many_waiting_threads_hold_one_slot(url, key):
    """So a process that dies with a hundred threads waiting costs one request."""
    stop = threading.Event()
    own = budget(url, key, most=1, span=30, stop=stop)
    own.acquire()

    def work():
        with pytest.raises(StoppedError):
            own.acquire()

    threads = [threading.Thread(target=work) for _ in range(9)]
    for thread in threads:
        thread.start()
    other = budget(url, key, most=1, span=30)
    until(lambda: other.wait_now() > 45)  # one of them has a slot
    _, wait = other._ledger.reserve()
    stop.set()
    for thread in threads:
        thread.join()
    assert 55 < wait <= 60  # behind the one that left, and one more


def test_a_pause_holds_everybody_back(url, key):
    """What one process was told by the API holds for all that share the key, also for who has a slot already."""
    one, two = budget(url, key), budget(url, key)
    slot, _ = two._ledger.reserve()
    began = time.monotonic()
    one.pause(3.0)
    one.pause(0.1)
    assert not two._ledger.depart(slot)
    two.acquire()
    assert time.monotonic() - began >= 2.9


def test_what_was_used_is_told_without_using_any(url, key):
    """Requests of the key that left in the last so many seconds, by whomever; slots still ahead are not among them."""
    one, two = budget(url, key, most=3, span=60), budget(url, key, most=3, span=60)
    assert two.used() == 0
    for _ in range(3):
        one.acquire()
    one._ledger.reserve()
    budget(url, f"{key}-2").acquire()
    assert [two.used(), two.used(60)] == [3, 3]
    time.sleep(0.3)
    assert (two.used(0.1), one.used(30)) == (0, 3)


def test_keys_do_not_share_a_budget(url, key):
    """One ledger serves several keys, each with its own count and pauses."""
    one, two = budget(url, key, most=1, span=60), budget(url, f"{key}-2", most=1, span=60)
    one.pause(60)
    assert two.acquire() < 5


def test_a_wait_ends_when_asked_to_stop_and_gives_its_slot_back(url, key):
    """A stop ends the wait at once, and the budget has its slot again."""
    stop = threading.Event()
    own = budget(url, key, most=1, span=60.0, stop=stop)
    own.acquire()
    threading.Timer(0.2, stop.set).start()
    with pytest.raises(StoppedError):
        own.acquire()
    # The ledger states the wait, so a slow machine changes nothing: a slot that was kept would make it two spans.
    assert budget(url, key, most=1, span=60.0)._ledger.reserve()[1] <= 60.0


@pytest.mark.parametrize("seconds", [10**9, 3600.0, float("inf")])
def test_a_pause_ends_at_the_ceiling(url, key, seconds):
    """Whatever the API requests, no process waits longer than the ceiling for it."""
    own = budget(url, key)
    own.pause(seconds)
    assert CEILING_S - 5 < own._ledger.reserve()[1] <= CEILING_S
    assert CEILING_S - 5 < own.paused() <= CEILING_S


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), 0.0])
def test_a_pause_of_no_length_is_none(url, key, seconds):
    """A pause that is not a positive number pauses nothing."""
    own = budget(url, key)
    own.pause(seconds)
    assert own.paused() == 0
    assert own._ledger.reserve()[1] == 0


def test_a_pause_that_an_earlier_version_wrote_ends_at_the_ceiling_too(url, key):
    """An hour in the ledger becomes the ceiling once; it is not the ceiling anew at each look."""
    own = budget(url, key, most=1, span=1.0)
    own._ledger.pause(3500.0)  # the ledger itself does not bound
    slot, wait = own._ledger.reserve()
    assert CEILING_S - 5 < wait <= CEILING_S
    time.sleep(1.1)
    assert own.paused() <= CEILING_S - 1
    own._ledger.release(slot)


def test_a_slot_behind_an_old_pause_moves_with_it(tmp_path):
    """A process that was killed while it waited for an hour does not keep its slot at the end of that hour."""
    at = 100.0
    ledger = SqliteLedger(tmp_path / "b.sqlite", "key", 1, 1, clock=lambda: at)

    def as_before(execute, now) -> None:
        execute("INSERT INTO backfill_pause (key, until) VALUES (?, ?)", "key", now + 3600)
        execute("INSERT INTO backfill_slot (name, key, at) VALUES (?, ?, ?)", "dead", "key", now + 3600)

    ledger._run(as_before)
    assert ledger.reserve()[1] <= CEILING_S + 1
    at = 102.0 + CEILING_S
    assert ledger.paused() == 0
    assert ledger.reserve()[1] <= 2


def test_a_long_wait_is_reported_before_it_begins(url, key, caplog):
    """For what and how long, once for a wait, and again when a longer pause comes."""
    stop = threading.Event()
    own = budget(url, key, most=1, span=30.0, stop=stop)
    own.acquire()
    assert not caplog.messages

    def wait() -> None:
        with pytest.raises(StoppedError):
            own.acquire()

    waits = [threading.Thread(target=wait) for _ in range(3)]
    for one in waits:
        one.start()
    until(lambda: caplog.messages)
    stop.set()
    for one in waits:
        one.join()
    (line,) = caplog.messages
    assert "ACE_REQUESTS_PER_MINUTE" in line
    assert "waiting 30 s" in line or "waiting 29 s" in line
    paused = budget(url, f"{key}-2", stop=stop)
    paused.pause(60)
    with pytest.raises(StoppedError):
        paused.acquire()
    stop.clear()
    threading.Timer(0.3, stop.set).start()
    with pytest.raises(StoppedError):
        paused.acquire()
    assert "pause" in caplog.messages[1]


def test_a_caller_that_does_not_wait_is_refused_at_once(url, key):
    """The error names how long it would be, and the slot is given back."""
    own = budget(url, key, most=2, span=30.0, longest_s=5.0)
    own.acquire()
    own.acquire()
    started = time.monotonic()
    for _ in range(3):
        with pytest.raises(WaitTooLongError) as caught:
            own.acquire()
        assert 20 < caught.value.seconds <= 30
    assert time.monotonic() - started < 20


def test_a_clock_that_was_set_back_by_a_restart_blocks_no_one(tmp_path):
    """Slots and pauses in an impossible future, from before the machine was started, are forgotten."""
    before = SqliteLedger(tmp_path / "b.sqlite", "key", 1, 61, clock=lambda: 1e7)
    before.reserve()
    before.pause(10)
    assert SqliteLedger(tmp_path / "b.sqlite", "key", 1, 61, clock=lambda: 5.0).reserve()[1] < 5


def test_slots_are_given_in_order_and_a_span_apart(tmp_path):
    """With a clock that stands still, the N-th slot after another lies exactly one span later."""
    ledger = SqliteLedger(tmp_path / "b.sqlite", "key", 3, 11, clock=lambda: 100.0)
    assert [ledger.reserve()[1] for _ in range(9)] == [0.0] * 3 + [11.0] * 3 + [22.0] * 3


@pytest.mark.parametrize(
    "wrong", ["redis://me:hush@127.0.0.1:1/0", "postgresql://me:hush@127.0.0.1:1/db", "mysql://me:hush@host/db"]
)
def test_a_server_that_cannot_be_used_is_named_without_its_password(wrong):
    """The message names the setting and the place, never user or password."""
    with pytest.raises(SettingError, match="BACKFILL_LIMITER") as caught:
        budget(wrong)
    assert "hush" not in str(caught.value)
    assert "me:" not in str(caught.value)


@pytest.mark.parametrize("server", [postgres_server, redis_server])
def test_a_server_that_goes_away_is_waited_for_and_then_named(server, monkeypatch):
    """A cut is bridged; a server that stays away ends the work with what to do, never with a request unbudgeted."""
    monkeypatch.setattr(budget_storage, "TRIES", 2)
    with server() as place:
        own = budget(place)
        own.acquire()
        getattr(own._ledger, "_connection", None) and own._ledger._connection.close()
        own.acquire()
    with pytest.raises(BudgetUnavailableError, match="BACKFILL_LIMITER") as caught:
        own.acquire()
    assert "hush" not in str(caught.value)


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    """A file where a folder should be ends with one line that says what to set."""
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingError, match="BACKFILL_LIMITER"):
        budget(f"sqlite:///{tmp_path / 'file' / 'b.sqlite'}")


def test_a_url_is_opened_where_it_says(tmp_path):
    """`sqlite:///` and an absolute path make a file there."""
    budget(f"sqlite:///{(tmp_path / 'x' / 'b.sqlite').as_posix()}").acquire()
    with sqlite3.connect(tmp_path / "x" / "b.sqlite") as database:
        assert database.execute("SELECT count(*) FROM backfill_slot").fetchone() == (1,)
    database.close()


def test_asking_how_long_one_would_wait_takes_no_slot(url, key):
    """It says none while there are slots, and about a span when there are none left."""
    own = budget(url, key, most=2, span=30.0)
    assert [own.wait_now() for _ in range(5)] == [0.0] * 5
    own.acquire()
    own.acquire()
    assert 25 < own.wait_now() <= 30


@pytest.mark.parametrize("jump", [-86_400.0, 86_400.0])
def test_a_wall_clock_that_jumps_changes_nothing(url, key, monkeypatch, jump):
    """A day back or forth: waits go by clocks that do not jump with this machine's, or by the server's."""
    own = budget(url, key, most=2, span=30.0)
    own.acquire()
    own.acquire()
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + jump)
    assert 25 < own.wait_now() <= 30
    assert 25 < budget(url, key, most=2, span=30.0).wait_now() <= 30


@contextmanager
def locked(file):
    """Another connection has the file locked, until the block ends or the returned function is called."""
    with closing(sqlite3.connect(file, isolation_level=None, check_same_thread=False)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        yield lambda: holder.execute("ROLLBACK")


def each_step(own: SharedBudget) -> list:
    return [own.acquire, own.wait_now, lambda: own.pause(0.0)]


def test_a_locked_file_is_waited_for(tmp_path, caplog):
    """A lock of several tries fails no step of the budget, and the wait is logged with the file's path."""
    own = budget(f"sqlite:///{(tmp_path / 'b.sqlite').as_posix()}")
    with ThreadPoolExecutor() as pool, locked(tmp_path / "b.sqlite") as let_go:
        timer = threading.Timer(3.5, let_go)
        timer.start()
        for step in [pool.submit(step) for step in each_step(own)]:
            step.result()
        timer.join()
    assert "b.sqlite is locked: waiting" in caplog.text
    assert own.used() == 1


def test_a_file_that_stays_locked_is_named(tmp_path, monkeypatch):
    """After the wait, which is two minutes at least, each step fails with the file's path and what to do."""
    assert budget_storage.LOCK_WAIT_S >= 120
    monkeypatch.setattr(budget_storage, "LOCK_WAIT_S", 0.2)
    url = f"sqlite:///{(tmp_path / 'b.sqlite').as_posix()}"
    own = budget(url)
    with locked(tmp_path / "b.sqlite"):
        for step in [*each_step(own), own.used, lambda: budget(url)]:
            with pytest.raises(BudgetUnavailableError, match="is locked by another process") as caught:
                step()
            assert str(tmp_path) in caught.value.message
            assert "end the process" in caught.value.hint


def test_a_stop_ends_the_wait_for_a_locked_file(tmp_path):
    """A cancelled run does not wait out the lock."""
    stop = threading.Event()
    own = budget(f"sqlite:///{(tmp_path / 'b.sqlite').as_posix()}", stop=stop)
    with ThreadPoolExecutor() as pool, locked(tmp_path / "b.sqlite"):
        waiting = pool.submit(own.acquire)
        stop.set()
        with pytest.raises(StoppedError):
            waiting.result()


def test_a_slot_that_a_long_lock_made_too_old_is_not_used(tmp_path):
    """A slot that another process has cleared away meanwhile is reserved anew: its request would not be counted."""
    now = 100.0
    ledger = SqliteLedger(tmp_path / "b.sqlite", "key", 3, 11, clock=lambda: now)
    slot, _ = ledger.reserve()
    now = 150.0
    ledger.reserve()
    assert not ledger.depart(slot)


def test_processes_that_start_together_without_a_file_all_work(tmp_path):
    """Each of four processes creates the file of the budget at the same instant, and takes its permit."""
    spawn = multiprocessing.get_context("spawn")
    results, start = spawn.Queue(), spawn.Barrier(4)
    url = f"sqlite:///{(tmp_path / 'new' / 'b.sqlite').as_posix()}"
    workers = [spawn.Process(target=first_departure, args=(url, start, results)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [results.get() for _ in workers] == [None] * 4
    assert budget(url, most=4).used(60.0) == 4


def first_departure(url, start, results) -> None:
    """A process: wait for the others, then open the budget and take one permit; the error, if any."""
    start.wait()
    try:
        budget(url, most=4, span=61.0).acquire()
    except Exception as error:  # noqa: BLE001 - told to the test
        results.put(repr(error))
    else:
        results.put(None)
