"""The sensors, tick by tick over a real instance: their runs are executed, and the clock moves on."""

import json
from datetime import UTC, date, datetime, timedelta

import dagster as dg
import pytest
from dagster._core.definitions.assets.graph.asset_graph_subset import AssetGraphSubset
from dagster._core.execution.asset_backfill import AssetBackfillData
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill
from dagster._core.test_utils import freeze_time

from backfill_pipeline.core.day_retries import AT_ONCE_MIN, FAILED_RETRY_H, SHARE, THIN_RETRY_H
from backfill_pipeline.core.object_keys import index_key
from backfill_pipeline.errors import ContractError, StoreRefusedError
from backfill_pipeline.orchestration.build import JOB
from backfill_pipeline.orchestration.history import Launched, read_due
from backfill_pipeline.orchestration.partitions import asset_key, day_partitions
from backfill_pipeline.orchestration.sensors import HEALING, SENSOR, healing_sensor
from backfill_pipeline.settings import Settings
from backfill_pipeline.storage.current_rows import CurrentRows
from backfill_pipeline.storage.day_index import IndexedDay, record_days, settings_cache
from backfill_pipeline.storage.days import settings_store
from backfill_pipeline.storage.local import LocalStore
from backfill_pipeline_tests.orchestration.fakes import FakeFetcher, Runs, day_rows

BEGIN = datetime(2025, 6, 1, 13, tzinfo=UTC)
TODAY = BEGIN.date()


def ago(days: int) -> date:
    return TODAY - timedelta(days=days)


class Ticks(Runs):
    """Runs with both sensors, whose clock is moved by hand."""

    def __init__(self, folder, fetcher, *sites, **fields):
        self.time = BEGIN
        self.cursors = {SENSOR: None, HEALING: None}
        super().__init__(folder, fetcher, *sites, now=lambda: self.time, **fields)

    def tick(self, name=SENSOR):
        """One evaluation, as the daemon makes it: its run requests."""
        repository = self.defs.get_repository_def()
        context = dg.build_sensor_context(
            self.instance, cursor=self.cursors[name], repository_def=repository, sensor_name=name
        )
        with freeze_time(self.time):
            data = repository.get_sensor_def(name).evaluate_tick(context)
        self.cursors[name] = data.cursor or self.cursors[name]
        assert bool(data.run_requests) != bool(data.skip_message)
        return data.run_requests

    def execute(self, request):
        with freeze_time(self.time):
            self.defs.resolve_job_def(JOB).execute_in_process(
                instance=self.instance,
                tags=request.tags | {"dagster/run_key": request.run_key},
                asset_selection=request.asset_selection,
                raise_on_error=False,
            )

    def backfilled(self, first, last):
        """What somebody's backfill brings."""
        with freeze_time(self.time):
            return self.run(str(first), str(last))

    def live(self, *, hours, every=1):
        """Let time pass, executing what is asked for: the hours at which something was."""
        keys, at = [], []
        for hour in range(0, hours, every):
            for request in [*self.tick(), *self.tick(HEALING)]:
                self.execute(request)
                keys.append(request.run_key)
                at.append(hour)
            self.time += timedelta(hours=every)
        assert len(keys) == len(set(keys))
        return at


def test_ready_days_are_asked_for_once_and_sites_share_a_run(tmp_path):
    """The newest ready days of all sites; nothing at the next tick; the next day when it is ready."""
    fetcher = FakeFetcher()
    with Ticks(tmp_path, fetcher, new_days=3, days_per_run=2) as runs:
        assert runs.live(hours=60) == [0, 0, 23, 47]
        days = [ago(number) for number in (3, 2, 1, 0)] + [TODAY + timedelta(days=1)]
        assert sorted(fetcher.asked) == sorted((site, day) for site in ("north", "south") for day in days)
        assert runs.cursors[SENSOR] == str(TODAY + timedelta(days=2))


def test_queued_runs_and_stored_days_are_not_asked_for(tmp_path):
    """What somebody else has stored, or asked for, is left alone, whoever it was."""
    with Ticks(tmp_path, FakeFetcher(), "north", new_days=4) as runs:
        assert runs.run(str(ago(4)), str(ago(3))).success
        job = runs.defs.resolve_job_def(JOB)
        runs.instance.create_run_for_job(
            job, tags={"dagster/partition": str(ago(1))}, status=dg.DagsterRunStatus.STARTING
        )
        (request,) = runs.tick()
        assert request.tags["dagster/partition"] == str(ago(2))
        assert request.asset_selection == [asset_key("north")]


