"""Progress of a backfill: a bar in a terminal, else a line for each change.

Put here: how progress and status are shown. Keep out: how the figures are computed (`backfill_state.py`).
"""

import json
import threading
import time
from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from backfill_pipeline.control.answers import Status
from backfill_pipeline.control.output import show
from backfill_pipeline.control.service import Control

_SPEED_OVER_S = 30.0
"""Seconds over which the shown speed is averaged."""


def watch(
    control: Control, backfill_id: str, console: Console, stop: threading.Event, *, every_s: float = 1.0
) -> Status:
    """Show progress until the backfill is over.

    Args:
        control: returns the status.
        backfill_id: the id of the backfill.
        console: shows a bar, or a line for each change when it is not a terminal.
        stop: once set, the wait ends; the backfill continues.
        every_s: seconds between two requests of the status.

    Raises:
        KeyboardInterrupt: `stop` was set.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("site-days, {task.fields[speed]:,.0f} samples/s{task.fields[left]}"),
    )
    plain, shown, down = not console.is_terminal, "", None
    seen: deque[tuple[float, int]] = deque()
    with Progress(*columns, console=console, disable=plain) as progress:
        task = progress.add_task("waiting", total=1, speed=0.0, left="")
        while True:
            status = control.status(backfill_id)
            seen.append((time.monotonic(), status.own_rows))
            while seen[-1][0] - seen[0][0] > _SPEED_OVER_S:
                seen.popleft()
            speed = (seen[-1][1] - seen[0][1]) / max(seen[-1][0] - seen[0][0], every_s)
            left = _left(status)
            progress.update(
                task,
                total=status.parts,
                completed=status.parts_done,
                speed=speed,
                left=left,
                description=_title(status),
            )
            line = f"{_title(status)}: {status.parts_done} of {status.parts} site-days, {status.rows:,} rows"
            if plain and line != shown:
                shown = line
                show(console, line + left)
            if status.api_down_since != down:
                down = status.api_down_since
                for note in status.notes if down is not None else ("The API answers again.",):
                    show(console, note)
            if status.is_over:
                return status
            if stop.wait(every_s):
                raise KeyboardInterrupt


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
    yield (
        f"  {status.first} to {status.last}, {sites}: {status.days_done} of {status.days} days, "
        f"{status.parts_done} of {status.parts} site-days ({status.percent:.2f} %)"
    )
    own = f"this backfill stored {status.own_rows:,} rows with {status.requests:,} requests"
    yield f"  {status.rows:,} rows stored, {own}"
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
    return "-" if seconds is None else f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"
