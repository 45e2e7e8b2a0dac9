"""Start, status, cancel, errors: what they mean, over a real Dagster instance."""

import json
import threading
import time
from datetime import UTC, date, datetime, timedelta

import dagster as dg
import pytest
import sqlalchemy as sa
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill
from dagster._daemon.types import DaemonHeartbeat
from dagster_shared.error import SerializableErrorInfo

from backfill_pipeline.control.dagster_instance import Gateway
from backfill_pipeline.control.progress import status_facts, status_lines
from backfill_pipeline.control.service import Control
from backfill_pipeline.errors import (
    AlreadyRunningError,
    DaemonDownError,
    NotFoundError,
    SettingError,
    UsageError,
)
from backfill_pipeline.settings import Settings
from backfill_pipeline_tests.control.installation import SITES, TOP, Installation
from backfill_pipeline_tests.services import postgres_server

FIRST, LAST = date(2025, 1, 1), date(2025, 1, 10)


def test_a_start_asks_for_the_days_that_are_not_stored(made):
    """Days that a site has are left out for that site alone; forced, nothing is."""
    made.store("north", *made.days(1, 4))
    made.store("a-b", *made.days(3, 3))
    started = made.control.start(FIRST, LAST)
    assert (started.days, started.todo, started.skipped) == (10, 15, 5)
    backfill = made.gateway.backfill(started.backfill_id)
    assert backfill.todo == {
        "north": frozenset(made.days(5, 10)),
        "a-b": frozenset(made.days(1, 10)) - {date(2025, 1, 3)},
    }
    assert (backfill.first, backfill.last) == (FIRST, LAST)
    forced = made.control.start(FIRST, LAST, ["north"], force=True)
    assert (forced.todo, forced.skipped) == (10, 0)
    assert made.control.status(started.backfill_id).word == "cancelled"


def test_a_start_with_nothing_left_to_do_is_over_at_once(made):
    """Its status is completed, it needs nobody's work, and the next start is not kept out."""
    for site in SITES:
        made.store(site, *made.days(1, 10))
    started = made.control.start(FIRST, LAST)
    assert "nothing to do" in started.message
    status = made.control.status(started.backfill_id)
    assert (status.word, status.percent, status.days_done, status.rows) == ("completed", 100.0, 10, 200)
    made.control.start(FIRST, LAST + timedelta(days=1))


@pytest.mark.parametrize(
    ("samples", "texts", "line"),
    [
        (0, 0, "0 rows: the API returned no samples for any of these days"),
        (3, 0, "0 rows: none of the 60 samples that the API returned for these days can be stored"),
        (3, 2, "0 rows: the API returned 60 samples for these days, 40 texts and no number for a row"),
    ],
)
def test_a_backfill_without_a_row_is_complete_and_says_so(made, samples, texts, line):
    """Its message and the last line of its status; also of days that an earlier version stored."""
    backfill_id = made.control.start(FIRST, LAST).backfill_id
    assert made.control.status(backfill_id).message is None
    for site in SITES:
        made.store(site, *made.days(1, 10), rows=0, samples_fetched=samples, samples_text=texts)
    status = made.control.status(backfill_id)
    assert (status.word, status.percent, status.message) == ("completed", 100.0, line)
    assert list(status_lines(status))[-1].strip() == line
    assert status_facts(status)["message"] == line


def test_the_message_of_a_status_sums_it_up(made):
    """Rows, site-days, those without rows and those that failed; without a backfill, that there is none."""
    assert made.control.status().message == "no backfill was started yet"
    backfill_id = made.control.start(FIRST, LAST).backfill_id
    made.store("north", *made.days(1, 10))
    made.store("a-b", *made.days(1, 9), rows=0)
    made.fail("a-b", *made.days(10, 10))
    status = made.control.status(backfill_id)
    stored = "100 rows: 19 of 20 site-days are stored (9 of them without rows)"
    assert (status.word, status.message) == ("failed", f"{stored}, 1 failed")
    assert list(status_lines(status))[-1].strip() == status.message
    made.store("a-b", *made.days(10, 10))
    assert made.control.status(backfill_id).message == stored.replace("100 rows: 19", "110 rows: 20")


