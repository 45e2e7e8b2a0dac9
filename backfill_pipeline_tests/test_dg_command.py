"""Dagster's command `dg` loads the project: real processes, made-up settings, no connection."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from backfill_pipeline_tests.test_architecture import ROOT

TOP = ROOT.parent
RECORDED = """
import sys

def record(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo"):
        with open({path!r}, "a", encoding="utf-8") as file:
            print(event, arguments, file=file)

sys.addaudithook(record)
"""
"""Runs at the start of each Python process that has it on its path."""


class Shell:
    """The project's folder, with the settings of a made-up site; connections of all processes are recorded."""

    def __init__(self, folder: Path) -> None:
        self.record = folder / "connections.txt"
        (folder / "dagster.yaml").write_text((TOP / "dagster.yaml").read_text("utf-8"), encoding="utf-8")
        (folder / "sitecustomize.py").write_text(RECORDED.format(path=str(self.record)), encoding="utf-8")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("ACE_", "BACKFILL_"))}
        self.environment = kept | {
            "ACE_API_KEY": "made-up",
            "ACE_API_URL": "http://127.0.0.1:9/api",
            "ACE_SITES": "north,a-b",
            "DAGSTER_HOME": str(folder),
            "BACKFILL_STORE": str(folder / "data"),
            "HOME": str(folder),
            "PYTHONPATH": os.pathsep.join([str(folder), str(TOP)]),
        }

    def python(self, *words: str, **variables: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, *words],
            cwd=TOP,
            env=self.environment | variables,
            capture_output=True,
            text=True,
            encoding="utf-8",
            check=False,
        )

    def dg(self, *words: str, **variables: str) -> subprocess.CompletedProcess:
        return self.python("-m", "dagster_dg_cli.cli", *words, **variables)


@pytest.fixture
def shell(tmp_path):
    return Shell(tmp_path)


def test_dg_checks_the_definitions_without_a_connection(shell):
    """`dg check defs` passes when the sites are set, and opens no connection."""
    done = shell.dg("check", "defs")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "All definitions loaded successfully." in done.stdout
    assert not shell.record.exists(), shell.record.read_text("utf-8")
    shell.python("-c", "import socket; socket.create_connection(('127.0.0.1', 9))")
    assert "127.0.0.1" in shell.record.read_text("utf-8")  # so an absent record does mean no connection


def test_dg_reports_a_wrong_setting(shell):
    """`dg check defs` fails with the name of the setting."""
    done = shell.dg("check", "defs", BACKFILL_FIRST_DAY="soon")
    assert done.returncode == 1
    assert "BACKFILL_FIRST_DAY is 'soon'" in done.stdout + done.stderr


def test_dg_lists_the_definitions_without_a_connection(shell):
    """`dg list defs` shows the asset of each site and the job, and opens no connection."""
    done = shell.dg("list", "defs", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert {"timeseries/north", "timeseries/a-b"} <= {one["asset_key"] for one in found["assets"]}
    assert "backfill_job" in {one["name"] for one in found["jobs"]}
    assert not shell.record.exists(), shell.record.read_text("utf-8")


def test_dg_names_the_code_location_as_the_workspace_does(shell):
    """Runs and sensors of `dg dev` and of `dagster dev` belong to one code location."""
    code = """if True:
        from pathlib import Path
        from dagster._core.workspace.load_target import WorkspaceFileTarget
        from dagster_dg_core.context import DgContext
        (ours,) = WorkspaceFileTarget(["workspace.yaml"]).create_origins()
        project = DgContext.for_project_environment(Path.cwd(), {})
        print([ours.location_name, ours.loadable_target_origin.module_name])
        print([project.code_location_name, project.code_location_target_module_name])
    """
    done = shell.python("-c", code)
    assert done.returncode == 0, done.stderr
    by_workspace, by_dg = done.stdout.splitlines()
    assert by_workspace == by_dg
