"""The check `fresh`: what is expected by when, and when it is evaluated."""

from datetime import UTC, date, datetime, timedelta

import dagster as dg
import pytest

from backfill_pipeline.errors import PageFailedError
from backfill_pipeline.orchestration.freshness import CHECK, expected_day
from backfill_pipeline.orchestration.partitions import FRESHNESS_JOB, asset_key
from backfill_pipeline.settings import Settings
from backfill_pipeline_tests.orchestration.fakes import FakeFetcher, Runs

DAY = date(2025, 1, 3)
READY_AND_GRACE = datetime(2025, 1, 4, 18, tzinfo=UTC)


class Clock:
    """The instant, moved by hand."""

    def __init__(self):
        self.at = READY_AND_GRACE

    def __call__(self):
        return self.at


class Looks:
    """Runs, and the sensor's ticks one after the other."""

    def __init__(self, runs, clock):
        self.runs, self.clock, self.cursor = runs, clock, None

    def tick(self):
        """Whether a tick asks for an evaluation; it is executed then."""
        repository = self.runs.defs.get_repository_def()
        with dg.build_sensor_context(self.runs.instance, cursor=self.cursor, repository_def=repository) as context:
            data = repository.get_sensor_def(CHECK).evaluate_tick(context)
        self.cursor = data.cursor
        if data.run_requests:
            job = self.runs.defs.resolve_job_def(FRESHNESS_JOB)
            done = job.execute_in_process(instance=self.runs.instance)
            assert done.success
            found = done.get_asset_check_evaluations()
            return {one.asset_key.path[-1]: (one.passed, one.description) for one in found}
        return None


@pytest.fixture
def looks(tmp_path):
    clock = Clock()
    with Runs(tmp_path, FakeFetcher(), "north", "south", now=clock) as runs:
        yield Looks(runs, clock)


@pytest.mark.parametrize(("lag_h", "behind"), [(0, 0), (12, 0), (17.9, 0), (18.1, 1), (36, 1), (60, 2)])
def test_a_day_is_expected_six_hours_after_it_is_ready(lag_h, behind):
    """Whatever the lag: it is the newest day that was ready six hours ago."""
    settings = Settings(raw_lag_hours=lag_h, sites=("s",))
    day = expected_day(settings, datetime(2025, 1, 4, 23, 59, tzinfo=UTC))
    assert day == DAY - timedelta(days=behind)
    assert settings.ready_at(day) + timedelta(hours=6) <= datetime(2025, 1, 4, 23, 59, tzinfo=UTC)


def test_a_site_is_fresh_once_the_expected_day_is_stored(looks):
    """Missing, then stored late: evaluated at each change and at no other tick; a day later it is expected anew."""
    missing = (False, f"{DAY} is not stored")
    assert looks.tick() == {"north": missing, "south": missing}
    assert looks.tick() is None
    assert looks.runs.run(str(DAY)).success
    assert looks.tick() == {"north": (True, None), "south": (True, None)}
    assert looks.tick() is None
    looks.clock.at += timedelta(days=1)
    assert looks.tick()["north"] == (False, f"{DAY + timedelta(days=1)} is not stored")


def test_a_day_that_failed_is_not_fresh(looks):
    """Its failure is recorded as an observation of the day, which does not count."""
    looks.runs.fetcher.wrong = {("north", DAY): PageFailedError("cut off")}
    assert not looks.runs.run(str(DAY)).success
    assert looks.tick() == {"north": (False, f"{DAY} is not stored"), "south": (True, None)}


def test_a_day_without_rows_is_not_fresh(looks):
    """It is recorded, and nothing came."""
    empty = dg.AssetMaterialization(asset_key("north"), partition=str(DAY), metadata={"dagster/row_count": 0})
    looks.runs.instance.report_runless_asset_event(empty)
    assert looks.tick()["north"] == (False, f"{DAY} has no rows")


def test_each_run_evaluates_it_of_its_sites(looks):
    """A run that stores the expected day makes the site fresh, without a step of its own; a run of others does not."""
    for day, fresh in (("2025-01-01", False), (str(DAY), True)):
        done = looks.runs.run(day)
        found = [one for one in done.get_asset_check_evaluations() if one.check_name == CHECK]
        assert [(one.asset_key.path[-1], one.passed) for one in found] == [("north", fresh), ("south", fresh)]
        assert {event.step_key for event in done.all_events if event.step_key} == {"timeseries"}