def test_a_tick_that_is_made_again_asks_for_the_same(tmp_path):
    """A daemon that dies before it keeps the cursor repeats its tick: the run keys are the same, so Dagster skips."""
    with Ticks(tmp_path, FakeFetcher(), new_days=5) as runs:
        before = [request.run_key for request in runs.tick()]
        runs.cursors[SENSOR] = None
        assert [request.run_key for request in runs.tick()] == before


@pytest.mark.parametrize("cursor", ["nonsense", "2999-01-01", '{"old": "form"}', "1970-01-01"])
def test_no_cursor_gets_it_stuck(tmp_path, cursor):
    """A cursor of another form, or of another time, costs nothing but a look at days that are stored."""
    with Ticks(tmp_path, FakeFetcher(), "north", first_day=ago(6)) as runs:
        runs.live(hours=1)
        runs.cursors[SENSOR] = cursor
        assert runs.live(hours=48) == [22, 46]


def test_thin_days_are_asked_for_again_on_a_back_off_that_ends(tmp_path):
    """A day that stays empty is asked for again a few times; the days after it are not held up; then it is let be."""
    empty = ago(1)
    fetcher = FakeFetcher(make=lambda site, day: day_rows(site, day, points=0 if day == empty else 3))
    with Ticks(tmp_path, fetcher, "north", new_days=1) as runs:
        runs.live(hours=20 * 24, every=3)
        assert fetcher.asked.count(("north", empty)) == 1 + len(THIN_RETRY_H)
        others = [day for _, day in fetcher.asked if day != empty]
        assert others == [TODAY + timedelta(days=number) for number in range(len(others))]
        assert runs.cursors[SENSOR] > str(empty)


def test_late_data_replaces_a_thin_day(tmp_path):
    """A day whose samples arrive late is fetched again, replaced and marked so, and then settled."""
    late = ago(1)
    asked = FakeFetcher()
    asked.make = lambda site, day: day_rows(site, day, points=0 if len(asked.asked) == 1 else 3)
    with Ticks(tmp_path, asked, "north", new_days=1) as runs:
        runs.live(hours=60, every=6)
        assert asked.asked.count(("north", late)) == 2
        filters = dg.AssetRecordsFilter(asset_key=asset_key("north"), asset_partitions=[str(late)])
        (newest,) = runs.instance.fetch_materializations(filters, limit=1).records
        about = {name: value.value for name, value in newest.asset_materialization.metadata.items()}
        assert (about["state"], about["replaced"], about["rows_before"]) == ("stored", True, 0)


def test_a_day_that_fails_is_asked_for_again_until_the_back_off_ends(tmp_path):
    """A site that always fails is let be after its last attempt, and does not hold up the others."""
    bad = {("north", ago(1)): ContractError("the sums disagree")}
    fetcher = FakeFetcher(bad)
    with Ticks(tmp_path, fetcher, new_days=1) as runs:
        runs.live(hours=12 * 24, every=4)
        assert fetcher.asked.count(("north", ago(1))) == 1 + len(FAILED_RETRY_H)
        assert fetcher.asked.count(("south", ago(1))) == 1
        assert runs.cursors[SENSOR] > str(ago(1))


def test_a_run_that_leaves_no_trace_counts_as_an_ask(tmp_path):
    """A run killed before its first day was told is tried again on the back-off, not at each tick."""
    with Ticks(tmp_path, FakeFetcher(), "north", new_days=1) as runs:
        (request,) = runs.tick()
        run = runs.instance.create_run_for_job(
            runs.defs.resolve_job_def(JOB), tags=request.tags, status=dg.DagsterRunStatus.STARTED
        )
        assert not runs.tick()
        with freeze_time(runs.time):
            runs.instance.report_run_failed(run)
        assert not runs.tick() + runs.tick(HEALING)
        runs.time += timedelta(hours=1)
        assert not runs.tick()
        (again,) = runs.tick(HEALING)
        assert again.tags["backfill/attempt"] == "2"


