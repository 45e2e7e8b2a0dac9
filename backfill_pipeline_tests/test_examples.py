"""What `examples/` shows works as it stands."""

import os
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta

import duckdb
import pytest

from backfill_pipeline.core.point_catalogue import described
from backfill_pipeline.core.rows import Counts, DayRows
from backfill_pipeline.dataset.point_catalogue import update_catalogue
from backfill_pipeline.dataset.rollup import build_rollup
from backfill_pipeline.settings import Settings
from backfill_pipeline.storage.days import put_day, settings_store
from backfill_pipeline_tests.orchestration.fakes import day_rows
from backfill_pipeline_tests.storage.bucket import BUCKET, KEY, SECRET, bucket_server
from backfill_pipeline_tests.storage.test_texts import worded
from backfill_pipeline_tests.test_architecture import ROOT

EXAMPLES = ROOT.parent / "examples"
FIRST = date(2024, 2, 28)


def fill(settings):
    store = settings_store(settings)
    for number in (0, 1, 3):
        put_day(store, worded({(1, 5): "on"} if number else {}, [], day_rows("s", FIRST + timedelta(days=number))))
    at = datetime(2024, 2, 29, tzinfo=UTC)
    about = {"units": "percent", "object_description": "Valve position", "device_name": "AHU-1"}
    update_catalogue(store, "s", described([{"name": "s/p1", "bacnet_data": about}], at), at)
    put_day(store, DayRows("t", FIRST, ["p"], [], Counts()))
    for month in (FIRST, date(2024, 3, 1)):
        build_rollup(store, "s", month)


def test_the_script_goes_from_a_bucket_to_a_chart(tmp_path):
    """A PNG, and a line for the day that is not there."""
    with bucket_server() as proxy:
        variables = {
            "BACKFILL_STORE": f"s3://{BUCKET}",
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_ENDPOINT_URL_S3": proxy.url,
            "AWS_REGION": "us-east-1",
        }
        fill(Settings.load(variables, folder=tmp_path))
        words = ["s", "s/p1", "2024-02-28", "2024-03-03", str(tmp_path / "chart.png")]
        done = subprocess.run(
            [sys.executable, str(EXAMPLES / "chart.py"), *words],
            env=os.environ | variables | {"PYTHONPATH": str(ROOT.parent)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "chart.png").read_bytes().startswith(b"\x89PNG")
    assert "2024-03-01 is not stored" in done.stderr


def test_the_view_of_texts_shows_them(database):
    """One row for each sample whose value is a text, beside the views of numbers."""
    rows = database.sql("SELECT time::DATE, point_name, text, site_name FROM texts ORDER BY time").fetchall()
    assert rows == [(FIRST + timedelta(days=number), "s/p1", "on", "s") for number in (1, 3)]


@pytest.fixture
def database(tmp_path):
    fill(Settings(store=str(tmp_path / "data")))
    with duckdb.connect() as database:
        database.execute(f"SET VARIABLE store = '{(tmp_path / 'data').as_posix()}'")
        database.execute((EXAMPLES / "views.sql").read_text(encoding="utf-8"))
        yield database


def test_the_views_show_samples_and_what_arrived(database):
    """Each object is a row of `site_days` with its footer's figures, empty ones included."""
    assert database.sql("SELECT count(*), min(time)::DATE FROM samples").fetchall() == [(3 * 432, FIRST)]
    rows = database.sql(
        "SELECT site_name, day, state, rows, points_seen, points_configured, longest_gap_min, interval_s "
        "FROM site_days ORDER BY ALL"
    ).fetchall()
    assert rows[0] == ("s", FIRST, "stored", 432, 3, 4, 9, 600.0)
    assert rows[-1] == ("t", FIRST, "empty", 0, 0, 1, 1440, None)
    assert len(rows) == 4
    assert database.sql("SELECT samples FROM hourly WHERE point_name = 's/p1' LIMIT 1").fetchall() == [(6,)]


@pytest.mark.parametrize("zone", ["Europe/Berlin", "Asia/Kathmandu", "America/St_Johns"])
def test_a_view_shows_local_time(database, zone):
    """`local_samples` has the local days of pandas, over the day on which the clocks change."""
    utc = database.sql("SELECT time, local_time FROM local_samples").fetchall()
    assert all(time == local for time, local in utc)
    database.execute(f"SET VARIABLE tz = '{zone}'")
    frame = database.sql("SELECT time, local_time FROM local_samples").df()
    expected = frame["time"].dt.tz_localize("UTC").dt.tz_convert(zone).dt.tz_localize(None)
    assert (frame["local_time"] == expected).all()
    changes = database.sql(
        "SELECT make_timestamptz(2025, 3, 30, h, 0, 0, 'UTC') AT TIME ZONE 'Europe/Berlin' FROM (VALUES (0), (1)) t(h)"
    ).fetchall()
    assert [at.hour for (at,) in changes] == [1, 3]


def test_a_view_joins_samples_with_names_and_units(database):
    """`named_samples` has a row for each sample, with the unit and description that its point had then."""
    rows = database.sql(
        "SELECT unit, description, device_name, count(*) FROM named_samples GROUP BY ALL ORDER BY ALL"
    ).fetchall()
    assert rows == [("percent", "Valve position", "AHU-1", 432), (None, None, None, 2 * 432)]
    assert database.sql("SELECT site_name, name FROM points").fetchall() == [("s", "s/p1")]


def test_a_view_shows_hourly_values_with_names_and_units(database):
    """`named_rollup` has the hours of the samples; its figures are those of the view `hourly`."""
    rows = database.sql(
        "SELECT count(*), sum(named_rollup.count), count(unit), max(abs(named_rollup.mean - hourly.mean)) "
        "FROM named_rollup JOIN hourly ON named_rollup.point_name = hourly.point_name AND time = hour "
        "WHERE max = greatest AND min = least"
    ).fetchall()
    ((hours, samples, units, difference),) = rows
    assert (hours, samples, units) == (3 * 3 * 24, 3 * 432, 3 * 24)
    assert difference < 1e-9


def test_the_script_of_a_year_finds_points_by_words(tmp_path):
    """A PNG, the days that come from hourly values, and a line for the day that is not stored."""
    variables = {"BACKFILL_STORE": str(tmp_path / "data"), "PYTHONPATH": str(ROOT.parent)}
    fill(Settings(store=str(tmp_path / "data")))

    def done(words):
        command = [sys.executable, str(EXAMPLES / "year.py"), "s", words, "2024-02-28", "2024-04-28", "Europe/Berlin"]
        return subprocess.run(
            [*command, "year.png"],
            env=os.environ | variables,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            encoding="utf-8",
            check=False,
        )

    drawn = done("valve")
    assert drawn.returncode == 0, drawn.stderr
    assert drawn.stdout.startswith("3 of 3 days from hourly values")
    assert (tmp_path / "year.png").read_bytes().startswith(b"\x89PNG")
    assert "2024-03-01 is not stored" in drawn.stderr
    nothing = done("no such point")
    assert nothing.returncode == 1
    assert "no point of site 's' has the words" in nothing.stderr
