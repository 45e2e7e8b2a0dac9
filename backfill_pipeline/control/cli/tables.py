"""The command about tables of a catalogue.

Put here: `table sync`. Keep out: what it does (`control/table_sync.py`).

Heavy imports stay inside the command, so that `--help` answers at once.
"""

import json
import sys

import click

from backfill_pipeline.control.cli.options import json_option
from backfill_pipeline.control.output import echo
from backfill_pipeline.settings import Settings


@click.group()
def table() -> None:
    """Tables over the stored objects, for DuckDB, polars, Spark, Trino and other readers of a catalogue.

    Example: backfill table sync --catalog sqlite:///catalog.db
    """


@table.command()
@click.option(
    "--format", "form", type=click.Choice(["iceberg"]), default="iceberg", show_default=True, help="The table format."
)
@click.option(
    "--catalog",
    metavar="URL",
    help="sqlite:///FILE, postgresql://..., or the http(s) URL of a REST catalogue; by default BACKFILL_TABLE_CATALOG.",
)
@click.option("--site", "sites", multiple=True, help="A site; by default all sites in the store.")
@json_option
def sync(form: str, catalog: str | None, sites: tuple[str, ...], *, as_json: bool) -> None:
    """Register every stored object in the tables of a catalogue, in place; exit code 1 when one cannot be registered.

    Adds new objects, replaces objects that were stored again, and removes objects that are gone. No byte is copied. The
    tables are backfill.samples, backfill.texts, backfill.hourly and backfill.points. You may interrupt the command and
    start it again. Needs the extra `table`.

    Example: backfill table sync --catalog sqlite:///catalog.db
    """
    del form  # one format so far
    from backfill_pipeline.control.table_sync import sync_facts, sync_lines, synced_tables  # noqa: PLC0415 - see the module's docstring

    changes = synced_tables(Settings.load(), catalog, sites)
    echo(*([json.dumps(sync_facts(changes))] if as_json else sync_lines(changes)))
    sys.exit(1 if any(one.failed for one in changes) else 0)
