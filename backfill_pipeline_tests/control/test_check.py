"""`backfill check`: everything is looked at, whatever fails; each finding says what to do; no secret is shown."""

import json
import os
import time
from contextlib import contextmanager

import pytest

from backfill_pipeline.ace.budget import open_budget
from backfill_pipeline.ace.client import key_id
from backfill_pipeline.control.check import checked
from backfill_pipeline.settings import Settings
from backfill_pipeline.simulator.app import Simulator
from backfill_pipeline.simulator.world import SiteSpec, TableSite, World
from backfill_pipeline_tests.control.test_cli import TOP, run
from backfill_pipeline_tests.network import Empty, http_server
from backfill_pipeline_tests.storage.bucket import BUCKET, KEY, SECRET, answers, bucket_server, client
from backfill_pipeline_tests.storage.odd_stores import capitalised, damages, denies, refuses_headers, without_hash

NAMES = ["settings", "budget", "key", "clock", "site a", "site b", "store", "daemon", "disk home", "disk store"]


def settings_of(simulator, folder, **fields):
    fields = {"sites": ("a", "b"), "store": str(folder / "data"), "requests_per_minute": 1000, **fields}
    url = {"api_url": simulator.url} if simulator else {}
    return Settings(**{"api_key": "hush-hush", "home": folder, **url, **fields})


@contextmanager
def api(**options):
    with Simulator(World([SiteSpec("a", 20), SiteSpec("b", 30)]), **{"api_key": "hush-hush", **options}) as simulator:
        yield simulator


def found(settings, *, alive=True, room=1e12, ahead=0.0):
    findings = list(
        checked(settings, daemon_is_alive=lambda: alive, free=lambda _: room, now=lambda: time.time() + ahead)
    )
    assert all("hush" not in finding.line and SECRET not in finding.line for finding in findings)
    assert all("\n" not in finding.line for finding in findings)
    assert all(bool(finding.next) == (finding.state != "ok") for finding in findings)
    return {finding.name: finding for finding in findings}


def states(findings):
    return {name: finding.state for name, finding in findings.items() if finding.state != "ok"}


def test_all_is_well_and_nothing_is_left_behind(tmp_path):
    """One line each; points are counted; the store's folder is as empty as before, and the budget's slots are free."""
    with api() as simulator:
        findings = found(settings_of(simulator, tmp_path))
    assert list(findings) == NAMES
    assert not states(findings)
    assert "29 points" in findings["site a"].found
    assert "39 points" in findings["site b"].found
    assert not [path for path in (tmp_path / "data").rglob("*") if path.is_file()]


def test_a_wrong_key_is_one_failure_and_the_rest_is_still_looked_at(tmp_path):
    """Sites are not asked for with a key that is refused."""
    with api(api_key="another") as simulator:
        findings = found(settings_of(simulator, tmp_path))
        assert len(simulator.requests) == 2
    assert states(findings) == {"key": "FAIL", "sites": "FAIL"}
    assert "ACE_API_KEY" in findings["key"].next
    assert list(findings)[-3:] == NAMES[-3:]


def test_an_unknown_site_and_one_without_points_are_told_apart_from_good_ones(tmp_path):
    """Each site has a line of its own."""
    world = World([SiteSpec("a", 20), TableSite("bare", [], frozenset())])
    with Simulator(world, api_key="hush-hush") as simulator:
        findings = found(settings_of(simulator, tmp_path, sites=("a", "bare", "nowhere")))
    assert states(findings) == {"site bare": "warn", "site nowhere": "FAIL"}
    assert "name" in findings["site nowhere"].next


def test_without_ace_sites_every_site_of_the_key_is_looked_at(tmp_path):
    """As a backfill would take them all."""
    with api() as simulator:
        assert list(found(settings_of(simulator, tmp_path, sites=()))) == NAMES


@pytest.mark.parametrize(("ahead", "state"), [(20, "ok"), (-20, "ok"), (60, "warn"), (-60, "warn"), (400, "FAIL")])
def test_a_clock_that_is_off_is_told(tmp_path, ahead, state):
    """By more than 30 s a warning, by more than 5 minutes a failure, ahead or behind."""
    with api() as simulator:
        clock = found(settings_of(simulator, tmp_path), ahead=ahead)["clock"]
    assert clock.state == state
    assert ("ahead" if ahead > 0 else "behind") in clock.found


@pytest.mark.parametrize(("room", "state"), [(6e9, "ok"), (4e9, "warn"), (4e8, "FAIL")])
def test_disk_room_is_looked_at_where_days_are_spooled_and_stored(tmp_path, room, state):
    """Under 5 GB a warning, under 500 MB a failure."""
    with api() as simulator:
        findings = found(settings_of(simulator, tmp_path), room=room)
    assert {findings["disk home"].state, findings["disk store"].state} == {state}


def test_no_daemon_no_budget_and_no_api_are_failures(tmp_path):
    """With nothing there at all, every check still says so in its own line."""
    (tmp_path / "file").write_text("")
    settings = Settings(
        api_key="hush-hush",
        api_url="http://127.0.0.1:9/api",
        sites=("a",),
        home=tmp_path,
        store=str(tmp_path / "file"),
        limiter=f"sqlite:///{(tmp_path / 'file/budget.sqlite').as_posix()}",
    )
    findings = found(settings, alive=False)
    assert states(findings) == dict.fromkeys(["budget", "key", "store", "daemon"], "FAIL")
    assert findings["budget"].setting
    good = settings.model_copy(update={"limiter": None})
    assert states(found(good)) == dict.fromkeys(["key", "clock", "site a", "store"], "FAIL")


