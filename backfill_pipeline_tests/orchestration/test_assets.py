"""The assets in real Dagster runs over a made-up API: what is recorded of each day, and what is not."""

from datetime import date, timedelta
from pathlib import Path

import dagster as dg
import pytest

from backfill_pipeline.errors import ContractError, KeyRefusedError, PageFailedError, StoreRefusedError
from backfill_pipeline.orchestration.checks import CHECKS, Verdict
from backfill_pipeline.orchestration.failures import DayError, observed_error
from backfill_pipeline.orchestration.partitions import asset_key
from backfill_pipeline.settings import Settings
from backfill_pipeline.storage.comparison import list_days
from backfill_pipeline.storage.day_index import current, read_indexes
from backfill_pipeline.storage.days import settings_store
from backfill_pipeline_tests.orchestration.fakes import NOW, FakeFetcher, Runs, day_rows
from backfill_pipeline_tests.services import until

PROMISED = {"dagster/row_count", "path", "bytes", "samples_fetched", "requests", "duration_s"}
MORE = {"points_configured", "points_seen", "dropped", "changed", "state", "coverage"}


def failure_of(result) -> str:
    (failed,) = [event for event in result.all_events if event.is_step_failure]
    data = failed.step_failure_data
    return data.user_failure_data.description if data.user_failure_data else data.error.message


def lines_of(runs, result) -> list[str]:
    """What the op itself logged."""
    logged = [entry.user_message for entry in runs.instance.all_logs(result.run_id) if not entry.is_dagster_event]
    return [line for line in logged if not line.startswith("op ")]  # Dagster's own, of outputs that it did not get


def latest(runs, site, day):
    filters = dg.AssetRecordsFilter(asset_key=asset_key(site), asset_partitions=[day])
    return runs.instance.fetch_materializations(filters, limit=1).records[0].asset_materialization.metadata


@pytest.fixture(scope="module")
def with_a_bad_day(tmp_path_factory):
    """Four days of two sites in one run, of which one site-day fails."""
    fetcher = FakeFetcher({("north", date(2025, 1, 2)): ContractError("the sums disagree")})
    with Runs(tmp_path_factory.mktemp("store"), fetcher) as runs:
        yield runs, runs.run("2025-01-01", "2025-01-04")


def test_each_stored_day_is_recorded_once(with_a_bad_day):
    """A ranged run records each stored site-day as one materialisation, days of a site oldest first."""
    runs, result = with_a_bad_day
    told = runs.materialized(result)
    assert [day for site, day in told if site == "north"] == ["2025-01-01", "2025-01-03", "2025-01-04"]
    assert [day for site, day in told if site == "south"] == [f"2025-01-0{n}" for n in (1, 2, 3, 4)]


def test_a_run_writes_the_index_of_the_days_that_it_stored(with_a_bad_day):
    """After a run the index has a current row for each stored day, and no row for a failed one."""
    runs, _ = with_a_bad_day
    store = settings_store(runs.settings)
    days = [date(2025, 1, n) for n in (1, 2, 3, 4)]
    rows = read_indexes(store, ["north"], [2025])["north"]
    assert sorted(rows) == [days[0], *days[2:]]
    assert current("north", days, rows, list_days(store, days[0], days[-1])) == (rows, [])
    assert all(row.points_seen == 3 and row.fetched_at is not None for row in rows.values())


def test_each_day_has_its_own_metadata(with_a_bad_day):
    """The promised figures stand on every materialisation, and are this day's."""
    _, result = with_a_bad_day
    for event in result.get_asset_materialization_events():
        metadata = event.step_materialization_data.materialization.metadata
        assert set(metadata) >= PROMISED | MORE
        assert metadata["dagster/row_count"].value == 432
        assert event.partition.replace("-", "/") in metadata["path"].value.replace("\\", "/")


