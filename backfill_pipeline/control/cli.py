"""The command `backfill`.

Put here: the commands, how a failure becomes one line and an exit code. Keep out: what a command does, beyond a few
lines. Heavy imports stay inside the commands, so that `--help` answers at once.
"""

import json
import sys
from datetime import date
from pathlib import Path

import click

from backfill_pipeline import __version__
from backfill_pipeline.core.day import days_between, parse_day
from backfill_pipeline.errors import BackfillError, SettingError, StoppedError, UsageError
from backfill_pipeline.settings import Settings
from backfill_pipeline.simulator.command import simulate

WRONG = 2
"""Exit code: asked, or set up, wrongly."""

INTERRUPTED = 130
"""Exit code: Ctrl-C."""


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


@backfill.command()
@click.option("--from", "first", type=DayType(), required=True, help="First day, YYYY-MM-DD.")
@click.option("--to", "last", type=DayType(), required=True, help="Last day, included.")
@click.option("--site", "sites", multiple=True, help="A site; all of ACE_SITES otherwise.")
@click.option("--deep", is_flag=True, help="Read every row, not the footers alone.")
@click.option("--json", "as_json", is_flag=True, help="Facts for scripts.")
def verify(first: date, last: date, sites: tuple[str, ...], *, deep: bool, as_json: bool) -> None:
    """Hold every expected object of a range against the contract; exit code 1 when one is missing, damaged or foreign.

    Example: backfill verify --from 2025-03-01 --to 2025-03-31 --site ses_falls_city
    """
    if last < first:
        raise UsageError(f"--to {last} lies before --from {first}")
    from backfill_pipeline.control.verifying import verified  # noqa: PLC0415 - Arrow takes long to import

    settings = Settings.load()
    wanted = sites or settings.sites
    if not wanted:
        raise SettingError("ACE_SITES is not set: name the sites to verify there, or with --site")
    report = verified(settings, wanted, list(days_between(first, last)), deep=deep)
    if as_json:
        click.echo(json.dumps(report.facts()))
    else:
        for line in report.lines():
            click.echo(line)
    sys.exit(0 if report.is_good else 1)


backfill.add_command(simulate)


def main() -> None:
    """Run the command; a failure is one line on standard error and an exit code, never a traceback."""
    try:
        backfill.main(standalone_mode=False)
    except (click.Abort, KeyboardInterrupt, StoppedError):
        sys.exit(INTERRUPTED)
    except click.ClickException as error:
        _fail(error.format_message(), WRONG)
    except (SettingError, UsageError) as error:
        _fail(str(error), WRONG)
    except BackfillError as error:
        _fail(str(error), 1)


def _fail(message: str, code: int) -> None:
    click.echo(f"backfill: {' '.join(message.split())}", err=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
