"""What a log record is about, as fields beside its text: site, day and window.

Put here: the names of the fields. Keep out: how a record is shown (`orchestration/json_logs.py`, `control/output.py`).
"""

from collections.abc import Mapping
from datetime import date
from logging import LogRecord

PACKAGE = "backfill_pipeline"
"""The logger above all loggers of this project."""

FIELDS = ("site", "day", "window", "days", "method", "path", "status", "seconds")
"""Fields that a record of this project may have."""


def fields(*, site: str | None = None, day: date | None = None, window: object = None) -> Mapping[str, str]:
    """Return the `extra` of a record; what is None is left out."""
    given = {"site": site, "day": day, "window": window}
    return {name: str(value) for name, value in given.items() if value is not None}


def fields_of(record: LogRecord) -> dict[str, object]:
    """Return those of `FIELDS` that a record has."""
    return {name: getattr(record, name) for name in FIELDS if hasattr(record, name)}