def test_one_backfill_at_a_time(made):
    """A second start is refused, and names the first, until that one is over."""
    first = made.control.start(FIRST, LAST)
    with pytest.raises(AlreadyRunningError, match=first.backfill_id):
        made.control.start(FIRST, LAST, ["north"])
    for site in SITES:
        made.store(site, *made.days(1, 10))
    made.control.start(FIRST, LAST)


def test_of_two_starts_at_the_same_instant_one_is_taken(made):
    """Whoever comes second is refused, though neither saw the other's backfill."""
    gate, outcomes = threading.Barrier(4), []

    def start() -> None:
        gate.wait()
        try:
            outcomes.append(made.control.start(FIRST, LAST).backfill_id)
        except AlreadyRunningError:
            outcomes.append(None)

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(outcome is not None for outcome in outcomes) == 1
    assert len(made.gateway.running()) == 1


def test_a_start_that_knows_of_the_same_newest_backfill_is_refused(made):
    """The id follows from the newest one, so that the storage itself takes only one of two, on whatever machine."""
    made.gateway.launch(["north"], made.days(1, 2), after="x")
    with pytest.raises(AlreadyRunningError):
        made.gateway.launch(["a-b"], made.days(1, 2), after="x")


def test_no_work_is_accepted_while_the_daemon_is_down(made):
    """A start says so, and nothing is left behind that would begin later."""
    made.beat(ago_s=300)
    with pytest.raises(DaemonDownError, match="backfill up"):
        made.control.start(FIRST, LAST)
    assert made.gateway.newest() is None


@pytest.mark.parametrize(
    ("first", "last", "said"),
    [
        (LAST, FIRST, "is before"),
        (date(2024, 12, 31), LAST, "BACKFILL_FIRST_DAY"),
        (FIRST, datetime.now(UTC).date() + timedelta(days=3), "not ready"),
    ],
)
def test_ranges_that_cannot_be_backfilled_are_refused(made, first, last, said):
    """Reversed, before the first day, not ready yet: each by name."""
    with pytest.raises(UsageError, match=said):
        made.control.start(first, last)


def test_an_unknown_site_is_refused_by_name(made):
    """The message says which sites there are."""
    with pytest.raises(UsageError, match=r"'south'.*north, a-b"):
        made.control.start(FIRST, LAST, ["north", "south"])


def test_progress_counts_days_that_are_stored_for_every_site(made):
    """0 %, half way, 100 %: days, site-days and rows; the estimate lies ahead at work, and is the end afterwards."""
    started = made.control.start(FIRST, LAST)
    status = made.control.status()
    assert (status.word, status.percent, status.days_done, status.days, status.rows) == ("in_progress", 0, 0, 10, 0)
    assert (status.current, status.estimated_end) == (FIRST, None)
    made.store("north", *made.days(1, 6))
    made.store("a-b", *made.days(1, 4))
    status = made.control.status(started.backfill_id)
    assert (status.word, status.percent, status.days_done, status.rows) == ("in_progress", 50.0, 4, 100)
    assert status.current == date(2025, 1, 5)
    assert status.estimated_end >= time.time() - 1
    made.store("north", *made.days(7, 10))
    made.store("a-b", *made.days(5, 10))
    status = made.control.status()
    assert (status.word, status.percent, status.days_done, status.rows) == ("completed", 100.0, 10, 200)
    assert (status.current, status.is_over) == (LAST, True)
    assert status.started <= status.estimated_end <= time.time()
    made.mark(started.backfill_id, BulkActionStatus.COMPLETED_SUCCESS)
    assert made.control.status().word == "completed"