def test_each_day_has_the_uri_and_row_count_that_dagster_shows(with_a_bad_day):
    """A materialisation carries its object's URI and its partition's row count under Dagster's own keys."""
    _, result = with_a_bad_day
    for event in result.get_asset_materialization_events():
        metadata = event.step_materialization_data.materialization.metadata
        assert metadata["dagster/uri"].value == metadata["path"].value
        assert metadata["dagster/partition_row_count"].value == metadata["dagster/row_count"].value


def test_the_run_fails_naming_the_failed_day(with_a_bad_day):
    """One failed site-day fails the run, which says which, why, and what to do."""
    _, result = with_a_bad_day
    assert not result.success
    assert "1 of 8 site-days failed: north 2025-01-02 (ContractError: the sums disagree)" in failure_of(result)


def test_a_failed_day_keeps_its_error(with_a_bad_day):
    """The error of a failed day is an observation of its partition, and reads back as it was."""
    runs, _ = with_a_bad_day
    records = runs.instance.fetch_observations(asset_key("north"), limit=10).records
    found = [observed_error(record.asset_observation) for record in records]
    assert found == [DayError("north", "2025-01-02", "the sums disagree", "ContractError", kind="contract")]


def test_dagster_shows_the_failed_day_as_failed(with_a_bad_day):
    """Partition status is by site and day, so that "Failed and missing" runs exactly the failed one."""
    runs, _ = with_a_bad_day
    done = runs.instance.get_materialized_partitions(asset_key("north"))
    assert done == {"2025-01-01", "2025-01-03", "2025-01-04"}
    assert runs.instance.get_materialized_partitions(asset_key("south")) == done | {"2025-01-02"}


def of_days(result):
    """The evaluations of days; `fresh` is about the site."""
    return [one for one in result.get_asset_check_evaluations() if one.check_name in CHECKS]


def test_checks_are_evaluated_by_day(with_a_bad_day):
    """Each stored day has an evaluation of each check, for its partition, with figures."""
    _, result = with_a_bad_day
    found = {(e.asset_key.path[-1], e.partition, e.check_name) for e in of_days(result)}
    assert len(found) == 7 * 4
    assert ("south", "2025-01-02", "complete") in found


def test_a_stored_day_counts_as_checked(with_a_bad_day):
    """Dagster takes each check to be of the day's newest materialisation: otherwise its page would show none."""
    runs, _ = with_a_bad_day
    specs = runs.defs.resolve_assets_def(asset_key("north")).check_specs
    keys = [spec.key for spec in specs if spec.asset_key == asset_key("north") and spec.name in CHECKS]
    infos = runs.instance.event_log_storage.get_asset_check_partition_info(keys)
    checked = [info for info in infos if info.latest_execution_status.value == "SUCCEEDED"]
    assert all(info.is_current for info in checked)
    days = {(info.check_key, info.partition_key) for info in checked}
    assert days == {(key, day) for key in keys for day in ("2025-01-01", "2025-01-03", "2025-01-04")}


def test_a_day_is_fetched_again_when_asked_again(tmp_path):
    """Materialising a finished day refetches it; unchanged rows leave the object as it is, and say so."""
    fetcher = FakeFetcher()
    with Runs(tmp_path, fetcher, "north") as runs:
        assert runs.run("2025-01-01").success
        assert latest(runs, "north", "2025-01-01")["changed"].value is True
        assert runs.run("2025-01-01").success
        assert latest(runs, "north", "2025-01-01")["changed"].value is False
        assert latest(runs, "north", "2025-01-01")["replaced"].value is False
    assert len(fetcher.asked) == 2


def test_a_day_that_changed_is_replaced_and_marked_so(tmp_path):
    """Other rows than before replace the object; the materialisation says so, and how many rows there were."""
    fetcher = FakeFetcher(make=lambda site, day: day_rows(site, day, every_s=3600 if len(fetcher.asked) == 1 else 600))
    with Runs(tmp_path, fetcher, "north") as runs:
        assert runs.run("2025-01-01").success
        first = latest(runs, "north", "2025-01-01")
        assert "rows_before" not in first
        assert first["replaced"].value is False
        assert runs.run("2025-01-01").success
        second = latest(runs, "north", "2025-01-01")
        assert (second["replaced"].value, second["rows_before"].value, second["dagster/row_count"].value) == (
            True,
            72,
            432,
        )