def test_no_more_runs_wait_than_are_bounded(tmp_path):
    """After a long stop, days come in batches: so many runs at once, and no further ones until some have ended."""
    with Ticks(tmp_path, FakeFetcher(), "north", new_days=100, days_per_run=2) as runs:
        requests = runs.tick()
        assert len(requests) == 4
        for request in requests[:3]:
            runs.instance.create_run_for_job(
                runs.defs.resolve_job_def(JOB),
                tags=request.tags,
                status=dg.DagsterRunStatus.STARTING,
            )
        assert [r.run_key for r in runs.tick()] == [requests[3].run_key]


def test_days_of_any_backfill_are_healed_and_the_good_ones_left_alone(tmp_path):
    """Years back, and by somebody else: thin, empty and failed days are asked for again; a day that grew says so."""
    first = date(2025, 1, 1)
    thin, empty, bad = (
        first + timedelta(days=number) for number in (0, 8, 12)
    )  # the first was not told thin: none was stored around it yet
    points = {thin: 1, empty: 0}
    wrong = {("north", bad): ContractError("the sums disagree")}
    fetcher = FakeFetcher(wrong, make=lambda site, day: day_rows(site, day, points=points.get(day, 3)))
    with Ticks(tmp_path, fetcher, "north", new_days=1) as runs:
        runs.live(hours=1)
        runs.backfilled(first, first + timedelta(days=14))
        fetcher.asked.clear()
        points.clear()
        wrong.clear()
        asked = runs.live(hours=14)
        assert asked == [1, 12, 12]
        assert sorted(fetcher.asked) == [("north", thin), ("north", empty), ("north", bad)]
        filters = dg.AssetRecordsFilter(asset_key=asset_key("north"), asset_partitions=[str(thin)])
        (newest,) = runs.instance.fetch_materializations(filters, limit=1).records
        about = {name: value.value for name, value in newest.asset_materialization.metadata.items()}
        assert (about["rows_before"], about["dagster/row_count"], about["replaced"]) == (144, 432, True)
        fetcher.asked.clear()
        runs.live(hours=20 * 24, every=6)
        assert min(day for _, day in fetcher.asked) >= TODAY


def test_days_before_a_sites_first_data_are_let_be(tmp_path):
    """Many honestly empty days are asked for as often as the back-off says, within the share, and never again."""
    first, empties = date(2025, 1, 1), 5
    fetcher = FakeFetcher(make=lambda site, day: day_rows(site, day, points=0))
    with Ticks(tmp_path, fetcher, "north", new_days=1, requests_per_minute=1) as runs:
        runs.cursors[SENSOR] = "2025-06-01"
        runs.backfilled(first, first + timedelta(days=empties - 1))
        fetcher.asked.clear()
        begin = runs.time
        for _ in range(25 * 4):
            for request in runs.tick(HEALING):
                runs.execute(request)
            runs.time += timedelta(hours=6)
            minutes = (runs.time - begin) / timedelta(minutes=1)
            assert 2 * len(fetcher.asked) <= SHARE * minutes + AT_ONCE_MIN
        asked = {day: fetcher.asked.count(("north", day)) for _, day in fetcher.asked}
        assert asked == dict.fromkeys(asked, len(THIN_RETRY_H))
        assert len(asked) == empties


def test_what_a_backfill_has_yet_to_bring_is_left_to_it(tmp_path):
    """A day that failed is not asked for while a run that holds it is at work; a cancelled run's days never are."""
    wrong = {("north", ago(9)): ContractError("the sums disagree")}
    with Ticks(tmp_path, FakeFetcher(wrong), "north", new_days=1) as runs:
        runs.live(hours=1)
        runs.backfilled(ago(9), ago(9))
        runs.time += timedelta(hours=2)
        tags = {"dagster/asset_partition_range_start": str(ago(12)), "dagster/asset_partition_range_end": str(ago(8))}
        job = runs.defs.resolve_job_def(JOB)
        theirs = runs.instance.create_run_for_job(job, tags=tags, status=dg.DagsterRunStatus.STARTED)
        assert not runs.tick(HEALING)
        runs.instance.report_run_canceled(theirs)
        (request,) = runs.tick(HEALING)
        assert request.tags["dagster/partition"] == str(ago(9))
        assert request.tags["dagster/priority"] == "1"


