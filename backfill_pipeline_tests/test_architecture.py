"""The house stands as `docs/architecture.md` says: imports go one way, rooms keep their charters."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import backfill_pipeline

ROOT = Path(backfill_pipeline.__file__).parent
MODULES = sorted(ROOT.rglob("*.py"))

ALLOWED = {
    "errors": set(),
    "settings": {"errors"},
    "core": {"errors", "core", ""},
    "ace": {"errors", "core", "settings", "ace", ""},
    "storage": {"errors", "core", "settings", "storage", ""},
    "coverage": {"errors", "core", "settings", "storage", "coverage", ""},
    "dataset": {"errors", "core", "settings", "storage", "dataset", ""},
    "read": {"errors", "core", "settings", "storage", "dataset", ""},
    "orchestration": {"errors", "core", "settings", "ace", "storage", "coverage", "dataset", "orchestration", ""},
    "definitions": {"errors", "settings", "orchestration"},
    "control": {
        "errors",
        "core",
        "settings",
        "ace",
        "storage",
        "coverage",
        "dataset",
        "orchestration",
        "simulator",
        "control",
        "",
    },
    "simulator": {"errors", "simulator", ""},
}
"""Which rooms each room may import from; `""` is the package's own version."""

MAY_IMPORT_DAGSTER = ("orchestration/", "control/dagster_instance.py", "definitions.py")


def imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return names


def room_of(name: str) -> str:
    parts = name.split(".")
    return parts[1] if len(parts) > 1 else ""


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports_go_one_way(path):
    """A module imports only from the rooms to the left of its own."""
    room = path.relative_to(ROOT).parts[0].removesuffix(".py")
    if room == "__init__":
        return
    used = {room_of(name) for name in imports(path) if name.split(".")[0] == "backfill_pipeline"}
    assert used <= ALLOWED[room]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_dagster_stays_at_the_edge(path):
    """Dagster is imported only where the architecture says so; the domain runs from a plain prompt."""
    name = path.relative_to(ROOT).as_posix()
    uses = any(found.split(".")[0] in ("dagster", "dagster_aws") for found in imports(path))
    assert not uses or name.startswith(MAY_IMPORT_DAGSTER)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_only_the_settings_read_the_environment(path):
    """No other module looks a variable up: `os.environ` may only be handed on to a process that is started."""
    text = path.read_text(encoding="utf-8")
    if path.name != "settings.py":
        assert "os.getenv" not in text
        assert "environ.get" not in text
        assert 'environ["' not in text


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_module_opens_with_its_charter(path):
    """Each module says what it is for; those with content say what to put there and what to keep out."""
    charter = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert charter
    if path.name not in ("__init__.py", "definitions.py", "errors.py"):
        assert "Put here" in charter
        assert "eep out" in charter


IMPORTED = """
import sys

def refuse(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo"):
        raise AssertionError(f"importing the definitions did {event} {arguments!r}")

sys.addaudithook(refuse)
import backfill_pipeline.definitions
"""


@pytest.mark.parametrize("variables", [{}, {"ACE_API_KEY": "made-up-key"}, {"BACKFILL_STORE": "no-such-kind://x"}])
def test_importing_the_definitions_reads_no_setting_and_opens_no_connection(variables, tmp_path):
    """The definitions are built when Dagster asks for them: importing them needs neither settings nor a network."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ACE_", "BACKFILL_"))}
    environment = kept | variables | {"PYTHONPATH": str(ROOT.parent)}
    done = subprocess.run(
        [sys.executable, "-c", IMPORTED], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
