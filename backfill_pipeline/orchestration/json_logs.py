"""Logs as JSON: with `BACKFILL_LOG=json`, whatever a process of ours logs is one JSON object a line.

Put here: how a record becomes a line, and what a process does to write such lines. Keep out: what is logged, and where
a process's standard error leads to.
"""

import json
import logging
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

from dagster import DagsterEvent

from backfill_pipeline.core.log_fields import PACKAGE, fields_of
from backfill_pipeline.core.text import printable
from backfill_pipeline.errors import UsageError
from backfill_pipeline.orchestration.partitions import PREFIX, site_of
from backfill_pipeline.settings import Settings

HIDDEN = "(hidden)"
"""In place of a secret."""

_LOG = logging.getLogger(__name__)


class JsonLines(logging.Formatter):
    """Format each record as one JSON object on one line.

    Every line has `time` (UTC, ISO 8601), `level`, `logger` and `message`. Where they are known, it has `run`, `job`,
    `step`, `event` and the record's fields, such as `site`, `day` and `window`. An error is in `error`, with its
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
            **fields_of(record),
            "error": error,
        }
        return json.dumps({name: self._shown(value) for name, value in line.items() if value is not None}, default=str)

    def _shown(self, value: object) -> object:
        if isinstance(value, str):
            for secret in self._secrets:
                value = value.replace(secret, HIDDEN)
        return value


def log_as_set(settings: Settings) -> None:
    """With `BACKFILL_LOG=json`, give the handlers of this process that write to a stream the format of JSON lines.

    Dagster makes the console handlers of a run itself, for each run anew, and takes no formatter for them. So loggers
    that are made from now on give it to each handler that is added to them.
    """
    if settings.log != "json":
        return
    lines = JsonLines(settings.secrets)

    class JsonLogger(logging.getLoggerClass()):  # type: ignore[misc]  # the class is found at run time
        def addHandler(self, hdlr: logging.Handler) -> None:  # noqa: N802 - the name in `logging`
            super().addHandler(_formatted(hdlr, lines))

    logging.setLoggerClass(JsonLogger)
    known = (logger for logger in logging.root.manager.loggerDict.values() if isinstance(logger, logging.Logger))
    for logger in (logging.root, *known):
        for handler in logger.handlers:
            _formatted(handler, lines)
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(lines)
    logging.captureWarnings(capture=True)
    sys.excepthook = _log_uncaught


def _formatted(handler: logging.Handler, lines: JsonLines) -> logging.Handler:
    if isinstance(handler, logging.StreamHandler):
        handler.setFormatter(lines)
    return handler


class _ToRunLog(logging.Handler):
    """Passes records on to the log of a Dagster run, with their level and their fields."""

    def __init__(self, log: logging.Logger) -> None:
        super().__init__(logging.INFO)
        self._log_of_run = log

    def emit(self, record: logging.LogRecord) -> None:
        """Log the record again."""
        self._log_of_run.log(record.levelno, printable(record.getMessage()), extra=fields_of(record))


@contextmanager
def logged_to(log: logging.Logger) -> Iterator[None]:
    """While the block runs, pass what this project logs, in any thread, on to the log of a Dagster run.

    Args:
        log: `context.log` of an op.
    """
    ours = logging.getLogger(PACKAGE)
    handler, level, propagate = _ToRunLog(log), ours.level, ours.propagate
    ours.addHandler(handler)
    ours.setLevel(logging.INFO)
    ours.propagate = False  # the run's log writes to the console itself
    try:
        yield
    finally:
        ours.removeHandler(handler)
        ours.setLevel(level)
        ours.propagate = propagate


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
