"""The command: one line for what went wrong, the right exit code, help that works."""

import json
import os
import shlex
import subprocess
import sys
from datetime import date
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner

import backfill_pipeline
from backfill_pipeline.control.cli import backfill
from backfill_pipeline.core.rows import Chunk, Counts, DayRows
from backfill_pipeline.simulator.app import Simulator
from backfill_pipeline.simulator.world import demo_world
from backfill_pipeline.storage.days import put_day
from backfill_pipeline.storage.local import LocalStore

TOP = Path(backfill_pipeline.__file__).parent.parent


def run(*arguments, cwd, **environment):
    """The real command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "backfill_pipeline.control.cli", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=os.environ | environment,
        check=False,
    )


@pytest.mark.parametrize(
    ("arguments", "environment", "word"),
    [
        (["nonsense"], {}, "nonsense"),
        (["verify"], {}, "--from"),
        (["verify", "--from", "2025-02-30", "--to", "2025-03-01"], {}, "YYYY-MM-DD"),
        (["verify", "--from", "2025-03-02", "--to", "2025-03-01"], {}, "before"),
        (["verify", "--from", "2025-03-01", "--to", "2025-03-01"], {}, "ACE_SITES"),
        (["verify", "--from", "2025-03-01", "--to", "2025-03-01"], {"ACE_MAX_PAGE_SIZE": "7"}, "ACE_MAX_PAGE_SIZE"),
        (["plan", "--from", "2025-03-02", "--to", "2025-03-01"], {}, "before"),
        (["plan", "--from", "2023-12-31", "--to", "2024-01-01"], {}, "BACKFILL_FIRST_DAY"),
        (["plan", "--from", "2025-03-01", "--to", "2999-01-01"], {}, "2999-01-02 12:00 UTC"),
        (["plan", "--from", "2025-03-01", "--to", "2025-03-01"], {"ACE_API_KEY": ""}, "ACE_API_KEY"),
        (
            ["plan", "--from", "2025-03-01", "--to", "2025-03-01", "--site", "b"],
            {"ACE_API_KEY": "k", "ACE_SITES": "a"},
            "'b'",
        ),
        (["simulate", "--fault", "nonsense"], {}, "nonsense"),
        (["simulate", "--replay", "nowhere"], {}, "nowhere"),
        (["demo", "--days", "0"], {}, "--days"),
    ],
)
def test_what_was_asked_wrongly_is_one_line_and_exit_code_2(tmp_path, arguments, environment, word):
    """No traceback, no page of usage: the line names what was wrong."""
    done = run(*arguments, cwd=tmp_path, **environment)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert word in done.stderr


def command_paths(group, path=()):
    """The words of a group, and of each command and group below it."""
    yield path
    for name, command in sorted(group.commands.items()):
        if isinstance(command, click.Group):
            yield from command_paths(command, (*path, name))
        else:
            yield (*path, name)


@pytest.mark.parametrize("path", [*command_paths(backfill)], ids=lambda path: " ".join(("backfill", *path)))
def test_every_command_has_help_with_one_example_that_parses(path, tmp_path, monkeypatch):
    """The words of the example are a command, and options and values that its parser takes."""
    (tmp_path / "exports").mkdir()
    monkeypatch.chdir(tmp_path)
    shown = CliRunner().invoke(backfill, [*path, "--help"])
    assert shown.exit_code == 0
    command = backfill
    for name in path:
        command = command.commands[name]
    _, example = command.help.split("Example: ")
    program, *words = shlex.split(example)
    assert program == "backfill"
    assert tuple(words[: len(path)]) == path
    called = backfill
    while isinstance(called, click.Group):
        called = called.commands[words.pop(0)]
    with called.make_context(called.name, words) as context:
        assert context.params


def test_help_and_version_need_no_dagster():
    """`backfill --help` answers without importing what takes seconds."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "backfill_pipeline.control.cli", "--help"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0
    assert " dagster" not in done.stderr
    assert " pyarrow" not in done.stderr