def test_a_cancel_and_a_start_go_on_where_the_first_ended(made):
    """The second backfill's figures begin with what the first has stored; the first one's stay as they were."""
    first = made.control.start(FIRST, LAST)
    for site in SITES:
        made.store(site, *made.days(1, 3))
    cancelled = made.control.cancel()
    assert (cancelled.backfill_id, cancelled.days_done) == (first.backfill_id, 3)
    assert made.control.status().facts()["status"] == "cancelled"
    made.store("north", *made.days(4, 4))  # the day at work completes
    made.mark(first.backfill_id, BulkActionStatus.CANCELED)
    assert made.control.cancel().days_done == 3

    time.sleep(1.1)  # so that what follows lies after its end
    second = made.control.start(FIRST, LAST)
    assert (second.todo, second.skipped) == (13, 7)
    status = made.control.status()
    assert (status.backfill_id, status.percent, status.days_done, status.rows) == (second.backfill_id, 35.0, 3, 70)
    made.store("north", *made.days(5, 10))
    made.store("a-b", *made.days(4, 10))
    assert made.control.status().percent == 100.0
    old = made.control.status(first.backfill_id)
    assert (old.word, old.percent, old.days_done) == ("cancelled", 35.0, 3)


def test_a_cancel_survives_a_daemon_that_overwrites_it(made, monkeypatch):
    """Dagster's daemon writes back a backfill that it read before the cancel; the backfill still ends as cancelled."""
    started = made.control.start(FIRST, LAST)
    read_before = made.instance.get_backfill(started.backfill_id)
    update = made.gateway.instance.update_backfill
    overwritten = []

    def update_and_overwrite(backfill):
        update(backfill)
        if not overwritten:
            overwritten.append(threading.Timer(0.3, update, [read_before]))
            overwritten[0].start()

    monkeypatch.setattr(made.gateway.instance, "update_backfill", update_and_overwrite)
    made.control.cancel()
    overwritten[0].join()
    assert made.control.status(started.backfill_id).word == "cancelled"


def test_a_start_waits_for_a_cancelled_backfill_to_end(made):
    """Days that are still completed after a cancel are not asked for again."""
    first = made.control.start(FIRST, LAST)
    made.control.cancel()

    def end(_seconds: float) -> None:
        made.store("north", *made.days(1, 1))
        made.mark(first.backfill_id, BulkActionStatus.CANCELED)

    made.control._sleep = end
    assert made.control.start(FIRST, LAST).skipped == 1


def test_failed_days_are_told_newest_first_and_leave_a_backfill_failed(made):
    """A day that failed is no longer waited for; once all are told, the backfill is over as failed."""
    started = made.control.start(FIRST, LAST, ["north"])
    made.store("north", *made.days(1, 8))
    made.fail("north", *made.days(9, 9))
    assert made.control.status().word == "in_progress"
    made.fail("north", *made.days(10, 10), error="502 twice")
    status = made.control.status()
    assert (status.word, status.failed, status.percent, status.days_done) == ("failed", 2, 80.0, 8)
    told = [failure.facts() for failure in made.control.errors()]
    assert [one["context"] for one in told] == [
        {"site": "north", "date": "2025-01-10"},
        {"site": "north", "date": "2025-01-09"},
    ]
    assert told[0]["error"] == "502 twice"
    assert told[0]["backfill_id"] == started.backfill_id


def test_a_run_that_died_without_a_word_is_an_error_of_its_own(made):
    """Nothing that ended badly is left out because no day told of it; no traceback is shown."""
    started = made.control.start(FIRST, LAST, ["north"])
    made.failed_run(started.backfill_id, "process 4711 is gone")
    made.mark(started.backfill_id, BulkActionStatus.COMPLETED_FAILED)
    (failure,) = made.control.errors()
    assert "process 4711 is gone" in failure.error
    assert (failure.site, failure.day) == (None, None)
    assert made.control.status().word == "failed"


def test_a_backfill_that_dagster_gave_up_but_whose_days_are_not_all_stored_is_no_success(made):
    """Nothing is shown as done that is not."""
    started = made.control.start(FIRST, LAST, ["north"])
    made.store("north", *made.days(1, 9))
    made.mark(started.backfill_id, BulkActionStatus.COMPLETED_SUCCESS)
    status = made.control.status()
    assert (status.word, status.percent) == ("failed", 90.0)


