"""The command `backfill`.

Put here: the commands, how a failure becomes one line and an exit code. Keep out: what a command does, beyond a few
lines. Heavy imports stay inside the commands, so that `--help` answers at once.
"""

import json
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from backfill_pipeline import __version__
from backfill_pipeline.control.day_ranges import checked_days, named_sites
from backfill_pipeline.control.output import document, echo, page, show
from backfill_pipeline.core.command_lines import repair_command
from backfill_pipeline.core.day import parse_day
from backfill_pipeline.errors import (
    BackfillError,
    BudgetLostError,
    DatabaseLockedError,
    KeyRefusedError,
    SettingError,
    SiteRefusedError,
    StoppedError,
    StoreRefusedError,
    UnreachableError,
    UsageError,
)
from backfill_pipeline.settings import Settings
from backfill_pipeline.simulator.command import finite, simulate

if TYPE_CHECKING:
    from backfill_pipeline.control.service import Control

_SET_UP = (
    SettingError,
    KeyRefusedError,
    SiteRefusedError,
    StoreRefusedError,
    UnreachableError,
    BudgetLostError,
    DatabaseLockedError,
)
"""What somebody has to put right in the settings, or where they lead to."""

WRONG = 2
"""Exit code: asked, or set up, wrongly."""

_LINE = 1000

INTERRUPTED = 130
"""Exit code: Ctrl-C."""


_OPTIONS = {"first": "--from", "last": "--to", "site": "--site"}
"""What a `UsageError` is about, as one types it."""


def written(_context: click.Context, _param: click.Parameter, value: str) -> Path:
    """A path that somebody wrote: an empty one would be the working directory, and none holds a NUL."""
    if not value or "\0" in value:
        raise click.BadParameter("that is no path: name a folder or a file")
    return Path(value)


def optionally_written(context: click.Context, param: click.Parameter, value: str | None) -> Path | None:
    """As `written`, for an option that may be absent."""
    return None if value is None else written(context, param, value)


class DayType(click.ParamType[date]):
    """A day as YYYY-MM-DD."""

    name = "day"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> date:
        """Parse it, or say in one line what it should be."""
        try:
            return parse_day(str(value))
        except UsageError as error:
            self.fail(str(error), param, ctx)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="backfill")
def backfill() -> None:
    """Years of building sensor history from the ACE IoT API, in a folder or bucket of your own.

    Example: backfill demo
    """


@backfill.command()
@click.option("--folder", type=click.Path(path_type=Path), help="Keep everything here; a throw-away folder otherwise.")
@click.option("--days", type=click.IntRange(1, 30), default=5, show_default=True)
@click.option("--points", type=click.IntRange(1, 2000), default=60, show_default=True, help="Points of each site.")
def demo(folder: Path | None, days: int, points: int) -> None:
    """Try everything in under a minute: simulator, Dagster backfill, Parquet files, a query.

    Example: backfill demo --folder demo
    """
    from backfill_pipeline.control.demo import run_demo  # noqa: PLC0415 - Dagster takes long to import

    sys.exit(run_demo(folder, days=days, points=points))


def range_options(command: Callable[..., None]) -> Callable[..., None]:
    """`--from`, `--to` and `--site`, alike for all commands that take days."""
    sites_help = "A site; by default all sites of ACE_SITES, or of the API key."
    command = click.option("--site", "sites", multiple=True, help=sites_help)(command)
    command = click.option("--to", "last", type=DayType(), required=True, help="Last day, included.")(command)
    return click.option("--from", "first", type=DayType(), required=True, help="First day, YYYY-MM-DD.")(command)


json_option = click.option("--json", "as_json", is_flag=True, help="Facts for scripts.")
"""For all commands that print facts."""


@backfill.command()
@range_options
@click.option("--force", is_flag=True, help="Fetch stored days as well; a backfill that runs is cancelled first.")
@click.option("--wait", is_flag=True, help="Show progress until it is over; exit code 1 when days failed.")
@json_option
def start(first: date, last: date, sites: tuple[str, ...], *, force: bool, wait: bool, as_json: bool) -> None:
    """Launch a backfill of the days that are not stored yet, and print its id.

    Ctrl-C ends the waiting, not the backfill: `backfill cancel` does that.

    Example: backfill start --from 2025-03-01 --to 2025-03-31 --site ses_falls_city --wait
    """
    from backfill_pipeline.control.estimate import foreseen  # noqa: PLC0415 - Arrow takes long to import
    from backfill_pipeline.orchestration.exposed_secrets import exposed_secrets  # noqa: PLC0415 - only here

    control = _control()
    forecast = None if force else foreseen(control.settings, first, last)
    started = control.start(first, last, sites, force=force, forecast=forecast)
    for exposure in exposed_secrets(control.settings):
        echo(f"warning: {exposure}", err=True)
    if not wait:
        echo(json.dumps(started.facts()) if as_json else f"{started.backfill_id}  {started.message}")
        return
    _watched(control, started.backfill_id, started.message, as_json=as_json)


