"""Alerts reach a real webhook or mail server once; their URL, which may be a secret, is not logged."""

import json
import logging
import socketserver
import threading
from contextlib import contextmanager
from datetime import UTC, date, datetime
from email import message_from_bytes
from email.policy import default
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import dagster as dg
import pytest
import requests

from backfill_pipeline.core.day_retries import FAILED_RETRY_H
from backfill_pipeline.core.rows import Counts, DayRows
from backfill_pipeline.errors import KeyRefusedError, PageFailedError
from backfill_pipeline.orchestration.alerts import Alerts, send_failed_run
from backfill_pipeline.orchestration.partitions import COVERAGE_JOB
from backfill_pipeline.settings import Settings
from backfill_pipeline_tests.orchestration.fakes import FakeFetcher, Runs, day_rows


@contextmanager
def webhook(authorizations=None):
    got, status = [], [200]
    seen = [] if authorizations is None else authorizations

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            seen.append(self.headers["Authorization"])
            self.send_response(status[0])
            if 300 <= status[0] < 400:
                self.send_header("Location", f"http://localhost:{self.server.server_port}/elsewhere-secret")
            self.send_header("Content-Length", str(10**9))  # which never arrives
            self.end_headers()

        def do_GET(self):
            got.append("a redirect was followed")

        def log_message(self, *_):
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/hook-secret", got, status
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def mail_server():
    """A mail server that accepts every mail: its port, and the mails."""
    got = []

    class Session(socketserver.StreamRequestHandler):
        def handle(self):
            self.wfile.write(b"220 here\r\n")
            for line in self.rfile:
                word = line[:4].upper()
                if word == b"DATA":
                    self.wfile.write(b"354 go on\r\n")
                    mail = iter(self.rfile.readline, b".\r\n")
                    got.append(message_from_bytes(b"".join(mail), policy=default))
                self.wfile.write(b"221 bye\r\n" if word == b"QUIT" else b"250 ok\r\n")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Session) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1], got
        server.shutdown()


@pytest.fixture
def hook():
    with webhook() as found:
        yield found


def alerts_of(tmp_path, url, clock=lambda: 0.0):
    return Alerts(Settings(home=tmp_path, alert_url=url), logging.getLogger(__name__), clock=clock)


def test_an_alert_leaves_once(hook, tmp_path):
    """A second one about the same is kept back, by another process too; after its time it may leave again."""
    url, got, _ = hook
    assert alerts_of(tmp_path, url).send("fell", "line\none", about="s", facts={"site": "s"})
    assert not alerts_of(tmp_path, url).send("fell", "another line", about="s")
    assert alerts_of(tmp_path, url).send("silent", "x", about="s")
    assert alerts_of(tmp_path, url, clock=lambda: 90_000.0).send("fell", "again", about="s")
    assert got[0] == {"text": "line one", "kind": "fell", "site": "s"}
    assert [one["text"] for one in got] == ["line one", "x", "again"]


def test_what_could_not_be_sent_is_sent_later_and_told_without_the_url(hook, tmp_path, caplog):
    """A webhook that refuses, one that is not there: a line in the log, and no exception."""
    url, _, status = hook
    status[0] = 500
    assert not alerts_of(tmp_path, url).send("fell", "x", about="s")
    status[0] = 200
    assert alerts_of(tmp_path, url).send("fell", "x", about="s")
    assert not alerts_of(tmp_path, "http://127.0.0.1:9/hook-secret").send("fell", "y", about="t")
    lines = caplog.messages
    assert len(lines) == 2
    assert "HTTP 500" in lines[0]
    assert "hook-secret" not in "".join(lines)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed_and_counts_as_not_sent(hook, tmp_path, caplog, status):
    """It could lead the message anywhere; the log names the status, and neither URL."""
    url, got, answers = hook
    answers[0] = status
    assert not alerts_of(tmp_path, url).send("fell", "x", about="s")
    assert got == [{"text": "x", "kind": "fell"}]
    (line,) = caplog.messages
    assert f"HTTP {status}" in line
    assert "secret" not in line


