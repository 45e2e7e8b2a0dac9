"""`BACKFILL_LOG=json`: one JSON object a line, with what it is about and without a secret."""

import json
import logging
import os
import subprocess
import sys
from datetime import date, datetime

import pytest

from backfill_pipeline.ace.retry import Retries
from backfill_pipeline.core.backoff import Backoff
from backfill_pipeline.core.log_fields import fields
from backfill_pipeline.errors import PageFailedError
from backfill_pipeline.orchestration.json_logs import JsonLines, logged_to
from backfill_pipeline.settings import Settings
from backfill_pipeline.simulator.app import Simulator
from backfill_pipeline.simulator.world import SiteSpec, World
from backfill_pipeline_tests.journeys.stack import TOP, Spoilt
from backfill_pipeline_tests.services import ended

DAY = date(2025, 1, 1)


@pytest.fixture
def environment(tmp_path):
    """A home of its own whose logs are JSON, as variables of a process."""
    (tmp_path / "dagster.yaml").write_text((TOP / "dagster.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    return os.environ | {
        "ACE_API_KEY": "hush-hush",
        "ACE_SITES": "good,bad",
        "BACKFILL_LOG": "json",
        "BACKFILL_NEW_DAYS": "0",
        "BACKFILL_STORE": str(tmp_path / "data"),
        "BACKFILL_TOKEN": "s3cret-token",
        "DAGSTER_HOME": str(tmp_path),
        "PYTHONPATH": os.pathsep.join([str(TOP), os.environ.get("PYTHONPATH", "")]),
    }


def test_every_line_of_a_run_is_an_object_that_says_what_it_is_about(tmp_path, environment):
    """Site, day, run and job on the lines of windows and days; a failure's traceback inside its one object."""
    world = World([SiteSpec("good", 10), Spoilt(SiteSpec("bad", 10), {DAY})])
    words = ["-m", "dagster", "asset", "materialize", "-m", "backfill_pipeline.definitions"]
    words += ["--select", "timeseries/good,timeseries/bad", "--partition", str(DAY)]
    with Simulator(world, api_key="hush-hush") as simulator:
        ran = subprocess.run(
            [sys.executable, *words], capture_output=True, text=True, encoding="utf-8", cwd=tmp_path, check=False,
            env=environment | {"ACE_API_URL": simulator.url, "PYTHONWARNINGS": "ignore"},
        )  # fmt: skip
    assert ran.returncode == 1
    lines = [json.loads(line) for line in ran.stderr.splitlines() if line.startswith("{")]
    text = [line for line in ran.stderr.splitlines() if not line.startswith("{")]
    assert text == ["Error: Materialization failed."]  # the command's own last word
    for line in lines:
        assert datetime.fromisoformat(line["time"]).utcoffset().total_seconds() == 0
        assert line["level"] in ("debug", "info", "warning", "error")
        assert line["message"]
    of_run = [line for line in lines if "run" in line]
    assert len({(line["run"], line["job"]) for line in of_run}) == 1
    (window,) = [line for line in of_run if "window" in line and line["site"] == "good"]
    assert (window["day"], window["window"], window["level"]) == (str(DAY), "00:00:00-24:00:00", "info")
    stored, catalogue = [line for line in of_run if line.get("event") == "ASSET_MATERIALIZATION"]
    assert (stored["site"], stored["day"]) == ("good", str(DAY))
    assert "day" not in catalogue
    assert "points good" in catalogue["message"]
    assert {"bad"} == {line["site"] for line in of_run if line["level"] == "error" and "site" in line}
    assert any("Traceback" in line.get("error", "") or "Stack Trace" in line.get("error", "") for line in of_run)
    assert "hush-hush" not in ran.stderr + ran.stdout
    assert "s3cret-token" not in ran.stderr + ran.stdout


def test_serve_writes_objects_from_its_first_line(tmp_path, environment):
    """`backfill serve` honours the same setting."""
    words = [sys.executable, "-m", "backfill_pipeline.control.cli", "serve", "--port", "0"]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=environment)
    with process, ended(process):
        line = json.loads(process.stderr.readline())
    assert (line["level"], line["logger"]) == ("info", "backfill_pipeline.control.http")
    assert line["message"].startswith("listening on http://127.0.0.1:")


def test_a_line_stays_one_and_holds_no_secret():
    """Line breaks and a traceback are inside; keys, tokens and passwords of URLs are hidden, whoever wrote them."""
    settings = Settings(
        api_key="hush-hush", token="s3cret", run_storage="postgresql://u:p%40ss@h/db", limiter="redis://:l1mit@h/0"
    )
    try:
        raise ValueError("refused\nBearer hush-hush")
    except ValueError:
        record = logging.LogRecord("x", 40, "x.py", 1, "of %s\n%s", ("p@ss p%40ss", "l1mit s3cret"), sys.exc_info())
    line = JsonLines(settings.secrets).format(record)
    told = json.loads(line)
    assert "\n" not in line
    assert told["message"] == "of (hidden) (hidden)\n(hidden) (hidden)"
    assert "Traceback" in told["error"]
    assert told["error"].endswith("ValueError: refused\nBearer (hidden)")


class Stubborn:
    """Fails once, as a page does that is cut off."""

    def __init__(self):
        self.failures = 0

    def __call__(self, failures):
        if not failures:
            raise PageFailedError("cut off")
        return "whole"


def test_what_is_logged_while_a_run_fetches_is_in_its_log_with_level_and_fields():
    """A failure that is tried again is a warning of the run, with site, day and window, while it fetches."""
    log = logging.getLogger("of a run")
    kept = []
    handler = logging.Handler()
    handler.emit = kept.append
    log.addHandler(handler)
    about = fields(site="a b", day=DAY, window="06:00:00-24:00:00")
    retries = Retries(Backoff(first_s=0, most_s=0))
    with logged_to(log):
        assert retries.run("page", Stubborn(), about=about) == "whole"
    retries.run("page", Stubborn(), about=about)
    (record,) = kept
    assert record.levelname == "WARNING"
    assert record.getMessage().startswith("page: cut off; try 2 of ")
    told = json.loads(JsonLines().format(record))
    assert (told["site"], told["day"], told["window"]) == ("a b", str(DAY), "06:00:00-24:00:00")


def test_json_lines_are_the_format_of_handlers_and_not_of_their_class():
    """A handler that other code made for a file of its own, without a logger, writes as before."""
    code = """
import logging, sys
from backfill_pipeline.orchestration.json_logs import log_as_set
from backfill_pipeline.settings import Settings
log_as_set(Settings(log="json"))
made = logging.getLogger("made")
made.addHandler(logging.StreamHandler(sys.stdout))
made.warning("one")
alone = logging.StreamHandler(sys.stdout)
alone.handle(logging.LogRecord("x", 30, "x.py", 1, "two", (), None))
logging.getLogger("without a handler").warning("three")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    one, two = done.stdout.splitlines()
    assert json.loads(one)["message"] == "one"
    assert two == "two"
    assert json.loads(done.stderr)["message"] == "three"
