"""The HTTP control API keeps the contract of the worker that it replaces."""

import argparse
import json
import logging
import re
import shlex
import socket
import threading
from contextlib import contextmanager
from datetime import UTC, date, datetime
from urllib.parse import urlsplit

import hypothesis
import hypothesis.strategies as st
import jsonschema
import pytest
import requests
import schemathesis
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from backfill_pipeline import __version__
from backfill_pipeline.ace.budget import open_budget
from backfill_pipeline.ace.client import key_id
from backfill_pipeline.control import request_limits
from backfill_pipeline.control.estimate import _FILE
from backfill_pipeline.control.http import CLIENT_GONE, build_app, run_server
from backfill_pipeline.control.openapi import openapi
from backfill_pipeline.core.new_days import newest_ready
from backfill_pipeline.errors import SettingError
from backfill_pipeline_tests.control.installation import SITES, TOP
from backfill_pipeline_tests.control.serving import served
from backfill_pipeline_tests.services import HANGS_S, until

PROMISED = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
"""What a fuzzer looks for. Days depend on the clock: a good body may be a 400 all the same."""

RANGE = {"start_date": "2025-01-01", "end_date": "2025-01-10"}


@pytest.fixture
def client(made):
    with served(build_app(made.control, token=None)) as client:
        yield client


def matches(answer, path, method):
    """The answer is what the description promises for its status."""
    promised = openapi(__version__)["paths"][path][method]["responses"][str(answer.status_code)]
    schema = promised["content"]["application/json"]["schema"]
    if "$ref" in schema:
        schema = openapi(__version__)["components"]["schemas"]["Error"]
    jsonschema.validate(answer.json(), schema)
    return answer.json()


def test_the_old_workers_day(client, made):
    """Start, status, cancel, errors: each answer has the contract's fields and no other."""
    assert client.get("/").json() == {"service": "backfill_pipeline", "version": __version__}
    assert matches(client.get("/backfill/status"), "/backfill/status", "get")["status"] == "not_started"
    started = client.post("/backfill/start", data=json.dumps(RANGE | {"force_restart": False}))
    assert started.status_code == 202
    body = matches(started, "/backfill/start", "post")
    assert (body["status"], body["start_date"], body["end_date"], body["estimated_days"]) == (
        "started", "2025-01-01", "2025-01-10", 10,
    )  # fmt: skip
    again = client.post("/backfill/start", json=RANGE)
    assert (again.status_code, matches(again, "/backfill/start", "post")["error"]) == (409, "already_running")
    for site in SITES:
        made.store(site, *made.days(1, 5))
    made.fail("north", date(2025, 1, 6))
    status = matches(client.get("/backfill/status"), "/backfill/status", "get")
    assert (status["status"], status["days_completed"], status["days_total"], status["progress_percent"]) == (
        "in_progress", 5, 10, 50.0,
    )  # fmt: skip
    (error,) = matches(client.get("/backfill/errors"), "/backfill/errors", "get")
    assert error["context"] == {"site": "north", "date": "2025-01-06"}
    cancelled = matches(client.post("/backfill/cancel"), "/backfill/cancel", "post")
    assert (cancelled["status"], cancelled["days_completed"]) == ("cancelled", 5)
    forced = client.post("/backfill/start", json=RANGE | {"force_restart": True, "sites": ["north"]})
    assert forced.status_code == 202
    assert forced.json()["backfill_id"] != body["backfill_id"]
    by_id = client.get("/backfill/status", params={"backfill_id": body["backfill_id"]})
    assert by_id.json()["status"] == "cancelled"


@pytest.mark.parametrize(
    "body",
    [
        b"", b"not json", b"[]", b'"x"', b"[" * 5000, b"{}", b'{"start_date": "2025-01-01"}',
        b'{"start_date": "2025-1-1", "end_date": "2025-01-02"}',
        b'{"start_date": 20250101, "end_date": "2025-01-02"}',
        b'{"start_date": "2025-02-30", "end_date": "2025-03-02"}',
        b'{"start_date": "2025-01-10", "end_date": "2025-01-02"}',
        b'{"start_date": "1969-01-10", "end_date": "2025-01-02"}',
        b'{"start_date": "2025-01-01", "end_date": "9999-12-31"}',
        b'{"start_date": "2025-01-01", "end_date": "2025-01-02", "force_restart": "no"}',
        b'{"start_date": "2025-01-01", "end_date": "2025-01-02", "sites": []}',
        b'{"start_date": "2025-01-01", "end_date": "2025-01-02", "sites": "north"}',
        b'{"start_date": "2025-01-01", "end_date": "2025-01-02", "sites": ["../x\\u0000"]}',
        b'\xff\xfe{"start_date"',
    ],
)  # fmt: skip
def test_a_start_that_cannot_be_meant_is_a_400(client, made, body):
    """Whatever is sent: one line of JSON, nothing started."""
    answer = client.post("/backfill/start", data=body)
    assert answer.status_code == 400
    told = matches(answer, "/backfill/start", "post")
    assert "Traceback" not in told["message"]
    assert "\n" not in told["message"]
    assert made.gateway.newest() is None


