"""Dagster's own commands, as the docs write them, in a fresh shell, through the real daemon."""

import os
import re
import shlex
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from backfill_pipeline.orchestration.build import JOB
from backfill_pipeline.orchestration.partitions import COVERAGE_JOB
from backfill_pipeline.simulator.app import Simulator
from backfill_pipeline.simulator.world import SiteSpec, World
from backfill_pipeline_tests.journeys.stack import TOP, stack

SITES = ("my_site", "a-b")


def blocks(page: str) -> list[list[str]]:
    """The lines of each block of code."""
    found = re.findall(r"^```\n(.*?)^```$", (TOP / page).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [block.splitlines() for block in found]


def days(month: int) -> set[str]:
    """The first three days of a month."""
    return {f"2025-{month:02}-{number:02}" for number in (1, 2, 3)}


def in_month(line: str, month: int) -> str:
    """A line of the docs for its own days: its range becomes three days of `month`."""
    return line.replace("2025-03-31", "2025-03-03").replace("2025-03-", f"2025-{month:02}-")


def fresh(made) -> dict[str, str]:
    """The variables of a fresh shell in an activated environment; the settings move to `.env`, as the README says."""
    ours = ("ACE_", "BACKFILL_", "DAGSTER_")
    settings = {name: value for name, value in os.environ.items() if name.startswith(ours[:2])}
    (made.home / ".env").write_text("".join(f"{name}={value}\n" for name, value in settings.items()), encoding="utf-8")
    (made.home / "pyproject.toml").write_bytes((TOP / "pyproject.toml").read_bytes())
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return kept | {"PATH": os.pathsep.join([str(Path(sys.executable).parent), kept["PATH"]])}


def ran(made, command: list[str], environment: dict[str, str]) -> None:
    """Run a command in the installation's folder."""
    done = subprocess.run(command, cwd=made.home, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"


def test_each_block_of_the_readme_sets_the_home_before_dagster_needs_it():
    """Every block of Dagster's commands begins with DAGSTER_HOME, since each may be copied into another terminal."""
    found = [lines for lines in blocks("README.md") if any(line.startswith(("dagster ", "dg ")) for line in lines)]
    assert len(found) == 2
    for lines in found:
        assert lines[0].startswith("export DAGSTER_HOME=$PWD ")


@pytest.mark.skipif(os.name == "nt", reason="the lines are for a POSIX shell")
def test_the_commands_of_the_readme_work_when_copied_in_order(tmp_path, monkeypatch):
    """Each stores exactly the days that it names, of all sites or of the one that it selects."""
    (lines,) = [lines for lines in blocks("README.md") if any("dagster job" in line for line in lines)]
    first, *commands = lines
    kinds = ["dagster asset materialize", "dagster job backfill", "dagster job launch", "dagster job launch"]
    assert [line[: len(kind)] for line, kind in zip(commands, kinds, strict=True)] == kinds
    with (
        Simulator(World([SiteSpec(site, 10) for site in SITES]), api_key="hush-hush") as simulator,
        stack(tmp_path / "home", simulator.url, SITES, monkeypatch) as made,
    ):
        copied = [first, *(in_month(line, month) for month, line in enumerate(commands, start=1))]
        ran(made, ["sh", "-e", "-c", "\n".join(copied)], fresh(made))
        of_all = days(2) | {"2025-03-01"} | days(4)
        made.until(lambda: made.done("my_site") >= of_all and made.done("a-b") >= of_all)
        assert made.done("a-b") == of_all
        assert made.done("my_site") == of_all | {"2025-01-01"}
        assert set(made.times_stored().values()) == {1}
        jobs = Counter(run.job_name for run in made.instance.get_runs())
        # The command that works without the daemon is Dagster's own job. A range is one run, `job backfill` one a day.
        assert {name: jobs[name] for name in jobs if name != COVERAGE_JOB} == {"__ASSET_JOB": 1, JOB: 3 + 1 + 1}


def test_the_launches_of_dg_work_as_documented(tmp_path, monkeypatch):
    """`dg launch` stores one day of one site, or of all sites, and needs no daemon."""
    lines = [line for block in blocks("docs/dagster.md") for line in block if line.startswith("$ dg launch ")]
    assert len(lines) == 2
    with (
        Simulator(World([SiteSpec(site, 10) for site in SITES]), api_key="hush-hush") as simulator,
        stack(tmp_path / "home", simulator.url, SITES, monkeypatch) as made,
    ):
        made.stop()
        environment = fresh(made) | {"DAGSTER_HOME": str(made.home)}
        for month, line in enumerate(lines, start=1):
            words = shlex.split(in_month(line, month))[2:]
            ran(made, [sys.executable, "-m", "dagster_dg_cli.cli", *words], environment)
        assert made.done("my_site") == {"2025-01-01", "2025-02-01"}
        assert made.done("a-b") == {"2025-02-01"}
