"""`backfill report` and `backfill points`, from a store on disk."""

import json
from datetime import UTC, date, datetime, timedelta

import pyarrow.parquet as pq
import pytest

from backfill_pipeline.control.cli import main
from backfill_pipeline.core.object_keys import points_key
from backfill_pipeline.core.point_catalogue import described
from backfill_pipeline.dataset.point_catalogue import update_catalogue
from backfill_pipeline.simulator.app import Simulator
from backfill_pipeline.simulator.world import SiteSpec, World
from backfill_pipeline.storage.days import put_day, settings_store
from backfill_pipeline_tests.control.installation import Installation
from backfill_pipeline_tests.orchestration.fakes import day_rows

FIRST = date(2025, 1, 1)


@pytest.fixture
def installation(tmp_path, monkeypatch):
    installation = Installation(tmp_path / "home", monkeypatch)
    installation.store("north", FIRST + timedelta(days=1), rows=432, replaced=True, rows_before=144)
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
    """HTML, PNG and Parquet; the failure that Dagster knows of is told, as text, and a day that grew."""
    out = tmp_path / "out" / "deep"
    assert command(monkeypatch, "report", *RANGE, "--points", "north", "--out", out, "--json") == 0
    assert json.loads(capsys.readouterr().out) == [str(out / f"coverage.{kind}") for kind in ("html", "png", "parquet")]
    page = (out / "coverage.html").read_text(encoding="utf-8")
    assert '<td class="d">2025-01-02</td><td class="n">144</td><td class="n">432</td>' in page
    assert page.count("Replaced days") == 1
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


def test_points_that_never_reported_are_named(installation, monkeypatch, tmp_path, capsys):
    """Without `--points` too, with the days that were checked."""
    range_ = ("--from", "2025-01-01", "--to", "2025-01-03", "--site", "north")
    assert command(monkeypatch, "report", *range_, "--out", tmp_path / "one.html") == 0
    page = (tmp_path / "one.html").read_text(encoding="utf-8")
    assert "1 configured point without a row on the 3 checked stored days, 2025-01-01 to 2025-01-03: north/p3" in page


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


def test_changes_of_points_show_what_the_points_are(installation, monkeypatch, tmp_path, capsys):
    """Lines, JSON and the report have the description and unit of the catalogue beside each name, as text."""
    about = {"units": "percent", "object_description": "<b>Valve</b>"}
    at = datetime(2025, 1, 7, tzinfo=UTC)
    items = [{"name": "north/p2", "bacnet_data": about}]
    update_catalogue(settings_store(installation.settings), "north", described(items, at), at)
    assert command(monkeypatch, "points", "--site", "north", *RANGE) == 0
    assert capsys.readouterr().out.startswith("2025-01-06  vanished      north/p2  <b>Valve</b>  [percent]")
    assert command(monkeypatch, "points", "--site", "north", *RANGE, "--json") == 0
    (one,) = json.loads(capsys.readouterr().out)
    assert (one["description"], one["unit"]) == ("<b>Valve</b>", "percent")
    assert command(monkeypatch, "report", *RANGE, "--points", "north", "--out", tmp_path / "one.html") == 0
    page = (tmp_path / "one.html").read_text(encoding="utf-8")
    assert '<td>north/p2</td><td>&lt;b&gt;Valve&lt;/b&gt;</td><td class="d">percent</td>' in page


def test_a_damaged_catalogue_costs_descriptions_alone(installation, monkeypatch, capsys):
    """Changes of points are shown without descriptions when the catalogue cannot be read."""
    settings_store(installation.settings).put(points_key("north"), b"damaged", "")
    assert command(monkeypatch, "points", "--site", "north", *RANGE) == 0
    assert capsys.readouterr().out.startswith("2025-01-06  vanished      north/p2\n")


def test_points_configured_later_are_told_with_days_and_cost(tmp_path, monkeypatch, capsys):
    """Which days lack points of now, which are worth fetching again, for how many requests, by what command."""
    installation = Installation(tmp_path / "home", monkeypatch, ACE_REQUESTS_PER_MINUTE="100000")
    store = settings_store(installation.settings)
    with Simulator(World([SiteSpec("north", 20)]), api_key="hush-hush") as simulator:
        monkeypatch.setenv("ACE_API_URL", simulator.url)
        for number in range(5):
            dropped = {"not_configured": 500} if number else {}
            put_day(store, day_rows("north", FIRST + timedelta(days=number), dropped=dropped))
        words = ("points", "--site", "north", "--from", "2025-01-01", "--to", "2025-01-05", "--lacking")
        assert command(monkeypatch, *words, "--json") == 0
        told = json.loads(capsys.readouterr().out)
        assert command(monkeypatch, *words) == 0
        said = capsys.readouterr().out
    assert [(o["first"], o["last"], o["rows_left_out"]) for o in told["lacking"]] == [
        ("2025-01-01", "2025-01-01", 0),
        ("2025-01-02", "2025-01-05", 2000),
    ]
    assert len(told["lacking"][0]["points"]) == told["points_configured"] > 0
    assert told["cost"]["site_days"] == 4
    assert 4 <= told["cost"]["requests"] <= 40
    assert told["commands"] == ["backfill start --site north --from 2025-01-02 --to 2025-01-05 --force"]
    assert "nothing to gain" in said
    assert "4 days would be fetched whole" in said
    assert said.endswith(told["commands"][0] + "\n")


def test_when_no_day_lacks_a_point_nothing_is_planned(tmp_path, monkeypatch, capsys):
    """One list of points is asked for, and one line told."""
    installation = Installation(tmp_path / "home", monkeypatch)
    with Simulator(World([SiteSpec("north", 20)]), api_key="hush-hush") as simulator:
        monkeypatch.setenv("ACE_API_URL", simulator.url)
        words = ("points", "--site", "north", "--from", "2025-01-01", "--to", "2025-01-05", "--lacking")
        assert command(monkeypatch, *words) == 0
        assert len(simulator.requests) == 1
    assert capsys.readouterr().out.startswith("no stored day lacks any of the ")
    assert installation.settings.sites
