"""Names of sites and points, and texts of the API, cannot forge a line of a command, command a terminal, or be HTML."""

import ast
from datetime import date

import numpy as np
import pytest
from click.testing import CliRunner

from backfill_pipeline.control import cli
from backfill_pipeline.core.rows import Chunk, Counts, DayRows
from backfill_pipeline.orchestration.partitions import asset_key
from backfill_pipeline.simulator.app import Simulator
from backfill_pipeline.simulator.world import SiteSpec, World
from backfill_pipeline.storage.days import put_day, settings_store
from backfill_pipeline_tests.control.installation import Installation
from backfill_pipeline_tests.orchestration.fakes import FakeFetcher, Runs
from backfill_pipeline_tests.test_architecture import ROOT

FORGED = "forged"
EVIL = f"x\n{FORGED}  ok\r\x1b[2K\x1b]0;title\x07\x9b2J\u202e[red]<b>\u2028y"
RANGE = ("--from", "2025-01-01", "--to", "2025-01-02")
API_TEXT = f"no\n{FORGED}\x1b[2J"


@pytest.fixture(scope="module")
def simulator():
    with Simulator(World([SiteSpec(EVIL, 6)]), api_key="hush-hush") as running:
        yield running


@pytest.fixture
def made(simulator, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    installation = Installation(
        tmp_path, monkeypatch, ACE_SITES=EVIL, ACE_API_URL=simulator.url, ACE_REQUESTS_PER_MINUTE="5000"
    )
    names = [f"{EVIL}/{number}" for number in range(2)]
    for number in (1, 2):
        chunk = Chunk(np.zeros(5, np.int32), np.arange(5, dtype=np.int32), np.arange(5.0))
        rows = DayRows(EVIL, date(2025, 1, number), names[: 3 - number], [chunk], Counts(5, 5))
        put_day(settings_store(installation.settings), rows)
    yield installation
    installation.instance.dispose()


def said(*words):
    """What the command wrote to both outputs; it is checked to be whole, printable lines, none of them forged."""
    done = CliRunner().invoke(cli.backfill, words)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    for line in done.output.split("\n"):
        assert line.isprintable()
        assert not line.strip().startswith(FORGED)
    return done.output


@pytest.mark.parametrize(
    "words",
    [
        ("check",),
        ("plan", *RANGE),
        ("verify", *RANGE),
        ("verify", "--from", "2025-01-01", "--to", "2025-01-09"),
        ("adopt", *RANGE),
        ("points", *RANGE, "--site", EVIL),
        ("points", *RANGE, "--site", EVIL, "--lacking"),
        ("report", *RANGE, "--out", "report"),
        ("start", *RANGE, "--force"),
    ],
    ids=lambda words: " ".join(words).partition(EVIL)[0],
)
def test_a_command_shows_such_a_name_in_one_line(made, words):
    """Whatever it prints; with `--json` as well, which has its own escapes."""
    assert said(*words)
    if words[0] != "start":
        assert said(*words, "--json")


def test_status_and_errors_show_texts_of_the_api_in_one_line(made):
    """A site's name, and an error that repeats what the API said."""
    made.control.start(date(2025, 1, 1), date(2025, 1, 2), force=True)
    made.fail(EVIL, date(2025, 1, 1), error=f"HTTP 500, {API_TEXT}")
    assert r"x\nforged" in said("status")
    assert r"x\nforged" in said("errors")
    assert r"no\nforged\x1b[2J" in said("errors")
    assert said("status", "--json")
    assert said("errors", "--json")


def test_a_report_is_text_and_no_control_character(made, tmp_path):
    """In HTML a name is escaped twice: as a line, and as text of the page."""
    said("report", *RANGE, "--points", EVIL, "--out", "report.html")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert all(line.isprintable() for line in text.split("\n"))
    assert "[red]<b>" not in text
    assert r"x\nforged" in text


def test_a_run_logs_such_a_name_in_one_line_and_describes_its_asset_so(tmp_path):
    """In Dagster: log lines, the run's failure, the asset's description."""
    wrong = {(EVIL, date(2025, 1, 2)): cli.BackfillError(f"HTTP 500, {API_TEXT}")}
    with Runs(tmp_path, FakeFetcher(wrong), EVIL) as runs:
        result = runs.run("2025-01-01", "2025-01-02")
        ours = [one.user_message for one in runs.instance.all_logs(result.run_id) if one.dagster_event is None]
        (failed,) = [one for one in result.all_events if one.is_step_failure]
        description = failed.step_failure_data.user_failure_data.description
        shown = runs.defs.resolve_asset_graph().get(asset_key(EVIL)).description
    assert [line for line in ours if r"x\nforged" in line]
    assert all(text.isprintable() for text in [*ours, description, shown])


@pytest.mark.parametrize("path", sorted((ROOT / "control").glob("*.py")), ids=lambda path: path.name)
def test_lines_leave_by_one_way(path):
    """No module of `control` writes to the terminal but through `output.py`."""
    if path.name == "output.py":
        return
    calls = [node.func for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    assert not [call for call in calls if ast.unparse(call) in ("click.echo", "click.secho", "print")]
