"""The demo, as a new user starts it."""

import os
import signal
import subprocess
import sys
from datetime import date

import psutil
import pyarrow.parquet as pq
import pytest
import requests

from backfill_pipeline.simulator.world import demo_world
from backfill_pipeline_tests.builders import listed
from backfill_pipeline_tests.services import HANGS_S, free_port, until

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


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for another process")
def test_the_ui_serves_the_data_and_the_printed_commands_end_well(tmp_path):
    """`demo --ui` makes `coverage` and serves the UI; the printed command stores further days; Ctrl-C ends all."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # as above
    port, folder = free_port(), tmp_path / "demo"
    command = [*COMMAND, "--ui", "--port", str(port), "--days", "1", "--points", "5", "--folder", str(folder)]
    plain = {
        name: value for name, value in os.environ.items() if not name.startswith(("ACE_", "BACKFILL_", "DAGSTER_"))
    }
    demo = subprocess.Popen(command, cwd=tmp_path, env=plain, stdout=subprocess.PIPE, text=True)
    printed: list[str] = []
    try:
        for line in demo.stdout:
            printed.append(line.strip())
            if printed[-1].startswith("backfill start"):
                break
        assert f"cd {folder}" in printed, printed
        query = "{assetNodes {assetKey {path} assetMaterializations(limit: 1) {runId}}}"
        answer = requests.post(f"http://127.0.0.1:{port}/graphql", json={"query": query}, timeout=HANGS_S).json()
        made = {
            "/".join(node["assetKey"]["path"]) for node in answer["data"]["assetNodes"] if node["assetMaterializations"]
        }
        assert {"coverage", "timeseries/demo-north", "timeseries/demo_south"} <= made
        words = printed[-1].split()[1:]
        done = subprocess.run(
            [*COMMAND[:-1], *words], cwd=folder, env=plain, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert len(list((folder / "data" / "timeseries").rglob("*.parquet"))) == 8
        family = psutil.Process(demo.pid).children(recursive=True)
        demo.send_signal(signal.SIGINT)
        demo.communicate()
        assert demo.returncode == 130
        _, alive = psutil.wait_procs(family, timeout=HANGS_S)
        assert not alive
    finally:
        demo.kill()


def test_a_folder_with_another_env_file_is_refused(tmp_path):
    """The demo does not replace a user's `.env`; it names the folder and ends with exit code 2."""
    (tmp_path / ".env").write_text("ACE_SITES=mine\n", encoding="utf-8")
    done = subprocess.run([*COMMAND, "--folder", str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert str(tmp_path) in done.stderr
    assert (tmp_path / ".env").read_text(encoding="utf-8") == "ACE_SITES=mine\n"
    assert not (tmp_path / "dagster.yaml").exists()
