"""Dagster's own commands, as the README writes them, through the real daemon: a day, a range, a backfill."""

import re
import subprocess
import sys

from backfill_pipeline.simulator.app import Simulator
from backfill_pipeline.simulator.world import SiteSpec, World
from backfill_pipeline_tests.journeys.stack import TOP, day, stack

SITES = ("my_site", "a-b")
RANGE = '{{"dagster/asset_partition_range_start": "{0}", "dagster/asset_partition_range_end": "{1}"}}'


def dagster(made, *words: str) -> str:
    """`dagster ...` in the installation's folder; what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "dagster", *words],
        cwd=made.home,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_commands_of_the_readme_do_what_the_ui_does(tmp_path, monkeypatch):
    """Each stores exactly the days that it names, of all sites or of the one that it selects."""
    world = World([SiteSpec(site, 10) for site in SITES])
    readme = (TOP / "README.md").read_text(encoding="utf-8")
    for words in ("dagster asset materialize", "dagster job backfill", "dagster job launch"):
        assert re.search(rf"^{words} ", readme, re.MULTILINE)
    with (
        Simulator(world, api_key="hush-hush") as simulator,
        stack(tmp_path / "home", simulator.url, SITES, monkeypatch) as made,
    ):
        where = ("-w", str(made.home / "workspace.yaml"))
        job = ("-j", "backfill_job", *where)
        dagster(made, "job", "backfill", *job, "--from", day(0), "--to", day(4), "--noprompt")
        dagster(made, "job", "launch", *job, "--tags", f'{{"dagster/partition": "{day(6)}"}}')
        dagster(made, "job", "launch", *job, "--tags", RANGE.format(day(8), day(10)))
        selected = ("--select", "timeseries/a-b", "--partition", day(12))
        dagster(made, "asset", "materialize", "-m", "backfill_pipeline.definitions", *selected)
        days = {day(number) for number in (0, 1, 2, 3, 4, 6, 8, 9, 10)}
        made.until(lambda: made.done("my_site") >= days and made.done("a-b") >= days)
        assert made.done("my_site") == days
        assert made.done("a-b") == days | {day(12)}
        assert set(made.times_stored().values()) == {1}
        assert len(made.instance.get_runs()) == 5 + 1 + 1 + 1  # a range is one run, `job backfill` one for each day
