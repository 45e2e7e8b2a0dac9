"""The wheel works without the clone."""

import os
import subprocess
import sys

import pytest

from backfill_pipeline.control.new_home import FILES, text_of, write_home
from backfill_pipeline.errors import UsageError
from backfill_pipeline.settings import Settings
from backfill_pipeline_tests.test_architecture import ROOT

TOP = ROOT.parent


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The environment of a Python that imports the package from an installed wheel; its folder."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]
    build = ["wheel", "--no-build-isolation", "--no-deps", "--no-index", "-w", str(folder), str(TOP)]
    subprocess.run([*pip, *build], check=True)
    (wheel,) = folder.glob("*.whl")
    install = ["install", "--no-deps", "--no-index", "--target", str(folder / "site"), str(wheel)]
    subprocess.run([*pip, *install], check=True)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DAGSTER_", "BACKFILL_", "ACE_"))}
    return kept | {"PYTHONPATH": str(folder / "site")}, folder / "site"


def test_an_installed_wheel_makes_a_home_in_which_dagster_loads_the_assets(installed, tmp_path):
    """`backfill init` in an empty folder is enough for Dagster to list the job."""
    environment, site = installed

    def run(*words):
        done = subprocess.run(
            [sys.executable, *words], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    where = run("-c", "import backfill_pipeline; print(backfill_pipeline.__file__)")
    assert where.startswith(str(site))
    assert "workspace.yaml written" in run("-m", "backfill_pipeline.control.cli", "init")
    environment |= {"DAGSTER_HOME": str(tmp_path), "ACE_SITES": "north"}
    assert "backfill_job" in run("-m", "dagster", "job", "list", "-w", "workspace.yaml")


def test_a_new_home_has_the_projects_own_files_and_can_be_used(tmp_path, monkeypatch):
    """The copies in the package are the files at the top of the project."""
    for name in FILES:
        assert text_of(name) == (TOP / name).read_text(encoding="utf-8"), f"copy {name} to control/new_home"
    assert {path.name for path in write_home(tmp_path / "home")} == {*FILES, ".env"}
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    monkeypatch.chdir(tmp_path / "home")
    assert Settings.load().require_home() == tmp_path / "home"


def test_files_of_a_home_stay_as_they_are(tmp_path):
    """`backfill init` can be repeated, and changes no settings."""
    (tmp_path / ".env").write_text("ACE_SITES=north\n", encoding="utf-8")
    assert len(write_home(tmp_path)) == len(FILES)
    assert write_home(tmp_path) == []
    assert (tmp_path / ".env").read_text(encoding="utf-8") == "ACE_SITES=north\n"


def test_a_home_that_cannot_be_written_is_named(tmp_path):
    """One line names the folder."""
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(UsageError, match="file"):
        write_home(tmp_path / "file" / "home")