def test_a_budget_that_is_paused_is_a_warning_and_nothing_waits(tmp_path):
    """Each request that would wait is reported as not checked; what needs no request is checked as always."""
    with api() as simulator:
        settings = settings_of(simulator, tmp_path)
        open_budget(settings.limiter_url, key_id=key_id("hush-hush"), per_minute=1000).pause(500)
        findings = found(settings)
        assert not simulator.requests
    assert states(findings) == dict.fromkeys(["budget", "key", "clock", "site a", "site b"], "warn")
    assert "the API requested a pause" in findings["budget"].found
    assert "in 500 s" in findings["budget"].next or "in 499 s" in findings["budget"].next


def test_an_api_that_asks_for_a_pause_now_is_a_warning(tmp_path):
    """`Retry-After` in the answer to a request of the check is not waited for."""
    asked = []

    class Busy(Empty):
        def do_GET(self) -> None:  # noqa: N802 - http.server's name
            asked.append(self.path)
            self.send_response(429)
            self.send_header("Retry-After", "300")
            self.send_header("Content-Length", "0")
            self.end_headers()

    with http_server(Busy) as port:
        settings = settings_of(None, tmp_path, api_url=f"http://127.0.0.1:{port}/api")
        findings = found(settings)
    assert len(asked) == 1
    assert states(findings) == dict.fromkeys(["key", "clock", "site a", "site b"], "warn")
    assert findings["budget"].state == "ok"


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="needs a folder that this user may not write to")
def test_a_read_only_folder_fails(tmp_path):
    """The store's own words say what is wrong."""
    (tmp_path / "data").mkdir(mode=0o500)
    with api() as simulator:
        assert states(found(settings_of(simulator, tmp_path))) == {"store": "FAIL"}


def test_a_bucket_is_written_read_and_left_as_it_was(tmp_path):
    """Without the right to write it fails, without the right to delete it is a warning that names the object."""
    with bucket_server() as proxy, api() as simulator:
        settings = settings_of(
            simulator,
            tmp_path,
            store=f"s3://{BUCKET}/days",
            s3_access_key_id=KEY,
            s3_secret_access_key=SECRET,
            s3_endpoint_url=proxy.url,
            s3_region="auto",
        )
        findings = found(settings)
        assert not states(findings)
        assert "disk store" not in findings
        assert "Contents" not in client(proxy.direct).list_objects_v2(Bucket=BUCKET)

        def only(method):
            denied = answers(403, "AccessDenied")
            return lambda handler, asked: asked.method == method and denied(handler, asked)

        proxy.always = only("PUT")
        assert states(found(settings)) == {"store": "FAIL"}
        proxy.always = only("DELETE")
        left = found(settings)["store"]
        assert left.state == "warn"
        assert f"s3://{BUCKET}/days/backfill-check-" in left.found
        gone = settings.model_copy(update={"store": "s3://elsewhere"})
        proxy.always = None
        assert "no such bucket" in found(gone)["store"].found


def test_a_bucket_is_checked_by_what_a_put_does(tmp_path):
    """A store where a day could not be stored fails, with the missing right; one that is only odd is ok."""
    with bucket_server() as proxy, api() as simulator:
        settings = settings_of(
            simulator,
            tmp_path,
            store=f"s3://{BUCKET}/days",
            s3_access_key_id=KEY,
            s3_secret_access_key=SECRET,
            s3_endpoint_url=proxy.url,
            s3_region="us-east-1",
        )
        for odd in (capitalised, without_hash, refuses_headers("x-amz-checksum")):
            proxy.always = odd
            assert not states(found(settings))
        for right in ("list", "read", "write"):
            proxy.always = denies(right)
            finding = found(settings)["store"]
            assert finding.state == "FAIL"
            assert f"no right to {right}" in finding.found
            assert f"right to {right}" in finding.next
        proxy.always = denies("delete")
        finding = found(settings)["store"]
        assert (finding.state, "no right to delete" in finding.found) == ("warn", True)
        proxy.always = damages
        assert "does not match what was written" in found(settings)["store"].found
        proxy.always = refuses_headers("x-amz-meta", message="no metadata here")
        assert "InvalidArgument: no metadata here" in found(settings)["store"].found


def test_the_command_says_in_its_exit_code_what_is_wrong(tmp_path):
    """1 while something fails, here the daemon; 2 when a setting is wrong or missing; facts for scripts."""
    (tmp_path / "dagster.yaml").write_text((TOP / "dagster.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    with api() as simulator:
        environment = {"ACE_API_URL": simulator.url, "ACE_API_KEY": "hush-hush", "DAGSTER_HOME": str(tmp_path)}
        told = run("check", cwd=tmp_path, **environment)
        facts = run("check", "--json", cwd=tmp_path, **{**environment, "ACE_API_KEY": ""})
    assert told.returncode == 1, told.stderr
    assert "FAIL  daemon" in told.stdout
    assert "ok    store" in told.stdout
    assert "hush" not in told.stdout + told.stderr
    assert facts.returncode == 2
    checks = {one["name"]: one for one in json.loads(facts.stdout)["checks"]}
    assert (checks["key"]["state"], checks["key"]["setting"], checks["store"]["state"]) == ("FAIL", True, "ok")
    assert run("check", cwd=tmp_path, ACE_MAX_PAGE_SIZE="7").returncode == 2


def test_the_docs_say_what_to_do_for_each_check():
    """`docs/operating.md` has a line for every name that a finding can have."""
    told = (TOP / "docs/operating.md").read_text(encoding="utf-8")
    for name in [*NAMES, "sites"]:
        assert f"`{'site NAME' if name.startswith('site ') else name}`" in told
