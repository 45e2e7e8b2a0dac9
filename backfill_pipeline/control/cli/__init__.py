"""The command `backfill`: one module for each group of commands.

::

    backfills.py      plan, start, status, cancel, errors
    stored_days.py    verify, report, adopt, remove, index rebuild
    points.py         points
    tables.py         table sync
    installation.py   demo, init, check, probe-api, up, serve, explore, worker, move
    options.py        options and types that several commands share

Put here: the list of commands, and how a failure becomes one line and an exit code. Keep out: commands.
"""

import logging
import sys

import click

from backfill_pipeline import __version__
from backfill_pipeline.control.cli.backfills import cancel, errors, plan, start, status
from backfill_pipeline.control.cli.installation import check, demo, explore, init, move, probe_api, serve, up, worker
from backfill_pipeline.control.cli.points import points
from backfill_pipeline.control.cli.stored_days import adopt, index, remove, report, verify
from backfill_pipeline.control.cli.tables import table
from backfill_pipeline.control.output import WarningsToStderr, echo
from backfill_pipeline.core.log_fields import PACKAGE
from backfill_pipeline.errors import BackfillError, StoppedError, UsageError
from backfill_pipeline.simulator.command import simulate

WRONG = 2
"""Exit code: a wrong argument or a wrong setting."""

_LINE = 1000

INTERRUPTED = 130
"""Exit code: Ctrl-C."""


_OPTIONS = {"first": "--from", "last": "--to", "site": "--site"}

"""The option that a `UsageError` is about."""


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="backfill")
def backfill() -> None:
    """Years of building sensor history from the ACE IoT API, in a folder or bucket of your own.

    Example: backfill demo
    """


for _command in (
    *(plan, start, status, cancel, errors),
    *(verify, report, adopt, remove, index, points, table),
    *(demo, init, check, probe_api, up, serve, explore, worker, move, simulate),
):
    backfill.add_command(_command)


def main() -> None:
    """Run the command; a failure is one line on standard error and an exit code, never a traceback."""
    ours = logging.getLogger(PACKAGE)
    ours.handlers, ours.propagate = [WarningsToStderr()], False
    try:
        backfill.main(standalone_mode=False)
    except (click.Abort, KeyboardInterrupt, StoppedError):
        sys.exit(INTERRUPTED)
    except click.ClickException as error:
        _fail(error.format_message(), WRONG)
    except UsageError as error:
        _fail(f"{_OPTIONS[error.about]}: {error}" if error.about else str(error), error.exit_code)
    except BackfillError as error:
        _fail(str(error), error.exit_code)


def _fail(message: str, code: int) -> None:
    line = " ".join(message.split())
    if len(line) > _LINE:  # the middle may go: what failed is at the beginning, what to do at the end
        line = f"{line[: _LINE // 2]} ... {line[-_LINE // 2 :]}"
    echo(f"backfill: {line}", err=True)
    sys.exit(code)
