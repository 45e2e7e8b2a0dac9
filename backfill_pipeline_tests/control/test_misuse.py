"""Scripted misuse of every argument: one line, exit code 2, no traceback, whatever was written there."""

import os
import shutil
import sys

import pytest

from backfill_pipeline.control.cli import main
from backfill_pipeline_tests.test_architecture import ROOT

RANGE = ("--from", "2025-01-01", "--to", "2025-01-02")
LONG = "x" * 10_000
NO_DAYS = [
    "2025-02-31",
    "31.01.2025",
    "2025-1-1",
    "",
    "\x00",
    "\U0001f600",
    LONG,
    "20250101",
    "2025-01-01T00:00:00",
    "-1",
]
NO_SITES = ["", "south", "\U0001f600", "a/b", "../x", LONG, "\x00"]
NO_PORTS = ["-1", "65536", "99999999999999999999", "x", "", "1e3", "3.5", "\U0001f600"]
NO_FAULTS = ["", "nonsense", "truncate:share=x", "truncate:share=7", "truncate:nope=1"]
RANGED = {"start": (), "plan": (), "verify": (), "adopt": (), "report": ("--out", "o"), "points": ("--site", "north")}

CASES = [
    *((command, "--from", day, "--to", "2025-01-02", *more) for command, more in RANGED.items() for day in NO_DAYS),
    *((command, "--from", "2025-01-01", *more) for command, more in RANGED.items()),
    *((command, "--from", "2025-01-02", "--to", "2025-01-01", *more) for command, more in RANGED.items()),
    *((command, *RANGE, *RANGED[command], "--site", site) for command in ("verify", "report") for site in NO_SITES),
    *((command, "--from", "2023-12-31", "--to", "2025-01-01") for command in ("verify", "adopt", "start", "plan")),
    *((command, "--from", "2025-01-01", "--to", "9990-12-31") for command in ("verify", "adopt", "start", "plan")),
    *((command, one) for command in ("status", "cancel", "errors") for one in ("nowhere", "", "\x00", LONG, "../x")),
    *((command, "a", "b") for command in ("status", "cancel", "errors")),
    *((command, "--port", port) for command in ("up", "serve", "simulate") for port in NO_PORTS),
    *(("serve", "--host", host) for host in ("nowhere.invalid", "999.1.1.1", "\x00", LONG, "0.0.0.0")),  # noqa: S104 - refused
    *(("plan", *RANGE, "--price", price) for price in ("-1", "x", "nan", "inf", "")),
    *(("simulate", "--fault", fault) for fault in NO_FAULTS),
    *(("simulate", "--latency", seconds) for seconds in ("-1", "nan", "inf", "x")),
    *(("simulate", option, "-1") for option in ("--sites", "--points", "--interval", "--requests-per-minute")),
    ("simulate", "--replay", "nowhere"),
    *(("demo", "--days", days) for days in ("0", "31", "x")),
    *(("report", *RANGE, "--out", out) for out in ("", "\x00", "a.pdf")),
    ("report", *RANGE, "--out", "o", "--points", "nobody"),
    *(("worker", "--runs", runs) for runs in ("0", "-1", "65", "x")),
    ("worker",),
    (LONG,),
    ("\x00",),
    ("",),
    ("start", "--nonsense"),
]  # fmt: skip


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An installation without any backfill, and its variables."""
    shutil.copy(ROOT.parent / "dagster.yaml", tmp_path)
    for name in [name for name in os.environ if name.startswith(("ACE_", "BACKFILL_", "AWS_", "DAGSTER_"))]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    for name, value in {
        "DAGSTER_HOME": str(tmp_path),
        "ACE_API_KEY": "hush-hush",
        "ACE_API_URL": "http://127.0.0.1:9/api",
        "ACE_SITES": "north,a-b",
        "BACKFILL_STORE": str(tmp_path / "data"),
    }.items():
        monkeypatch.setenv(name, value)
    return tmp_path


def said(words, monkeypatch, capsys):
    """Exit code and standard error of a command."""
    monkeypatch.setattr(sys, "argv", ["backfill", *words])
    with pytest.raises(SystemExit) as caught:
        main()
    return caught.value.code, capsys.readouterr().err


@pytest.mark.parametrize(
    "words", CASES, ids=lambda words: " ".join(word[:12] for word in words).encode("ascii", "replace")
)
def test_a_wrong_argument_is_one_line_and_exit_code_2(words, home, monkeypatch, capsys):
    """Nothing is begun, nothing is lost, and the line is short enough to be read."""
    code, error = said(words, monkeypatch, capsys)
    assert (code, error.count("\n")) == (2, 1)
    assert len(error) < 1_200
    assert not (home / "data").exists()


WRONG = {
    "ACE_API_URL": ["ftp://x", "http://", "x", "http://a b"],
    "ACE_REQUESTS_PER_MINUTE": ["0", "x", "-1"],
    "ACE_MAX_PAGE_SIZE": ["20000", "x"],
    "BACKFILL_STORE": ["gs://x", "s3://"],
    "BACKFILL_LIMITER": ["nonsense", "redis://[::1", "sqlite:///"],
    "BACKFILL_RUN_STORAGE": ["sqlite:///x", "postgresql://["],
    "BACKFILL_FIRST_DAY": ["2025-02-31"],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
@pytest.mark.parametrize("command", ["verify", "start"])
def test_a_wrong_variable_is_one_line_that_names_it(command, name, value, home, monkeypatch, capsys):
    """From the environment and from `.env` alike."""
    (home / ".env").write_text(f"{name}={value}\n", encoding="utf-8")
    monkeypatch.delenv(name, raising=False)
    code, error = said((command, *RANGE), monkeypatch, capsys)
    assert (code, error.count("\n")) == (2, 1)
    assert name in error
