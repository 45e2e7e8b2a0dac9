"""`backfill simulate` serves what its options name, and refuses in one line what it cannot serve."""

import subprocess
import sys
from contextlib import contextmanager

import pytest
import requests
from click.testing import CliRunner

from backfill_pipeline.simulator.command import simulate


@contextmanager
def served(*arguments):
    """The command as a process; gives a function that requests a day of a site: its answer."""
    command = [sys.executable, "-m", "backfill_pipeline.control.cli", "simulate", "--port", "0", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            settings = dict(process.stdout.readline().strip().split("=", 1) for _ in range(3))

            def day(site, day):
                answer = requests.get(
                    f"{settings['ACE_API_URL']}/sites/{site}/timeseries/paginated",
                    params={
                        "start_time": f"2025-03-{day:02}T00:00:00Z",
                        "end_time": f"2025-03-{day + 1:02}T00:00:00Z",
                        "raw_data": "true",
                    },
                    headers={"authorization": f"Bearer {settings['ACE_API_KEY']}"},
                    timeout=30,
                )
                return answer.json()

            yield settings, day
        finally:
            process.kill()


def test_an_empty_day_a_failing_day_and_a_late_site_are_rehearsed_by_options():
    """Each option changes its own site and day, and nothing else."""
    options = ("--empty-day", "demo-north:2025-03-02", "--failing-day", "demo-north:2025-03-03")
    with served("--points", "5", *options, "--site-starts", "demo_south:2025-03-03") as (_, day):
        seen = {
            site: ["samples" if day(site, n).get("point_samples") else list(day(site, n)) for n in range(1, 5)]
            for site in ("demo-north", "demo_south")
        }
    nothing = ["point_samples", "next_cursor", "has_more"]
    assert seen["demo-north"] == ["samples", nothing, ["message"], "samples"]
    assert seen["demo_south"] == [nothing, nothing, "samples", "samples"]


def test_an_ambiguous_export_is_served_as_the_options_say(tmp_path):
    """`--dates`, `--decimal` and `--encoding` reach the reader."""
    path = tmp_path / "Büro.csv"
    path.write_bytes("Zeit;Zähler\n03/01/2025;1,234\n".encode("latin-1"))
    with served("--replay", str(path), "--dates", "month-first", "--decimal", "comma", "--encoding", "latin-1") as (
        settings,
        day,
    ):
        assert settings["ACE_SITES"] == "Büro"
        row = {"name": "Zähler", "value": "1.234", "time": "2025-03-01T00:00:00"}
        (found,) = day("Büro", 1)["point_samples"]
        assert {name: found[name] for name in row} == row


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--replay", "site.csv"], "site.csv, line 2: '01/03/2025' is ambiguous"),
        (["--replay", "site.csv", "--dates", "first"], "day-first"),
        (["--replay", "."], "has no CSV file"),
        (["--encoding", "base64"], "'base64' is not a text encoding"),
        (["--encoding", "nonsense"], "'nonsense' is not a text encoding"),
        (["--empty-day", "demo-north"], "SITE:YYYY-MM-DD"),
        (["--failing-day", "demo-north:2025-02-30"], "SITE:YYYY-MM-DD"),
        (["--site-starts", "nowhere:2025-03-01"], "--site-starts: unknown site 'nowhere'"),
        (["--fault", "message:day=tomorrow"], "YYYY-MM-DD"),
    ],
)
def test_what_cannot_be_served_is_refused_by_name(tmp_path, monkeypatch, arguments, word):
    """Exit code 2; the file and its line, or the option, and what to do."""
    monkeypatch.chdir(tmp_path)
    if "site.csv" in arguments:
        (tmp_path / "site.csv").write_text("t,a\n01/03/2025,1\n")
    done = CliRunner().invoke(simulate, arguments)
    assert done.exit_code == 2
    assert word in done.output


def test_help_names_the_rehearsals():
    """`--help` lists the options."""
    shown = CliRunner().invoke(simulate, ["--help"]).output
    assert all(option in shown for option in ("--empty-day", "--failing-day", "--site-starts", "--dates"))