def test_what_is_not_there_is_said_to_be_not_there(made):
    """Unknown ids, nothing to cancel, nothing started yet."""
    assert made.control.status().facts()["status"] == "not_started"
    assert made.control.errors() == []
    with pytest.raises(NotFoundError, match="nothing to cancel"):
        made.control.cancel()
    for ask in (made.control.status, made.control.cancel, made.control.errors):
        with pytest.raises(NotFoundError, match="nowhere"):
            ask("nowhere")
    for site in SITES:
        made.store(site, *made.days(1, 10))
    started = made.control.start(FIRST, LAST)
    with pytest.raises(NotFoundError, match="completed"):
        made.control.cancel(started.backfill_id)


def test_figures_are_the_same_to_who_looked_before_and_to_who_looks_first(made):
    """Events that were read once are kept: a fresh reader sees nothing else."""
    made.control.start(FIRST, LAST)
    for number in range(1, 6):
        made.store("north", *made.days(number, number))
        kept = made.control.status()
        fresh = Installation(made.home, pytest.MonkeyPatch())
        told = [{**one.facts(), "estimated_completion": None} for one in (fresh.control.status(), kept)]
        assert told[0] == told[1]  # the estimate is of the moment of asking
        fresh.instance.dispose()


def test_a_home_without_dagster_yaml_is_a_wrong_setting(tmp_path, monkeypatch, made):
    """Otherwise Dagster would quietly begin a storage of its own there."""
    (made.home / "dagster.yaml").unlink()
    with pytest.raises(SettingError, match="DAGSTER_HOME"):
        Installation.__init__.__globals__["Gateway"](made.settings)


def test_a_backfill_of_dagsters_own_command_runs_as_long_as_its_runs_do(made):
    """Dagster calls it complete once its runs wait in line; its days, and its end, are those of its runs."""
    runs = made.job_backfill(*made.days(1, 2))
    status = made.control.status()
    assert (status.word, status.is_over, status.days, status.parts) == ("in_progress", False, 2, 4)
    with pytest.raises(AlreadyRunningError):
        made.control.start(FIRST, LAST)
    time.sleep(1.5)  # longer than the slack between an event and the end that Dagster gave it
    for site in SITES:
        made.store(site, *made.days(1, 1))
    made.end_run(runs[0])
    assert made.control.status().percent == 50.0
    for site in SITES:
        made.store(site, *made.days(2, 2))
    made.end_run(runs[1])
    status = made.control.status()
    assert (status.word, status.percent, status.is_over) == ("completed", 100.0, True)


def test_a_backfill_of_dagsters_own_command_is_cancelled_by_its_runs(made):
    """Runs that wait in line do not begin; what is not stored is missing and the word is cancelled."""
    runs = made.job_backfill(*made.days(1, 3))
    made.end_run(runs[0], dg.DagsterEventType.RUN_FAILURE)
    made.control.cancel()
    status = made.control.status()
    assert (status.word, status.is_over, status.days_done) == ("cancelled", True, 0)
    assert {run.status for run in made.instance.get_runs()} == {
        dg.DagsterRunStatus.FAILURE,
        dg.DagsterRunStatus.CANCELED,
    }
    made.control.start(FIRST, LAST)


def test_a_failed_run_of_dagsters_own_command_fails_its_backfill(made):
    """Once all its runs are over."""
    runs = made.job_backfill(*made.days(1, 2))
    made.end_run(runs[0], dg.DagsterEventType.RUN_FAILURE)
    assert made.control.status().word == "in_progress"
    made.end_run(runs[1])
    assert made.control.status().word == "failed"


def test_an_event_that_postgres_shows_late_is_not_missed(tmp_path, monkeypatch):
    """A writer takes its number first and is seen last: what was read past in the meantime is read again."""
    with postgres_server() as url:
        made = Installation(tmp_path / "home", monkeypatch, BACKFILL_RUN_STORAGE=url)
        first, second, third = made.days(1, 3)
        engine = sa.create_engine(url.replace("postgresql://", "postgresql+psycopg2://"))
        try:
            made.store("north", first)
            with engine.connect() as slow:
                slow.execute(
                    sa.text(
                        "INSERT INTO event_logs (run_id, event, dagster_event_type, timestamp, asset_key, partition) "
                        "SELECT run_id, replace(event, :first, :second), dagster_event_type, timestamp, asset_key, "
                        ":second FROM event_logs WHERE partition = :first"
                    ),
                    {"first": str(first), "second": str(second)},
                )
                made.store("north", third)
                assert [event.day for event in made.gateway.events("north")] == [first, third]
                slow.commit()
            assert {event.day for event in made.gateway.events("north")} == {first, second, third}
        finally:
            engine.dispose()
            made.instance.dispose()


