"""What became of stored days: objects that vanish, runs whose process ends, and what an operator reads then."""

import json
import shlex
from dataclasses import replace
from datetime import date

import dagster as dg
from click.testing import CliRunner
from dagster._core.execution.backfill import BulkActionStatus

from backfill_pipeline.control.cli import backfill
from backfill_pipeline.control.progress import status_lines
from backfill_pipeline.errors import AlreadyRunningError
from backfill_pipeline.orchestration import stored_records
from backfill_pipeline.orchestration.partitions import asset_key
from backfill_pipeline.orchestration.stored_records import read_records, remove_records
from backfill_pipeline.storage.day_index import forget_days, read_indexes, record_days
from backfill_pipeline.storage.days import put_day
from backfill_pipeline_tests.control.installation import SITES
from backfill_pipeline_tests.orchestration.fakes import day_rows

FIRST, LAST = date(2025, 1, 1), date(2025, 1, 10)


def all_stored(made):
    started = made.control.start(FIRST, LAST)
    for site in SITES:
        made.store(site, *made.days(1, 10))
    made.mark(started.backfill_id, BulkActionStatus.COMPLETED_SUCCESS)
    return started.backfill_id


def test_days_whose_object_is_gone_or_changed_are_not_completed(made):
    """Status, its message and the errors name them, with the command that fetches them again; the record is kept."""
    backfill_id = all_stored(made)
    made.object("north", made.days(3, 3)[0]).unlink()
    made.object("a-b", made.days(5, 5)[0]).write_bytes(b"")
    status = made.control.status()
    assert (status.word, status.percent, status.days_done, status.missing) == ("failed", 90.0, 8, 2)
    assert status.rows == 180
    command = "backfill verify --from 2025-01-03 --to 2025-01-05 --repair"
    assert "a-b 2025-01-05, north 2025-01-03" in status.message
    assert status.message.endswith(command)
    assert status.facts()["message"] == status.message
    assert any(command in line for line in status_lines(status))
    told = {(one.site, one.day): one.text for one in made.control.errors()}
    assert set(told) == {("north", date(2025, 1, 3)), ("a-b", date(2025, 1, 5))}
    assert "--from 2025-01-03 --to 2025-01-03 --site north --repair" in told["north", date(2025, 1, 3)]
    assert "0 bytes" in told["a-b", date(2025, 1, 5)]
    assert made.control.status(backfill_id, compare=False).word == "completed"


def test_a_start_fetches_days_whose_object_is_gone_or_changed(made):
    """And no other; once they are stored again, the backfill of before is complete again."""
    before = all_stored(made)
    made.object("north", made.days(3, 3)[0]).unlink()
    made.object("a-b", made.days(5, 5)[0]).write_bytes(bytes(99))
    started = made.control.start(FIRST, LAST)
    assert (started.todo, started.skipped, started.lost) == (2, 18, 2)
    assert made.gateway.backfill(started.backfill_id).todo == {
        "north": frozenset(made.days(3, 3)),
        "a-b": frozenset(made.days(5, 5)),
    }
    made.store("north", *made.days(3, 3))
    made.store("a-b", *made.days(5, 5))
    assert made.control.status().word == "completed"
    assert made.control.status(before).word == "completed"


def test_a_repair_launches_exactly_what_was_found(made):
    """Its figures are of these site-days alone."""
    all_stored(made)
    wanted = [("north", date(2025, 1, 3)), ("a-b", date(2025, 1, 9))]
    started = made.control.repair(wanted)
    assert started.todo == 2
    backfill = made.gateway.backfill(started.backfill_id)
    assert {(site, day) for site, days in backfill.todo.items() for day in days} == set(wanted)
    assert backfill.asked == backfill.todo
    made.store("north", date(2025, 1, 3))
    assert (made.control.status().parts_done, made.control.status().parts) == (1, 2)


