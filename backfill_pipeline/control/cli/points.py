"""The command about the points of a site.

Put here: `points`. Keep out: what it does (`control/point_*.py`).

Heavy imports stay inside the command, so that `--help` answers at once.
"""

import json
from datetime import date
from pathlib import Path

import click

from backfill_pipeline.control.cli.options import DayType, json_option, optionally_written
from backfill_pipeline.control.output import document, echo, page
from backfill_pipeline.settings import Settings


@click.command()
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
    help="Show which days lack points that are configured now, and the cost of fetching them again.",
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

    With --rebuild: add points that were configured earlier to the catalogue, with their dates. Reads the footer of each
    stored day and sends no request to the API. You may interrupt it and start it again.

    With --from and --to: show which points appeared, vanished, were renamed, fell silent, went flat or changed their
    interval.
    With --lacking as well: show which stored days were fetched before points were configured, and the requests and
    hours to fetch them again. Sends a few requests to the API, and starts nothing.

    With --export: write all points as a Brick model (Turtle) or a Project Haystack grid (JSON), with units, equipment
    and the place of their samples. Needs the extra `standards`.

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
        from backfill_pipeline.control.point_list import listed_points  # noqa: PLC0415 - see the module's docstring

        listing = listed_points(Settings.load(), site, words)
        if as_json:
            echo(json.dumps(listing.facts()))
        else:
            page(listing.lines())
        return
    if rebuild:
        from backfill_pipeline.control.point_history import rebuilt  # noqa: PLC0415 - see the module's docstring

        done = rebuilt(Settings.load(), site, first, last, progress=_days_read)
        echo(*([json.dumps(done.facts())] if as_json else done.lines()))
        return
    if first is None or last is None:
        raise click.UsageError("backfill points needs --list, --rebuild, --export, or --from and --to.")
    from backfill_pipeline.control.report import arrived, filling, point_changes, point_spans  # noqa: PLC0415 - see the module's docstring
    from backfill_pipeline.coverage.report import about  # noqa: PLC0415 - see the module's docstring

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


def _days_read(read: int, of: int) -> None:
    echo(f"{read:,} of {of:,} days read", err=True)


def _exported(site: str, form: str, out: Path | None, *, as_json: bool) -> None:
    """Write an export to a file and its figures to standard output; without a file, the export and standard error."""
    from backfill_pipeline.control.point_export import exported_points, write_export  # noqa: PLC0415 - see the module's docstring

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