def test_of_a_backfill_only_what_it_has_yet_to_bring_is_left_to_it(tmp_path):
    """While a year's backfill goes on, a day of it that is over and failed is healed; one to come is not new."""
    done, coming = ago(9), ago(1)
    wrong = {("north", done): ContractError("the sums disagree")}
    with Ticks(tmp_path, FakeFetcher(wrong), "north", new_days=3) as runs:
        runs.backfilled(done, done)
        runs.time += timedelta(hours=2)
        days, key = day_partitions(runs.settings), asset_key("north")

        def subset(*wanted):
            return AssetGraphSubset({key: days.subset_with_partition_keys([str(day) for day in wanted])}, set())

        now = runs.time.timestamp()
        data = AssetBackfillData.empty(subset(done, coming), now, runs.instance)
        for failed, healed in ((subset(), []), (subset(done), [str(done)])):
            backfill = PartitionBackfill(
                backfill_id="backfill" + str(len(healed)),
                status=BulkActionStatus.REQUESTED,
                from_failure=False,
                tags={},
                backfill_timestamp=now,
                asset_selection=[key],
                asset_backfill_data=data._replace(failed_and_downstream_subset=failed),
            )
            runs.instance.add_backfill(backfill)
            assert [request.tags["dagster/partition"] for request in runs.tick(HEALING)] == healed
            assert str(coming) not in {request.tags.get("dagster/partition") for request in runs.tick()}
            runs.instance.update_backfill(backfill.with_status(BulkActionStatus.COMPLETED_SUCCESS))


def test_a_tick_looks_at_so_many_events_and_the_next_one_goes_on(tmp_path, monkeypatch):
    """However many sites there are: a tick ends after its share of events, and all sites have their turn."""
    monkeypatch.setattr("backfill_pipeline.orchestration.sensors.EVENTS_A_TICK", 2)
    sites = ("a", "b", "c", "d", "e")
    wrong = {(site, ago(5)): ContractError("the sums disagree") for site in sites}
    with Ticks(tmp_path, FakeFetcher(wrong), *sites, new_days=1) as runs:
        runs.backfilled(ago(5), ago(5))
        runs.time += timedelta(hours=2)
        asked = []
        for _ in range(3):
            asked.append([key.path[-1] for request in runs.tick(HEALING) for key in request.asset_selection])
            runs.time += timedelta(hours=2)
        assert list(map(sorted, asked)) == [["a", "b"], ["c", "d"], ["a", "e"]]


def test_healing_that_waits_keeps_no_new_day_waiting(tmp_path):
    """Runs of `healing` take no place of those for new days, and come after them."""
    with Ticks(tmp_path, FakeFetcher(), "north", new_days=1) as runs:
        for attempt in range(2, 8):
            runs.instance.create_run_for_job(
                runs.defs.resolve_job_def(JOB),
                tags={"dagster/partition": str(ago(20 + attempt)), "backfill/attempt": str(attempt)},
                status=dg.DagsterRunStatus.STARTING,
            )
        (request,) = runs.tick()
        assert request.tags["dagster/priority"] == "2"
        assert not runs.tick(HEALING)


@pytest.mark.parametrize("cursor", ["nonsense", "{}", "[]", '{"site": "gone", "not_before": "2025-01-01T00:00:00"}'])
def test_no_cursor_keeps_healing_from_going_on(tmp_path, cursor):
    """A cursor of another form, or of a site that is no more, begins with the first site."""
    wrong = {("north", ago(5)): ContractError("the sums disagree")}
    with Ticks(tmp_path, FakeFetcher(wrong), "north") as runs:
        runs.backfilled(ago(5), ago(5))
        runs.time += timedelta(hours=2)
        runs.cursors[HEALING] = cursor
        assert len(runs.tick(HEALING)) == 1


def test_they_are_on_unless_they_are_set_off(tmp_path):
    """On by default; `BACKFILL_NEW_DAYS=0`, as the demo has it, turns both off."""
    for days, status in ((7, dg.DefaultSensorStatus.RUNNING), (0, dg.DefaultSensorStatus.STOPPED)):
        with Runs(tmp_path, FakeFetcher(), new_days=days) as runs:
            for name in (SENSOR, HEALING):
                assert runs.defs.get_repository_def().get_sensor_def(name).default_status is status


SICK = {ago(9): 0, ago(7): 1}
"""Days that come back empty, and with few rows; `ago(5)` fails."""


