"""Fixtures of the tests of control/."""

import pytest

from backfill_pipeline_tests.control.installation import Installation


@pytest.fixture
def made(tmp_path, monkeypatch):
    """An installation without runs, with a store in a folder."""
    installation = Installation(tmp_path / "home", monkeypatch)
    yield installation
    installation.instance.dispose()
