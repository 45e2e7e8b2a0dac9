"""The tasks of a developer, which CI runs too: `nox` runs all, `nox -s lint` one, `nox --list` shows them.

Each runs in the active virtual environment, where `.[test]` is installed (CONTRIBUTING.md).
"""

import socket
import tempfile
from pathlib import Path

import nox

nox.options.default_venv_backend = "none"
nox.options.sessions = ["lint", "types", "tests"]
nox.options.stop_on_first_error = True

VULNERABILITIES = "api.osv.dev"


@nox.session
def lint(session: nox.Session) -> None:
    """Linter and formatter; nothing is changed."""
    session.run("ruff", "check", ".", external=True)
    session.run("ruff", "format", "--check", ".", external=True)


@nox.session
def fix(session: nox.Session) -> None:
    """Format the code, and change what the linter can change itself."""
    session.run("ruff", "check", "--fix", ".", external=True)
    session.run("ruff", "format", ".", external=True)


@nox.session
def types(session: nox.Session) -> None:
    """Type checker."""
    session.run("mypy", external=True)


@nox.session
def tests(session: nox.Session) -> None:
    """All tests, or those named: `nox -s tests -- -n0 backfill_pipeline_tests/core`."""
    session.run("python", "-m", "pytest", *session.posargs, external=True)


@nox.session
def audit(session: nox.Session) -> None:
    """Known vulnerabilities of the pinned packages, where the service that knows them can be reached."""
    try:
        socket.create_connection((VULNERABILITIES, 443), 5).close()
    except OSError:
        session.warn(f"NOT AUDITED: {VULNERABILITIES} cannot be reached; the pins are only known to fit each other")
        return
    with tempfile.TemporaryDirectory() as folder:
        # An environment of its own: its packages are not the project's.
        session.run("python", "-m", "venv", folder, external=True)
        python = next(
            path for path in (Path(folder, "bin", "python"), Path(folder, "Scripts", "python.exe")) if path.exists()
        )
        session.run(str(python), "-m", "pip", "install", "-q", "pip-audit==2.10.1", external=True)
        words = ("-s", "osv", "-r", "constraints.txt", "--no-deps", "--disable-pip", "--progress-spinner", "off")
        session.run(str(python), "-m", "pip_audit", *words, external=True)