def test_no_password_of_another_file_is_sent_along(tmp_path, monkeypatch):
    """The user's `~/.netrc` is not read; a user and password in the URL itself are sent."""
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login a password private\n", encoding="utf-8")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    seen = []
    with webhook(seen) as (url, _, _):
        assert alerts_of(tmp_path, url).send("fell", "x", about="s")
        assert alerts_of(tmp_path, url.replace("://", "://me:own@")).send("fell", "x", about="t")
    assert seen == [None, requests.auth._basic_auth_str("me", "own")]


def test_without_a_url_nothing_is_sent_and_nothing_kept(tmp_path):
    """Quiet unless it is asked for."""
    assert not Alerts(Settings(home=tmp_path), logging.getLogger(__name__)).send("fell", "x", about="s")
    assert not (tmp_path / ".dagster").exists()


def test_an_alert_may_be_a_mail(tmp_path, caplog):
    """A URL of apprise sends the alert once, with its fields; one that cannot be delivered is sent later."""
    caplog.set_level(logging.DEBUG)
    facts = {"site": "n\u00f6rd\nX: y", "days": ["a", "b"]}
    url = "mailto://127.0.0.1:{}?from=b@example.org&to=o@example.org&mode=insecure"
    with mail_server() as (port, got):
        lost = alerts_of(tmp_path, url.format(1) + "&user=me&pass=hush")
        assert not lost.send("silent", "site 'n\u00f6rd' is silent", about="n", facts=facts)
        for _ in range(2):
            found = alerts_of(tmp_path, url.format(port))
            found.send("silent", "site 'n\u00f6rd' is silent", about="n", facts=facts)
    (mail,) = got
    assert (mail["To"], mail["Subject"]) == ("o@example.org", "backfill: silent")
    body = mail.get_body(("plain", "html")).get_content()
    assert "site 'n\u00f6rd' is silent" in body
    assert "days: a, b" in body
    assert "\nX: y" not in body
    (line,) = [one.getMessage() for one in caplog.records if one.name == __name__]
    assert line.startswith("the alert could not be sent to BACKFILL_ALERT_URL: mailto did not accept it")
    assert "hush" not in caplog.text


def failed(runs, **options):
    result = runs.run("2025-01-01", "2025-01-02", **options)
    event = next(e for e in result.all_events if e.is_step_failure)
    return result.dagster_run, event.step_failure_data.user_failure_data


def test_a_refused_key_is_told_once_whatever_the_runs(hook, tmp_path):
    """Two runs meet it, one alert leaves."""
    url, got, _ = hook
    wrong = {
        ("north", None): KeyRefusedError("the key was refused"),
        ("south", None): KeyRefusedError("the key was refused"),
    }
    with Runs(tmp_path, FakeFetcher(wrong)) as runs:
        sent = []
        for _ in range(2):
            run, failure = failed(runs)
            assert failure.metadata["stopped_by"].value == KeyRefusedError.kind
            sent.append(send_failed_run(alerts_of(tmp_path, url), run, failure.description, stopped=True))
    assert sent == [True, False]
    assert got[0]["kind"] == "stopped"
    assert "the key was refused" in got[0]["text"]


def test_a_run_that_will_be_tried_again_is_not_told(hook, tmp_path):
    """The sensors' own runs are told at their last attempt alone; somebody's own run at once."""
    url, got, _ = hook
    wrong = {("north", date(2025, 1, 2)): PageFailedError("it broke")}
    with Runs(tmp_path, FakeFetcher(wrong)) as runs:
        run, failure = failed(runs)
        error = failure.description
        last = str(len(FAILED_RETRY_H) + 1)
        for tags, expected in (
            ({"backfill/attempt": "1"}, False),
            ({"backfill/attempt": last}, True),
        ):
            asked = dg.DagsterRun(run.job_name, tags=tags)
            assert send_failed_run(alerts_of(tmp_path, url), asked, error) is expected
        assert send_failed_run(alerts_of(tmp_path, url), run, f"another: {error}")
        assert not send_failed_run(alerts_of(tmp_path, url), run, f"another: {error}")
    assert [one["kind"] for one in got] == ["run failed"] * 2


