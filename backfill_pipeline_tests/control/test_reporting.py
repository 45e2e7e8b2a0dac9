"""`backfill report` and `backfill points`, from a store on disk."""

import json
from datetime import date, timedelta

import pyarrow.parquet as pq
import pytest

from backfill_pipeline.control.cli import main
from backfill_pipeline.storage.days import put_day, settings_store
from backfill_pipeline_tests.control.installation import Installation
from backfill_pipeline_tests.orchestration.fakes import day_rows

FIRST = date(2025, 1, 1)


@pytest.fixture
def installation(tmp_path, monkeypatch):
    installation = Installation(tmp_path / "home", monkeypatch)
    store = settings_store(installation.settings)
    for number in (0, 1, 2, 5):
        put_day(store, day_rows("north", FIRST + timedelta(days=number), points=3 if number < 5 else 2))
    installation.fail("north", date(2025, 1, 4), error="<b>it broke</b>")
    return installation


def command(monkeypatch, *words):
    monkeypatch.setattr("sys.argv", ["backfill", *map(str, words)])
    try:
        main()
    except SystemExit as ended:
        return ended.code
    return 0


RANGE = ("--from", "2025-01-01", "--to", "2025-01-06")


def test_a_folder_gets_all_three_files(installation, monkeypatch, tmp_path, capsys):
    """HTML, PNG and Parquet; the failure that Dagster knows of is told, as text."""
    out = tmp_path / "out" / "deep"
    assert command(monkeypatch, "report", *RANGE, "--points", "north", "--out", out, "--json") == 0
    assert json.loads(capsys.readouterr().out) == [str(out / f"coverage.{kind}") for kind in ("html", "png", "parquet")]
    page = (out / "coverage.html").read_text(encoding="utf-8")
    assert "&lt;b&gt;it broke&lt;/b&gt;" in page
    assert (out / "coverage.png").read_bytes().startswith(b"\x89PNG")
    table = pq.read_table(out / "coverage.parquet").to_pylist()
    states = [row["state"] for row in table if row["site_name"] == "north"]
    assert states == ["stored"] * 3 + ["failed", "never asked", "stored"]


def test_a_file_is_made_by_its_suffix(installation, monkeypatch, tmp_path, capsys):
    """One file, and no other."""
    assert command(monkeypatch, "report", *RANGE, "--site", "north", "--out", tmp_path / "one.HTML") == 0
    assert (tmp_path / "one.HTML").exists()
    assert not (tmp_path / "coverage.png").exists()


@pytest.mark.parametrize("out", ["report.pdf", "home/dagster.yaml/x"])
def test_what_cannot_be_written_is_one_line(installation, monkeypatch, tmp_path, capsys, out):
    """Exit code 2, and the option's name."""
    assert command(monkeypatch, "report", *RANGE, "--out", tmp_path / out) == 2
    said = capsys.readouterr().err
    assert "--out" in said
    assert said.count("\n") == 1


def test_a_reversed_range_is_refused(installation, monkeypatch, tmp_path, capsys):
    """As by every command that takes days."""
    assert command(monkeypatch, "report", "--from", "2025-01-02", "--to", "2025-01-01", "--out", tmp_path) == 2


def test_points_over_time_are_told_line_by_line(installation, monkeypatch, capsys):
    """The third point ended with the last day that has it."""
    assert command(monkeypatch, "points", "--site", "north", *RANGE) == 0
    assert capsys.readouterr().out.startswith("2025-01-06  vanished      north/p2")
    assert command(monkeypatch, "points", "--site", "north", *RANGE, "--json") == 0
    (one,) = [one for one in json.loads(capsys.readouterr().out) if one["change"] != "appeared"]
    assert (one["day"], one["point"]) == ("2025-01-06", "north/p2")
