"""One run's work: what ends a day, a site or everything, and that no result is ever lost."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backfill_pipeline.ace.budget import open_budget
from backfill_pipeline.ace.client import AceClient
from backfill_pipeline.ace.fetch import Fetcher
from backfill_pipeline.errors import (
    ContractError,
    KeyRefusedError,
    PageFailedError,
    SiteRefusedError,
    StoreBusyError,
    StoreRefusedError,
)
from backfill_pipeline.orchestration.site_runner import Failed, Stored, Work
from backfill_pipeline.simulator.app import DEFAULT_KEY, Simulator
from backfill_pipeline.simulator.world import SiteSpec, World
from backfill_pipeline.storage.days import StoredDay, get_day, put_day
from backfill_pipeline.storage.local import LocalStore
from backfill_pipeline.storage.texts import get_texts
from backfill_pipeline_tests.builders import listed
from backfill_pipeline_tests.orchestration.fakes import FakeFetcher, day_rows
from backfill_pipeline_tests.storage.test_texts import worded

DAYS = [date(2025, 1, 1) + timedelta(days=number) for number in range(4)]
SITES = ("north", "south")


def put(day, facts):
    return StoredDay("key", "url", sum(map(len, day.chunks)), 1, "hash", "stored", changed=True)


def work_of(fetcher, put=put, sites=SITES, days=DAYS, at_once=2):
    return Work(fetcher, put, sites, days, at_once=at_once, stop=threading.Event())


def results_of(work):
    try:
        return list(work.results())
    finally:
        work.close()


def told(results):
    stored = {(r.fetched.site, r.fetched.day) for r in results if isinstance(r, Stored)}
    failed = {(r.site, day): r.error for r in results if isinstance(r, Failed) for day in r.days}
    return stored, failed


errors = st.sampled_from([ContractError("odd"), PageFailedError("cut"), ZeroDivisionError("a bug")])
places = st.tuples(st.sampled_from(SITES), st.sampled_from(DAYS))


@settings(deadline=None, max_examples=30)
@given(st.dictionaries(places, errors, max_size=4), st.integers(1, 3))
def test_every_site_day_is_told_exactly_once(wrong, at_once):
    """Whatever fails, each site-day comes out once, as stored or as failed, and never as both."""
    results = results_of(work_of(FakeFetcher(wrong), at_once=at_once))
    stored, failed = told(results)
    assert stored | set(failed) == {(site, day) for site in SITES for day in DAYS}
    assert not stored & set(failed)
    assert sum(len(r.days) if isinstance(r, Failed) else 1 for r in results) == len(SITES) * len(DAYS)


def test_a_failed_day_does_not_end_its_site():
    """The days after a failed one are fetched, oldest first."""
    results = results_of(work_of(FakeFetcher({("north", DAYS[1]): ContractError("odd")}), sites=("north",)))
    assert [type(result) for result in results] == [Stored, Failed, Stored, Stored]
    assert [r.fetched.day if isinstance(r, Stored) else r.days[0] for r in results] == DAYS


@pytest.mark.parametrize("error", [StoreBusyError("slow"), OSError("odd")])
def test_a_day_that_cannot_be_stored_fails_alone(error):
    """An error of the store over one day, expected or not, costs that day and no other."""

    def put_once_badly(day, facts):
        if day.day == DAYS[2]:
            raise error
        return put(day, facts)

    stored, failed = told(results_of(work_of(FakeFetcher(), put=put_once_badly, sites=("north",))))
    assert failed == {("north", DAYS[2]): error}
    assert len(stored) == 3


def test_a_refused_site_ends_alone():
    """A site that the key may not read fails with all of its days; the others are fetched."""
    stored, failed = told(results_of(work_of(FakeFetcher({("north", None): SiteRefusedError("403")}))))
    assert {site for site, _ in failed} == {"north"}
    assert stored == {("south", day) for day in DAYS}


@pytest.mark.parametrize("error", [KeyRefusedError("401"), StoreRefusedError("no such bucket")])
@pytest.mark.parametrize("given_out", [True, False])
def test_what_every_day_would_meet_stops_everything(error, given_out):
    """A refused key or store, met at a day or before, is told once, and nothing further is asked."""
    sites = tuple(f"s{number}" for number in range(5))
    fetcher = FakeFetcher({("s0", DAYS[1] if given_out else None): error})
    results = results_of(work_of(fetcher, sites=sites, at_once=1))
    assert [r.error for r in results if isinstance(r, Failed)] == [error]
    assert len(fetcher.asked) == (2 if given_out else 0)


def test_a_store_that_refuses_stops_everything():
    """A refusal on the first put ends the run at once."""

    def refuse(day, facts):
        raise StoreRefusedError("no permission")

    fetcher = FakeFetcher()
    results = results_of(work_of(fetcher, put=refuse, at_once=1))
    assert [len(r.days) for r in results] == [len(DAYS)]
    assert len(fetcher.asked) == 1


def test_an_interrupted_reader_loses_nothing():
    """A result that was given out when the reader broke off is given out again."""
    work = work_of(FakeFetcher(), sites=("north",))
    first = next(iter(work.results()))
    again = results_of(work)
    assert again[0] is first
    assert len(again) == len(DAYS)


def test_finishing_lets_the_day_at_work_complete():
    """After `finish` the day at work is stored and no other is begun."""
    at_work, go = threading.Event(), threading.Event()

    def before(site, day, stop):
        at_work.set()
        go.wait()

    fetcher = FakeFetcher(before=before)
    work = work_of(fetcher, sites=("north",))
    at_work.wait()
    work.finish(60)
    go.set()
    stored, failed = told(results_of(work))
    assert stored == {("north", DAYS[0])}
    assert not failed


def test_grace_ends():
    """A day that does not complete within the grace is given up, and is neither stored nor failed."""
    fetcher = FakeFetcher(before=lambda _site, _day, stop: stop.wait() and None)
    work = work_of(fetcher, sites=("north",), days=DAYS[:2])
    work.finish(0)
    stored, failed = told(results_of(work))
    assert len(stored) <= 1
    assert not failed


def test_rows_are_let_go(tmp_path: Path):
    """A result holds figures, not the day's rows: a queue of results stays small."""
    (result, *_) = results_of(work_of(FakeFetcher(), sites=("north",)))
    assert result.fetched.rows is None
    assert result.quality.rows == result.counts.kept == 3 * 144