def test_a_line_of_errors_begins_with_site_and_day(made):
    """Site, day, error and hint of a failed day are separate facts, which the command joins."""
    made.control.start(FIRST, LAST, ["north"])
    made.fail("north", *made.days(1, 1), error="00:00:00-08:00:00: HTTP 502", hint="try again later")
    made.fail("north", *made.days(2, 2), error="HTTP 503")
    lines = CliRunner().invoke(backfill, ["errors"], catch_exceptions=False).output.splitlines()
    assert [line.split("  ", 1)[1] for line in lines] == [
        "north 2025-01-02: HTTP 503",
        "north 2025-01-01: 00:00:00-08:00:00: HTTP 502. Try again later",
    ]


def test_verify_launches_a_backfill_of_what_it_found(made):
    """The command prints its id, and the id is in `--json`; the exit code is 0 unless a foreign object is left."""
    day = date(2025, 1, 2)
    stored = put_day(made.gateway.store, day_rows("north", date(2025, 1, 1)))
    put_day(made.gateway.store, day_rows("north", day))
    made.instance.report_runless_asset_event(
        dg.AssetMaterialization(
            asset_key("north"), partition="2025-01-01", metadata={"bytes": stored.bytes, "sha256": stored.sha256}
        )
    )
    path = made.object("north", date(2025, 1, 1))
    path.write_bytes(path.read_bytes().replace(b"parquet-cpp-arrow", b"parquet-cpp-brrow"))
    asked = ["verify", "--site", "north", "--from", "2025-01-01", "--to", "2025-01-03"]
    shown = CliRunner().invoke(backfill, [*asked, "--deep"], catch_exceptions=False)
    assert shown.exit_code == 1
    last = shown.output.splitlines()[-1]
    assert last.endswith("backfill verify --from 2025-01-01 --to 2025-01-03 --site north --deep --repair")
    words = shlex.split(last.partition(": ")[2])[1:]
    done = CliRunner().invoke(backfill, [*words, "--json"], catch_exceptions=False)
    facts = json.loads(done.output)
    assert done.exit_code == 0
    assert facts["records_compared"] is True
    assert made.gateway.backfill(facts["backfill_id"]).todo == {"north": frozenset(made.days(1, 3)) - {day}}
    refused = CliRunner().invoke(backfill, words)
    assert isinstance(refused.exception, AlreadyRunningError)


def test_polls_of_a_backfill_that_is_over_share_one_listing(made, monkeypatch):
    """A few seconds later the store is listed again; while a backfill is in progress it is not listed at all."""
    asked = []
    listed = made.gateway.store.list
    monkeypatch.setattr(type(made.gateway.store), "list", lambda _self, *a, **k: asked.append(a) or listed(*a, **k))
    started = made.control.start(FIRST, LAST)
    asked.clear()
    made.control.status()
    assert asked == []
    for site in SITES:
        made.store(site, *made.days(1, 10))
    for _ in range(5):
        assert made.control.status(started.backfill_id).word == "completed"
    assert len(asked) == 1
    monkeypatch.setattr("backfill_pipeline.control.service.time.monotonic", lambda: 1e9)
    made.control.status()
    assert len(asked) == 2


def test_a_store_that_cannot_be_listed_is_said_and_nothing_is_called_missing(made):
    """The status is by Dagster's record then."""
    all_stored(made)
    (made.home / "data").rename(made.home / "elsewhere")
    (made.home / "data").write_bytes(b"a file")
    status = made.control.status()
    assert (status.word, status.missing) == ("completed", 0)
    assert "not compared with the store" in status.message
    assert made.control.errors() == []