@backfill.command()
@click.argument("backfill_id", metavar="[ID]", required=False)
@click.option("--watch", "is_watched", is_flag=True, help="Go on until it is over; exit code 1 when days failed.")
@json_option
def status(backfill_id: str | None, *, is_watched: bool, as_json: bool) -> None:
    """Show how far a backfill has come; the newest one when no ID is given.

    Example: backfill status --watch
    """
    from backfill_pipeline.control.progress import status_facts, status_lines  # noqa: PLC0415 - as below

    control = _control()
    found = control.status(backfill_id)
    if is_watched and found.backfill_id is not None:
        _watched(control, found.backfill_id, None, as_json=as_json)
    if as_json:
        echo(json.dumps(status_facts(found)))
    else:
        for line in status_lines(found):
            echo(line)
        if found.word == "in_progress" and not control.gateway.daemon_is_alive():
            echo("  Dagster's daemon does not run, so that no day is fetched. Start it with `backfill up`")


@backfill.command()
@click.argument("backfill_id", metavar="[ID]", required=False)
@json_option
def cancel(backfill_id: str | None, *, as_json: bool) -> None:
    """Cancel the running backfill: the days at work complete, and nothing that is stored is lost.

    Example: backfill cancel
    """
    cancelled = _control().cancel(backfill_id)
    echo(
        json.dumps(cancelled.facts())
        if as_json
        else f"{cancelled.backfill_id}  {cancelled.days_done} days are stored; {cancelled.message}"
    )


@backfill.command()
@click.argument("backfill_id", metavar="[ID]", required=False)
@json_option
def errors(backfill_id: str | None, *, as_json: bool) -> None:
    """List each failed site-day of a backfill with its error, newest first.

    Example: backfill errors
    """
    found = [failure.facts() for failure in _control().errors(backfill_id)]
    if as_json:
        echo(json.dumps(found))
        return
    for one in found:
        about = [part for part in one["context"].values() if part]
        begin = one["error"].partition(": ")[0]  # an error may name both itself, before what was found
        where = "" if about and all(part in begin for part in about) else f"{' '.join(about) or 'the run'}: "
        echo(f"{one['timestamp']}  {where}{one['error']}")
    if not found:
        echo("no errors")


@backfill.command()
@range_options
@click.option("--deep", is_flag=True, help="Read every byte, not the footers alone.")
@json_option
def adopt(first: date, last: date, sites: tuple[str, ...], *, deep: bool, as_json: bool) -> None:
    """Record days that are in the store and not in Dagster's record, verified instead of fetched again.

    For a Dagster storage that was lost, or a bucket that another installation filled. Days that Dagster has recorded
    are compared with the store. Exit code 1 when an object is damaged, or recorded and missing.

    Example: backfill adopt --from 2025-03-01 --to 2025-03-31
    """
    control = _control()
    checked_days(control.settings, first, last, datetime.now(UTC))
    counts = dict.fromkeys(("adopted", "known", "missing", "damaged", "without_rows"), 0)
    lost = []
    for one in control.adopt(first, last, sites, deep=deep):
        counts[one.result] += 1
        counts["without_rows"] += one.rows == 0
        if one.rows == 0 and not as_json:
            echo(f"adopted  {one.site} {one.day}: 0 rows")
        if one.result == "damaged" or (one.result == "missing" and one.recorded):
            lost.append((one.site, one.day))
            if not as_json:
                recorded = " (recorded as stored)" if one.recorded else ""
                echo(f"{one.result}  {one.site} {one.day}{recorded}: {'; '.join(one.wrong)}")
    repair = repair_command(lost, control.settings.sites, deep=deep) if lost else None
    if as_json:
        echo(json.dumps(counts | {"repair": repair}))
    else:
        echo(", ".join(f"{count} {what.replace('_', ' ')}" for what, count in counts.items()))
        if repair:
            echo(f"to fetch these days again: {repair}")
    sys.exit(1 if lost else 0)