def test_one_partition_and_one_asset_can_be_asked_for(tmp_path):
    """A run of one partition tag and a subset of the sites does that alone."""
    fetcher = FakeFetcher()
    with Runs(tmp_path, fetcher) as runs:
        job = runs.defs.resolve_job_def("backfill_job")
        keys = [asset_key("south")]
        result = job.execute_in_process(instance=runs.instance, partition_key="2025-01-03", asset_selection=keys)
        assert runs.materialized(result) == [("south", "2025-01-03")]
        assert len(of_days(result)) == 4
    assert fetcher.asked == [("south", date(2025, 1, 3))]


def test_an_error_of_one_day_is_not_the_error_of_the_days_after_it(tmp_path):
    """The errors of days that were not fetched name the day at which fetching the site ended."""
    error = StoreRefusedError("cannot store 2025-01-02: the disk is full")
    with Runs(tmp_path, FakeFetcher({("north", date(2025, 1, 2)): error}), "north") as runs:
        runs.run("2025-01-01", "2025-01-04")
        seen = runs.instance.fetch_observations(asset_key("north"), limit=10).records
        told = {one.partition_key: one.asset_observation.metadata["error"].value for one in seen}
    assert told["2025-01-02"] == error.message
    assert set(told) == {"2025-01-02", "2025-01-03", "2025-01-04"}
    for day in ("2025-01-03", "2025-01-04"):
        assert told[day].startswith("not fetched, because fetching this site ended with the error of 2025-01-02: ")


def test_an_empty_day_is_stored_and_not_passed(tmp_path):
    """A day without samples is an object without rows, of the state `empty`, whose has-samples check does not pass."""
    with Runs(tmp_path, FakeFetcher(make=lambda site, day: day_rows(site, day, points=0)), "north") as runs:
        result = runs.run("2025-01-01")
        assert result.success
        metadata = latest(runs, "north", "2025-01-01")
        assert (metadata["state"].value, metadata["dagster/row_count"].value) == ("empty", 0)
        passed = {e.check_name: e.passed for e in of_days(result)}
        assert passed == {"has_samples": False, "complete": False, "interval": True, "clean": True}


@pytest.mark.parametrize(
    ("dropped", "line"),
    [
        ({}, "0 rows: the API returned no samples for any of these days"),
        (
            {"null_value": 5},
            "0 rows: none of the 10 samples that the API returned for these days can be stored",
        ),
    ],
)
def test_a_run_without_a_row_says_so_in_its_last_line(tmp_path, dropped, line):
    """The run succeeds, since really empty days exist; its days are empty, even if rows were left out."""
    fetcher = FakeFetcher(make=lambda site, day: day_rows(site, day, points=0, dropped=dropped))
    with Runs(tmp_path, fetcher, "north") as runs:
        result = runs.run("2025-01-01", "2025-01-02")
        assert result.success
        logged = lines_of(runs, result)
        assert logged[-1] == line
        assert latest(runs, "north", "2025-01-02")["state"].value == "empty"
        passed = [e.passed for e in result.get_asset_check_evaluations() if e.check_name == "has_samples"]
        assert passed == [False, False]


def test_a_run_with_a_row_does_not_call_itself_empty(tmp_path):
    """One of its days has rows."""
    fetcher = FakeFetcher(make=lambda site, day: day_rows(site, day, points=day.day - 1))
    with Runs(tmp_path, fetcher, "north") as runs:
        result = runs.run("2025-01-01", "2025-01-02")
        logged = lines_of(runs, result)
        assert not any(text.startswith("0 rows") for text in logged)


@pytest.mark.parametrize("error", [KeyRefusedError("the API refused the key"), StoreRefusedError("no such bucket")])
def test_a_refusal_stops_the_run_with_one_clear_line(tmp_path, error):
    """What every day would meet ends the run at once, named once; finished days stay."""
    fetcher = FakeFetcher({("north", date(2025, 1, 2)): error})
    with Runs(tmp_path, fetcher, "north") as runs:
        result = runs.run("2025-01-01", "2025-01-31")
        assert failure_of(result) == f"everything was stopped, since no further day could succeed: {error.message}"
        assert runs.materialized(result) == [("north", "2025-01-01")]
    assert len(fetcher.asked) == 2


