"""`backfill probe-api`: facts that hold are told from those that do not, and nothing is told that should not be."""

import json
from datetime import UTC, date, datetime, timedelta

import pytest
from click.testing import CliRunner

from backfill_pipeline.control.cli import backfill
from backfill_pipeline.control.probe_api import facts
from backfill_pipeline.control.probe_requests import asker
from backfill_pipeline.simulator.app import Simulator
from backfill_pipeline.simulator.faults import Fault
from backfill_pipeline.simulator.world import SiteSpec, TableSite, World
from backfill_pipeline_tests.ace.test_client import FreeBudget
from backfill_pipeline_tests.control.test_cli import run

KEY, SITE, DAY = "hush-hush-key", "Büro 1/north", date(2025, 3, 1)
NOW = datetime(2025, 6, 1, 12, 3, tzinfo=UTC)
WORLD = World([SiteSpec(SITE, 200)])


def verdicts(*faults, world=WORLD, **options):
    """What is found, and how many requests it took."""
    budget = FreeBudget()
    with Simulator(world, api_key=KEY, faults=list(map(Fault.parse, faults)), **options) as simulator:
        found = list(facts(asker(simulator.url, KEY, SITE, budget), DAY, NOW))
    assert budget.asked == len(simulator.requests) <= 15
    told = json.dumps([[f.fact, f.seen, f.otherwise, list(f.asked)] for f in found], ensure_ascii=False)
    assert KEY not in told
    assert SITE not in told
    assert "analog" not in told
    return {fact.fact: fact for fact in found}


def failing(found):
    return {fact for fact, one in found.items() if one.verdict == "FAILS"}


def test_all_facts_hold_where_the_api_is_as_it_was_seen():
    """The simulator does what was observed, its standing cursor included; each fact has its question and status."""
    found = verdicts()
    assert {one.verdict for one in found.values()} == {"holds"}
    assert len(found) == 13
    assert all(one.expected and one.otherwise and len(one.asked) == len(one.status) for one in found.values())


@pytest.mark.parametrize(
    ("fault", "options", "fact"),
    [
        ("numbers", {}, "samples have the documented form"),
        ("zulu", {}, "samples have the documented form"),
        ("wrong_key", {}, "samples have the documented form"),
        ("shuffle", {}, "rows are in order of time, then name"),
        ("bare_nan", {}, "no value is a bare NaN or Infinity"),
        ("throttle:after=8,times=1", {}, "the API announces no rate limit"),
        (None, {"fixed_cursor": True}, "the API's cursor does not advance inside one timestamp"),
    ],
)
def test_a_fact_that_does_not_hold_is_seen(fault, options, fact):
    """Each fault shows in its own fact."""
    world = World([SiteSpec(SITE, 200, odd=0.1)]) if fault == "bare_nan" else WORLD
    found = verdicts(*filter(None, [fault]), world=world, **options)
    assert fact in failing(found)


def test_rows_that_are_missing_points_that_are_and_a_counted_end_are_seen():
    """Against answers made by hand: fewer new rows, fewer points aggregated, a row at the end, a limit announced."""

    def ask(path, query, key=KEY):
        answer = honest(path, query, key=key)
        if path.endswith("/timeseries"):
            answer = with_rows(answer, answer.rows[:20])
        if query.get("end_time", "").startswith("2025-06-01T11:53"):
            answer = with_rows(answer, answer.rows[:10])
        if "." in query.get("end_time", "") and "cursor" not in query and query["page_size"] == "500":
            at = query["end_time"].rstrip("Z")
            answer = with_rows(answer, [*answer.rows, {"name": "a", "value": "1", "time": at}])
        return answer

    def with_rows(answer, rows):
        body = json.dumps(answer.said | {"point_samples": rows}).encode()
        return type(answer)(answer.asked, answer.status, {"X-RateLimit-Limit": "60"}, body)

    with Simulator(WORLD, api_key=KEY) as simulator:
        honest = asker(simulator.url, KEY, SITE, FreeBudget())
        found = {fact.fact: fact for fact in facts(ask, DAY, NOW)}
    assert failing(found) == {
        "`end_time` is exclusive",
        "raw rows are complete after ten minutes",
        "raw and aggregated samples have the same points",
        "the API announces no rate limit",
    }


@pytest.mark.parametrize("world", [World([TableSite(SITE, [])]), World([SiteSpec(SITE, 200, first_day=NOW.date())])])
def test_what_a_silent_site_cannot_tell_is_said_to_be_unknown(world):
    """Without samples nothing is said of them, neither that it holds nor that it does not."""
    found = verdicts(world=world)
    assert not failing(found)
    assert found["`end_time` is exclusive"].verdict == "unknown"
    assert found["the API accepts a cursor that the client computes"].verdict == "unknown"
    assert found["a wrong API key is refused as such"].verdict == "holds"


def test_an_api_that_breaks_off_proves_nothing():
    """No answer is neither for nor against a fact."""
    found = verdicts("reset")
    assert not failing(found)
    assert found["a wrong API key is refused as such"].verdict == "holds"


@pytest.mark.parametrize("bad_key", ["error", "jwt", "500"])
def test_every_way_to_refuse_a_key_counts(bad_key):
    """401 with either message, or 500 that says `unhandled`."""
    assert verdicts(bad_key=bad_key)["a wrong API key is refused as such"].verdict == "holds"


def test_the_command_writes_a_report_and_says_what_it_found(tmp_path):
    """For people, for scripts and as a file: the same facts, no key, no name; exit code 0."""
    recent = datetime.now(UTC).date() - timedelta(days=2)
    with Simulator(WORLD, api_key=KEY) as simulator:
        env = {"ACE_API_KEY": KEY, "ACE_API_URL": simulator.url, "ACE_REQUESTS_PER_MINUTE": "1000"}
        told = run("probe-api", "--day", str(recent), "--out", str(tmp_path / "facts.json"), cwd=tmp_path, **env)
        script = run("probe-api", "--json", cwd=tmp_path, **env)
    assert told.returncode == script.returncode == 0, told.stderr + script.stderr
    report = json.loads((tmp_path / "facts.json").read_text("utf-8"))
    assert len(report["facts"]) == len(json.loads(script.stdout)["facts"]) == 13
    assert report["day"] == str(recent)
    assert all(fact["fact"] in told.stdout for fact in report["facts"])
    for text in (told.stdout, told.stderr, script.stdout, (tmp_path / "facts.json").read_text("utf-8")):
        assert KEY not in text
        assert "north" not in text


@pytest.mark.parametrize(
    ("key", "arguments", "said"), [("wrong-key-here", [], "ACE_API_KEY"), (KEY, ["--site", "nowhere"], "nowhere")]
)
def test_what_is_set_up_wrongly_is_one_line_and_exit_code_2(tmp_path, key, arguments, said):
    """A refused key and a site that the key does not have."""
    with Simulator(WORLD, api_key=KEY) as simulator:
        env = {"ACE_API_KEY": key, "ACE_API_URL": simulator.url}
        ended = run("probe-api", *arguments, cwd=tmp_path, **env)
    assert ended.returncode == 2
    assert said in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    assert CliRunner().invoke(backfill, ["probe-api", "--day", "today"]).exit_code == 2
