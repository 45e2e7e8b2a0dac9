"""An outage of the API as an operator sees it: status, metrics, the run's tags, and the list of sites from before."""

import math
import time
from datetime import UTC, date, datetime

import dagster as dg
import pytest

from backfill_pipeline.ace.budget import open_budget
from backfill_pipeline.ace.client import key_id
from backfill_pipeline.control.metrics import metrics_text
from backfill_pipeline.control.progress import status_facts, status_lines
from backfill_pipeline.errors import SettingError
from backfill_pipeline.orchestration.build import sites_of
from backfill_pipeline.orchestration.day_run import backfill_has_succeeded
from backfill_pipeline.orchestration.partitions import API_DOWN_TAG
from backfill_pipeline.settings import Settings
from backfill_pipeline.simulator.app import Simulator
from backfill_pipeline.simulator.world import SiteSpec, World

SINCE = 1_741_000_000.0
TEXT = "The API has not answered since 2025-03-03 11:06:40 UTC"


def note(made, run_id: str, since: float | None) -> None:
    """As a run does when an outage begins, and when it ends."""
    text = "" if since is None else datetime.fromtimestamp(since, UTC).isoformat(timespec="seconds")
    made.instance.add_run_tags(run_id, {API_DOWN_TAG: text})


def at(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def silent_s(made) -> float:
    text = metrics_text(made.control, lambda: None)
    [line] = [line for line in text.splitlines() if line.startswith("backfill_api_down_seconds ")]
    return float(line.split()[1])


def test_status_and_metrics_say_since_when_the_api_has_not_answered(made):
    """The message names the instant and the setting, and there is no estimate, until the API answers."""
    days = made.days(1, 10)
    backfill_id = made.control.start(days[0], days[-1]).backfill_id
    run_id = made.run(backfill_id, days)
    made.store("north", *days[:4])
    assert made.control.status(backfill_id).estimated_end is not None
    assert silent_s(made) == 0
    note(made, run_id, SINCE)
    status = made.control.status(backfill_id)
    assert status.message.startswith(TEXT)
    assert "ACE_OUTAGE_MINUTES" in status.message
    assert status.estimated_end is None
    assert any(TEXT in line for line in status_lines(status))
    assert status_facts(status)["api_down_since"] == "2025-03-03T11:06:40+00:00"
    assert silent_s(made) == pytest.approx(time.time() - SINCE, abs=60)
    note(made, run_id, None)
    status = made.control.status(backfill_id)
    assert (status.message, status.api_down_since) == (None, None)
    assert status.estimated_end is not None
    assert silent_s(made) == 0


def test_a_run_that_ended_in_an_outage_does_not_keep_it_alive(made):
    """The earliest of the runs in progress counts, and only of the backfill that is looked at."""
    days = made.days(1, 10)
    backfill_id = made.control.start(days[0], days[-1]).backfill_id
    killed, alive, other = made.run(backfill_id, days), made.run(backfill_id, days), made.run("other", days)
    note(made, killed, SINCE)
    note(made, alive, SINCE + 60)
    note(made, other, SINCE - 60)
    assert made.gateway.api_down_since(backfill_id) == at(SINCE)
    made.instance.report_run_failed(made.instance.get_run_by_id(killed), "killed")
    assert made.gateway.api_down_since(backfill_id) == at(SINCE + 60)
    assert made.gateway.api_down_since() == at(SINCE - 60)
    note(made, alive, None)
    assert made.gateway.api_down_since(backfill_id) is None


def test_the_sites_of_the_key_are_known_while_the_api_does_not_answer(tmp_path, caplog):
    """Without ACE_SITES: the last list of this address and key; a key that is refused is still an error."""
    with Simulator(World([SiteSpec("a", 3), SiteSpec("b", 3)]), api_key="hush-hush") as simulator:
        fields = {"api_key": "hush-hush", "api_url": simulator.url, "home": tmp_path}
        settings = Settings(**fields)
        simulator.down_until = math.inf
        with pytest.raises(SettingError, match="ACE_SITES is not set"):
            sites_of(settings)
        simulator.down_until = 0.0
        assert sites_of(settings) == ("a", "b")
        simulator.down_until = math.inf
        assert sites_of(settings) == ("a", "b")
        assert "last known list" in caplog.text
        simulator.down_until = 0.0
        asked = len(simulator.requests)
        open_budget(settings.limiter_url, key_id=key_id("hush-hush"), per_minute=50).pause(500)
        assert sites_of(settings) == ("a", "b")  # without waiting for the pause
        assert len(simulator.requests) == asked
        settings = settings.model_copy(update={"limiter": f"sqlite:///{(tmp_path / 'other').as_posix()}"})
        simulator.keys = {"another"}
        with pytest.raises(SettingError, match="refused the key"):
            sites_of(settings)


def test_an_api_that_answered_another_host_is_known_to_a_run(made):
    """An earlier run of the same backfill that succeeded is enough; one of another backfill is not."""
    days = made.days(1, 10)
    backfill_id = made.control.start(days[0], date(2025, 1, 10)).backfill_id
    assert not backfill_has_succeeded(made.instance, backfill_id)
    run_id = made.run(backfill_id, days)
    assert not backfill_has_succeeded(made.instance, backfill_id)
    made.end_run(run_id, dg.DagsterEventType.RUN_SUCCESS)
    assert backfill_has_succeeded(made.instance, backfill_id)
    assert not backfill_has_succeeded(made.instance, "other")
    assert not backfill_has_succeeded(made.instance, None)