@pytest.fixture
def lately(tmp_path):
    """Two sites with a week of days, of which three need a retry."""
    wrong = {(site, ago(5)): ContractError("the sums disagree") for site in ("north", "south")}

    def rows(site, day):
        return (
            day_rows(site, day, points=0)
            if SICK.get(day) == 0
            else day_rows(site, day, every_s=60 * (1, 600)[day in SICK])
        )

    with Ticks(tmp_path, FakeFetcher(wrong, make=rows), new_days=1) as runs:
        runs.backfilled(ago(12), ago(3))
        runs.time += timedelta(hours=14)
        yield runs


def due(runs, rows_of=None):
    """The days of all sites that are due, and the number of events that were read."""
    found, events = [], 0
    for site in runs.settings.sites:
        more = {"rows_of": rows_of.read} if rows_of else {}
        days, read = read_due(runs.instance, site, Launched(), runs.time, **more)
        found += [(one.site, one.day, one.attempt) for _, one in days]
        events += read
    return found, events


def rows_of(runs):
    return CurrentRows(
        lambda: settings_store(runs.settings),
        runs.settings.sites,
        lambda store: settings_cache(runs.settings, store),
        pytest.fail,
    )


def test_healing_reads_the_index_instead_of_the_events_of_good_days(lately):
    """The same days are due; of the good days no event is read."""
    expected, all_events = due(lately)
    assert {day for _, day, _ in expected} == {ago(9), ago(7), ago(5)}
    found, events = due(lately, rows_of(lately))
    assert found == expected
    assert events == 2 * (1 + 2)  # the failure, and the two days that are read again for their attempts
    assert all_events == 2 * (10 + 2)


def no_index(store):
    for year in (2024, 2025):
        store.delete(index_key("north", year))


def damaged(store):
    store.put(index_key("north", 2025), b"PAR1 PAR1", "")


def of_another_site(store):
    store.put(index_key("north", 2025), store.get(index_key("south", 2025)), "")


def claims_more_rows(store):
    """Rows that call the empty and the thin day good, of other objects."""
    for day in SICK:
        record_days(store, "north", [IndexedDay(day, "stored", 10**6, 10**6, "other", longest_gap_min=1)])


@pytest.mark.parametrize("spoil", [no_index, damaged, of_another_site, claims_more_rows])
def test_healing_never_believes_a_wrong_index(lately, spoil):
    """The same days are due as by the events alone."""
    expected, _ = due(lately)
    spoil(settings_store(lately.settings))
    found, _ = due(lately, rows_of(lately))
    assert found == expected


def test_healing_goes_on_by_events_while_the_store_cannot_be_read(lately, monkeypatch):
    """A tick does not fail because of the store, and asks it once."""
    expected, events = due(lately)
    calls = []

    def refused(*_args, **_more):
        calls.append(1)
        raise StoreRefusedError("no access")

    monkeypatch.setattr(LocalStore, "list", refused)
    warned = []
    rows = CurrentRows(
        lambda: settings_store(lately.settings),
        lately.settings.sites,
        lambda _: None,
        warned.append,
    )
    assert due(lately, rows) == (expected, events)
    assert (len(calls), len(warned)) == (1, 1)


def test_days_beyond_the_listed_ones_are_taken_from_their_events(lately, monkeypatch):
    """A tick lists a bounded number of days, the latest first."""
    monkeypatch.setattr("backfill_pipeline.storage.current_rows.MOST_LISTED", 4)
    expected, all_events = due(lately)
    found, events = due(lately, rows_of(lately))
    assert found == expected
    assert 6 < events < all_events


def test_a_tick_ends_after_its_seconds_and_the_next_one_goes_on(tmp_path):
    """Dagster ends a tick that takes a minute: the other sites have their turn in the next one."""
    seconds = iter(range(0, 1000, 11))
    settings = Settings(sites=("a", "b", "c"), store=str(tmp_path), home=tmp_path, first_day=ago(30))
    sensor = healing_sensor(settings, settings.sites, JOB, now=lambda: BEGIN, clock=lambda: next(seconds))
    with dg.DagsterInstance.ephemeral() as instance:
        context = dg.build_sensor_context(instance)
        data = sensor.evaluate_tick(context)
        assert json.loads(data.cursor)["site"] == "c"
