"""Rules of `backfill points --list`: points are found by words, and hostile texts stay on their line."""

import json
from datetime import UTC, datetime

import pytest
from click.testing import CliRunner

from backfill_pipeline.control.cli import backfill
from backfill_pipeline.core.catalogue import described
from backfill_pipeline.dataset.points import update_catalogue
from backfill_pipeline.settings import Settings
from backfill_pipeline.storage.days import settings_store

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
    assert "needs --list, or --from and --to" in done.output
