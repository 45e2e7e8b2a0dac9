"""The budget: never more than N requests in any minute, over all processes, and none of them starved."""

import multiprocessing
import sqlite3
import threading
import time
from itertools import pairwise

import pytest

from backfill_pipeline.ace.budget import LONGEST_PAUSE_S, SqliteBudget, open_budget
from backfill_pipeline.errors import SettingError, StoppedError

SPAN, MARGIN, MOST = 1.0, 0.1, 10


def departures(path, count: int, results) -> None:
    """A process: take `count` permits, and report when each was given."""
    budget = SqliteBudget(path, "key", MOST, span_s=SPAN, margin_s=MARGIN)
    times = []
    for _ in range(count):
        budget.acquire()
        times.append(time.monotonic())
    results.put(times)


def most_in_a_span(times: list[float], span: float) -> int:
    times = sorted(times)
    return max(sum(start <= other < start + span for other in times) for start in times)


def test_four_processes_together_keep_to_the_budget_and_share_it(tmp_path):
    """In any span there are at most N departures, all of N are used, and no process is starved."""
    spawn = multiprocessing.get_context("spawn")
    results = spawn.Queue()
    workers = [spawn.Process(target=departures, args=(tmp_path / "b.sqlite", 12, results)) for _ in range(4)]
    for worker in workers:
        worker.start()
    each = [results.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join()
    times = sorted(time for one in each for time in one)
    assert len(times) == 48
    assert most_in_a_span(times, SPAN) <= MOST
    assert times[-1] - times[0] < 48 / MOST * (SPAN + MARGIN) * 1.5
    assert max(b - a for one in each for a, b in pairwise(one)) < 4 * (SPAN + MARGIN)


def test_threads_of_one_process_count_as_well(tmp_path):
    """Eight threads through one budget keep to it."""
    budget = SqliteBudget(tmp_path / "b.sqlite", "key", MOST, span_s=SPAN, margin_s=MARGIN)
    times: list[float] = []

    def work():
        for _ in range(4):
            budget.acquire()
            times.append(time.monotonic())

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(times) == 32
    assert most_in_a_span(times, SPAN) <= MOST


def test_a_process_that_died_waiting_blocks_no_one(tmp_path):
    """Slots that nobody uses pass by; the next one in line waits no longer than a span for each N of them."""
    dead = SqliteBudget(tmp_path / "b.sqlite", "key", MOST, span_s=SPAN, margin_s=MARGIN)
    for _ in range(MOST + 2):
        dead._reserve()
    alive = SqliteBudget(tmp_path / "b.sqlite", "key", MOST, span_s=SPAN, margin_s=MARGIN)
    assert alive.acquire() < 2 * (SPAN + MARGIN)


def test_a_pause_holds_everybody_back(tmp_path):
    """What one process was told by the API holds for all that share the key."""
    one = SqliteBudget(tmp_path / "b.sqlite", "key", MOST, span_s=SPAN, margin_s=MARGIN)
    two = SqliteBudget(tmp_path / "b.sqlite", "key", MOST, span_s=SPAN, margin_s=MARGIN)
    one.pause(0.5)
    one.pause(0.1)
    assert two.acquire() >= 0.45


def test_keys_do_not_share_a_budget(tmp_path):
    """One file serves several keys, each with its own count and pauses."""
    one = SqliteBudget(tmp_path / "b.sqlite", "one", 1, span_s=60)
    two = SqliteBudget(tmp_path / "b.sqlite", "two", 1, span_s=60)
    one.pause(60)
    assert two.acquire() < 5


def test_a_wait_ends_when_asked_to_stop_and_gives_its_slot_back(tmp_path):
    """Stopping is not kept waiting by the budget, and costs none of it."""
    stop = threading.Event()
    budget = SqliteBudget(tmp_path / "b.sqlite", "key", 1, stop=stop, span_s=60)
    budget.acquire()
    threading.Timer(0.2, stop.set).start()
    with pytest.raises(StoppedError):
        budget.acquire()
    with sqlite3.connect(tmp_path / "b.sqlite") as ledger:
        assert ledger.execute("SELECT count(*) FROM slot").fetchone() == (1,)
    ledger.close()


def test_a_clock_that_was_set_back_by_a_restart_blocks_no_one(tmp_path):
    """Slots and pauses in an impossible future, from before the machine was started, are forgotten."""
    before = SqliteBudget(tmp_path / "b.sqlite", "key", 1, clock=lambda: 1e7)
    before.acquire()
    before.pause(10)
    after = SqliteBudget(tmp_path / "b.sqlite", "key", 1)
    assert after.acquire() < 5


def test_an_endless_pause_is_not_believed(tmp_path):
    """Whatever Retry-After says, nobody waits longer than an hour for it."""
    now = [0.0]
    budget = SqliteBudget(tmp_path / "b.sqlite", "key", 5, clock=lambda: now[0])
    budget.pause(10**9)
    assert budget._reserve() <= LONGEST_PAUSE_S


def test_slots_are_given_in_order_and_a_span_apart(tmp_path):
    """With a clock that stands still, the N-th slot after another lies exactly one span later."""
    budget = SqliteBudget(tmp_path / "b.sqlite", "key", 3, clock=lambda: 100.0, span_s=10, margin_s=1)
    slots = [budget._reserve() for _ in range(9)]
    assert slots == [100.0] * 3 + [111.0] * 3 + [122.0] * 3
    assert all(a <= b for a, b in pairwise(slots))


@pytest.mark.parametrize("url", ["redis://host", "postgresql://me:hush@host/db"])
def test_a_kind_of_budget_that_is_not_there_is_refused_without_its_password(url):
    """The message names the setting, and no more of the URL than its kind."""
    with pytest.raises(SettingError, match="BACKFILL_LIMITER") as caught:
        open_budget(url, key_id="k", per_minute=50)
    assert "hush" not in str(caught.value)


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    """A file where a folder should be ends with one line that says what to set."""
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingError, match="BACKFILL_LIMITER"):
        open_budget(f"sqlite:///{tmp_path / 'file' / 'b.sqlite'}", key_id="k", per_minute=50)


def test_a_url_is_opened_where_it_says(tmp_path):
    """`sqlite:///` and an absolute path make a file there."""
    open_budget(f"sqlite:///{(tmp_path / 'x' / 'b.sqlite').as_posix()}", key_id="k", per_minute=50).acquire()
    assert (tmp_path / "x" / "b.sqlite").is_file()
