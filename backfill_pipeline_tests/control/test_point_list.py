"""Rules of `backfill points --list`: points are found by words, and hostile texts stay on their line."""

import json
from datetime import UTC, date, datetime, timedelta

import pytest
from click.testing import CliRunner

from backfill_pipeline.control.cli import backfill, main
from backfill_pipeline.control.output import page
from backfill_pipeline.core.point_catalogue import described
from backfill_pipeline.dataset.point_catalogue import update_catalogue
from backfill_pipeline.settings import Settings
from backfill_pipeline.storage.days import put_day, settings_store
from backfill_pipeline_tests.orchestration.fakes import day_rows

AT = datetime(2025, 6, 1, tzinfo=UTC)


def point(name, unit, description, **more):
    return {"name": name, "bacnet_data": {"units": unit, "object_description": description}} | more


@pytest.fixture
def command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BACKFILL_STORE", str(tmp_path / "data"))
    items = [
        point("s/1", "degreesCelsius", "Zone temperature", marker_tags=["zone", "temp"], kv_tags={"vav": "2_5"}),
        point("s/2", "percent", "Valve \x1b[2Jposition\nok  forged"),
    ]
    update_catalogue(settings_store(Settings.load()), "s", described(items, AT), AT)
    return lambda *words: CliRunner().invoke(backfill, ["points", "--site", "s", *words])


def test_words_find_points_in_any_field(command):
    """Each word has to occur in the name, description, unit, tags or device of a point."""
    for words in ("zone TEMP", "vav=2_5", "celsius s/1"):
        done = command("--list", words)
        assert done.exit_code == 0
        assert "Zone temperature  [degreesCelsius]" in done.output
        assert f"1 of 2 points of site s contain: {words}" in done.output
    assert "0 of 2 points" in command("--list", "nowhere").output


def test_a_listing_without_words_shows_every_point(command):
    """`--list` alone lists all points, and `--json` gives every column."""
    assert "2 of 2 points of site s" in command("--list").output
    rows = json.loads(command("--list", "", "--json").output)
    assert [(row["name"], row["unit"], row["kv_tags"]) for row in rows] == [
        ("s/1", "degreesCelsius", {"vav": "2_5"}),
        ("s/2", "percent", {}),
    ]


def test_a_description_cannot_forge_a_line(command):
    """Control characters of a description reach no terminal."""
    output = command("--list", "valve").output
    assert "\x1b" not in output
    assert not any(line.startswith("ok") for line in output.splitlines())


def test_without_a_listing_or_a_range_the_command_says_what_it_needs(command):
    """`backfill points` alone ends with exit code 2 and names the options that it needs."""
    done = command()
    assert done.exit_code == 2
    assert "needs --list, --rebuild, --export, or --from and --to" in done.output


def test_tags_are_wrapped_for_a_terminal_and_names_are_whole(command, tmp_path):
    """A point with many tags takes several lines of at most 80 columns; its name stays on one line."""
    name = "s/" + "x" * 100
    items = [point(name, None, "Many tags", marker_tags=[f"tag-{n}" for n in range(40)])]
    at = AT + timedelta(days=1)
    update_catalogue(settings_store(Settings.load()), "s", described(items, at), at)
    lines = command("--list", "many").output.splitlines()
    assert lines[:2] == ["Many tags", f"    {name}"]
    assert all(len(line) <= 80 for line in lines[2:])
    assert sum(line.count("tag-") for line in lines) == 40


def test_a_long_list_goes_through_the_pager(monkeypatch):
    """Lines that do not fit on a terminal go through the pager; fewer lines, and a pipe, do not."""
    paged, printed = [], []
    monkeypatch.setattr("click.echo_via_pager", paged.extend)
    monkeypatch.setattr("click.echo", printed.append)
    monkeypatch.setenv("LINES", "5")
    for is_terminal, count in ((True, 5), (True, 4), (False, 5)):
        monkeypatch.setattr("sys.stdout.isatty", lambda is_terminal=is_terminal: is_terminal)
        page(["\x1b"] * count)
    assert paged == ["\\x1b\n"] * 5
    assert printed == ["\n".join(["\\x1b"] * count) for count in (4, 5)]


def test_a_rebuild_adds_points_of_stored_days(command, tmp_path):
    """`--rebuild` reports the days that it read and the points that are not listed any more; again, nothing changes."""
    store = settings_store(Settings.load())
    for number in range(3):
        put_day(store, day_rows("s", date(2024, 5, 1) + timedelta(days=number)))
    done = command("--rebuild", "--json")
    assert done.exit_code == 0, done.output
    facts = json.loads(done.stdout)
    assert (facts["changed"], facts["days_read"], facts["points"]) == (True, 3, 2 + facts["points_known_by_name_only"])
    assert facts["points_not_listed"] == facts["points_known_by_name_only"] > 0
    again = command("--rebuild", "--from", "2024-05-02", "--to", "2024-05-03")
    assert "did not change: 2 stored days were read" in again.stdout
    assert "not listed since 2024-05-04" in command("--list", "s/p0").output


def test_a_rebuild_that_finds_nothing_is_refused(tmp_path, monkeypatch, capsys):
    """A site without a catalogue and without stored days is exit code 2 with what to do."""
    monkeypatch.chdir(tmp_path)
    for name, value in {"BACKFILL_STORE": str(tmp_path / "data"), "ACE_SITES": "s,t"}.items():
        monkeypatch.setenv(name, value)
    for words, message in (
        ((), "Fetch a day of the site"),
        (("--from", "2025-01-02", "--to", "2025-01-01"), "is before"),
    ):
        monkeypatch.setattr("sys.argv", ["backfill", "points", "--site", "t", "--rebuild", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 2
        assert message in capsys.readouterr().err
