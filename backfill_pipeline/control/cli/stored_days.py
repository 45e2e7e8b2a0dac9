"""Commands about days in the store.

Put here: `verify`, `report`, `adopt`, `remove`, `index rebuild`. Keep out: what they do (`control/`).

Heavy imports stay inside the commands, so that `--help` answers at once.
"""

import json
import sys
from datetime import UTC, date, datetime
from pathlib import Path

import click

from backfill_pipeline.control.cli.options import DayType, json_option, opened_control, range_options, written
from backfill_pipeline.control.day_ranges import checked_days, named_sites
from backfill_pipeline.control.output import echo
from backfill_pipeline.core.command_lines import repair_command
from backfill_pipeline.settings import Settings


@click.command()
@range_options
@click.option("--deep", is_flag=True, help="Read whole objects, not only their footers.")
@click.option(
    "--repair", is_flag=True, help="Launch a backfill of the missing and damaged site-days, and print its id."
)
@json_option
def verify(first: date, last: date, sites: tuple[str, ...], *, deep: bool, repair: bool, as_json: bool) -> None:
    """Verify every expected object of a range; exit code 1 when one is missing, damaged or unexpected.

    Compares the objects with the schema, with their metadata and with Dagster's records. The last line is the command
    that fetches the missing and damaged days again. With --repair the exit code is 0 when that backfill is launched.

    Example: backfill verify --from 2025-03-01 --to 2025-03-31 --site ses_falls_city
    """
    from backfill_pipeline.control.verify import verified  # noqa: PLC0415 - see the module's docstring

    settings = Settings.load()
    days = checked_days(settings, first, last, datetime.now(UTC))
    wanted = named_sites(settings, sites, days)
    control = opened_control() if repair or (settings.home / "dagster.yaml").is_file() else None
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


@click.command()
@range_options
@click.option("--points", metavar="SITE", help="Show this site's points by day as well.")
@click.option("--out", callback=written, required=True, help="A folder; or FILE.html, .png, .parquet.")
@json_option
def report(first: date, last: date, sites: tuple[str, ...], *, points: str | None, out: Path, as_json: bool) -> None:
    """Show the coverage: a calendar of each site as HTML and PNG, and its figures as Parquet.

    Example: backfill report --from 2025-01-01 --to 2025-12-31 --points ses_falls_city --out report
    """
    from backfill_pipeline.control.report import write_report  # noqa: PLC0415 - see the module's docstring

    written = write_report(Settings.load(), first, last, sites, points=points, out=out)
    echo(*([json.dumps([str(path) for path in written])] if as_json else map(str, written)))


@click.command()
@range_options
@click.option("--deep", is_flag=True, help="Read whole objects, not only their footers.")
@json_option
def adopt(first: date, last: date, sites: tuple[str, ...], *, deep: bool, as_json: bool) -> None:
    """Record stored days that Dagster has no record of, after a check of each object, without fetching them again.

    For a lost Dagster storage, or a bucket that another installation filled. Days with a record are compared with the
    store. Exit code 1 when an object is damaged, or recorded and missing.

    Example: backfill adopt --from 2025-03-01 --to 2025-03-31
    """
    control = opened_control()
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


@click.command()
@click.option("--from", "first", type=DayType(), required=True, help="First day, YYYY-MM-DD.")
@click.option("--to", "last", type=DayType(), required=True, help="Last day, included.")
@click.option("--site", "sites", multiple=True, required=True, help="A site; may be given more than once.")
@click.option(
    "--yes", is_flag=True, help="Remove the days; without this option the command only lists what would be removed."
)
@json_option
def remove(first: date, last: date, sites: tuple[str, ...], *, yes: bool, as_json: bool) -> None:
    """Remove days of a site from the store and from Dagster's record.

    `backfill start` fetches removed days again, the sensors do not. Refused while a backfill or a run is in progress.

    Example: backfill remove --site ses_falls_city --from 2025-03-01 --to 2025-03-31
    """
    from backfill_pipeline.control.removal import remove_days  # noqa: PLC0415 - see the module's docstring

    found = remove_days(opened_control().gateway, first, last, sites, really=yes)
    echo(*([json.dumps(found.facts())] if as_json else found.lines()))


@click.group()
def index() -> None:
    """The index of stored days: one row for each day, which readers use instead of the footers.

    Example: backfill index rebuild --from 2024-01-01 --to 2024-12-31
    """


@index.command()
@range_options
@click.option("--all", "everything", is_flag=True, help="Read every object, also where the index fits the listing.")
@json_option
def rebuild(first: date, last: date, sites: tuple[str, ...], *, everything: bool, as_json: bool) -> None:
    """Make the index of stored days from the objects, for a store that was filled by an earlier version.

    Reads the footers of the days that the index lacks or whose object has changed. You may interrupt the command and
    start it again: it continues after the days that are done. Exit code 1 when a stored day has no row in the end,
    because its object is damaged.

    Example: backfill index rebuild --from 2024-01-01 --to 2024-12-31 --site ses_falls_city
    """
    from backfill_pipeline.control.index_rebuild import rebuilt_index  # noqa: PLC0415 - see the module's docstring

    settings = Settings.load()
    days = checked_days(settings, first, last, datetime.now(UTC))
    counts = []
    for one in rebuilt_index(settings, named_sites(settings, sites, days), days, everything=everything):
        counts.append(one)
        if not as_json:
            echo(one.line())
    if as_json:
        echo(json.dumps([one.facts() for one in counts]))
    sys.exit(1 if any(one.damaged for one in counts) else 0)
