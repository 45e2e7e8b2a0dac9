"""Imports go one way and form no circle, as `docs/architecture.md` shows."""

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
    "apprise_urls": set(),
    "env_file": {"errors"},
    "setting_formats": {"apprise_urls", ""},
    "settings": {"env_file", "errors", "setting_formats", ""},
    "settings_page": {"settings"},
    "core": {"errors", "core", ""},
    "ace": {"errors", "core", "settings", "setting_formats", "ace", ""},
    "storage": {"errors", "core", "settings", "storage", ""},
    "coverage": {"errors", "core", "settings", "storage", "coverage", ""},
    "dataset": {"errors", "core", "settings", "storage", "dataset", ""},
    "read": {"errors", "core", "settings", "storage", "dataset", ""},
    "explore": {"errors", "core", "settings", "storage", "coverage", "dataset", "read", "explore", ""},
    "orchestration": {"errors", "core", "settings", "ace", "storage", "coverage", "dataset", "orchestration", ""},
    "definitions": {"errors", "settings", "orchestration"},
    "control": {
        "errors",
        "core",
        "settings",
        "setting_formats",
        "ace",
        "storage",
        "coverage",
        "dataset",
        "orchestration",
        "explore",
        "simulator",
        "control",
        "",
    },
    "simulator": {"errors", "simulator", ""},
}
"""Which rooms each room may import from; `""` is the package's own version."""

MAY_IMPORT_DAGSTER = (
    "orchestration/",
    "control/dagster_instance.py",
    "control/day_events.py",
    "control/site_counters.py",
    "definitions.py",
)


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
    uses = any(
        found.split(".")[0] in ("dagster", "dagster_aws", "dagster_shared", "dagster_postgres", "dagster_celery")
        for found in imports(path)
    )
    assert not uses or name.startswith(MAY_IMPORT_DAGSTER)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_only_the_settings_read_the_environment(path):
    """No module but these two looks a variable up: `os.environ` may only be handed on to a process that is started."""
    text = path.read_text(encoding="utf-8")
    if path.name not in ("settings.py", "env_file.py"):
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


def modules_imported(path: Path) -> set[str]:
    """The modules of this package that a file imports."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            inside = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= {name if name in BY_NAME else node.module for name in inside}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return names & BY_NAME.keys()


BY_NAME = {
    ".".join((ROOT.name, *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in MODULES
}


def test_no_file_imports_itself_through_others():
    """Imports between files form no circle, those inside functions included."""
    left = {name: modules_imported(path) - {name} for name, path in BY_NAME.items()}
    while free := {name for name, used in left.items() if not used & left.keys()}:
        left = {name: used for name, used in left.items() if name not in free}
    assert sorted(left) == []


def is_private(module: str) -> bool:
    """Whether a module is an internal one of Dagster: a name with an underscore, or its shared package."""
    package, *inside = module.split(".")
    return package == "dagster_shared" or (
        package.split("_")[0] == "dagster" and any(part.startswith("_") for part in inside)
    )


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_private_parts_of_dagster_are_imported_in_one_module(path):
    """An upgrade of Dagster that moves a private name breaks one file."""
    private = {name for name in imports(path) if is_private(name)}
    assert not private or path.relative_to(ROOT).as_posix() == "orchestration/dagster_internals.py"


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


MOST_LINES, MOST_OF_A_FUNCTION = 400, 60

LARGER = {
    "ace/budget_storage.py": 499,
    "ace/client.py": 618,
    "ace/fetch.py": 676,
    "ace/json_scanner.py": 483,
    "control/dagster_instance.py": 457,
    "core/point_catalogue.py": 479,
    "dataset/point_kinds.py": 455,
    "read.py": 680,
    "simulator/app.py": 510,
    "storage/day_index.py": 453,
    "storage/days.py": 461,
    "storage/parquet.py": 427,
}
"""Modules that are still larger, with their lines: they may shrink, and no module is added."""

LONGER = {
    "ace/json_scanner.py _scan": 111,  # the scanner's loop: numba inlines nothing into it
    "control/backfill_state.py _look": 85,
    "control/cli/points.py points": 68,
    "control/http.py build_app": 66,
    "control/metrics.py collect": 63,
    "control/openapi.py openapi": 81,
    "control/verify.py verified": 65,
}
"""Functions that are still longer, with their lines: as above."""


def lengths(path: Path) -> dict[str, int]:
    """The lines of each function without its docstring."""
    found = {}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            said = node.body[0] if ast.get_docstring(node) is not None else None
            docstring = said.end_lineno - said.lineno + 1 if said else 0
            found[f"{path.relative_to(ROOT).as_posix()} {node.name}"] = node.end_lineno - node.lineno + 1 - docstring
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_modules_and_functions_stay_small(path):
    """A module has at most 400 lines and a function 60; those that have more, do not grow."""
    name = path.relative_to(ROOT).as_posix()
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LARGER.get(name, MOST_LINES)
    long = {one: count for one, count in lengths(path).items() if count > LONGER.get(one, MOST_OF_A_FUNCTION)}
    assert long == {}


def test_what_has_become_small_is_no_exception_any_more():
    """The lists name modules and functions that are there, and are larger than the rule."""
    for name in LARGER:
        assert len((ROOT / name).read_text(encoding="utf-8").splitlines()) > MOST_LINES
    for name in LONGER:
        assert lengths(ROOT / name.split()[0])[name] > MOST_OF_A_FUNCTION