@backfill.command()
@json_option
def move(*, as_json: bool) -> None:
    """Move what Dagster remembers from the embedded SQLite files to the empty database of BACKFILL_RUN_STORAGE.

    Runs, events, backfills, ticks and checks. End webserver and daemon first; the SQLite files stay as they are.

    Example: backfill move
    """
    from backfill_pipeline.orchestration.migrate_storage import move_storage  # noqa: PLC0415 - Dagster takes long to import

    counts = move_storage(Settings.load())
    echo(json.dumps(counts) if as_json else ", ".join(f"{count} {what}" for what, count in counts.items()))


@backfill.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen; elsewhere needs BACKFILL_TOKEN.")
@click.option("--port", type=click.IntRange(0, 65535), default=8642, show_default=True, help="0: any free one.")
def serve(host: str, port: int) -> None:
    """Serve the HTTP control API.

    Example: backfill serve --port 8642
    """
    from backfill_pipeline.control.http import run_server  # noqa: PLC0415 - as below
    from backfill_pipeline.orchestration.exposed_secrets import exposed_secrets  # noqa: PLC0415 - as below

    settings = Settings.load()
    for exposure in exposed_secrets(settings):
        echo(f"warning: {exposure}", err=True)
    run_server(settings, host, port)


@backfill.command()
@click.option("--from", "first", type=DayType(), required=True, help="First day, YYYY-MM-DD.")
@click.option("--to", "last", type=DayType(), required=True, help="Last day, included.")
@click.option("--site", "sites", multiple=True, required=True, help="A site; may be given more than once.")
@click.option(
    "--yes", is_flag=True, help="Remove the days; without this option the command only lists what would be removed."
)
@json_option
def remove(first: date, last: date, sites: tuple[str, ...], *, yes: bool, as_json: bool) -> None:
    """Remove days of a site from the store and from Dagster's record.

    `backfill start` would fetch them again, the sensors do not. Refused while a backfill or a run is in progress.

    Example: backfill remove --site ses_falls_city --from 2025-03-01 --to 2025-03-31
    """
    from backfill_pipeline.control.removal import remove_days  # noqa: PLC0415 - Dagster takes long to import

    found = remove_days(_control().gateway, first, last, sites, really=yes)
    echo(*([json.dumps(found.facts())] if as_json else found.lines()))


@backfill.command()
@range_options
@click.option("--deep", is_flag=True, help="Read every byte, not the footers alone.")
@click.option(
    "--repair", is_flag=True, help="Launch a backfill of the missing and damaged site-days, and print its id."
)
@json_option
def verify(first: date, last: date, sites: tuple[str, ...], *, deep: bool, repair: bool, as_json: bool) -> None:
    """Verify every expected object of a range; exit code 1 when one is missing, damaged or foreign.

    Compares the objects with what they should contain and with Dagster's records. The last line is the command that
    repairs what was found. With --repair the exit code is 0 once all that was found is being fetched again.

    Example: backfill verify --from 2025-03-01 --to 2025-03-31 --site ses_falls_city
    """
    from backfill_pipeline.control.verify import verified  # noqa: PLC0415 - Arrow takes long to import

    settings = Settings.load()
    days = checked_days(settings, first, last, datetime.now(UTC))
    wanted = named_sites(settings, sites, days)
    control = _control() if repair or (settings.home / "dagster.yaml").is_file() else None
    if control and repair:
        control.require_daemon()  # before objects are read, which may take long
    records = control.gateway.records((site, day) for site in wanted for day in days) if control else None
    report = verified(settings, wanted, days, deep=deep, recorded=records)
    launches = repair and bool(report.wrong)
    for line in () if as_json else report.lines(with_repair=not launches):
        echo(line)
    started = control.repair(report.wrong) if control and launches else None
    if as_json:
        echo(json.dumps(report.facts() | ({"backfill_id": started.backfill_id} if started else {})))
    elif started:
        echo(f"{started.backfill_id}  {started.message}")
    sys.exit(0 if report.is_good or (started and not report.foreign) else 1)


@backfill.command()
@range_options
@click.option("--points", metavar="SITE", help="Show this site's points by day as well.")
@click.option("--out", callback=written, required=True, help="A folder; or FILE.html, .png, .parquet.")
@json_option
def report(first: date, last: date, sites: tuple[str, ...], *, points: str | None, out: Path, as_json: bool) -> None:
    """Show what arrived: a calendar of each site as HTML and PNG, and its figures as Parquet.

    Example: backfill report --from 2025-01-01 --to 2025-12-31 --points ses_falls_city --out report
    """
    from backfill_pipeline.control.report import write_report  # noqa: PLC0415 - Arrow takes long to import

    written = write_report(Settings.load(), first, last, sites, points=points, out=out)
    echo(*([json.dumps([str(path) for path in written])] if as_json else map(str, written)))