def test_two_runs_over_the_same_days_do_not_get_into_each_others_way(tmp_path: Path):
    """They share spool, store and budget: every day is stored by both, and is the truth, whoever was first."""
    days = [date(2025, 3, 1) + timedelta(days=number) for number in range(12)]
    with Simulator(World([SiteSpec("north", 10, odd=0.02)]), latency_s=0.01) as api:

        def begun() -> Work:
            budget = open_budget(f"sqlite:///{(tmp_path / 'b').as_posix()}", key_id="k", per_minute=100_000)
            fetcher = Fetcher(AceClient(api.url, DEFAULT_KEY, budget), spool=tmp_path / "spool", max_page_size=1_000)
            put = partial(put_day, LocalStore(tmp_path / "data"))
            return Work(
                fetcher, lambda day, facts: put(day, facts=facts), ["north"], days, at_once=1, stop=threading.Event()
            )

        def worked(work: Work) -> list[Stored | Failed]:
            found = []
            for result in work.results():
                found.append(result)
                result.fetched.discard()
            return found

        with ThreadPoolExecutor(2) as pool:
            told = list(pool.map(worked, [begun(), begun()]))
        assert [[type(one) for one in results] for results in told] == [[Stored] * 12] * 2
        for one in days:
            store = LocalStore(tmp_path / "data")
            assert listed(get_day(store, "north", one)) == api.world.truth("north", one)
            texts = get_texts(store, "north", one)
            columns = (texts[name].to_pylist() for name in ("timestamp", "point_name", "text"))
            assert list(zip(*columns, strict=True)) == api.world.truth_of_texts("north", one)
        assert any(api.world.truth_of_texts("north", one) for one in days)
        for result in told[0]:
            assert result.stored.rows + result.stored.texts + sum(result.counts.left_out.values()) == (
                result.counts.fetched
            )


def test_states_are_handed_on_when_they_are_new():
    """A state that the run has seen costs no further update of the catalogue; a new one does."""
    texts = {DAYS[0]: {"on"}, DAYS[1]: {"on"}, DAYS[2]: {"off"}, DAYS[3]: {"on", "off"}}

    def make(site, day):
        return worded({(0, number): text for number, text in enumerate(sorted(texts[day]))}, [], day_rows(site, day))

    learned = []
    work = Work(
        FakeFetcher(make=make), put, ["north"], DAYS, at_once=1, stop=threading.Event(),
        learn=lambda site, states, day: learned.append((site, dict(states), day)),
    )  # fmt: skip
    results_of(work)
    assert learned == [
        ("north", {"north/p0": ("on",)}, DAYS[0]),
        ("north", {"north/p0": ("off", "on")}, DAYS[2]),
    ]