def test_a_body_is_bounded(client):
    """More than anybody needs is not read to its end."""
    assert client.post("/backfill/start", data=b" " * (request_limits.MOST_BYTES + 1)).status_code == 413


@contextmanager
def sent(client, text: str):
    """A connection over which a request was begun and not completed."""
    host, port = urlsplit(client.url).netloc.split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(text.encode())
        yield connection


BEGUN = "POST /backfill/start HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{"


def answer_on(connection) -> bytes:
    """All that arrives until the server closes the connection."""
    return b"".join(iter(lambda: connection.recv(65_536), b""))


def test_a_client_that_goes_away_in_mid_body_leaves_one_line(client, caplog):
    """Twenty requests that end in the middle of their body: a line for each, none of them an error or a traceback."""
    caplog.set_level(logging.INFO)
    for _ in range(20):
        with sent(client, BEGUN):
            pass
    until(lambda: caplog.text.count(f" {CLIENT_GONE} ") >= 20)
    assert client.get("/").status_code == 200
    assert sum("POST" in record.getMessage() for record in caplog.records) == 20
    assert [record for record in caplog.records if record.levelno > logging.INFO or record.exc_info] == []


def test_a_body_that_does_not_arrive_is_not_waited_for(client, monkeypatch):
    """408 once the time is over, as JSON, and the connection is closed."""
    monkeypatch.setattr(request_limits, "BODY_S", 0.2)
    with sent(client, BEGUN) as connection:
        head, _, body = answer_on(connection).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408 ")
    assert json.loads(body)["error"] == "too_slow"


def test_a_body_that_is_announced_too_large_is_refused_before_it_arrives(client):
    """413 at once, and the connection is closed."""
    with sent(client, BEGUN.replace("100", str(request_limits.MOST_BYTES + 1))) as connection:
        assert answer_on(connection).startswith(b"HTTP/1.1 413 ")


def test_the_open_requests_are_bounded(client, monkeypatch):
    """One more than the bound: 503 as JSON, which the description has; when one ends, the next is answered."""
    monkeypatch.setattr(request_limits, "MOST_OPEN", 2)
    with sent(client, BEGUN), sent(client, BEGUN):
        until(lambda: client.get("/backfill/status").status_code == 503)
        refused = client.get("/backfill/status")
        assert matches(refused, "/backfill/status", "get")["error"] == "busy"
        assert int(refused.headers["Retry-After"]) > 0
    until(lambda: client.get("/backfill/status").status_code == 200)


def test_a_token_is_asked_for_everywhere_but_at_the_root(made):
    """With BACKFILL_TOKEN: 401 without it, with another, or with another scheme."""
    wrong = ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic s3cret"}, {"Authorization": b"\xc3\xbc"})
    asks = [("get", path) for path in ("/backfill/status", "/backfill/errors", "/metrics", "/openapi.json")]
    asks += [("post", "/backfill/start"), ("post", "/backfill/cancel")]
    with served(build_app(made.control, token="s3cret")) as client:
        assert client.get("/").status_code == 200
        for method, path in asks:
            for headers in wrong:
                answer = getattr(client, method)(path, headers=headers)
                assert (answer.status_code, answer.json()["error"]) == (401, "unauthorized")
                assert "s3cret" not in answer.text
        right = {"Authorization": "Bearer s3cret", "Host": "backfill.example"}
        assert client.get("/backfill/status", headers=right).status_code == 200


def test_without_a_token_only_this_machine_is_answered(made, client):
    """Not a name that merely leads here, and no page of a browser; and it does not listen elsewhere at all."""
    assert client.get("/backfill/status", headers={"Host": "evil.example"}).status_code == 403
    for origin in ("https://evil.example", "null", "http://[x"):
        assert client.post("/backfill/cancel", headers={"Origin": origin}).status_code == 403
    with pytest.raises(SettingError, match="BACKFILL_TOKEN"):
        run_server(made.settings, "0.0.0.0", 0)  # noqa: S104 - it must not listen there


