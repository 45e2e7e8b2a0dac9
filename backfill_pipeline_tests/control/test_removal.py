"""Days removed on purpose: from the store and from the record together, on SQLite and on Postgres."""

import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from dagster._core.execution.backfill import BulkActionStatus

from backfill_pipeline.control.cli import backfill
from backfill_pipeline.control.dagster_instance import Gateway
from backfill_pipeline.control.removal import remove_days
from backfill_pipeline.core.object_keys import rollup_key, text_key
from backfill_pipeline.errors import AlreadyRunningError, StoreRefusedError, UsageError
from backfill_pipeline.orchestration.history import Launched, read_attempted, read_due
from backfill_pipeline.orchestration.partitions import asset_key
from backfill_pipeline.storage.day_index import IndexedDay, read_indexes, record_days
from backfill_pipeline_tests.control.installation import SITES, Installation
from backfill_pipeline_tests.services import postgres_server

FIRST, LAST = date(2025, 1, 1), date(2025, 1, 10)


@pytest.fixture(params=["sqlite", "postgres"])
def made(request, tmp_path, monkeypatch):
    if request.param == "sqlite":
        installation = Installation(tmp_path / "home", monkeypatch)
        yield installation
        installation.instance.dispose()
        return
    with postgres_server() as url:
        installation = Installation(tmp_path / "home", monkeypatch, BACKFILL_RUN_STORAGE=url)
        yield installation
        installation.instance.dispose()


def test_removed_days_are_neither_stored_nor_recorded_and_a_start_fetches_them_again(made):
    """Other days and other sites stay as they are; a process that has read the events before learns of it."""
    for site in SITES:
        made.store(site, *made.days(1, 10))
    watcher = Gateway(made.settings)
    assert len(watcher.events("north")) == 10
    dry = remove_days(made.gateway, *made.days(3, 5)[::2], ["north"], really=False)
    assert (dry.objects, dry.bytes, dry.records, dry.done) == (3, 300, 3, False)
    assert made.object("north", date(2025, 1, 4)).exists()
    done = remove_days(made.gateway, date(2025, 1, 3), date(2025, 1, 5), ["north"], really=True)
    assert done.facts() == {"removed": True, "objects": 3, "bytes": 300, "records": 3, "sites": {"north": 3}}
    kept = set(made.days(1, 10)) - set(made.days(3, 5))
    assert {day for day in made.days(1, 10) if made.object("north", day).exists()} == kept
    assert made.gateway.days_stored(SITES) == {"north": kept, "a-b": set(made.days(1, 10))}
    assert {event.day for event in watcher.events("north")} == kept
    assert made.instance.get_materialized_partitions(asset_key("north")) == {str(day) for day in kept}
    started = made.control.start(FIRST, LAST)
    assert (started.todo, started.lost) == (3, 0)
    made.store("north", *made.days(3, 5))
    assert made.control.status().word == "completed"
    assert {event.day for event in watcher.events("north")} == set(made.days(1, 10))
    watcher.instance.dispose()


def test_sensors_leave_removed_days_alone(made):
    """They are not new, and not fetched again because they failed before; once stored again they are as any day."""
    for site in SITES:
        made.fail(site, *made.days(1, 1))
    made.store("north", *made.days(1, 2))
    later = datetime.now(UTC) + timedelta(days=2)
    assert [again.day for _, again in read_due(made.instance, "a-b", Launched(), later)[0]] == made.days(1, 1)
    remove_days(made.gateway, FIRST, date(2025, 1, 2), ["north"], really=True)
    assert read_attempted(made.instance, ["north"], FIRST, LAST)["north"] == set(made.days(1, 2))
    assert read_due(made.instance, "north", Launched(), later)[0] == []
    assert made.control.start(FIRST, LAST, ["north"]).todo == 10


def test_what_was_made_from_removed_days_is_removed_with_them(tmp_path, monkeypatch):
    """Hourly values of their months and their rows of the index; other months and sites keep theirs."""
    made = Installation(tmp_path / "home", monkeypatch)
    days = [date(2025, 1, 1), date(2025, 2, 1)]
    for site in SITES:
        made.store(site, *days)
        record_days(made.gateway.store, site, [IndexedDay(day, "stored", 10, 100, None, None) for day in days])
        for day in days:
            made.gateway.store.replace(rollup_key(site, day), b"hourly values", None)
    remove_days(made.gateway, days[0], days[0], ["north"], really=True)
    store = made.gateway.store
    left = {(site, day) for site in SITES for day in days if store.head(rollup_key(site, day)) is not None}
    assert left == {(site, day) for site in SITES for day in days} - {("north", days[0])}
    indexed = read_indexes(store, SITES, [2025])
    assert {(site, day) for site in SITES for day in indexed[site]} == left
    made.instance.dispose()


