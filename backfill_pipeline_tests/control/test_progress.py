"""Progress of a backfill in a terminal and in a pipe."""

import io
import re
import threading
from datetime import date
from types import SimpleNamespace

import pytest
from rich.console import Console

from backfill_pipeline.control.answers import Status
from backfill_pipeline.control.progress import status_lines, watch

NOON = 1_772_366_400.0
"""2026-03-01 12:00 UTC."""
RUNNING = Status(
    "in_progress",
    backfill_id="abcdefgh",
    sites=("north", "south"),
    first=date(2016, 1, 1),
    last=date(2025, 12, 31),
    current=date(2025, 11, 30),
    days=3653,
    days_done=3000,
    parts=36530,
    parts_done=30000,
    rows=99_999_999_999,
    own_rows=99_999_999_999,
    own_parts=30000,
    own_todo=36530,
    requests=9_999_999,
    started=NOON,
    updated=NOON,
    estimated_end=NOON + 3600,
)
DONE = Status(
    "completed", sites=("north",), parts=36530, parts_done=36530, rows=99_999_999_999, own_rows=99_999_999_999
)


class Statuses:
    """A service that returns prepared statuses in turn."""

    settings = SimpleNamespace(requests_per_minute=50)

    def __init__(self, statuses):
        self.statuses = statuses

    def status(self, _):
        return self.statuses.pop(0)


def shown(statuses, used=lambda: 37, **terminal):
    """What `watch` writes to a console of 80 columns."""
    written = io.StringIO()
    console = Console(file=written, width=80, highlight=False, **terminal)
    watch(Statuses(list(statuses)), "abcdefgh", console, threading.Event(), every_s=0.3, used=used)
    return written.getvalue()


def lines(text):
    return [line.rstrip() for line in re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text))]


def test_the_bar_fits_80_columns_and_shows_requests_and_end():
    """Site-days are on one line; speed, requests of the budget and the estimated end are on the next."""
    found = lines(shown([RUNNING, RUNNING, DONE], force_terminal=True, _environ={"TERM": "xterm"}))
    assert max(map(len, found)) <= 80
    assert any(re.fullmatch(r"at 2025-11-30 \S+ 30000/36530 site-days", line) for line in found)
    assert "  0 samples/s, 37 of 50 requests/min, done about 2026-03-01 13:00 UTC" in found


def test_the_bar_shows_since_when_the_api_does_not_answer():
    """During an outage the second line has its start, and no estimated end."""
    down = Status("in_progress", own_parts=1, parts=4, api_down_since=NOON, estimated_end=NOON, notes=("It waits.",))
    found = lines(shown([down, down, DONE], force_terminal=True, _environ={"TERM": "xterm"}))
    assert "  0 samples/s, 37 of 50 requests/min, no answer since 2026-03-01 12:00 UTC" in found
    assert "It waits." in found


def test_a_budget_that_cannot_be_read_is_left_out_and_not_read_again():
    """The bar goes on without the requests; the budget is read once."""
    calls = []
    text = shown(
        [RUNNING, RUNNING, DONE], used=lambda: calls.append(1), force_terminal=True, _environ={"TERM": "xterm"}
    )
    assert "requests/min" not in text
    assert len(calls) == 1


@pytest.mark.parametrize(("environment", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_no_color_is_respected(environment, coloured):
    """With NO_COLOR the bar has no colour; without it, it has."""
    text = shown(
        [RUNNING, DONE], force_terminal=True, color_system="standard", _environ={"TERM": "xterm"} | environment
    )
    assert bool(re.search(r"\x1b\[(?:[0-9;]*;)?3[0-7](?:;[0-9;]*)?m", text)) is coloured


def test_a_pipe_gets_a_plain_line_for_each_change():
    """A pipe gets no control characters, and a repeated status once."""
    text = shown([RUNNING, RUNNING, DONE], force_terminal=False)
    assert text.splitlines() == [
        "at 2025-11-30: 30000 of 36530 site-days, 99,999,999,999 rows, done about 2026-03-01 13:00 UTC",
        "completed: 36530 of 36530 site-days, 99,999,999,999 rows",
    ]


def test_the_status_fits_80_columns():
    """Each line of `backfill status` with large figures fits."""
    assert max(map(len, status_lines(RUNNING))) <= 80