def test_a_day_that_is_not_ready_is_not_asked_for(tmp_path):
    """A day within its lag fails with the instant from which it may be asked for; days before it are stored."""
    fetcher = FakeFetcher()
    with Runs(tmp_path, fetcher, "north", raw_lag_hours=6) as runs:
        result = runs.run(str(NOW.date() - timedelta(days=2)), str(NOW.date() - timedelta(days=1)))
        assert runs.materialized(result) == [("north", "2025-05-30")]
        assert "north 2025-05-31 (UsageError: not ready before 2025-06-01 06:00 UTC" in failure_of(result)
    assert fetcher.asked == [("north", date(2025, 5, 30))]


def test_a_day_is_on_record_while_the_next_is_at_work(tmp_path):
    """A stored day does not wait for the end of its run: the next day begins to arrive with it on record."""
    days = [date(2025, 1, 1) + timedelta(days=number) for number in range(4)]
    seen = []

    def before(site, day, stop):
        if day != days[0]:
            wanted = str(day - timedelta(days=1))
            until(lambda: wanted in runs.instance.get_materialized_partitions(asset_key(site)))
            seen.append(wanted)

    with Runs(tmp_path, FakeFetcher(before=before), "north") as runs:
        assert runs.run(str(days[0]), str(days[-1])).success
    assert seen == [str(day) for day in days[:-1]]


def test_a_run_without_a_day_says_what_to_give(tmp_path):
    """A run that names no day ends with one line that says how to name one."""
    with Runs(tmp_path, FakeFetcher(), "north") as runs:
        job = runs.defs.resolve_job_def("backfill_job")
        result = job.execute_in_process(instance=runs.instance, raise_on_error=False)
        assert failure_of(result).startswith("the run names no day: choose partitions in the UI")


def test_checks_alone_are_no_failure(tmp_path):
    """Dagster's button `Execute all` judges no day: nothing is fetched, and `fresh` alone is evaluated."""
    fetcher = FakeFetcher()
    with Runs(tmp_path, fetcher, "north") as runs:
        checks = dg.AssetSelection.all_asset_checks()
        job = dg.define_asset_job("checks", selection=checks).resolve(
            asset_graph=runs.defs.get_repository_def().asset_graph
        )
        result = job.execute_in_process(instance=runs.instance, resources=runs.defs.resources)
        assert result.success
        assert [one.check_name for one in result.get_asset_check_evaluations()] == ["fresh"]
    assert fetcher.asked == []


def test_odd_names_are_one_asset_each(tmp_path):
    """Sites whose names Dagster would forbid or fold together are stored and recorded apart."""
    sites = ("a-b", "a.b", "a_b", "Büro 1", "x/y", "North", "north")
    with Runs(tmp_path, FakeFetcher(), *sites) as runs:
        result = runs.run("2025-01-01")
        assert result.success
        made = {
            str(e.step_materialization_data.materialization.metadata["path"].value)
            for e in result.get_asset_materialization_events()
        }
        assert len(made) == len(sites)


def test_days_before_the_run_count_as_neighbours(tmp_path):
    """The first day of a run is held against the days that earlier runs stored."""

    def thin_on_the_third(site, day):
        return day_rows(site, day, every_s=600 if day < date(2025, 1, 3) else 3600)

    with Runs(tmp_path, FakeFetcher(make=thin_on_the_third), "north") as runs:
        assert runs.run("2025-01-01", "2025-01-02").success
        result = runs.run("2025-01-03")
        (complete,) = [e for e in result.get_asset_check_evaluations() if e.check_name == "complete"]
        assert not complete.passed
        assert complete.metadata["rows_share"].value == pytest.approx(1 / 6, abs=1e-3)