def test_a_dead_daemon_is_said_plainly(client, made):
    """503, and nothing is accepted that would not run."""
    made.beat(ago_s=3600)
    answer = client.post("/backfill/start", json=RANGE)
    assert (answer.status_code, matches(answer, "/backfill/start", "post")["error"]) == (503, "daemon_down")
    assert made.gateway.newest() is None


def test_two_starts_at_once_give_one_202_and_one_409(client):
    """Over HTTP as well."""
    gate, statuses = threading.Barrier(2), []

    def start() -> None:
        gate.wait()
        statuses.append(client.post("/backfill/start", json=RANGE).status_code)

    threads = [threading.Thread(target=start) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [202, 409]


def test_a_backfill_without_a_row_says_so(client, made):
    """The status has a message, as the OpenAPI description promises."""
    assert (
        matches(client.get("/backfill/status"), "/backfill/status", "get")["message"] == "no backfill was started yet"
    )
    client.post("/backfill/start", json=RANGE)
    assert matches(client.get("/backfill/status"), "/backfill/status", "get")["message"] is None
    for site in made.settings.sites:
        made.store(site, *made.days(1, 31), rows=0)
    told = matches(client.get("/backfill/status"), "/backfill/status", "get")
    assert (told["status"], told["records_processed"]) == ("completed", 0)
    assert told["message"] == "0 rows: the API returned no samples for any of these days"


def test_errors_are_json_whatever_goes_wrong(client, made, monkeypatch):
    """Unknown paths, wrong methods, unknown ids, and a bug of our own: never a traceback."""
    assert client.get("/nowhere").json()["error"] == "not_found"
    assert client.get("/backfill/start").json()["error"] == "method_not_allowed"
    unknown = client.get("/backfill/status", params={"backfill_id": "x' OR 1=1"})
    assert (unknown.status_code, unknown.json()["error"]) == (404, "not_found")
    monkeypatch.setattr(made.control, "status", lambda _id: 1 / 0)
    broken = client.get("/backfill/status")
    assert (broken.status_code, broken.json()["error"]) == (500, "internal")
    assert "ZeroDivision" not in broken.text


def test_prometheus_reads_what_there_is(client, made):
    """Days by state, rows, requests, 429s, retries, seconds by phase, the budget in use, a sign of life."""
    made.store("north", *made.days(1, 3), rows=7, throttled=2, retries=3, duration_s=1.5, put_s=0.25)
    made.store("north", *made.days(4, 4), rows=0)  # of the state `stored`, as an earlier version called it
    made.fail("a-b", *made.days(1, 2))
    key = made.settings.api_key.get_secret_value()
    open_budget(made.settings.limiter_url, key_id=key_id(key), per_minute=50).acquire()
    text = client.get("/metrics").text
    assert "hush-hush" not in text
    for line in (
        'backfill_days{site="north",state="stored"} 3.0',
        'backfill_days{site="north",state="empty"} 1.0',
        'backfill_days{site="a-b",state="failed"} 2.0',
        'backfill_rows{site="north"} 21.0',
        'backfill_requests_total{site="north"} 8.0',
        'backfill_throttled_total{site="north"} 6.0',
        'backfill_retries_total{site="north"} 9.0',
        'backfill_seconds_total{phase="fetch",site="north"} 4.5',
        'backfill_seconds_total{phase="put",site="north"} 0.75',
        "backfill_budget_limit 50.0",
        "backfill_budget_used 1.0",
        "backfill_daemon_alive 1.0",
    ):
        assert line in text


def test_days_by_state_are_those_that_a_status_counts(client, made):
    """Stored, empty and thin days of a site are a status' stored ones; failed are failed; the rest is missing."""
    made.control.start(date(2025, 1, 1), date(2025, 1, 10), ["north"])
    made.fail("north", *made.days(1, 3))
    made.store("north", *made.days(3, 5))
    made.store("north", *made.days(3, 3))
    made.store("north", *made.days(6, 6), rows=0, state="empty")
    made.store("north", *made.days(7, 7), thin=True)
    found = re.findall(r'backfill_days{site="north",state="(\w+)"} (\d+)', client.get("/metrics").text)
    days = {state: int(count) for state, count in found}
    ready = newest_ready(datetime.now(UTC), made.settings.raw_lag_hours)
    status = made.control.status()
    assert (days["stored"], days["empty"], days["thin"], days["failed"]) == (3, 1, 1, 2)
    assert (status.parts_done, status.failed) == (5, 2)
    assert days["missing"] == (ready - date(2025, 1, 1)).days + 1 - 7


def test_a_budget_that_cannot_be_read_hides_no_other_figure(client, made):
    """It is left out, and the log says why."""
    made.settings.private.mkdir(parents=True, exist_ok=True)
    (made.settings.private / "budget.sqlite").write_bytes(b"no database" * 100)
    answer = client.get("/metrics")
    assert answer.status_code == 200
    assert "backfill_daemon_alive 1.0" in answer.text
    assert "backfill_budget_used" not in answer.text


def test_prometheus_may_ask_for_some_sites(client, made):
    """Days of those alone, and nothing that would have to be read with the others; an unknown one is named."""
    made.store("north", *made.days(1, 3), rows=7)
    made.store("a-b", *made.days(1, 3), rows=7)
    text = client.get("/metrics?site=north").text
    assert 'backfill_days{site="north",state="stored"} 3.0' in text
    assert "a-b" not in text
    assert "backfill_daemon_alive" in text
    assert "backfill_progress_percent" not in text
    wrong = client.get("/metrics?site=norht")
    assert wrong.status_code == 400
    assert matches(wrong, "/metrics", "get")["message"].startswith("site: 'norht'")


def test_the_curl_lines_of_the_page_on_moving_over_do_what_they_say(client, made):
    """Each line, word for word but for the host, is answered as the worker answered it."""
    page = (TOP / "docs" / "moving-over.md").read_text(encoding="utf-8")
    lines = [shlex.split(line) for line in page.splitlines() if line.startswith("curl ")]
    told = []
    for _, *words in lines:
        asked = _curl.parse_args(words)
        url = asked.url.replace("http://127.0.0.1:8642", client.url)
        headers = dict(line.split(": ", 1) for line in asked.header)
        answer = requests.request(asked.request, url, data=asked.data, headers=headers, timeout=HANGS_S)
        told.append((urlsplit(url).path, answer.status_code))
    assert told == [
        ("/", 200),
        ("/backfill/start", 202),
        ("/backfill/status", 200),
        ("/backfill/errors", 200),
        ("/backfill/cancel", 200),
        ("/backfill/start", 202),
    ]
    assert made.control.status().word == "in_progress"


_curl = argparse.ArgumentParser()
_curl.add_argument("url")
_curl.add_argument("-X", dest="request", default="GET")
_curl.add_argument("-H", dest="header", action="append", default=[])
_curl.add_argument("-d", dest="data")


def test_a_start_by_http_carries_the_newest_plan_of_its_range(client, made):
    """As a start by command does; a forced one, which fetches other days than were planned for, carries none."""
    plan = {"first": RANGE["start_date"], "last": RANGE["end_date"], "sites": list(SITES), "samples": 7}
    made.settings.private.mkdir(parents=True, exist_ok=True)
    (made.settings.private / _FILE).write_text(json.dumps(plan), encoding="utf-8")
    client.post("/backfill/start", json=RANGE)
    assert json.loads(made.control.status().forecast) == plan
    client.post("/backfill/start", json=RANGE | {"force_restart": True})
    assert made.control.status().forecast is None


def test_no_request_that_a_fuzzer_makes_up_breaks_the_description(client, made):
    """Whatever is sent to whatever path, the answer is one that the OpenAPI description promises, and never a 500."""
    schema, met = schemathesis.openapi.from_url(client.url + "/openapi.json"), set()
    for found in schema.get_all_operations():
        operation = found.ok()

        @hypothesis.settings(
            max_examples=25, deadline=None, database=None, suppress_health_check=list(hypothesis.HealthCheck)
        )
        @hypothesis.given(
            case=operation.as_strategy(GenerationMode.NEGATIVE) | operation.as_strategy(),
            named=st.lists(st.sampled_from([*SITES, "none", ""]), max_size=3),
        )
        def fuzzed(case, named):
            if case.operation.path == "/metrics" and named:  # else a fuzzer hits no site that there is
                case.query = {"site": named}
            answer = case.call_and_validate(timeout=HANGS_S, checks=PROMISED)
            met.add((case.operation.path, answer.status_code))

        fuzzed()
    assert {("/metrics", 200), ("/metrics", 400)} <= met