def test_days_of_a_run_whose_process_ended_are_named(made):
    """Status and errors list each day, the reason and the command that resumes; failed days keep their error."""
    started = made.control.start(FIRST, LAST)
    for site in SITES:
        made.store(site, *made.days(1, 3))
    made.fail("north", *made.days(4, 4))
    made.failed_run(started.backfill_id, None, made.days(1, 6))
    status = made.control.status()
    assert (status.word, status.failed, status.lost, status.current) == ("in_progress", 6, 5, date(2025, 1, 7))
    assert "process of their run ended: a-b 2025-01-04 to 2025-01-06, north 2025-01-05 to 2025-01-06" in status.message
    for site in SITES:
        made.store(site, *made.days(7, 10))
    made.mark(started.backfill_id, BulkActionStatus.COMPLETED_FAILED)
    status = made.control.status()
    assert (status.word, status.failed, status.lost, status.current) == ("failed", 6, 5, LAST)
    command = "backfill start --from 2025-01-04 --to 2025-01-06"
    assert status.message.endswith(command)
    told = {(one.site, one.day): one.text for one in made.control.errors()}
    assert told.pop(("north", date(2025, 1, 4))) == "it broke"
    assert set(told) == {("north", day) for day in made.days(5, 6)} | {("a-b", day) for day in made.days(4, 6)}
    assert all("process ended" in error and error.endswith(command) for error in told.values())
    assert made.control.start(*(date.fromisoformat(shlex.split(command)[at]) for at in (3, 5))).todo == 6


def test_days_that_another_run_fetches_are_not_lost_and_the_current_date_does_not_go_back(made):
    """Dagster's own retry, before and after it is queued."""
    started = made.control.start(FIRST, LAST)
    for site in SITES:
        made.store(site, *made.days(1, 3))
    seen = [made.control.status().current]
    made.failed_run(started.backfill_id, "gone", made.days(1, 6), **{"dagster/will_retry": "true"})
    status = made.control.status()
    assert (status.lost, status.word) == (0, "in_progress")
    seen.append(status.current)
    made.run(started.backfill_id, made.days(1, 6))
    status = made.control.status()
    assert status.lost == 0
    seen.append(status.current)
    made.store("north", *made.days(4, 8))
    seen.append(made.control.status().current)
    assert seen == sorted(seen)


def test_a_run_that_reported_its_own_error_did_not_lose_its_process(made):
    """Only days without an error of their own are listed beside it, with the reason that the run gave."""
    started = made.control.start(FIRST, LAST, ["north"])
    made.store("north", *made.days(1, 8))
    made.failed_run(started.backfill_id, "process 4711 is gone", made.days(1, 9), ["north"])
    made.fail("north", *made.days(9, 10))
    assert made.control.status().lost == 0
    assert {one.day for one in made.control.errors()} == {date(2025, 1, 9), date(2025, 1, 10), None}


def test_a_start_reads_no_record_of_a_day_that_the_index_and_a_listing_agree_on(made, monkeypatch):
    """Rows that a run wrote decide; a row that was made from a footer, a stale one and a missing one do not."""
    all_stored(made)
    store, (first, second, third, *_) = made.gateway.store, made.days(1, 10)
    read = []

    def watched(instance, site_days):
        wanted = list(site_days)
        read.extend(wanted)
        return read_records(instance, wanted)

    monkeypatch.setattr(stored_records, "read_records", watched)
    made.control.start(FIRST, LAST)
    assert read == []
    row = read_indexes(store, ["north"], [2025])["north"][first]
    record_days(store, "north", [replace(row, sha256=None, fetched_at=None)])
    forget_days(store, "north", [second])
    made.object("north", third).write_bytes(bytes(99))
    record_days(store, "a-b", [replace(row, day=date(2025, 1, 11))])  # neither recorded nor stored
    started = made.control.start(FIRST, LAST)
    assert (started.todo, started.lost) == (1, 1)
    assert set(read) == {("north", day) for day in (first, second, third)}


def test_a_start_fetches_a_day_that_is_indexed_and_not_recorded(made):
    """Another installation's object and index row are not a record of this one: `backfill adopt` makes it."""
    all_stored(made)
    remove_records(made.instance, "north", made.days(4, 4))
    started = made.control.start(FIRST, LAST)
    assert made.gateway.backfill(started.backfill_id).todo == {"north": frozenset(made.days(4, 4))}
