"""Progress of a backfill: a bar in a terminal, else a line for each change.

Put here: how progress and status are shown. Keep out: how the figures are computed (`backfill_state.py`).
"""

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from datetime import UTC, datetime
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.text import Text

from backfill_pipeline.control.answers import Status
from backfill_pipeline.control.metrics import BudgetMeter
from backfill_pipeline.control.output import show
from backfill_pipeline.control.service import Control

_SPEED_OVER_S = 30.0
"""Seconds over which the shown speed is averaged."""


def watch(
    control: Control,
    backfill_id: str,
    console: Console,
    stop: threading.Event,
    *,
    every_s: float = 1.0,
    used: Callable[[], int | None] | None = None,
) -> Status:
    """Show progress until the backfill is over.

    Args:
        control: returns the status.
        backfill_id: the id of the backfill.
        console: shows a bar, or a line for each change when it is not a terminal.
        stop: once set, the wait ends; the backfill continues.
        every_s: seconds between two requests of the status.
        used: returns the requests of the API key in the last minute; None: read from the request budget.

    Raises:
        KeyboardInterrupt: `stop` was set.
    """
    bar = _Bar(console, control.settings.requests_per_minute, used or BudgetMeter(control.settings).used)
    plain, shown, down = not console.is_terminal, "", None
    with nullcontext() if plain else Live(bar.lines, console=console, refresh_per_second=4):
        while True:
            status = control.status(backfill_id)
            if not plain:
                bar.update(status)
            line = f"{_title(status)}: {status.parts_done} of {status.parts} site-days, {status.rows:,} rows"
            if plain and line != shown:
                shown = line
                show(console, line + _left(status))
            if status.api_down_since != down:
                down = status.api_down_since
                for note in status.notes if down is not None else ("The API answers again.",):
                    show(console, note)
            if status.is_over:
                return status
            if stop.wait(every_s):
                raise KeyboardInterrupt


class _Bar:
    """A bar of site-days, and below it the speed, the request budget, and the API's outage or the estimated end.

    Args:
        console: the terminal; both lines fit into 80 columns.
        limit: requests that may leave in a minute.
        used: returns the requests of the last minute; after None it is not called again.
    """

    def __init__(self, console: Console, limit: int, used: Callable[[], int | None]) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(24), MofNCompleteColumn(), TextColumn("site-days"))
        self._progress = Progress(*columns, console=console)
        self._task = self._progress.add_task("waiting", total=1)
        self._below = Text()
        self._limit = limit
        self._used: Callable[[], int | None] | None = used
        self._seen: deque[tuple[float, int]] = deque()
        self.lines = Group(self._progress, self._below)

    def update(self, status: Status) -> None:
        """Show a status."""
        self._progress.update(self._task, total=status.parts, completed=status.parts_done, description=_title(status))
        parts = [f"  {self._speed(status):,.0f} samples/s"]
        used = self._used() if self._used else None
        if used is None:
            self._used = None
        else:
            parts.append(f"{used} of {self._limit} requests/min")
        if status.api_down_since is not None:
            parts.append(f"no answer since {_at(status.api_down_since)}")
        elif left := _left(status).removeprefix(", "):
            parts.append(left)
        self._below.plain = ", ".join(parts)

    def _speed(self, status: Status) -> float:
        seen = self._seen
        seen.append((time.monotonic(), status.own_rows))
        while seen[-1][0] - seen[0][0] > _SPEED_OVER_S:
            seen.popleft()
        return (seen[-1][1] - seen[0][1]) / max(seen[-1][0] - seen[0][0], 1.0)


def status_facts(status: Status) -> dict[str, Any]:
    """Return a status for scripts: the fields of the HTTP API, and further ones."""
    return {
        **status.facts(),
        "sites": list(status.sites),
        "site_days_completed": status.parts_done,
        "site_days_total": status.parts,
        "site_days_failed": status.failed,
        "site_days_lost": status.lost,
        "site_days_missing": status.missing,
        "requests": status.requests,
        "bytes": status.bytes,
        "forecast": json.loads(status.forecast) if status.forecast else None,
    }


def status_lines(status: Status) -> Iterator[str]:
    """Yield a status as lines for the terminal."""
    if status.backfill_id is None:
        yield "no backfill was started yet: `backfill start --from D --to D`"
        return
    ending = " (running days still complete)" if status.ending else ""
    yield f"backfill {status.backfill_id}: {status.word.replace('_', ' ')}{ending}"
    sites = status.sites[0] if len(status.sites) == 1 else f"{len(status.sites)} sites"
    yield f"  {status.first} to {status.last}, {sites}: {status.days_done} of {status.days} days"
    yield f"  {status.parts_done} of {status.parts} site-days ({status.percent:.2f} %), {status.rows:,} rows stored"
    yield f"  this backfill stored {status.own_rows:,} rows with {status.requests:,} requests"
    if status.failed:
        yield f"  {status.failed} site-days failed: `backfill errors {status.backfill_id}`"
    if status.word == "in_progress" and status.current:
        yield f"  at {status.current}{_left(status)}"
    yield f"  started {_at(status.started)}, last change {_at(status.updated)}"
    yield from _against_forecast(status)
    for part in (status.outcome, *status.notes):
        if part:
            yield f"  {part}"


def _against_forecast(status: Status) -> Iterator[str]:
    if not status.forecast or not status.own_parts or not status.own_todo:
        return
    share = status.own_parts / status.own_todo
    foreseen = json.loads(status.forecast)
    came = {"rows": status.own_rows, "requests": status.requests, "bytes": status.bytes}
    told = [
        f"{name} {came[name]:,} ({came[name] / (foreseen[name] * share) - 1:+.0%})"
        for name in came
        if foreseen.get(name)
    ]
    if told:
        yield f"  compared with the estimate of `backfill plan`: {', '.join(told)}"


def _title(status: Status) -> str:
    if status.word == "in_progress":
        return f"at {status.current}" if status.own_parts else "waiting for the first day"
    return status.word + (", running days complete" if status.ending else "")


def _left(status: Status) -> str:
    if status.word != "in_progress" or status.estimated_end is None:
        return ""
    return f", done about {_at(status.estimated_end)}"


def _at(seconds: float | None) -> str:
    return "-" if seconds is None else f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"