def test_plan_tells_a_person_and_a_script_the_same_and_keeps_it(tmp_path):
    """Without `--site` and `ACE_SITES` it plans for the key's sites; the key is nowhere in what it prints or keeps."""
    (tmp_path / "dagster.yaml").write_text((TOP / "dagster.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    asked = ["plan", "--from", "2025-03-01", "--to", "2025-03-03"]
    with Simulator(demo_world({"b": 20, "a": 20}), api_key="hush-hush") as simulator:
        environment = {"ACE_API_URL": simulator.url, "ACE_API_KEY": "hush-hush", "DAGSTER_HOME": str(tmp_path)}
        told = run(*asked, cwd=tmp_path, **environment)
        facts = json.loads(run(*asked, "--json", cwd=tmp_path, **environment).stdout)
    assert told.returncode == 0, told.stderr
    assert told.stdout.splitlines()[0] == "2025-03-01 to 2025-03-03, 2 sites"
    assert f"{facts['samples']:,}" in told.stdout
    assert (facts["sites"], facts["site_days"], facts["requests"]) == (["a", "b"], 6, 8)
    kept = (tmp_path / ".dagster/plan.json").read_text(encoding="utf-8")
    assert json.loads(kept) == facts
    assert "hush" not in told.stdout + told.stderr + kept


def test_verify_tells_stored_empty_missing_and_damaged_apart(tmp_path):
    """Exit code 1 while anything is missing or damaged, 0 when every expected object is whole."""
    store = LocalStore(tmp_path / "data")
    for number in (1, 2):
        put_day(store, DayRows("a", date(2025, 3, number), ["p"], [], Counts()))
    asked = ["verify", "--site", "a", "--from", "2025-03-01", "--to"]
    good = run(*asked, "2025-03-02", cwd=tmp_path)
    assert good.returncode == 0
    found, _, expected = good.stdout.splitlines()[-1].partition("; ")
    assert found == "0 stored with 0 rows, 2 empty, 0 missing, 0 damaged, 0 foreign"
    assert expected == f"expected: 2 objects, of a, 2025-03-01 to 2025-03-02, in {store.url('')}"
    (tmp_path / "data/timeseries/2025/03/02/a.parquet").write_bytes(b"PAR1")
    bad = run(*asked, "2025-03-03", "--json", cwd=tmp_path)
    assert bad.returncode == 1
    assert '"missing": [{"site": "a", "date": "2025-03-03"}]' in bad.stdout
    assert '"damaged": [{"site": "a", "date": "2025-03-02"' in bad.stdout


def test_verify_finds_what_nobody_expected_and_with_deep_what_the_footer_hides(tmp_path):
    """A stray file is foreign; another site's object only to `ACE_SITES`; a flipped bit needs `--deep`."""
    store = LocalStore(tmp_path / "data")
    chunk = Chunk(np.zeros(50, np.int32), np.arange(50, dtype=np.int32), np.arange(50.0))
    rows = DayRows("a", date(2025, 3, 1), ["p"], [chunk], Counts(50, 50))
    path = tmp_path / "data" / put_day(store, rows).key
    put_day(store, DayRows("b", date(2025, 3, 1), ["p"], [], Counts()))
    asked = ["verify", "--from", "2025-03-01", "--to", "2025-03-01"]
    assert run(*asked, "--site", "a", cwd=tmp_path).returncode == 0
    (tmp_path / ".env").write_text("ACE_SITES=a\n")
    (path.parent / "a.parquet.bak").write_bytes(b"")
    found = run(*asked, "--json", cwd=tmp_path)
    facts = json.loads(found.stdout)
    assert found.returncode == 1
    assert sorted(facts["foreign"]) == ["timeseries/2025/03/01/a.parquet.bak", "timeseries/2025/03/01/b.parquet"]
    data = bytearray(path.read_bytes())
    data[200] ^= 1
    path.write_bytes(data)
    assert json.loads(run(*asked, "--json", cwd=tmp_path).stdout)["damaged"] == []
    assert json.loads(run(*asked, "--json", "--deep", cwd=tmp_path).stdout)["damaged"] != []
