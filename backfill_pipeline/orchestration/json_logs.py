"""Logs as JSON: with `BACKFILL_LOG=json`, whatever a process of ours logs is one JSON object a line.

Put here: how a record becomes a line, and what a process does to write such lines. Keep out: what is logged, and where
a process's standard error leads to.
"""

import json
import logging
import re
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

from dagster import DagsterEvent

from backfill_pipeline.errors import UsageError
from backfill_pipeline.orchestration.partitions import PREFIX, site_of
from backfill_pipeline.settings import Settings

HIDDEN = "(hidden)"
"""In place of a secret."""

_LOG = logging.getLogger(__name__)

_TIME = r"\d\d:\d\d:\d\d"
_WHEN = re.compile(rf"(\d{{4}}-\d\d-\d\d)(?: ({_TIME}-{_TIME})|T({_TIME})Z to [\d-]+T({_TIME})Z)?")
"""A day, and a window of it if one is named: as `str(Window)` has it, or as the API is asked for it."""


class JsonLines(logging.Formatter):
    """Format each record as one JSON object on one line.

    Every line has `time` (UTC, ISO 8601), `level`, `logger` and `message`. Where they are known, it has `run`, `job`,
    `step`, `event`, `site`, `day`, `window` and the fields of the record's `about`. An error is in `error`, with its
    traceback.

    Args:
        secrets: texts that are removed from every line.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        super().__init__()
        self._secrets = sorted(secrets, key=len, reverse=True)  # one may be a part of another

    def format(self, record: logging.LogRecord) -> str:
        """The record's line."""
        meta = getattr(record, "dagster_meta", {})
        event = meta.get("dagster_event")
        error = self.formatException(record.exc_info) if record.exc_info else _error_of(event)
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": meta.get("orig_message") or record.getMessage(),
            "run": meta.get("run_id"),
            "job": meta.get("job_name"),
            "step": meta.get("step_key"),
            "event": event.event_type_value if event else None,
            **_subject(event),
            **getattr(record, "about", {}),
            "error": error,
        }
        return json.dumps({name: self._shown(value) for name, value in line.items() if value is not None}, default=str)

    def _shown(self, value: object) -> object:
        if isinstance(value, str):
            for secret in self._secrets:
                value = value.replace(secret, HIDDEN)
        return value


def log_as_set(settings: Settings) -> None:
    """With `BACKFILL_LOG=json`, let every handler of this process that writes to a stream write JSON lines.

    Dagster makes its console handlers itself, in several places and for each run anew, and takes no formatter for
    those of a run; so it is what all such handlers have in common that is set.
    """
    if settings.log != "json":
        return
    lines = JsonLines(settings.secrets)
    logging.StreamHandler.format = lambda _handler, record: lines.format(record)  # type: ignore[method-assign, assignment]
    logging.captureWarnings(capture=True)
    sys.excepthook = _log_uncaught


def about(line: str, sites: Sequence[str]) -> dict[str, str]:
    """What a line of the fetching is about: `site`, `day` and `window`, as far as it begins with them.

    Args:
        line: `SITE DAY WINDOW: ...`, `site 'SITE', DAY WINDOW: ...` or `samples of site 'SITE', FROM to TO: ...`.
        sites: those that it may be about.
    """
    for site in sorted(sites, key=len, reverse=True):  # one may begin with another, and a space
        for lead in (f"{site} ", f"{site}: ", f"site {site!r}, ", f"samples of site {site!r}, "):
            if line.startswith(lead):
                found = _WHEN.match(line, len(lead))
                if found is None:
                    return {"site": site}
                day, window, start, end = found.groups()
                window = window or (f"{start}-{'24:00:00' if end == '00:00:00' else end}" if start else None)
                return {"site": site, "day": day} | ({"window": window} if window else {})
    return {}


def _error_of(event: DagsterEvent | None) -> str | None:
    """Return the error of an event as Dagster keeps it, with its stack."""
    data = getattr(event, "event_specific_data", None)
    error = getattr(data, "error", None)
    return str(getattr(data, "error_display_string", None) or error.to_string()) if error else None


def _subject(event: DagsterEvent | None) -> dict[str, Any]:
    """Return the site and day of an event, if it has them."""
    key = event.asset_key if event else None
    if event is None or key is None or key.path[0] != PREFIX:
        return {}
    try:
        return {"site": site_of(key.path[-1]), "day": event.partition}
    except UsageError:  # an asset of another definition
        return {}


def _log_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    _LOG.critical("an error that nobody caught ends this process", exc_info=(kind, error, trace))
