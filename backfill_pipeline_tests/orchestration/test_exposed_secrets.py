"""A key in the clear and an open `.env` are reported: once, in one line each, with what to do."""

import json
import logging
import os
import stat

import pytest
from click.testing import CliRunner

from backfill_pipeline.ace.budget import open_budget
from backfill_pipeline.ace.client import open_client
from backfill_pipeline.control.check import checked
from backfill_pipeline.control.cli import backfill
from backfill_pipeline.orchestration.exposed_secrets import exposed_secrets
from backfill_pipeline.settings import Settings
from backfill_pipeline_tests.control.installation import Installation
from backfill_pipeline_tests.orchestration.fakes import FakeFetcher, Runs

POSIX = pytest.mark.skipif(os.name == "nt", reason="Windows has other rights")


def lines(folder, **fields):
    return [str(one) for one in exposed_secrets(Settings(home=folder, **fields), folder=folder)]


@pytest.mark.parametrize(
    ("url", "count"),
    [
        ("http://ace.example/api", 1),
        ("http://10.0.0.5:8080/api", 1),
        ("http://localhost.ace.example/api", 1),
        ("https://ace.example/api", 0),
        ("http://127.0.0.1:8900/api", 0),
        ("http://localhost/api", 0),
        ("http://[::1]:8900/api", 0),
    ],
)
def test_a_key_that_crosses_the_network_in_the_clear_is_reported(tmp_path, url, count):
    """Loopback is not the network; without a key nothing is sent."""
    found = lines(tmp_path, api_key="hush", api_url=url)
    assert len(found) == count
    assert all("ACE_API_URL" in line and "hush" not in line and "https://" in line for line in found)
    assert lines(tmp_path, api_url=url) == []


@POSIX
@pytest.mark.parametrize(
    ("mode", "words"),
    [
        (0o600, None), (0o400, None), (0o700, None), (0o640, "be read by"), (0o604, "be read by"),
        (0o620, "be changed by"), (0o602, "be changed by"), (0o666, "be read and changed by"),
    ],
)  # fmt: skip
def test_a_file_of_secrets_that_others_can_read_or_change_is_reported(tmp_path, mode, words):
    """By its group as well; the line names the file, its mode and the command."""
    file = tmp_path / ".env"
    file.write_text("ACE_API_KEY=hush", encoding="utf-8")
    file.chmod(mode)
    found = lines(tmp_path)
    assert len(found) == (0 if words is None else 1)
    assert all(words in line and f"{mode:04o}" in line and str(file) in line and "chmod 600" in line for line in found)


@POSIX
def test_check_start_and_each_run_report_it_once(tmp_path, monkeypatch):
    """`check` as a warning with what to do, `start` on standard error, a run in its log."""
    monkeypatch.chdir(tmp_path)
    made = Installation(tmp_path, monkeypatch, ACE_API_URL="http://127.0.0.1:9/api")
    (tmp_path / ".env").write_text("ACE_API_KEY=hush", encoding="utf-8")
    (tmp_path / ".env").chmod(0o644)
    secrets = [one for one in checked(made.settings, daemon_is_alive=lambda: True) if one.name == "secrets"]
    assert [(one.state, one.setting) for one in secrets] == [("warn", False)]
    words = ["start", "--from", "2025-01-01", "--to", "2025-01-02", "--json"]
    done = CliRunner().invoke(backfill, words, catch_exceptions=False)
    assert json.loads(done.stdout)["status"] == "started"
    assert done.stderr.count("warning: ") == len(done.stderr.splitlines()) == 1
    made.instance.dispose()
    with Runs(tmp_path / "other", FakeFetcher()) as runs:
        result = runs.run("2025-01-01", "2025-01-02")
        logged = [one.user_message for one in runs.instance.all_logs(result.run_id) if one.level == logging.WARNING]
    assert len([line for line in logged if ".env" in line]) == 1


@POSIX
def test_the_private_folder_is_for_this_user_alone(tmp_path, monkeypatch):
    """Whatever creates it first: an installation, a client, a budget. One that is there keeps its mode."""
    before = os.umask(0o022)
    try:
        made = Installation(tmp_path / "dagster", monkeypatch)
        made.instance.dispose()
        open_client(Settings(home=tmp_path / "client", api_key="hush"))
        Settings(home=tmp_path / "made").make_private()
        there = tmp_path / "there" / ".dagster"
        there.mkdir(parents=True, mode=0o755)
        settings = Settings(home=tmp_path / "there")
        settings.make_private()
        open_budget(settings.limiter_url, key_id="k", per_minute=5).acquire()
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE((path / ".dagster").stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {"dagster": 0o700, "client": 0o700, "made": 0o700, "there": 0o755}
