"""Commands that start, follow and cancel backfills, and that estimate them.

Put here: `plan`, `start`, `status`, `cancel`, `errors`. Keep out: what they do (`control/service.py`).

Heavy imports stay inside the commands, so that `--help` answers at once.
"""

import json
import sys
from datetime import date
from typing import TYPE_CHECKING, NoReturn

import click

from backfill_pipeline.control.answers import iso
from backfill_pipeline.control.cli.options import json_option, opened_control, range_options
from backfill_pipeline.control.output import echo, show
from backfill_pipeline.settings import Settings
from backfill_pipeline.simulator.command import finite

if TYPE_CHECKING:
    from backfill_pipeline.control.service import Control


@click.command()
@range_options
@click.option(
    "--price",
    type=click.FloatRange(0, 1e6),
    callback=finite,
    default=0.015,
    show_default=True,
    help="USD per GB and month.",
)
@json_option
def plan(first: date, last: date, sites: tuple[str, ...], *, price: float, as_json: bool) -> None:
    """Estimate a backfill before it is started: days, requests, hours and bytes, from a few real requests.

    Example: backfill plan --from 2025-03-01 --to 2025-03-31 --site ses_falls_city
    """
    from backfill_pipeline.control.estimate import run_plan  # noqa: PLC0415 - see the module's docstring

    run_plan(Settings.load(), first, last, sites, price=price, as_json=as_json)


@click.command()
@range_options
@click.option("--force", is_flag=True, help="Fetch stored days as well; a running backfill is cancelled first.")
@click.option("--wait", is_flag=True, help="Show progress until the backfill ends; exit code 1 when days failed.")
@json_option
def start(first: date, last: date, sites: tuple[str, ...], *, force: bool, wait: bool, as_json: bool) -> None:
    """Launch a backfill of the days that are not stored yet, and print its id.

    Ctrl-C ends the waiting, not the backfill: `backfill cancel` does that.

    Example: backfill start --from 2025-03-01 --to 2025-03-31 --site ses_falls_city --wait
    """
    from backfill_pipeline.control.estimate import foreseen  # noqa: PLC0415 - see the module's docstring
    from backfill_pipeline.orchestration.exposed_secrets import exposed_secrets  # noqa: PLC0415 - see the module's docstring

    control = opened_control()
    forecast = None if force else foreseen(control.settings, first, last)
    started = control.start(first, last, sites, force=force, forecast=forecast)
    for exposure in exposed_secrets(control.settings):
        echo(f"warning: {exposure}", err=True)
    if not wait:
        echo(json.dumps(started.facts()) if as_json else f"{started.backfill_id}  {started.message}")
        return
    _watched(control, started.backfill_id, started.message, as_json=as_json)


@click.command()
@click.argument("backfill_id", metavar="[ID]", required=False)
@click.option(
    "--watch", "is_watched", is_flag=True, help="Show progress until the backfill ends; exit code 1 when days failed."
)
@json_option
def status(backfill_id: str | None, *, is_watched: bool, as_json: bool) -> None:
    """Show the progress of a backfill; of the latest one when no ID is given.

    Example: backfill status --watch
    """
    from backfill_pipeline.control.progress import status_facts, status_lines  # noqa: PLC0415 - see the module's docstring

    control = opened_control()
    found = control.status(backfill_id)
    if is_watched and found.backfill_id is not None:
        _watched(control, found.backfill_id, None, as_json=as_json)
    if as_json:
        echo(json.dumps(status_facts(found)))
    else:
        for line in status_lines(found):
            echo(line)
        if found.word == "in_progress" and not control.gateway.daemon_is_alive():
            echo("  Dagster's daemon does not run, so no day is fetched. Start it with `backfill up`")


@click.command()
@click.argument("backfill_id", metavar="[ID]", required=False)
@json_option
def cancel(backfill_id: str | None, *, as_json: bool) -> None:
    """Cancel the running backfill: running days complete, and stored days stay.

    Example: backfill cancel
    """
    cancelled = opened_control().cancel(backfill_id)
    echo(
        json.dumps(cancelled.facts())
        if as_json
        else f"{cancelled.backfill_id}  {cancelled.days_done} days are stored; {cancelled.message}"
    )


@click.command()
@click.argument("backfill_id", metavar="[ID]", required=False)
@json_option
def errors(backfill_id: str | None, *, as_json: bool) -> None:
    """List each failed site-day of a backfill with its error, latest first.

    Example: backfill errors
    """
    found = opened_control().errors(backfill_id)
    if as_json:
        echo(json.dumps([failure.facts() for failure in found]))
        return
    for one in found:
        echo(f"{iso(one.at)}  {one.line}")
    if not found:
        echo("no errors")


def _watched(control: "Control", backfill_id: str, message: str | None, *, as_json: bool) -> NoReturn:
    """Show progress until the backfill ends, then its status; exit."""
    from rich.console import Console  # noqa: PLC0415 - see the module's docstring

    from backfill_pipeline.control.processes import interrupts  # noqa: PLC0415 - see the module's docstring
    from backfill_pipeline.control.progress import status_facts, status_lines, watch  # noqa: PLC0415 - see the module's docstring

    console = Console(stderr=True, highlight=False)
    if message:
        show(console, f"backfill {backfill_id}: {message}")
    try:
        with interrupts() as stop:
            ended = watch(control, backfill_id, console, stop)
    except KeyboardInterrupt:
        show(console, f"backfill {backfill_id} continues. See `backfill status --watch` and `backfill cancel`")
        raise
    echo(*([json.dumps(status_facts(ended))] if as_json else status_lines(ended)))
    sys.exit(0 if ended.word == "completed" else 1)