def _days_read(read: int, of: int) -> None:
    echo(f"{read:,} of {of:,} days read", err=True)


@backfill.command()
@click.option("--site", required=True, help="The site.")
@click.option(
    "--list",
    "words",
    metavar="WORDS",
    is_flag=False,
    flag_value="",
    help="Find points by words; without words, list all points.",
)
@click.option("--from", "first", type=DayType(), help="First day, YYYY-MM-DD.")
@click.option("--to", "last", type=DayType(), help="Last day, included.")
@click.option(
    "--lacking",
    is_flag=True,
    help="Show which days lack points that are configured now, and what fetching them again takes.",
)
@click.option("--rebuild", is_flag=True, help="Add earlier points, from the footers of stored days, to the catalogue.")
@click.option("--export", "form", type=click.Choice(["brick", "haystack"]), help="Write all points as a model.")
@click.option(
    "--out", callback=optionally_written, help="The file to which --export writes; by default standard output."
)
@json_option
def points(
    site: str,
    *,
    words: str | None,
    first: date | None,
    last: date | None,
    lacking: bool,
    rebuild: bool,
    form: str | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Show the points of a site: found by words, or how they changed over time.

    With --list: each point whose name, description, unit, tags or device contain all of the words. The pager (PAGER)
    shows a list that is longer than the terminal.

    With --rebuild: the catalogue learns from the stored days which points were configured earlier, and since when. It
    reads the footer of each day, and sends no request to the API. It may be interrupted and started again.

    With --from and --to: which points appeared, vanished, were renamed, fell silent, went flat or changed interval.
    With --lacking as well: which stored days were fetched before points were configured, and the requests and hours
    that it takes to fetch them again. It sends a few requests to the API, and starts nothing.

    With --export: all points as a Brick model (Turtle) or a Project Haystack grid (JSON), with units, equipment and
    where their samples are. Needs the extra `standards`.

    Example: backfill points --site ses_falls_city --list "zone temperature"
    """
    if form is not None:
        if words is not None or first is not None or last is not None or lacking or rebuild:
            raise click.UsageError(
                "backfill points takes --export without --list, --from, --to, --lacking and --rebuild."
            )
        _exported(site, form, out, as_json=as_json)
        return
    if out is not None:
        raise click.UsageError("backfill points takes --out only with --export.")
    if words is not None:
        from backfill_pipeline.control.point_list import listed_points  # noqa: PLC0415 - Arrow takes long to import

        listing = listed_points(Settings.load(), site, words)
        if as_json:
            echo(json.dumps(listing.facts()))
        else:
            page(listing.lines())
        return
    if rebuild:
        from backfill_pipeline.control.point_history import rebuilt  # noqa: PLC0415 - as above

        done = rebuilt(Settings.load(), site, first, last, progress=_days_read)
        echo(*([json.dumps(done.facts())] if as_json else done.lines()))
        return
    if first is None or last is None:
        raise click.UsageError("backfill points needs --list, --rebuild, --export, or --from and --to.")
    from backfill_pipeline.control.report import arrived, filling, point_changes, point_spans  # noqa: PLC0415 - as above
    from backfill_pipeline.coverage.report import about  # noqa: PLC0415

    if lacking:
        filled = filling(Settings.load(), first, last, site)
        echo(*([json.dumps(filled.facts())] if as_json else filled.lines()))
        return
    settings = Settings.load()
    found = point_changes(arrived(settings, [site], first, last), site)
    known = point_spans(settings, site)
    if as_json:
        facts = [
            {
                "day": str(one.day),
                "change": one.change,
                "point": one.point,
                "until": one.until and str(one.until),
                "note": one.note,
                "description": known[one.point].description if one.point in known else None,
                "unit": known[one.point].unit if one.point in known else None,
            }
            for one in found
        ]
        echo(json.dumps(facts))
        return
    for one in found:
        title = known[one.point].title if one.point in known else ""
        echo("  ".join(filter(None, (str(one.day), f"{one.change:<12}", one.point, title, about(one)))).rstrip())
    if not found:
        echo("the stored days show no change")


@backfill.command()
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
    """Tell what a backfill would take, before it is started: days, requests, hours, bytes; from a few real requests.

    Example: backfill plan --from 2025-03-01 --to 2025-03-31 --site ses_falls_city
    """
    from backfill_pipeline.control.estimate import run_plan  # noqa: PLC0415 - Arrow takes long to import

    run_plan(Settings.load(), first, last, sites, price=price, as_json=as_json)


@backfill.command()
@json_option
def check(*, as_json: bool) -> None:
    """Look for what would go wrong later: key, sites, clock, store, budget, daemon, disk; exit code 1 when one fails.

    Example: backfill check
    """
    from backfill_pipeline.control.check import run_check  # noqa: PLC0415 - Arrow takes long to import

    sys.exit(run_check(Settings.load(), as_json=as_json))


@backfill.command("probe-api")
@click.option("--site", help="The site to ask about; the first of ACE_SITES otherwise.")
@click.option("--day", type=DayType(), help="A day with samples; the newest that is ready otherwise.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write the report to this file, as JSON.")
@json_option
def probe_api(site: str | None, day: date | None, out: Path | None, *, as_json: bool) -> None:
    """Ask the API some fifteen cheap questions, and tell which of the facts that this pipeline stands on hold there.

    The report has no key, no name and no value in it.

    Example: backfill probe-api --out facts.json
    """
    from backfill_pipeline.control.probe_api import run_probe  # noqa: PLC0415 - takes long to import

    run_probe(Settings.load(), site, day, out=out, as_json=as_json)


@backfill.command()
@click.option("--port", type=click.IntRange(1, 65535), default=3000, show_default=True, help="Of the webserver.")
def up(port: int) -> None:
    """Run Dagster's webserver and daemon together, on loopback, until Ctrl-C.

    Example: backfill up --port 3000
    """
    from backfill_pipeline.control.up import run_up  # noqa: PLC0415 - only here

    run_up(Settings.load(), port)


@backfill.command()
@click.option("--runs", type=click.IntRange(1, 64), default=1, show_default=True, help="Runs at work at once.")
@click.option("--alive", is_flag=True, help="Look whether a worker of this host answers; exit code 1: none.")
def worker(runs: int, *, alive: bool) -> None:
    """Take runs from BACKFILL_BROKER and execute them on this host, until ended. Needs Linux or macOS.

    Example: backfill worker --runs 2
    """
    from backfill_pipeline.orchestration.celery_launcher import run_worker, workers_here  # noqa: PLC0415 - Dagster takes long

    if alive:
        found = workers_here(Settings.load())
        echo(", ".join(found) or "no worker of this host answers")
        sys.exit(0 if found else 1)
    run_worker(Settings.load(), runs)


backfill.add_command(simulate)


def _exported(site: str, form: str, out: Path | None, *, as_json: bool) -> None:
    """Write an export to a file and its figures to standard output; without a file, the export and standard error."""
    from backfill_pipeline.control.point_export import exported_points, write_export  # noqa: PLC0415 - as above

    if as_json and out is None:
        raise click.UsageError(
            "backfill points --export takes --json only with --out, since the export itself is on standard output."
        )
    export = exported_points(Settings.load(), site, form)
    if out is None:
        document(export.text)
    else:
        write_export(export, out)
    facts = json.dumps(export.facts() | {"out": str(out)}) if as_json else None
    echo(facts or (f"{out}: " if out else "") + export.summary(), err=out is None)


def _control() -> "Control":
    from backfill_pipeline.control.service import open_control  # noqa: PLC0415 - Dagster takes long to import

    return open_control(Settings.load())


def _watched(control: "Control", backfill_id: str, message: str | None, *, as_json: bool) -> NoReturn:
    """Show progress until the backfill is over, then its status; ends the command."""
    from rich.console import Console  # noqa: PLC0415 - as above

    from backfill_pipeline.control.processes import interrupts  # noqa: PLC0415
    from backfill_pipeline.control.progress import status_facts, status_lines, watch  # noqa: PLC0415

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


def main() -> None:
    """Run the command; a failure is one line on standard error and an exit code, never a traceback."""
    try:
        backfill.main(standalone_mode=False)
    except (click.Abort, KeyboardInterrupt, StoppedError):
        sys.exit(INTERRUPTED)
    except click.ClickException as error:
        _fail(error.format_message(), WRONG)
    except UsageError as error:
        _fail(f"{_OPTIONS[error.about]}: {error}" if error.about else str(error), WRONG)
    except _SET_UP as error:
        _fail(str(error), WRONG)
    except BackfillError as error:
        _fail(str(error), 1)


def _fail(message: str, code: int) -> None:
    line = " ".join(message.split())
    if len(line) > _LINE:  # what was wrong may be long; what it should be stands at the end
        line = f"{line[: _LINE // 2]} ... {line[-_LINE // 2 :]}"
    echo(f"backfill: {line}", err=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