def test_a_cancel_between_a_days_record_and_its_checks_records_it_once(tmp_path, monkeypatch):
    """The day that was being told when the cancel came is told to its end, and not a second time."""
    told = Verdict.evaluations

    def cancelled_once(self, *about, **more):
        monkeypatch.setattr(Verdict, "evaluations", told)
        raise dg.DagsterExecutionInterruptedError

    with Runs(tmp_path, FakeFetcher(), "north") as runs:
        monkeypatch.setattr(Verdict, "evaluations", cancelled_once)
        assert not runs.run("2025-01-01", "2025-01-02").success
        records = runs.instance.fetch_materializations(asset_key("north"), limit=10).records
        days = [record.partition_key for record in records]
        assert days
        assert len(days) == len(set(days))


def test_an_asset_links_to_the_page_of_its_site(tmp_path):
    """With BACKFILL_EXPLORE_URL each asset has the address of its site's page, and without it no link."""
    url = Settings.load({"BACKFILL_EXPLORE_URL": "http://127.0.0.1:8643/"}, folder=tmp_path).explore_url
    for explore_url, expected in ((url, "http://127.0.0.1:8643/?site=a+b%26c"), (None, None)):
        runs = Runs(tmp_path, FakeFetcher(), "a b&c", explore_url=explore_url)
        link = runs.defs.resolve_assets_def(asset_key("a b&c")).specs_by_key[asset_key("a b&c")].metadata.get("explore")
        assert (link and link.value) == expected


def test_a_day_has_versions_and_its_asset_has_owners_and_a_source(tmp_path):
    """The data version is the hash of the object; the source is shown by Dagster, and no run makes it."""
    with Runs(tmp_path, FakeFetcher(), owners=("team:bms", "a@example.org")) as runs:
        runs.run("2025-01-01")
        event = runs.instance.get_latest_materialization_event(asset_key("north")).asset_materialization
        graph = runs.defs.resolve_asset_graph()
    node, source = graph.get(asset_key("north")), graph.get(dg.AssetKey(["ace", "north"]))
    assert event.tags["dagster/data_version"] == event.metadata["sha256"].value
    assert event.tags["dagster/code_version"] == node.code_version
    assert list(node.owners) == ["team:bms", "a@example.org"]
    assert node.parent_keys == {source.key}
    assert not source.is_materializable


def test_a_stored_day_links_to_its_chart(tmp_path):
    """With the address of `backfill explore`: the page of the site, with the day as its view."""
    with Runs(tmp_path, FakeFetcher(), "north", explore_url="http://127.0.0.1:8643") as runs:
        (made,) = runs.run("2025-01-01").get_asset_materialization_events()
        link = made.step_materialization_data.materialization.metadata["explore"].value
        assert link == "http://127.0.0.1:8643/?site=north&from=2025-01-01&to=2025-01-02"


def test_a_stored_day_whose_refetch_fails_is_told_apart_from_one_that_is_missing(tmp_path):
    """Its observation says that the stored object stays, with its rows; the object itself does."""
    fetcher = FakeFetcher()
    with Runs(tmp_path, fetcher, "north") as runs:
        (made,) = runs.run("2025-01-01").get_asset_materialization_events()
        about = made.step_materialization_data.materialization.metadata
        stored = Path(about["path"].value).read_bytes()
        fetcher.wrong = {("north", date(2025, 1, day)): PageFailedError("cut off") for day in (1, 2)}
        result = runs.run("2025-01-01", "2025-01-02")
        seen = {
            one.asset_observation_data.asset_observation.partition: one.asset_observation_data.asset_observation
            for one in result.get_asset_observation_events()
        }
        rows = about["dagster/row_count"].value
        again, missing = seen["2025-01-01"], seen["2025-01-02"]
        assert again.description == f"the day is stored, with {rows:,} rows; fetching it again failed: cut off"
        assert again.metadata["stored_rows"].value == rows
        assert missing.description == "failed: cut off"
        assert "stored_rows" not in missing.metadata
        assert Path(about["path"].value).read_bytes() == stored