@pytest.mark.parametrize(
    ("file", "held", "said"),
    [
        ("dagster.yaml", "storage: [1", "line 1, column 10"),
        ("dagster.yaml", "nope: 1", '"nope" at the root'),
        (".dagster/history/runs.db", "no database", "DAGSTER_HOME"),
    ],
)
def test_an_instance_that_cannot_be_opened_is_one_line(tmp_path, monkeypatch, file, held, said):
    """A broken `dagster.yaml`, a broken storage: what is wrong where, and no traceback."""
    (tmp_path / "dagster.yaml").write_text((TOP / "dagster.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text(held, encoding="utf-8")
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    with pytest.raises(SettingError) as caught:
        Gateway(Settings(home=tmp_path))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_daemon_that_cannot_load_the_code_says_why(made):
    """What its newest sign of life carries is in status and errors while the backfill runs, its cause in one line."""
    started = made.control.start(FIRST, LAST)
    assert made.control.status().message is None
    cause = SerializableErrorInfo("SettingError: ACE_SITES is not set\n", [], "SettingError")
    error = SerializableErrorInfo("Unable to reach the code server\n", [], "Unreachable", cause=cause)
    made.instance.add_daemon_heartbeat(DaemonHeartbeat(time.time(), "BACKFILL", None, [error]))
    assert "cannot continue the backfill: SettingError: ACE_SITES is not set" in made.control.status().message
    (failure,) = made.control.errors()
    assert "ACE_SITES is not set" in failure.error
    assert (failure.backfill_id, failure.site, failure.day) == (started.backfill_id, None, None)
    made.beat()
    assert made.control.errors() == []


def test_a_backfill_of_days_that_are_no_longer_partitions_names_the_setting(made):
    """Dagster's own words, then the variables that have changed since, and what to do."""
    started = made.control.start(FIRST, LAST)
    found = made.instance.get_backfill(started.backfill_id)
    error = SerializableErrorInfo("Asset timeseries/a-b existed at storage-time, but no longer does. \n", [], None)
    made.instance.update_backfill(found.with_status(BulkActionStatus.FAILED).with_error(error))
    changed = made.settings.model_copy(update={"sites": ("north",), "first_day": date(2025, 1, 3)})
    control = Control(made.control.gateway, changed, all_sites=lambda: changed.sites)
    for text in (control.status().message, control.errors()[0].error):
        assert "timeseries/a-b existed" in text
        assert (
            "ACE_SITES no longer contains 'a-b' and BACKFILL_FIRST_DAY is now 2025-01-03, later than 2025-01-01" in text
        )


def test_the_tags_of_a_backfill_are_plain_and_those_of_earlier_versions_are_read(made):
    """Days and sites are a tag each, the forecast is none; a backfill of an earlier version has both as JSON."""
    sites, days = ["north", "a-b"], made.days(1, 3)
    new = made.gateway.launch(sites, days, forecast='{"requests": 7}')
    found = made.instance.get_backfill(new)
    assert found.tags == {"backfill/from": str(days[0]), "backfill/to": str(days[-1]), "backfill/sites": "north,a-b"}
    asked = json.dumps({"first": str(days[0]), "last": str(days[-1]), "sites": sites})
    old = PartitionBackfill(
        backfill_id="old",
        status=found.status,
        from_failure=False,
        tags={"backfill/asked": asked, "backfill/forecast": '{"requests": 7}'},
        backfill_timestamp=found.backfill_timestamp,
        asset_selection=found.asset_selection,
        asset_backfill_data=found.asset_backfill_data,
    )
    made.instance.add_backfill(old)
    for backfill in map(made.gateway.backfill, (new, "old")):
        assert backfill.asked == {site: frozenset(days) for site in sites}
        assert backfill.forecast == '{"requests": 7}'
