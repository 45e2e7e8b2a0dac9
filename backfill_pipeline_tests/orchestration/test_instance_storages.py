"""The instance of `dagster.yaml`: it loads as it stands, keeps everything below `.dagster`, and misses dead runs."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.events import EngineEventData
from dagster._core.launcher import WorkerStatus
from dagster._core.test_utils import freeze_time

import backfill_pipeline

YAML = Path(backfill_pipeline.__file__).parent.parent / "dagster.yaml"


@pytest.fixture
def instance(tmp_path, monkeypatch):
    """The project's own instance in a folder of its own."""
    shutil.copy(YAML, tmp_path)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        yield instance


def started(instance, pid):
    run = instance.create_run_for_job(dg.job(name="j")(lambda: None), status=dg.DagsterRunStatus.STARTED)
    if pid is not None:
        instance.report_engine_event("Started process", run, EngineEventData.in_process(pid))
    return run


def test_everything_lies_below_the_private_folder(instance, tmp_path):
    """Runs, events and logs are in `.dagster/`; nothing else appears beside `dagster.yaml`."""
    started(instance, None)
    assert {path.name for path in tmp_path.iterdir()} == {"dagster.yaml", ".dagster"}


def test_it_is_set_for_production(instance):
    """Telemetry is off, dead runs are looked for, runs wait in line, failed runs are not retried as a whole."""
    assert not instance.telemetry_enabled
    assert instance.run_monitoring_enabled
    assert instance.run_monitoring_max_resume_run_attempts == 0
    assert instance.get_concurrency_config().run_queue_config.max_concurrent_runs == 3
    assert not instance.run_retries_enabled
    assert "env:" not in YAML.read_text(encoding="utf-8").replace("`env:`", "")


def test_a_run_whose_process_is_gone_is_found(instance):
    """The process that said it executes the run has ended: the run's worker is failed."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    found = instance.run_launcher.check_run_worker_health(started(instance, process.pid))
    assert found.status is WorkerStatus.FAILED
    assert str(process.pid) in found.msg


def test_a_run_whose_process_lives_is_left_alone(instance):
    """A living process, and a run of which no process has spoken yet, count as running."""
    for pid in (os.getpid(), None):
        found = instance.run_launcher.check_run_worker_health(started(instance, pid))
        assert found.status is WorkerStatus.RUNNING


def test_another_process_with_the_same_number_does_not_count(instance):
    """After a restart of the machine the number may belong to a process that began later than the run spoke."""
    run = started(instance, None)
    with freeze_time(1_000_000_000.0):
        instance.report_engine_event("Started process", run, EngineEventData.in_process(os.getpid()))
    assert instance.run_launcher.check_run_worker_health(run).status is WorkerStatus.FAILED
