"""Options and types that several commands share, and how commands open the installation.

Put here: what a command line may contain. Keep out: commands.
"""

from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import click

from backfill_pipeline.core.day import parse_day
from backfill_pipeline.errors import UsageError
from backfill_pipeline.settings import Settings

if TYPE_CHECKING:
    from backfill_pipeline.control.service import Control


def written(_context: click.Context, _param: click.Parameter, value: str) -> Path:
    """Check a path: it may not be empty, which would mean the working directory, and may not contain a NUL."""
    if not value or "\0" in value:
        raise click.BadParameter("not a valid path: name a folder or a file")
    return Path(value)


def optionally_written(context: click.Context, param: click.Parameter, value: str | None) -> Path | None:
    """Check a path as `written` does; None when the option is absent."""
    return None if value is None else written(context, param, value)


class DayType(click.ParamType[date]):
    """A day as YYYY-MM-DD."""

    name = "day"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> date:
        """Parse a day; fail with one line that names the expected form."""
        try:
            return parse_day(str(value))
        except UsageError as error:
            self.fail(str(error), param, ctx)


def range_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add `--from`, `--to` and `--site` to a command."""
    sites_help = "A site; by default all sites of ACE_SITES, or of the API key."
    command = click.option("--site", "sites", multiple=True, help=sites_help)(command)
    command = click.option("--to", "last", type=DayType(), required=True, help="Last day, included.")(command)
    return click.option("--from", "first", type=DayType(), required=True, help="First day, YYYY-MM-DD.")(command)


json_option = click.option("--json", "as_json", is_flag=True, help="Facts for scripts.")
"""The option of all commands that print facts."""


def opened_control() -> "Control":
    """Open the installation of the settings."""
    from backfill_pipeline.control.service import open_control  # noqa: PLC0415 - Dagster takes long to import

    return open_control(Settings.load())