def test_nothing_is_removed_while_a_backfill_or_a_run_is_in_progress(tmp_path, monkeypatch):
    """It might store one of the days meanwhile; a dry run is answered."""
    made = Installation(tmp_path / "home", monkeypatch)
    made.store("north", *made.days(1, 10))
    started = made.control.start(FIRST, LAST)
    assert remove_days(made.gateway, FIRST, LAST, ["north"], really=False).records == 10
    with pytest.raises(AlreadyRunningError, match=started.backfill_id):
        remove_days(made.gateway, FIRST, LAST, ["north"], really=True)
    made.mark(started.backfill_id, BulkActionStatus.COMPLETED_SUCCESS)
    run_id = made.run("no-backfill", made.days(1, 1))
    with pytest.raises(AlreadyRunningError, match=run_id):
        remove_days(made.gateway, FIRST, LAST, ["north"], really=True)
    with pytest.raises(UsageError, match="before"):
        remove_days(made.gateway, LAST, FIRST, ["north"], really=False)
    assert made.gateway.days_stored(["north"])["north"] == set(made.days(1, 10))
    made.instance.dispose()


def test_an_object_that_cannot_be_deleted_keeps_its_record(tmp_path, monkeypatch):
    """The same command resumes after the cause is removed."""
    made = Installation(tmp_path / "home", monkeypatch)
    made.store("north", *made.days(1, 2))
    path = made.object("north", FIRST)
    path.unlink()
    (path / "in the way").mkdir(parents=True)
    with pytest.raises(StoreRefusedError):
        remove_days(made.gateway, FIRST, LAST, ["north"], really=True)
    assert FIRST in made.gateway.days_stored(["north"])["north"]
    (path / "in the way").rmdir()
    path.rmdir()
    assert remove_days(made.gateway, FIRST, LAST, ["north"], really=True).records == 2
    assert made.gateway.days_stored(["north"]) == {"north": set()}
    made.instance.dispose()


def test_the_command_lists_first_and_removes_with_yes(tmp_path, monkeypatch):
    """The dry run ends with the command that does it."""
    made = Installation(tmp_path / "home", monkeypatch)
    made.store("north", *made.days(1, 2))
    asked = ["remove", "--site", "north", "--from", "2025-01-01", "--to", "2025-01-31"]
    dry = CliRunner().invoke(backfill, asked, catch_exceptions=False).output.splitlines()
    assert dry[:2] == [
        "north: 2 days, 2025-01-01 to 2025-01-02",
        "2 objects with 200 bytes and 2 records would be removed",
    ]
    assert dry[2].endswith("backfill remove --from 2025-01-01 --to 2025-01-31 --site north --yes")
    assert json.loads(CliRunner().invoke(backfill, [*asked, "--json"]).output)["removed"] is False
    assert "2 records removed" in CliRunner().invoke(backfill, [*asked, "--yes"]).output
    assert CliRunner().invoke(backfill, asked).output.splitlines()[-1].startswith("0 objects with 0 bytes")
    made.instance.dispose()


def test_the_index_has_no_row_of_a_removed_day(tmp_path, monkeypatch):
    """Rows of removed days leave the index; rows of other days and other sites stay."""
    made = Installation(tmp_path / "home", monkeypatch)
    for site in SITES:
        made.store(site, *made.days(1, 4))
        record_days(made.gateway.store, site, [IndexedDay(day, "stored", 10, 100) for day in made.days(1, 4)])
    remove_days(made.gateway, date(2025, 1, 2), date(2025, 1, 3), ["north"], really=True)
    rows = read_indexes(made.gateway.store, SITES, [2025])
    assert sorted(rows["north"]) == [date(2025, 1, 1), date(2025, 1, 4)]
    assert sorted(rows["a-b"]) == made.days(1, 4)
    made.instance.dispose()


def test_texts_are_removed_with_their_day(made):
    """Also texts whose day was deleted before, by a command that was interrupted."""
    made.store("north", *made.days(1, 3))
    texts = [Path(made.gateway.store.url(text_key("north", day))) for day in made.days(1, 4)]
    for path in texts:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 7)
    done = remove_days(made.gateway, date(2025, 1, 2), date(2025, 1, 4), ["north"], really=True)
    assert (done.objects, done.bytes, done.facts()["sites"]) == (5, 221, {"north": 3})
    assert [path.exists() for path in texts] == [True, False, False, False]
