"""The demo, as a new user starts it."""

import os
import signal
import subprocess
import sys
from datetime import date

import psutil
import pyarrow.parquet as pq
import pytest

from backfill_pipeline.simulator.world import demo_world
from backfill_pipeline_tests.builders import listed
from backfill_pipeline_tests.services import HANGS_S, until

COMMAND = [sys.executable, "-m", "backfill_pipeline.control.cli", "demo"]


def test_the_demo_writes_its_days_and_says_so(tmp_path):
    """Real runs of a real backfill: files for two sites, equal to the world; a table, an answer, what to try next."""
    folder = tmp_path / "demo"
    done = subprocess.run(
        [*COMMAND, "--folder", str(folder), "--days", "2", "--points", "20"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"ACE_SITES": "not-mine", "ACE_MAX_PAGE_SIZE": "7", "COLUMNS": "160"},
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    world = demo_world({"demo-north": 20, "demo_south": 20}, interval_s=60)
    files = sorted((folder / "data" / "timeseries").rglob("*.parquet"))
    assert len(files) == 4
    for file in files:
        table = pq.read_table(file)
        day = table.schema.metadata[b"day"].decode()
        assert listed(table) == world.truth(file.stem, date.fromisoformat(day))
    for word in (
        "4 of 4 site-days",
        "What was written",
        "DuckDB",
        "Supply air temperature [degreesCelsius] of ",
        "try next",
    ):
        assert word in done.stdout


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for another process")
def test_ctrl_c_leaves_nothing_running(tmp_path):
    """Interrupted while Dagster works: exit code 130, and every process is gone."""
    # A shell's background jobs ignore SIGINT, and hand that down to what they start; a handler is not handed down.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    command = [*COMMAND, "--days", "30", "--folder", str(tmp_path / "demo")]
    demo = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    until(lambda: list((tmp_path / "demo" / "data" / "timeseries").rglob("*.parquet")), demo)
    family = psutil.Process(demo.pid).children(recursive=True)
    demo.send_signal(signal.SIGINT)
    _, told = demo.communicate()
    assert demo.returncode == 130
    assert b"Traceback" not in told
    gone, alive = psutil.wait_procs(family, timeout=HANGS_S)
    assert family
    assert not alive, gone