def test_a_silent_site_is_told_once_by_the_asset(hook, tmp_path):
    """The asset says so; the alert leaves with the first refresh, and not with the next."""
    url, got, _ = hook

    def make(site, day):
        return DayRows(site, day, ["p"], [], Counts()) if day.day > 4 and site == "north" else day_rows(site, day)

    now = datetime(2025, 1, 7, 13, tzinfo=UTC)
    with Runs(tmp_path, FakeFetcher(make=make), now=lambda: now, alert_url=url) as runs:
        runs.run("2025-01-01", "2025-01-06")
        for _ in range(2):
            done = runs.defs.resolve_job_def(COVERAGE_JOB).execute_in_process(instance=runs.instance)
    (event,) = done.get_asset_materialization_events()
    assert "is silent" in event.materialization.metadata["needs_you"].value
    assert [(one["kind"], one["site"], one["since"]) for one in got] == [("silent", "north", "2025-01-05")]
    assert got[0]["site_url"].endswith("/assets/timeseries/north")
    assert got[0]["site_url"] in got[0]["text"]


def test_the_sensor_tells_what_the_step_said(hook, tmp_path):
    """The alert names the failed days and their command, and links to the run and to each day."""
    url, got, _ = hook
    wrong = {("north", date(2025, 1, 2)): PageFailedError("it broke " * 200)}
    with Runs(tmp_path, FakeFetcher(wrong), alert_url=url, ui_url="https://dagster.example") as runs:
        done = runs.run("2025-01-01", "2025-01-02")
        event = next(e for e in done.all_events if e.event_type is dg.DagsterEventType.RUN_FAILURE)
        context = dg.build_run_status_sensor_context("alerts", event, runs.instance, done.dagster_run)
        sensor = runs.defs.get_repository_def().get_sensor_def("alerts")
        assert sensor.default_status is dg.DefaultSensorStatus.RUNNING
        for _ in range(2):
            sensor(context.for_run_failure())
    (one,) = got
    page = "https://dagster.example/assets/timeseries/north?view=partitions&partition=2025-01-02"
    assert one | {"text": ""} == {
        "text": "",
        "kind": "run failed",
        "run_id": done.run_id,
        "run_url": f"https://dagster.example/runs/{done.run_id}",
        "sites": ["north"],
        "days": ["2025-01-02"],
        "day_urls": [page],
        "command": "backfill start --from 2025-01-02 --to 2025-01-02 --site north",
    }
    assert f"run: {one['command']} . Details: {one['run_url']} ." in one["text"]
    assert "north 2025-01-02 (PageFailedError: it broke it broke" in one["text"]
    assert len(one["text"]) == 1000  # the error is cut, not the command


def test_the_sensor_knows_a_refused_key_by_its_metadata(hook, tmp_path):
    """The alert is of the kind `stopped`, whatever the message of the error says."""
    url, got, _ = hook
    wrong = {(site, None): KeyRefusedError("the key was refused") for site in ("north", "south")}
    with Runs(tmp_path, FakeFetcher(wrong), alert_url=url) as runs:
        done = runs.run("2025-01-01", "2025-01-02")
        event = next(e for e in done.all_events if e.event_type is dg.DagsterEventType.RUN_FAILURE)
        context = dg.build_run_status_sensor_context("alerts", event, runs.instance, done.dagster_run)
        runs.defs.get_repository_def().get_sensor_def("alerts")(context.for_run_failure())
    assert [one["kind"] for one in got] == ["stopped"]
