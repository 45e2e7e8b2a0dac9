"""The HTTP control API keeps the contract of the worker that it replaces."""

import json
import threading
from datetime import date

import jsonschema
import pytest
from starlette.testclient import TestClient

from backfill_pipeline import __version__
from backfill_pipeline.control.http import MOST_BYTES, build_app, run_server
from backfill_pipeline.control.openapi import openapi
from backfill_pipeline.errors import SettingError
from backfill_pipeline_tests.control.installation import SITES, Installation

RANGE = {"start_date": "2025-01-01", "end_date": "2025-01-10"}


@pytest.fixture
def made(tmp_path, monkeypatch):
    installation = Installation(tmp_path / "home", monkeypatch)
    yield installation
    installation.instance.dispose()


@pytest.fixture
def client(made):
    return TestClient(build_app(made.control, token=None), base_url="http://127.0.0.1")


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
    started = client.post("/backfill/start", content=json.dumps(RANGE | {"force_restart": False}))
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
    answer = client.post("/backfill/start", content=body)
    assert answer.status_code == 400
    told = matches(answer, "/backfill/start", "post")
    assert "Traceback" not in told["message"]
    assert "\n" not in told["message"]
    assert made.gateway.newest() is None


def test_a_body_is_bounded(client):
    """More than anybody needs is not read to its end."""
    assert client.post("/backfill/start", content=b" " * (MOST_BYTES + 1)).status_code == 413


def test_a_token_is_asked_for_everywhere_but_at_the_root(made):
    """With BACKFILL_TOKEN: 401 without it, with another, or with another scheme."""
    client = TestClient(build_app(made.control, token="s3cret"), base_url="http://example.org")
    assert client.get("/").status_code == 200
    asks = [("get", path) for path in ("/backfill/status", "/backfill/errors", "/metrics", "/openapi.json")]
    asks += [("post", "/backfill/start"), ("post", "/backfill/cancel")]
    for method, path in asks:
        for header in (
            {},
            {"Authorization": "Bearer wrong"},
            {"Authorization": "Basic s3cret"},
            {"Authorization": "ü"},
        ):
            answer = getattr(client, method)(path, headers={k: v.encode() for k, v in header.items()})
            assert (answer.status_code, answer.json()["error"]) == (401, "unauthorized")
            assert "s3cret" not in answer.text
    assert client.get("/backfill/status", headers={"Authorization": "Bearer s3cret"}).status_code == 200


def test_without_a_token_only_this_machine_is_answered(made, client):
    """Not a name that merely leads here, and no page of a browser; and it does not listen elsewhere at all."""
    assert client.get("/backfill/status", headers={"Host": "evil.example"}).status_code == 403
    assert client.post("/backfill/cancel", headers={"Origin": "https://evil.example"}).status_code == 403
    with pytest.raises(SettingError, match="BACKFILL_TOKEN"):
        run_server(made.settings, "0.0.0.0", 0, log_json=False)  # noqa: S104 - it must not listen there


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
    """Days by state, rows, requests, and whether the daemon lives."""
    made.store("north", *made.days(1, 3), rows=7)
    made.store("north", *made.days(4, 4), rows=0, state="empty")
    made.fail("a-b", *made.days(1, 2))
    text = client.get("/metrics").text
    for line in (
        'backfill_days{site="north",state="stored"} 3.0',
        'backfill_days{site="north",state="empty"} 1.0',
        'backfill_days{site="a-b",state="failed"} 2.0',
        'backfill_rows{site="north"} 21.0',
        'backfill_requests_total{site="north"} 8.0',
        "backfill_daemon_alive 1.0",
    ):
        assert line in text
